"""Float -> quantization-aware -> noise-aware training of one network for one chip, beside its honest baseline.

    python examples/11_noise_aware/recipe.py fsdd --data DIR --chip wtm2101 --out runs/fsdd [--set cell=pcm-hermes]

The baseline of every claim is the float network trained on for as many steps, on the same batches, without noise; it
then goes through post-training quantization and the chip's own calibration like the rest.  Every stage writes a
checkpoint to --out and goes on from it.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tasks
import torch
from torch import nn

from insitu import deploy, load_chip
from insitu.nn import Config, Schedule, convert, fit

STAGES = ("baseline", "qat", "noise")


def stages(
    task: tasks.Task, chip: Any, *, steps: int, tune: int, out: Path, time: Any = ("1h", "1y"),
    names: Sequence[str] = STAGES,
) -> dict[str, nn.Module]:  # fmt: skip
    """The trained networks by name: baseline, quantization-aware, noise-aware."""
    torch.manual_seed(0)
    network = task.network()
    if not task.trained:
        fit(network, task.x, task.y, Schedule(steps, rate=4e-3), augment=task.augment,
            folder=out / "float", report=said("float"))  # fmt: skip
    short = Schedule(tune, rate=task.rate, seed=1)

    def tuned(module: nn.Module, name: str) -> nn.Module:
        return fit(module, task.x, task.y, short, augment=task.augment, folder=out / name, report=said(name))

    data = calibration(task)
    started: dict[str, Callable[[], nn.Module]] = {
        "baseline": lambda: copy.deepcopy(network),
        "qat": lambda: convert(network, chip, config=Config(data=data)),
        "noise": lambda: convert(network, chip, config=Config(data=data, physics="full", time=time)),
    }
    return {name: tuned(started[name](), name) for name in names}


def calibration(task: tasks.Task) -> torch.Tensor:
    """128 training samples from all over the set, which may be sorted by speaker and digit."""
    return task.x[torch.linspace(0, len(task.x) - 1, 128).long()]


def said(stage: str) -> Any:
    """Progress on one line each."""
    return lambda step, loss: print(f"{stage}: step {step}, loss {loss:.3f}", flush=True)


def measured(module: nn.Module, task: tasks.Task, chip: Any, *, instances: int, times: str) -> dict[str, Any]:
    """Accuracies of a network on the chip, instance by instance at each time."""
    data = {"x": task.test_x.numpy(), "y": task.test_y.numpy()}
    found = deploy(module, chip, data=data, calib={"x": calibration(task).numpy()}, instances=instances, time=times)
    ideal = found.metrics["accuracy_quantized"].value
    over = {str(p.time_s): [round(v, 4) for v in p.values] for p in found.result.accuracy_over}
    return {"float": found.metrics["accuracy_float"].value, "quantized": ideal, "chip": over}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("fsdd", "cifar", "resnet"))
    parser.add_argument("--weights", type=Path, help="resnet: a safetensors file of its published weights")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--chip", default="wtm2101")
    parser.add_argument("--set", action="append", default=[], help="path=value, changes of the chip")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--tune", type=int, default=600)
    parser.add_argument("--instances", type=int, default=10)
    parser.add_argument("--times", default="1d")
    parser.add_argument("--test", type=int, default=None, help="at most so many test samples")
    given = parser.parse_args()
    if given.task == "resnet" and not (given.weights and given.weights.is_file()):
        parser.error(f"resnet needs --weights FILE, which is there; got {given.weights}")
    made = {"fsdd": tasks.spoken_digits, "cifar": tasks.cifar, "resnet": lambda data: tasks.resnet(data, given.weights)}
    task = made[given.task](given.data)
    if given.test is not None:
        task = replace(task, test_x=task.test_x[: given.test], test_y=task.test_y[: given.test])
    chip = load_chip(given.chip, overrides=given.set)
    networks = stages(task, chip, steps=given.steps, tune=given.tune, out=given.out)
    rows = {n: measured(m, task, chip, instances=given.instances, times=given.times) for n, m in networks.items()}
    for name, row in rows.items():
        means = {t: f"{np.mean(v):.4f}" for t, v in row["chip"].items()}
        print(f"{name}: float {row['float']:.4f}, quantized {row['quantized']:.4f}, chip {means}")
    (given.out / "result.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
