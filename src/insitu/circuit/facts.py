"""The component table (components.yaml) and how its numbers move with the process."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from insitu.base.schema import load_yaml
from insitu.circuit.model import pitch

PJ, FJ, FF, UM, UM2, MM2, NM = 1e-12, 1e-15, 1e-15, 1e-6, 1e-12, 1e-6, 1e-9


@cache
def facts() -> Mapping[str, Any]:
    """The component table, as read."""
    file = files("insitu.circuit") / "components.yaml"
    return load_yaml("circuit/components.yaml", text=file.read_text(encoding="utf-8")).data


def square(node: Any, from_nm: float) -> Any:
    """Area at a node (metres) over the area at `from_nm`: squares of the node."""
    return np.square(np.asarray(node, float) / (from_nm * NM))


def scaled_pitch(node: Any, from_node: float) -> Any:
    """Capacitance at a node over that at another: devices as far apart as published SRAM cells."""
    return pitch(node) / pitch(from_node)


def gate_energy(node: Any, supply: Any) -> Any:
    """Joules of one unit gate whose input switches, with as much wire as a cell is wide."""
    return gate_load(node) * np.square(supply)


def gate_load(node: Any) -> Any:
    """Farads of a unit gate and the wire to it."""
    gate = facts()["gate"]
    return gate["ff"] * FF * scaled_pitch(node, gate["node_nm"] * NM) + wire_load(pitch(node))


def wire_load(metres: Any) -> Any:
    """Farads of a wire."""
    return facts()["wire"]["ff_per_um"] * FF * np.asarray(metres, float) / UM


def wire_energy(metres: Any, supply: Any) -> Any:
    """Joules of a bit that crosses a wire, at the mean number of transitions."""
    return facts()["wire"]["transitions"] * wire_load(metres) * np.square(supply)
