"""Whether a chip that fits the schema could exist: every contradiction between its numbers, all at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from insitu.arch.spec import Chip
from insitu.base.errors import ConfigError
from insitu.circuit.spec import holdable

WTM_BITS = 8  # the wtm2101 readout is defined for 8-bit codes


@dataclass(frozen=True)
class ChipFault:
    """One contradiction: the path of the value to change, what it is, and what it needs."""

    path: tuple[str, ...]
    got: str
    need: str
    try_: tuple[str, ...] = ()

    def at(self, place: str) -> ConfigError:
        """The error for a person, at a file and line."""
        return ConfigError(place, f"{'.'.join(self.path)} = {self.got}", self.need, try_=self.try_)


def faults(chip: Chip) -> tuple[ChipFault, ...]:
    """All contradictions in a chip; none for a sound one."""
    return tuple(
        fault for check in (_cells, _weights, _readout, _gain, _converters, _memories, _banks) for fault in check(chip)
    )


def _cells(chip: Chip) -> Iterator[ChipFault]:
    bits, cell = chip.array.bits_per_cell, chip.cell
    if bits > cell.bits:
        yield ChipFault(
            ("array", "bits_per_cell"), str(bits), f"at most {cell.bits}, what the cell {cell.name} holds",
            ("more slices with fewer bits each", "another cell"),
        )  # fmt: skip
    if cell.programming is not None and not cell.programming.sd:
        yield ChipFault(("cell", "programming", "sd"), "[]", "at least one coefficient")
    if cell.conductance is not None and not 0 <= cell.conductance[0] < cell.conductance[1]:
        yield ChipFault(("cell", "conductance"), str(list(cell.conductance)), "off below on")
    if chip.capabilities.wload and cell.endurance is not None and cell.endurance < 1e9:
        yield ChipFault(
            ("capabilities", "wload"),
            "true",
            f"a cell that endures reloading; {cell.name} has {cell.endurance:g} writes",
        )
    if chip.calibration.spare_columns and not chip.macro.reserved_columns:
        yield ChipFault(
            ("calibration", "spare_columns"), "true, and no column is reserved", "macro.reserved_columns: 1 or more"
        )
    if chip.calibration.spare_rows and chip.macro.readout.kind != "adc":
        yield ChipFault(
            ("calibration", "spare_rows"), f"true beside a readout of kind {chip.macro.readout.kind}",
            "a converter, whose step may grow with the copies: macro.readout.kind: adc",
        )  # fmt: skip
    if chip.macro.reserved_columns >= chip.array.cols:
        yield ChipFault(
            ("macro", "reserved_columns"), str(chip.macro.reserved_columns), f"fewer than the {chip.array.cols} columns"
        )


def _weights(chip: Chip) -> Iterator[ChipFault]:
    lo, hi = chip.array.cell_range
    path = ("array", "cell_range")
    if not lo < hi:
        yield ChipFault(path, str([lo, hi]), "the lowest integer first, then the highest")
        return
    low, high = holdable(chip.array, chip.macro.weights)
    if lo < low or hi > high:
        encoding, slices = chip.macro.weights.encoding, chip.macro.weights.slices
        need = f"a range within {[low, high]}: {encoding}, {slices} x {chip.array.bits_per_cell} bits"
        shift = chip.macro.weights.apart
        closer = f", {shift} apart" if shift else ""
        closest = (f"--set 'array.cell_range=[{low}, {high}]'", "--set macro.weights.slice_shift=0")
        yield ChipFault(path, str([lo, hi]), need + closer, closest if shift else ("more macro.weights.slices",))
    if chip.macro.weights.encoding == "signed_cell" and chip.macro.weights.slices != 1:
        yield ChipFault(("macro", "weights", "slices"), str(chip.macro.weights.slices), "1 with signed cells")
    yield from _slices(chip)
    if chip.macro.input.bits_per_pass > chip.macro.input.bits:
        given = chip.macro.input
        yield ChipFault(
            ("macro", "input", "bits_per_pass"), str(given.bits_per_pass), f"at most the {given.bits} input bits"
        )


def _slices(chip: Chip) -> Iterator[ChipFault]:
    """Slices that lie closer than cells are wide."""
    weights, wide = chip.macro.weights, chip.array.bits_per_cell
    if not weights.apart:
        return
    path, got = ("macro", "weights", "slice_shift"), str(weights.slice_shift)
    if weights.encoding != "differential_pair" or chip.macro.readout.kind != "adc":
        need = "0, unless each of several slices in differential pairs has a conversion of its own (readout adc)"
        yield ChipFault(path, got, need, ("--set macro.weights.slice_shift=0",))
    elif weights.slice_shift > wide:
        yield ChipFault(path, got, f"at most {wide}, the bits of a cell: codes between would be missing")


def _readout(chip: Chip) -> Iterator[ChipFault]:
    macro, readout = chip.macro, chip.macro.readout
    if readout.kind == "wtm2101":
        wanted = {"bits": (readout.bits, WTM_BITS), "signed": (readout.signed, True)}
        for name, (given, need) in wanted.items():
            if given != need:
                yield ChipFault(("macro", "readout", name), _plain(given), f"{_plain(need)} for the wtm2101 readout")
        if macro.input.signed or macro.passes != 1:
            got = f"{macro.input.bits} bits, {macro.passes} passes, {'signed' if macro.input.signed else 'unsigned'}"
            yield ChipFault(("macro", "input"), got, "unsigned codes in one pass for the wtm2101 readout")
        if not macro.bias_rows:
            yield ChipFault(("macro", "bias_rows"), "0", "at least 1: the wtm2101 readout adds its bias in the array")
    elif macro.bias_rows:
        need = f"0: with an {readout.kind} readout the bias is added digitally"
        yield ChipFault(("macro", "bias_rows"), str(macro.bias_rows), need)
    if readout.kind == "adc" and readout.bits > 14:
        need = "an integer from 1 to 14"
        yield ChipFault(
            ("macro", "readout", "bits"), str(readout.bits), need, ("readout: {kind: exact} for an ideal readout",)
        )
    if readout.kind == "exact" and (chip.physics.column_offset or chip.physics.column_gain or chip.physics.adc_noise):
        yield ChipFault(("physics",), "effects of a column readout", "none with an exact readout")
    if readout.kind == "exact" and chip.cell.analog:
        yield ChipFault(("cell",), chip.cell.name, "a digital cell with an exact readout, or an adc readout")


def _gain(chip: Chip) -> Iterator[ChipFault]:
    gain = chip.macro.readout.gain
    path = ("macro", "readout", "gain")
    if chip.macro.readout.kind != "wtm2101":
        if gain is not None:
            yield ChipFault(path, str(list(gain)), f"no gain with an {chip.macro.readout.kind} readout")
    elif gain is None:
        yield ChipFault(path, "missing", "[lowest, highest], powers of two, such as [256, 8192]")
    elif any(g < 4 or g & (g - 1) for g in gain) or gain[0] > gain[1]:
        yield ChipFault(path, str(list(gain)), "two powers of two from 4 up, the lowest first")


def _converters(chip: Chip) -> Iterator[ChipFault]:
    macro = chip.macro
    bitlines = chip.array.cols * macro.weights.slices
    if macro.readout.kind != "exact" and bitlines % macro.columns_per_adc:
        need = f"a divisor of the {bitlines} columns that are converted"
        yield ChipFault(("macro", "columns_per_adc"), str(macro.columns_per_adc), need)
    if macro.readout.kind == "exact" and macro.t_adc is not None:
        yield ChipFault(("macro", "t_adc"), f"{macro.t_adc:g} s", "none: an exact readout converts nothing")


def _memories(chip: Chip) -> Iterator[ChipFault]:
    if "ram" not in chip.memories:
        got = ", ".join(chip.memories) or "none"
        yield ChipFault(("memories",), got, "one called ram, the memory that programs run from")


def _banks(chip: Chip) -> Iterator[ChipFault]:
    if not chip.capabilities.gemv:
        return
    path = ("capabilities", "gemv")
    if "banks" not in chip.memories:
        yield ChipFault(path, "true", "a memory called banks, whose banks multiply")
    if chip.macro.readout.kind != "exact":
        yield ChipFault(path, "true", "readout exact: digital multipliers beside the banks")
    if chip.weight_range[0] < -128 or chip.weight_range[1] > 127:
        yield ChipFault(("array", "cell_range"), str(list(chip.weight_range)), "weights of one byte in memory banks")


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
