"""Interpreter against simulator on whole networks, the three readouts, at 1 and 2 threads; JSON out.

python tools/acceptance_exact.py [NETWORK ...]     cnn_s, resnet20, vww, generated; all without a name

Each is compared twice: every value of a few samples that a program writes, observed in one block, and the outputs of
samples in the blocks and on the threads of a plain run.  `mismatches` counts both, over everything.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402 (after the number of BLAS threads is set)

from insitu.arch.load import load_chip  # noqa: E402
from insitu.base.errors import InfeasibleError  # noqa: E402
from insitu.bench.networks import Network  # noqa: E402
from insitu.flow.chain import build, capture  # noqa: E402
from insitu.flow.check import compare, reference  # noqa: E402
from insitu.flow.data import random_inputs  # noqa: E402
from insitu.frontend.onnx import import_model  # noqa: E402
from insitu.runtime.session import Session  # noqa: E402

CHIPS = ("dcim-28nm", "parametric-reram-adc8", "wtm2101")
FILES = {
    "cnn_s": "kws_arm/cnn_s.onnx", "resnet20": "cifar_resnet/resnet20.onnx",
    "vww": "mlperf_tiny/vww_mobilenet_025_96.onnx",
}  # fmt: skip
SAMPLES, CALIBRATION, MOST_CHIPS = 3, 8, 16


def generated() -> Any:
    """Strides and sizes that divide nothing: in no data set."""
    net = Network("generated", (1, 5, 19, 23), seed=11)
    x = net.conv("x", 13, 3, stride=2)
    x = net.conv(net.conv(x, 29, 1), 29, 3)
    return net.model(net.dense(net.average(x), 7))


def graph_of(network: str) -> Any:
    """The captured graph of a network by name."""
    if network == "generated":
        return capture(import_model(generated()))
    return capture(Path(os.environ["INSITU_SHARED_DATA"]) / FILES[network])


def row(network: str, chip_name: str) -> dict[str, Any]:
    """Mismatches of a network on a chip."""
    graph, chip = graph_of(network), load_chip(chip_name)
    try:
        calibration = random_inputs(graph, CALIBRATION, seed=1)
        _, quantized, program = build(graph, chip, calibration=calibration, max_chips=MOST_CHIPS)
    except InfeasibleError as error:
        return {"network": network, "chip": chip_name, "fits": False, "why": str(error).splitlines()[0]}
    session = Session(program, graph=quantized)
    codes = session.codes(random_inputs(graph, SAMPLES, seed=2))
    values, blocks = compare(session, codes), 0
    wanted = reference(quantized, codes)
    for threads in ("1", "2"):
        os.environ["INSITU_THREADS"] = threads
        for block in (0, 1, 2):
            found = session.run_codes(codes, block=block)
            blocks += sum(int((np.asarray(found[n]) != wanted[n]).sum()) for n in session.outputs)
    return {
        "network": network, "chip": chip_name, "fits": True, "checked": values.checked_values,
        "values": values.mismatches, "outputs": blocks, "first": values.first,
    }  # fmt: skip


def main(networks: list[str]) -> int:
    """Print rows and their sum."""
    rows = [row(network, chip) for network in networks or [*FILES, "generated"] for chip in CHIPS]
    fitting = [r for r in rows if r["fits"]]
    found = {"mismatches": sum(r["values"] + r["outputs"] for r in fitting), "pairs": len(fitting), "rows": rows}
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
