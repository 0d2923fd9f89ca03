"""Print what the acceptance points of algorithms and training look at, as one JSON object.

    python tools/acceptance_learning.py exact               trained modules against programs, 10^6 values a chip
    python tools/acceptance_learning.py ptq [NETWORK ...]   accuracy after post-training quantization, digital chip
    python tools/acceptance_learning.py train TASK CHIP     the recipe: baseline, QAT, noise-aware; 10 instances
    python tools/acceptance_learning.py drift TASK CHIP     the baseline alone: what a year costs it; 10 instances
    python tools/acceptance_learning.py procedures          the same on CIFAR-10 by what a PCM chip does against drift
    python tools/acceptance_learning.py plan CHIP [NETWORK] --optimize accuracy on DNN_S: share of the gap closed
    python tools/acceptance_learning.py embedded            the keyword task that ships, on three chips at 1 day
    python tools/acceptance_learning.py untrained [NETWORK ...]  kws, vww on three chips at 1 day: accuracies, intervals

Data lie in INSITU_SHARED_DATA; checkpoints stay in INSITU_RUNS where that is set.  CHIP: wtm2101, the PCM and ReRAM
presets (pcm-ahead, reram-2b), or chips with fewer procedures or other cells (CHIPS).
TASK: fsdd, digits (the same recordings, a narrow dense network), cifar, or resnet20 (CIFAR-10, published weights).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

import insitu
from insitu.arch.load import load_chip
from insitu.flow.chain import Options

ROOT = Path(__file__).resolve().parents[1]
ANALOG = (
    "calibration.drift_compensation=true", "calibration.column_drift=false", "macro.input.bits_per_pass=8",
    "chip.tiles=16",
)  # fmt: skip
PROCEDURES = {  # against drift, on PCM cells; every chip has one factor an array
    "one factor an array": (),
    "levels ahead of their drift": ("calibration.drift_ahead=30d",),
    "columns trimmed when used": ("calibration.column_drift=true",),
    "all": ("calibration.drift_ahead=30d", "calibration.column_drift=true"),
}
CHIPS = {  # one cell a weight where the cell holds 8 bits; two where it holds 4
    "wtm2101": ("wtm2101", ()),
    "pcm": ("parametric-reram-adc8", ("cell=pcm-hermes", "array.bits_per_cell=8", "macro.weights.slices=1", *ANALOG)),
    "reram": ("parametric-reram-adc8", ("cell=reram-wan", "array.bits_per_cell=4", "macro.weights.slices=2", *ANALOG)),
    "reram-apart": ("reram", ("macro.weights.slice_shift=0",)),  # as wide as cells; decision 0047
    "pcm-columns": ("pcm", ("calibration.column_drift=true",)),
    "reram-columns": ("reram", ("calibration.column_drift=true",)),
    "reram-apart-columns": ("reram-apart", ("calibration.column_drift=true",)),
    "pcm-ahead": ("parametric-pcm-adc8", ()),
    "reram-2b": ("parametric-reram-adc8", ()),
    "digital": ("dcim-28nm", ("chip.tiles=64",)),
}  # fmt: skip
SLOW = ("reram-2b",)  # 32 conversions an output: judged at one day alone, on half of the images
IMAGES = 2000  # of CIFAR-10's test images, for time's sake
EXACT = ("digital", "reram-2b", "wtm2101")


def chip(name: str) -> Any:
    """A chip of the table."""
    preset, overrides = CHIPS[name]
    while preset in CHIPS and preset != name:
        name, (preset, before) = preset, CHIPS[preset]
        overrides = (*before, *overrides)
    return load_chip(preset, overrides=list(overrides))


def shared() -> Path:
    """The folder of data."""
    return Path(os.environ.get("INSITU_SHARED_DATA", str(ROOT.parent / "shared" / "data")))


def exact() -> dict[str, Any]:
    """A network after some steps of training: integers of eval against those of the compiled program."""
    import torch

    from insitu.nn import Config, Schedule, convert, fit

    torch.manual_seed(0)
    nn = torch.nn
    model = nn.Sequential(
        nn.Conv2d(2, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU6(),
        nn.Conv2d(16, 24, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(600, 100),
    )  # fmt: skip
    x, y = torch.randn(128, 2, 12, 12), torch.randint(0, 100, (128,))
    found: dict[str, Any] = {"values": 0, "mismatches": 0, "chips": len(EXACT)}
    for name in EXACT:
        made = fit(convert(model, chip(name), config=Config(data=x)), x, y, Schedule(10))
        deployed = insitu.deploy(made, chip(name), data={"x": x.numpy()}, physics="ideal")
        given = torch.randn(10_000, 2, 12, 12)
        (values,) = deployed.run(given[:, None].numpy()).values()
        mine = np.concatenate([made(given[i : i + 500]).numpy() for i in range(0, len(given), 500)])
        found["values"] += mine.size
        found["mismatches"] += int(np.count_nonzero(values[:, 0].astype(np.float32) != mine))
    return found | {"values_per_chip": found["values"] // len(EXACT)}


def networks() -> dict[str, Any]:
    """Name: (model, inputs, labels)."""
    data = shared()
    kws, vww, cifar = (np.load(data / p) for p in ("mlperf_tiny/kws01.npz", "vww_coco/vww96.npz", "cifar10/test.npz"))
    mean, sd = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    images, labels = cifar["x"][:1000], cifar["y"][:1000]
    normal = ((images / 255 - mean) / sd).transpose(0, 3, 1, 2).astype(np.float32)
    mfcc = ((kws["mfcc_q"].astype(np.float32) - kws["zero_point"]) * kws["scale"]).astype(np.float32)
    tiny, resnet = data / "mlperf_tiny", data / "cifar_resnet"
    return {
        "kws": (tiny / "kws_dscnn.onnx", mfcc, kws["y"]),
        "vww": (tiny / "vww_mobilenet_025_96.onnx", vww["x"].astype(np.float32) / 255, vww["y"]),
        "ic": (tiny / "ic_resnet8.onnx", images.astype(np.float32), labels),
        "resnet20": (resnet / "resnet20.onnx", normal, labels),
        "resnet32": (resnet / "resnet32.onnx", normal, labels),
    }


def ptq(*names: str) -> dict[str, Any]:
    """Drop of accuracy in points by network, and the largest."""
    rows: dict[str, Any] = {}
    for name, (model, x, y) in networks().items():
        if not names or name in names:
            d = insitu.deploy(model, chip("digital"), data={"x": x, "y": y}, physics="ideal", instances=1, max_chips=8)
            a, b = (d.metrics[k].value for k in ("accuracy_float", "accuracy_quantized"))
            rows[name] = {"float": a, "quantized": b, "drop_points": round(100 * (a - b), 3)}
    return {"networks": rows, "worst_points": max(r["drop_points"] for r in rows.values())}


def train(task: str, name: str) -> dict[str, Any]:
    """Drops in points against the fine-tuned float network, and the share of the loss that noise-aware training takes
    back."""
    return summary(trained(task, name, "1d" if name in SLOW or task == "resnet20" else "1h,1d,1y"))


def drift(task: str, name: str) -> dict[str, Any]:
    """What a year costs the network trained without noise, in points, on the chip with its own procedures."""
    over = trained(task, name, "1h,1y", only_baseline=True)["baseline"]["chip"]
    hour, year = (float(np.mean(over[t])) for t in sorted(over, key=float))
    return {"hour": hour, "year": year, "year_points": round(100 * (hour - year), 3)}


def procedures() -> dict[str, Any]:
    """Accuracy after an hour, a day and a year, trained without noise, by what the chip does against drift."""
    rows: dict[str, Any] = {}
    preset, overrides = CHIPS["pcm"]
    for name, more in PROCEDURES.items():
        own = load_chip(preset, overrides=[*overrides, *more])
        over = trained("cifar", "pcm", "1h,1d,1y", only_baseline=True, own=own)["baseline"]["chip"]
        means = {t: round(float(np.mean(over[t])), 4) for t in sorted(over, key=float)}
        hour, *_, year = means.values()
        rows[name] = {"means": means, "year_points": round(100 * (hour - year), 3)}
        print(name, rows[name], file=sys.stderr, flush=True)
    return {"rows": rows, "reported": len(rows)}


def trained(task: str, name: str, times: str, *, only_baseline: bool = False, own: Any = None) -> dict[str, Any]:
    """Accuracies of the recipe's networks by stage, on the chip of that name or one like it."""
    sys.path.insert(0, str(ROOT / "examples" / "11_noise_aware"))
    import recipe
    import tasks

    images = task in ("cifar", "resnet20")
    match task:
        case "cifar":
            given = tasks.cifar(shared() / "cifar10")
        case "resnet20":
            given = tasks.resnet(shared() / "cifar10", shared() / "cifar_resnet" / "resnet20.safetensors")
        case _:
            given = tasks.spoken_digits(shared() / "fsdd", "dense" if task == "digits" else "conv")
    steps, tune = {"cifar": (1200, 400), "resnet20": (0, 300)}.get(task, (1500, 600))
    names = ("baseline",) if only_baseline else ("baseline", "noise")
    with redirect_stdout(sys.stderr), runs(task, name) as out:  # progress is no result
        made = recipe.stages(given, own or chip(name), steps=steps, tune=tune, out=out, names=names)
    if images:
        count = IMAGES // 2 if name in SLOW or task == "resnet20" else IMAGES
        given = recipe.replace(given, test_x=given.test_x[:count], test_y=given.test_y[:count])
    return {n: recipe.measured(m, given, own or chip(name), instances=10, times=times) for n, m in made.items()}


