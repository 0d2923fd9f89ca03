"""All random QDQ graphs on chips of every readout, as one JSON line: integers of simulator, interpreter, ONNX Runtime.

python tools/acceptance_qdq.py [--graphs 300]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from insitu.base.errors import InfeasibleError  # noqa: E402
from tests.flow.line import chip_of  # noqa: E402
from tests.flow.qdq import qdq_model  # noqa: E402
from tests.flow.qdq_line import run  # noqa: E402

EXACT = ("exact", "exact-small", "exact-unsigned", "exact-joined")
CHIPS = (*EXACT, "adc", "adc-joined", "wtm2101", "wtm2101-small", "banks")


def main() -> int:
    """Prints {"graphs", "chips", "mismatches", "checked_values"} over all chips, the agreement over exact ones.

    `too_large` counts pairs of a graph and a chip too small for it.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graphs", type=int, default=300)
    graphs = parser.parse_args().graphs
    mismatches = checked = values = apart = too_large = 0
    equal = equal_all = ties = 0.0
    for seed in range(graphs):
        proto, inputs = qdq_model(seed)
        for chip in CHIPS:
            try:
                found = run(proto, chip_of(chip), inputs["x"], samples=2)
            except InfeasibleError:  # these chips are small
                too_large += 1
                continue
            mismatches += found.exact.mismatches
            checked += found.exact.checked_values
            if found.agreed is not None and chip in EXACT:
                values += found.values
                equal += found.values * found.agreed.equal_fraction
                equal_all += found.values * found.agreed.equal_fraction_all
                ties += found.values * found.agreed.tie_fraction
                apart = max(apart, found.agreed.max_difference)
        if seed % 50 == 49:
            print(f"{seed + 1} graphs", file=sys.stderr)
    share = equal / max(values, 1)
    shown: dict[str, int | float] = {"graphs": graphs, "chips": len(CHIPS), "too_large": too_large}
    shown["mismatches"] = mismatches
    shown |= {"checked_values": checked, "values": values, "equal_fraction": share, "max_difference": apart}
    shown |= {"tie_fraction": ties / max(values, 1), "equal_fraction_all": equal_all / max(values, 1)}
    print(json.dumps(shown))
    return 0 if mismatches == 0 and share >= 0.9999 and apart <= 1 else 1


if __name__ == "__main__":
    raise SystemExit(main())
