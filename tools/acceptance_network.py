"""Run one real network on one chip as a user would and print what the acceptance points look at, as one JSON object.

    python tools/acceptance_network.py kws wtm2101

over_bar: how far the quantized network falls short of its bar, in points of accuracy or in dB; 0 or less is good.
Accuracy may fall 1.0 point on digital chips and 1.5 on wtm2101, or 2 samples; with fewer than 1,000 samples twice the
bar, if McNemar's test does not tell the two apart.  Without labels the bar is the SQNR of ONNX Runtime's own static
int8 quantization, minus 1 dB on digital chips and 6 dB on wtm2101.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
from acceptance_data import prepare
from numpy.typing import NDArray


def insitu(*arguments: str | Path) -> tuple[int, str]:
    done = subprocess.run(["insitu", *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stdout


def shortfall_of_accuracy(report: dict[str, Any], model: Path, chip: str, data: Path) -> float:
    bar = 1.5 if chip == "wtm2101" else 1.0
    metrics = report["metrics"]
    drop = 100 * (metrics["accuracy_float"]["value"] - metrics["accuracy_quantized"]["value"])
    samples = len(np.load(data)["y"])
    allowed = max(bar, 100 * 2 / samples)
    if allowed < drop <= 2 * bar and samples < 1000 and mcnemar(model, chip, data) > 0.05:
        allowed = 2 * bar
    return drop - allowed - 1e-9


def mcnemar(model: Path, chip: str, data: Path) -> float:
    """Two-sided exact p-value of the samples that only one of float and quantized gets right."""
    with tempfile.TemporaryDirectory() as folder:
        program, outputs = Path(folder) / "p.insitu", Path(folder) / "y.npz"
        insitu("compile", model, "--chip", chip, "--calib", data, "-o", program)
        insitu("simulate", program, "--data", data, "--outputs", outputs)
        with np.load(outputs) as z:
            ours = next(z[name] for name in z if not name.endswith("__int"))
    z = np.load(data)
    exact = float_outputs(model, z["x"])
    right, right_float = ours.argmax(1) == z["y"], exact.argmax(1) == z["y"]
    lost, won = int((right_float & ~right).sum()), int((right & ~right_float).sum())
    n = lost + won
    tail = sum(comb(n, k) for k in range(min(lost, won) + 1)) / 2**n
    return min(1.0, 2 * tail)


def shortfall_of_sqnr(report: dict[str, Any], model: Path, chip: str, data: Path) -> float:
    x = np.load(data)["x"]
    bar = sqnr(float_outputs(model, x), statically_quantized_outputs(model, x)) - (6 if chip == "wtm2101" else 1)
    return bar - report["metrics"]["sqnr_db"]["value"]


def sqnr(reference: NDArray[Any], values: NDArray[Any]) -> float:
    reference, values = reference.astype("f8"), values.astype("f8")
    return 10 * float(np.log10((reference**2).sum() / ((reference - values) ** 2).sum()))


def float_outputs(model: Path | str, x: NDArray[Any]) -> NDArray[Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model))
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def statically_quantized_outputs(model: Path, x: NDArray[Any]) -> NDArray[Any]:
    """ONNX Runtime's own static int8 quantization with its defaults, calibrated on 128 of the samples."""
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    name = onnxruntime.InferenceSession(str(model)).get_inputs()[0].name

    class Samples(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter([{name: x[:: max(1, len(x) // 128)][:128]}])

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return next(self.batches, None)

    with tempfile.TemporaryDirectory() as folder:
        quantized = Path(folder) / "q.onnx"
        quantize_static(str(model), str(quantized), Samples())
        return float_outputs(quantized, x)


def main(name: str, chip: str, *more: str) -> int:
    model, data = prepare(name)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        code, stdout = insitu("run", model, "--chip", chip, "--data", data, "--out", out, "--json", *more)
        report = json.loads(stdout)
    result: dict[str, Any] = {"exit": code, "fits": report.get("fits"), "infeasible": report.get("infeasible", [])}
    if code == 0:
        exact = report["bit_exact"]
        result |= {"checked_values": exact["checked_values"], "mismatches": exact["mismatches"]}
        result["metrics"] = {key: metric["value"] for key, metric in report["metrics"].items()}
        judge = shortfall_of_accuracy if "accuracy_quantized" in report["metrics"] else shortfall_of_sqnr
        result["over_bar"] = judge(report, model, chip, data)
    elif code == 2:
        # Does not fit is an answer too, when every field of it is filled.
        fields = ("resource", "demand", "bound", "unit", "filled_by", "ways_out")
        filled = result["infeasible"] and all(item[field] for item in result["infeasible"] for field in fields)
        result |= {"checked_values": None, "mismatches": 0 if filled else None, "over_bar": 0 if filled else None}
    print(json.dumps(result, indent=1))
    return 0 if code in (0, 2) else code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