@contextmanager
def runs(task: str, name: str) -> Iterator[Path]:
    """A folder for checkpoints: with INSITU_RUNS one that stays, where chips share what is trained without a chip."""
    if not (kept := os.environ.get("INSITU_RUNS")):
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    own, common = Path(kept) / task / name, Path(kept) / task
    own.mkdir(parents=True, exist_ok=True)
    for stage in ("float", "baseline"):
        (common / stage).mkdir(exist_ok=True)
        if not (own / stage).exists():
            (own / stage).symlink_to(Path("..") / stage)
    yield own


def summary(rows: dict[str, Any], at: str = "86400.0") -> dict[str, Any]:
    """The figures of a recipe's rows."""
    ideal = rows["baseline"]["float"]
    mean = {n: {t: float(np.mean(v)) for t, v in r["chip"].items()} for n, r in rows.items()}
    loss, left = (100 * (ideal - mean[n][at]) for n in ("baseline", "noise"))
    hour, year = min(mean["noise"], key=float), max(mean["noise"], key=float)
    return {
        "float": ideal, "means": mean, "loss_points": round(loss, 3), "left_points": round(left, 3),
        "recovered": round((loss - left) / loss, 3) if loss > 0 else 1.0,
        "holds": int((loss - left) / loss >= 0.8 if loss >= 3 else left <= 1.0),
        "year_points": round(100 * (mean["noise"][hour] - mean["noise"][year]), 3),
        "year_points_ptq": round(100 * (mean["baseline"][hour] - mean["baseline"][year]), 3),
    }  # fmt: skip


