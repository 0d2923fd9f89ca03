"""`insitu validate --llm` on the shared measurements, and what the acceptance points look at, as one JSON object.

python tools/acceptance_measurements.py [MEASUREMENTS.yaml]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
IMPLAUSIBLE = """\
schema_version: 1
rows:
- {id: h100-70b, model: llama-2-70b, hardware: nvidia_h100_80g_sxm, device_count: 1, tensor_parallel: 1,
   software: not stated, batch: 1, context_in_tokens: 0, weight_bits: 16, kind: decode_single_stream,
   decode_tokens_per_s_per_sequence: 110}
- {id: snapdragon-8b, model: llama-3-8b, hardware: qualcomm_snapdragon_8_gen_3, device_count: 1, tensor_parallel: 1,
   software: QNN, batch: 1, context_in_tokens: 0, weight_bits: 4.8, kind: decode_single_stream,
   decode_tokens_per_s_per_sequence: 66.14}
"""


def measurements() -> Path:
    if len(sys.argv) > 1:
        return Path(sys.argv[1])
    named = os.environ.get("INSITU_SHARED_DATA")
    data = Path(named) if named else ROOT.parent / "shared" / "data"
    return data.parent / "reference" / "llm_measurements.yaml"


def validate(path: Path) -> dict[str, Any]:
    done = subprocess.run(
        ["insitu", "validate", "--llm", str(path), "--json"], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


def main() -> int:
    report = validate(measurements())
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "implausible.yaml"
        path.write_text(IMPLAUSIBLE)
        flagged = sum(bool(r.get("implausible")) for r in validate(path)["rows"])
    summary, worst = report["summary"], dict[str, float]()
    for anchor in summary["anchors"]:
        name = anchor["system"].lower().split("-")[0]
        worst[name] = max(worst.get(name, 0.0), abs(anchor["error"]))
    kept = ("median_abs_error", "p90_factor", "within_2", "in_sample", "figures", "rows", "groups", "missing")
    print(
        json.dumps(
            {**{k: summary[k] for k in kept}, "factors": len(summary["factors"]), "flagged": flagged, **worst}, indent=1
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
