"""All random QDQ graphs on all exact chips of the tests, as one JSON line: integers of simulator and ONNX Runtime.

python tools/acceptance_qdq.py [--graphs 300]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.flow.line import chip_of  # noqa: E402
from tests.flow.qdq import qdq_model  # noqa: E402
from tests.flow.qdq_line import run  # noqa: E402

CHIPS = ("exact", "exact-small", "exact-unsigned", "exact-joined")


def main() -> int:
    """Prints {"graphs", "chips", "mismatches", "values", "equal_fraction", "max_difference"}."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graphs", type=int, default=300)
    graphs = parser.parse_args().graphs
    mismatches = values = apart = 0
    equal = 0.0
    for seed in range(graphs):
        proto, inputs = qdq_model(seed)
        for chip in CHIPS:
            found = run(proto, chip_of(chip), inputs["x"], samples=2)
            mismatches += found.exact.mismatches
            if found.agreed is not None:
                values += found.values
                equal += found.values * found.agreed.equal_fraction
                apart = max(apart, found.agreed.max_difference)
        if seed % 50 == 49:
            print(f"{seed + 1} graphs", file=sys.stderr)
    share = equal / max(values, 1)
    shown = {"graphs": graphs, "chips": len(CHIPS), "mismatches": mismatches, "values": values}
    print(json.dumps({**shown, "equal_fraction": share, "max_difference": apart}))
    return 0 if mismatches == 0 and share >= 0.9999 and apart <= 1 else 1


if __name__ == "__main__":
    raise SystemExit(main())
