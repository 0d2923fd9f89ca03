"""Energy, latency and area of layers on design points in closed form: arrays of shape [layers, points]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from insitu.cost.designs import Designs, spread
from insitu.cost.layers import Layers

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Cost:
    """Joules by component, and seconds, of each layer on each point; square metres of each point.

    `floor` and `pessimistic` are the energies where converters are among the best or worst published ones of their
    resolution (quantiles of the ADC survey's residual); `energy` is typical.
    """

    components: Mapping[str, Floats]
    latency: Floats
    area: Floats
    floor: Floats
    pessimistic: Floats

    @property
    def energy(self) -> Floats:
        """Typical joules of each layer on each point."""
        return sum(self.components.values(), start=np.zeros_like(self.latency))


def cost(layers: Layers, points: Designs, *, bias_rows: int = 0, code_bytes: int = 1) -> Cost:
    """What layers take on design points, everything resident where it fits, else in turns without reload cost.

    `bias_rows` are driven with every tile of the first row part.  Events are those of sim/counts.py for one MVM command
    of each layer; leakage flows for the latency.
    """
    events = _events(layers, points, bias_rows, code_bytes)
    latency = _latency(layers, points, events)
    components = {
        "array": events["macs"] * points.e_mac,
        "dac": events["dac"] * points.e_dac,
        "adc": events["adc"] * points.e_adc,
        "shift_add": events["shift_add"] * points.e_shift_add,
        "vector": events["vector"] * points.e_vector,
        "ram": events["read"] * points.e_read + events["write"] * points.e_write,
        "static": points.static * latency,
    }
    low, high = spread()
    total = sum(components.values(), start=np.zeros_like(latency))
    floor, pessimistic = (total + (factor - 1.0) * components["adc"] for factor in (low, high))
    return Cost(components, latency, points.area, floor, pessimistic)


def _events(layers: Layers, points: Designs, bias_rows: int, code_bytes: int) -> dict[str, Floats]:
    """How often each event happens: the closed forms of the simulator's counts for whole tiles and their rest."""
    vectors = layers.vectors * layers.groups
    row_parts = np.ceil(layers.rows / points.rows)
    columns = layers.cols * row_parts
    rows = layers.rows + bias_rows
    conversions = points.analog * points.conversions * points.slices
    return {
        "macs": points.reads * vectors * rows * layers.cols,
        "dac": points.reads * vectors * rows * np.ceil(layers.cols / points.cols),
        "adc": conversions * points.reads * vectors * columns,
        "shift_add": np.maximum(conversions * points.reads - points.analog, 0.0) * vectors * columns,
        "vector": vectors * columns * np.ones_like(points.rows),
        "read": vectors * layers.rows * code_bytes * np.ones_like(points.rows),
        "write": vectors * layers.cols * code_bytes * np.ones_like(points.rows),
    }


def _latency(layers: Layers, points: Designs, events: Mapping[str, Floats]) -> Floats:
    """Seconds of each layer alone: the slowest of arrays, vector unit and memory port, with its first fill."""
    tiles = np.ceil(layers.rows / points.rows) * np.ceil(layers.cols / points.cols) * layers.groups
    turns = np.ceil(tiles / points.macros)
    each = points.passes * points.reads * (points.t_read + points.t_convert)
    arrays = layers.vectors * turns * each
    vector = events["vector"] / points.vector_rate
    ram = (events["read"] + events["write"]) / points.bandwidth
    return np.maximum(arrays, np.maximum(vector, ram)) + each
