"""Compile the simulator's kernels once, before several processes of tests would each do it: `make check` runs this."""

from __future__ import annotations

import numpy as np

import insitu
from insitu.bench.networks import Network
from insitu.flow.chain import capture
from insitu.frontend.onnx import import_model

CHIPS = ("parametric-reram-adc8", "wtm2101", "dcim-28nm")


def main() -> None:
    """A small network through the whole line on a chip of each readout, ideal and under physics."""
    net = Network("warm", (1, 3, 16, 16))
    x = net.conv(net.conv("x", 8, 3), 8, 3, stride=2)
    model = net.model(net.dense(net.average(x), 10))
    samples = np.random.default_rng(0).standard_normal((20, 1, 3, 16, 16), np.float32)
    for chip in CHIPS:
        data = {"x": samples, "y": np.zeros(20, np.int64)}
        insitu.deploy(capture(import_model(model)), chip, data=data, instances=1)


if __name__ == "__main__":
    main()