def plan(name: str, network: str = "dnn_s") -> dict[str, Any]:
    """Accuracy of a network with and without the searched plan, and what that costs."""
    if network == "dnn_s":
        stored = np.load(shared() / "kws_arm" / "dnn_s_features.npz")
        model, x, y = shared() / "kws_arm" / "dnn_s.onnx", stored["x"], stored["y"]
    else:
        model, x, y = networks()[network]
    data = {"x": x, "y": y}
    both = [
        insitu.deploy(model, chip(name), data=data, options=Options(instances=10, time="1d", optimize=how))
        for how in ("", "accuracy")
    ]
    ideal = both[0].metrics["accuracy_quantized"].value
    before, after = (d.metrics["accuracy_chip_mean"].value for d in both)
    found = both[1].result.extra["optimize"]
    return {
        "ideal": ideal, "default": before, "searched": after, "gap_points": round(100 * (ideal - before), 2),
        "share": round((after - before) / (ideal - before), 3), "energy_ratio": found["energy_ratio"],
        "cells_ratio": found["cells_ratio"], "plan": found["layers"], "procedures": found["procedures"],
    }  # fmt: skip


UNTRAINED = ("kws", "vww")  # networks without a training split
ANALOG_CHIPS = ("wtm2101", "pcm-ahead", "reram-columns")


def untrained(*names: str) -> dict[str, Any]:
    """Accuracy after quantization and the chip's calibration, with intervals of 95 % over chips and over samples."""
    rows: dict[str, Any] = {}
    for network in names or UNTRAINED:
        model, x, y = networks()[network]
        known = len(x) // 4  # for calibration; the rest is judged
        calib, x, y = {"x": x[:known]}, x[known:], y[known:]
        for name in ANALOG_CHIPS:
            asked: dict[str, Any] = {"instances": 10, "time": "1d", "max_chips": 64, "calib": calib}
            d = insitu.deploy(model, chip(name), data={"x": x, "y": y}, **asked)
            values = np.array(d.result.accuracy_over[0].values)
            mean, spread = float(values.mean()), float(values.std(ddof=1)) / len(values) ** 0.5
            drawn = (mean * (1.0 - mean) / len(y)) ** 0.5
            rows[f"{network} {name}"] = {
                "float": d.metrics["accuracy_float"].value, "ideal": d.metrics["accuracy_quantized"].value,
                "chip": round(mean, 4), "over_chips": round(1.96 * spread, 4), "over_samples": round(1.96 * drawn, 4),
                "samples": len(y),
            }  # fmt: skip
            print(network, name, rows[f"{network} {name}"], file=sys.stderr, flush=True)
    return {"rows": rows, "reported": len(rows)}


def embedded() -> dict[str, Any]:
    """Points that the embedded keyword network loses against float, by chip, and the most."""
    lost: dict[str, float] = {}
    for name in ("wtm2101", "pcm-ahead", "reram-2b"):
        found = insitu.deploy("task:kws", chip(name), instances=10, time="1d").metrics
        lost[name] = round(100 * (found["accuracy_float"].value - found["accuracy_chip_mean"].value), 3)
    return {"lost_points": lost, "most": max(lost.values())}


def main() -> None:
    known = {
        "exact": exact,
        "ptq": ptq,
        "train": train,
        "drift": drift,
        "procedures": procedures,
        "plan": plan,
        "embedded": embedded,
        "untrained": untrained,
    }
    made: Any = known[sys.argv[1]]
    print(json.dumps(made(*sys.argv[2:])))


if __name__ == "__main__":
    main()
