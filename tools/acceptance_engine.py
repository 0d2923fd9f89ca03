"""What of acceptance/04 is no row of `insitu bench`: many instances in one call, how time grows with size; JSON out.

python tools/acceptance_engine.py instances     100 chip instances in one call against one: times and peak memory
python tools/acceptance_engine.py quantize      peak memory of quantization over what was said beforehand
python tools/acceptance_engine.py slopes [NAME] slope of log time over log batch, layers and instances, or one of them
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402 (after the number of BLAS threads is set)

from insitu.bench.compile import peak_memory  # noqa: E402
from insitu.bench.networks import Network  # noqa: E402

RUNS = 5
DOUBLINGS = 4
SAMPLES = 64  # of each chip instance


def network(layers: int = 3) -> Any:
    """Convolutions of equal size."""
    net = Network("stack", (1, 16, 16, 16))
    x = "x"
    for _ in range(layers):
        x = net.conv(x, 16, 3)
    return net.model(net.dense(net.average(x), 10))


def deployed(model: Any, samples: int, instances: int) -> float:
    """Seconds of one `deploy` with that many chip instances, kernels loaded: each one's accuracy and all else."""
    import insitu
    from insitu.flow.chain import capture
    from insitu.frontend.onnx import import_model

    rng, graph = np.random.default_rng(0), capture(import_model(model))
    x, y = rng.standard_normal((samples, 1, 16, 16, 16), np.float32), rng.integers(0, 10, samples)
    given: dict[str, Any] = {"data": {"x": x, "y": y}, "instances": instances}
    insitu.deploy(graph, "parametric-reram-adc8", data={"x": x[:4], "y": y[:4]}, instances=1)
    start = time.perf_counter()
    insitu.deploy(graph, "parametric-reram-adc8", **given)
    return time.perf_counter() - start


def child(instances: int) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "one", str(instances)], check=True, capture_output=True, text=True
    )  # fmt: skip
    return json.loads(done.stdout)


def instances() -> dict[str, float]:
    """One call with 100 instances over one call with one: how often as long, and as much memory."""
    child(1)  # compiles kernels where they are not compiled yet, which takes memory and time of its own
    one, many = child(1), child(100)
    return {
        "times": many["seconds"] / one["seconds"], "memory": many["mib"] / one["mib"], "seconds_one": one["seconds"],
        "seconds_100": many["seconds"],
    }  # fmt: skip


def unet(size: int) -> Any:
    """An image network with a skip over what is pooled."""
    net = Network("unet", (1, 3, size, size))
    first = net.conv(net.conv("x", 16, 3), 16, 3)
    deep = net.conv(net.conv(net.pool(first, 2, stride=2), 32, 3), 64, 1)
    up = net.node("DepthToSpace", [deep], (1, 16, size, size), blocksize=2)
    return net.model(net.conv(net.conv(net.concat([up, first]), 16, 3), 4, 1, act=""))


def resolution(size: int) -> Any:
    """Super-resolution to twice the size, of values of 64 channels."""
    net = Network("resolution", (1, 1, size, size))
    x = net.conv(net.conv(net.conv("x", 64, 5), 32, 3), 4, 3, act="")
    return net.model(net.node("DepthToSpace", [x], (1, 1, 2 * size, 2 * size), blocksize=2))


QUANTIZED = {
    "unet-wtm2101": (unet, 320, "wtm2101", 8), "unet-adc": (unet, 320, "parametric-reram-adc8", 8),
    "resolution-wtm2101": (resolution, 400, "wtm2101", 4), "small-exact": (unet, 32, "dcim-28nm", 128),
}  # fmt: skip


def quantized(case: str) -> dict[str, float]:
    """MiB that quantization takes at most beside what is loaded, and what was said beforehand."""
    from insitu.algo import ptq
    from insitu.algo.expected import expected_inputs
    from insitu.algo.needs import needed
    from insitu.arch.load import load_chip
    from insitu.compiler import adapt
    from insitu.compiler.precision import apply_plan
    from insitu.flow.chain import capture
    from insitu.flow.data import random_inputs
    from insitu.flow.trial import played
    from insitu.frontend.onnx import import_model
    from insitu.runtime.memory import resident

    make, size, name, samples = QUANTIZED[case]
    chip, captured = load_chip(name), capture(import_model(make(size)))
    graph, data = adapt.run(captured, chip), random_inputs(captured, samples, seed=0)
    before, need = resident() / 2**20, needed(captured, chip, data) / 2**20
    played(chip, expected_inputs, graph, apply_plan(graph, chip, plan=ptq.plan(graph, chip, data=data)), data)
    return {"mib": peak_memory() - before, "said": need}


def quantize() -> dict[str, float]:
    """The peak of every case over what was said, and the largest."""
    found: dict[str, float] = {}
    for case in QUANTIZED:
        command = [sys.executable, __file__, "quantized", case]
        one = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        found |= {case: one["mib"] / one["said"], f"{case}-mib": one["mib"]}
    return {**found, "most": max(found[case] for case in QUANTIZED)}


def slopes(name: str = "") -> dict[str, float]:
    """Least-squares slopes over four doublings, all or one.

    That of instances is of those that join the first, which a call loads, quantizes, compares and explains once for:
    the slope of the whole call is far below 1.
    """
    small = network(2)
    batch, layers = [64 << i for i in range(DOUBLINGS + 1)], [4 << i for i in range(DOUBLINGS + 1)]
    kinds = {
        "batch": lambda: slope(batch, [simulated(small, n) for n in batch]),
        "layers": lambda: slope(layers, [simulated(network(n), 64) for n in layers]),
        "instances": lambda: slope(layers, beyond(small, layers)),
    }
    found = {kind: measure() for kind, measure in kinds.items() if name in ("", kind)}
    return {**found, "least": min(found.values()), "most": max(found.values())}


def beyond(model: Any, instances: list[int]) -> list[float]:
    """Seconds that so many chip instances more add to a call with one, which is measured on both sides of each.

    A call with one takes longer than four instances do, and a host that slows down over minutes would be their slope.
    """
    deployed(model, SAMPLES, 1)
    found, one = list[float](), deployed(model, SAMPLES, 1)
    for n in instances:
        many, after = deployed(model, SAMPLES, 1 + n), deployed(model, SAMPLES, 1)
        found.append(many - (one + after) / 2)
        one = after
    return found


def simulated(model: Any, samples: int) -> float:
    """Median seconds of a session's run under full physics."""
    from insitu.arch.load import load_chip
    from insitu.flow.chain import build, capture
    from insitu.frontend.onnx import import_model
    from insitu.runtime.session import Session

    chip = load_chip("parametric-reram-adc8", overrides=("chip.tiles=64",))
    x = np.random.default_rng(0).standard_normal((samples, 1, 16, 16, 16), np.float32)
    session = Session(build(capture(import_model(model)), chip, calibration={"x": x[:8]})[2], physics="full")
    codes, spent = session.codes(x), list[float]()
    session.run_codes(codes)
    for _ in range(RUNS):
        start = time.perf_counter()
        session.run_codes(codes)
        spent.append(time.perf_counter() - start)
    return float(np.median(spent))


def slope(sizes: list[int], seconds: list[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


if __name__ == "__main__":
    what = sys.argv[1]
    if what == "one":
        seconds = deployed(network(2), SAMPLES, int(sys.argv[2]))
        print(json.dumps({"seconds": seconds, "mib": peak_memory()}))
    elif what == "quantized":
        print(json.dumps(quantized(sys.argv[2])))
    else:
        print(json.dumps({"instances": instances, "quantize": quantize, "slopes": slopes}[what](*sys.argv[2:])))
