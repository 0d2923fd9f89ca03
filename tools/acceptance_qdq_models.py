"""Real networks in ONNX Runtime's quantized forms on dcim-28nm, as one JSON line: accuracy and agreement.

python tools/acceptance_qdq_models.py [names]
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import numpy as np  # noqa: E402

from insitu.flow.chain import Options, deploy  # noqa: E402
from tests.flow.qdq_real import FORMS, REAL, answers, quantize, shaped  # noqa: E402

SAMPLES = 200


def main() -> int:
    """Prints the models, the largest gap of accuracy to ONNX Runtime and the least agreement."""
    data = Path(os.environ.get("INSITU_SHARED_DATA", ROOT.parent / "shared" / "data"))
    gaps, shares, apart, mismatches, wrong = [0.0], [1.0], 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[1:] or REAL:
            real = REAL[name](data)
            for form in FORMS:
                path = quantize(real, form, Path(folder))
                x = shaped(real)[-SAMPLES:]
                labels = {} if real.y is None else {"y": real.y[-SAMPLES:].astype(np.int64)}
                options = Options(physics="ideal", instances=1, check=1)
                result = deploy(path, "dcim-28nm", data={"x": x, **labels}, options=options).result
                agreed, exact = result.onnx_agreement, result.bit_exact
                mismatches += exact.mismatches if exact else 1
                wrong += result.calibration != "model"
                shares.append(agreed.equal_fraction if agreed else 0.0)
                apart = max(apart, agreed.max_difference if agreed else 99)
                gap = None
                if labels and form[0] == "QDQ":
                    theirs = float((answers(path, x).reshape(len(x), -1).argmax(axis=1) == labels["y"]).mean())
                    gap = abs(theirs - (result.value("accuracy_quantized") or 0.0))
                    gaps.append(gap)
                print(f"{path.stem}: {agreed}, accuracy apart {gap}", file=sys.stderr)
    shown = {"mismatches": mismatches, "not_model": wrong, "accuracy_gap": max(gaps)}
    print(json.dumps({**shown, "equal_fraction": min(shares), "max_difference": apart}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
