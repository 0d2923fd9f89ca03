"""A chip of the user's own at one operating point of its published figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from insitu.arch.spec import MODELLED_TIME, Chip
from insitu.circuit.model import Operands
from insitu.circuit.times import pass_seconds
from insitu.validate.entries import Entry, quantity
from insitu.validate.labels import bits_of, refusal, speaks_of_sparsity, supply_of
from insitu.validate.model import Point

KNOWN = ("supply", "input_bits", "weight_bits", "input_density", "weight_density")


def given_point(entry: Entry, label: str, chip: Chip) -> Point | tuple[str, ...]:
    """The chip at the supply and bits that `points:` of the entry, or the point's name ("8b_0.85v"), states.

    A name that speaks of other bits than the chip has lacks its description: what the weights are then is not known.
    """
    given = {**_named_supply(label), **entry.points.get(label, {})}
    if given.get("supply") == "0 V":
        return ("supply (0 V in the point's name)",)
    if strange := [key for key in given if key not in KNOWN]:
        return (f"{strange[0]} is not known of a point; one of {', '.join(KNOWN)}",)
    if reason := refusal(label):
        return (reason,)
    if speaks_of_sparsity(label) and "input_density" not in given:
        return (f"points.{label}.input_density: its name speaks of sparsity",)
    bits = bits_of(label)
    if bits and bits[1] is not None:
        given = {"input_bits": bits[0], "weight_bits": bits[1], **given}
    elif bits and bits[0] != chip.macro.input.bits and "input_bits" not in given:
        return (f"points.{label}.input_bits and weight_bits: the chip file has {chip.macro.input.bits}-bit inputs",)
    moved = _at(chip, given)
    operands = Operands(given.get("input_density"), given.get("weight_density"))
    return Point(moved, operands, clocked=chip.sources.get("macro.t_read") != MODELLED_TIME, whole=True)


def _named_supply(label: str) -> dict[str, Any]:
    named = supply_of(label)
    return {} if named is None else {"supply": f"{named:g} V"}


def _at(chip: Chip, given: Mapping[str, Any]) -> Chip:
    """The chip with a point's supply and bits: the same cells hold more or fewer weights of more or fewer slices."""
    macro, array = chip.macro, chip.array
    wide = int(given.get("weight_bits", macro.weights.slices * array.bits_per_cell))
    slices = -(-wide // array.bits_per_cell)
    weights = macro.weights.model_copy(update={"slices": slices})
    bits = int(given.get("input_bits", macro.input.bits))
    inputs = macro.input.model_copy(update={"bits": bits, "bits_per_pass": min(bits, macro.input.bits_per_pass)})
    cols = max(1, array.cols * macro.weights.slices // slices)
    supply = quantity(given["supply"], "V") if "supply" in given else chip.technology.supply
    moved = chip.model_copy(
        update={
            "technology": chip.technology.model_copy(update={"supply": supply}),
            "macro": macro.model_copy(update={"input": inputs, "weights": weights}),
            "array": array.model_copy(update={"cols": cols}),
        }
    )
    if chip.sources.get("macro.t_read") != MODELLED_TIME:
        return moved
    return moved.model_copy(update={"macro": moved.macro.model_copy(update={"t_read": pass_seconds(moved)})})
