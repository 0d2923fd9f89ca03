"""Energy of one array pass in closed form: functions of numbers or arrays, so design spaces are one call.

A pass drives rows with one input plane and converts its bitlines.  Energies are capacitances times V^2: a capacitance
per driven cell, one per conversion that grows with 2^bits, and for cells that conduct the charge a read draws.
Capacitances scale with the pitch of the process.  Constants: calibrated.yaml; their errors: docs/design/validation.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from insitu.base.schema import load_yaml

FF, NM, UM = 1e-15, 1e-9, 1e-6


@dataclass(frozen=True)
class Operands:
    """What the operands look like: the share of input and weight bits that are one; None is the technology default."""

    inputs: float | None = None
    weights: float | None = None

    @property
    def activity(self) -> float:
        """Energy of the data-dependent part over its energy at default densities."""
        default = constants()["density"]["default"]
        given = (default if d is None else d for d in (self.inputs, self.weights))
        return math.prod(d / default for d in given)

    @property
    def factor(self) -> float:
        """Energy over energy at default densities, the fixed part included."""
        fixed = constants()["density"]["fixed"]
        return float(fixed + (1.0 - fixed) * self.activity)


def share_of_ones(codes: Any, bits: int) -> float:
    """Share of ones among the `bits` of integer codes of any shape, negative ones in two's complement."""
    planes = (np.asarray(codes, np.int64)[..., None] >> np.arange(bits)) & 1
    return float(planes.mean())


def measured_operands(inputs: Any, weights: Any, *, input_bits: int, weight_bits: int) -> Operands:
    """What real operands look like: input codes and weights as a layer sees them."""
    return Operands(share_of_ones(inputs, input_bits), share_of_ones(weights, weight_bits))


@cache
def constants() -> Mapping[str, Any]:
    """The calibrated constants, as read."""
    file = files("insitu.circuit") / "calibrated.yaml"
    return load_yaml("circuit/calibrated.yaml", text=file.read_text(encoding="utf-8")).data


def pitch(node: Any) -> Any:
    """Metres between devices at a node (metres): published SRAM cells, a power law between two nodes."""
    table = sorted((float(nm), um) for nm, um in constants()["pitch"]["um_by_node_nm"].items())
    x, y = (np.log([row[i] for row in table]) for i in (0, 1))
    return np.exp(np.interp(np.log(np.asarray(node, float) / NM), x, y)) * UM


def unit_energy(node: Any, supply: Any) -> Any:
    """Joules of one fF per um of pitch, charged to the supply."""
    return pitch(node) / UM * FF * np.asarray(supply, float) ** 2


def convert_energy(bits: Any, node: Any, supply: Any, *, kind: str) -> Any:
    """Joules of one conversion to `bits`, with what holds the bitline of that kind of cell and compares."""
    model = constants()
    return (model["kinds"][kind]["sense"] + model["walden"]["ff_per_um"] * 2.0**bits) * unit_energy(node, supply)


def cell_energy(node: Any, supply: Any, *, kind: str) -> Any:
    """Joules of one driven cell in one pass: its share of drivers, wordline and bitline, at default densities."""
    return constants()["kinds"][kind]["cell"] * unit_energy(node, supply)


def product_energy(node: Any, supply: Any) -> Any:
    """Joules of one digital bit product with its share of the adder tree, at default densities."""
    return constants()["digital"]["product"] * unit_energy(node, supply)


def adc_survey(bits: Any, node: Any, rate: Any) -> tuple[Any, Any]:
    """(joules of a conversion, square metres of a converter): the ADC survey's regression, its 20th percentile.

    Holds for at least 4 effective bits; fewer are priced as 4 (RangeError-free so that sweeps stay whole) and the
    caller says so.  Source: Andrulis et al., arXiv:2404.06553.
    """
    fit = constants()["adc_regression"]
    enob, nm = np.maximum(bits, fit["enob_min"]), np.asarray(node, float) / NM
    foms = np.minimum(
        fit["foms"][0] + fit["foms"][1] * np.log(rate), fit["foms_max"][0] + fit["foms_max"][1] * np.ceil(enob)
    )
    sndr = enob * 20 * math.log10(2) + 10 * math.log10(1.5)
    c0, c_node, c_enob, low = fit["energy"]
    pj = 0.5 * 10 ** ((sndr - foms) / 10) * np.exp(c0 + c_node * np.log(nm) + c_enob * np.log(enob) + low)
    a0, a_node, a_rate, a_energy = fit["area"]
    um2 = np.exp(a0 + a_node * np.log(nm) + a_rate * np.log(rate) + a_energy * np.log(pj))
    return pj * 1e-12, um2 * UM * UM
