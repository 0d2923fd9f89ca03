"""What of acceptance/04 is no row of `insitu bench`: many instances in one call, how time grows with size; JSON out.

python tools/acceptance_engine.py instances     100 chip instances in one call against one: times and peak memory
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
    """Seconds that so many chip instances more add to a call with one."""
    one = float(np.median([deployed(model, SAMPLES, 1) for _ in range(3)]))
    return [deployed(model, SAMPLES, 1 + n) - one for n in instances]


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
    else:
        print(json.dumps({"instances": instances, "slopes": slopes}[what](*sys.argv[2:])))
