"""Static check of weight bindings: tiles cover their matrix, lie inside the arrays and keep apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations, pairwise
from math import prod
from typing import Any

from insitu.isa.check_data import bank_bindings
from insitu.isa.elements import element
from insitu.isa.fault import Fault, core_name
from insitu.isa.loads import loaded
from insitu.isa.program import Binding, Program, Tile

Held = tuple[str, Binding, Tile, bool]  # where, what is there, and whether the program loads it


def tile_faults(program: Program) -> Iterator[Fault]:
    """Faults of bindings and of their place on the chip (B)."""
    by_macro: dict[tuple[int, int, int], list[Held]] = {}
    for section in program.sections:
        moving, banked = loaded(section), bank_bindings(section)
        for i, binding in enumerate(section.bindings):
            where = f"{core_name(section)} b{i} ({binding.label})"
            yield from _matrix_faults(program, binding, where)
            yield from _setting_faults(program, binding, where)
            if i in banked:
                continue
            yield from _cover_faults(binding, where)
            yield from _place_faults(program.chip, binding, where)
            for tile in binding.tiles:
                by_macro.setdefault((section.chip, section.core, tile.macro), []).append(
                    (where, binding, tile, i in moving)
                )
    for held in by_macro.values():
        yield from _apart_faults(held)


# the matrix and its settings


def _matrix_faults(program: Program, binding: Binding, where: str) -> Iterator[Fault]:
    ref = program.weights[binding.weight]
    if ref.shape != (binding.rows, binding.cols):
        yield Fault("B6", where, f"weight {list(ref.shape)} for {binding.rows} x {binding.cols}")
    kind = element(ref.dtype)
    if kind is not None and not kind.integer and _at(program.chip, "capabilities", "floats") and kind.name == "f32":
        pass  # macros that hold numbers of this type
    elif kind is None or not kind.integer:
        yield Fault("B6", where, f"weight of type {ref.dtype}")
    elif ref.data is not None and ref.data.size:
        lo, hi = _range(program.chip, "array", "cell_range") or (kind.lo, kind.hi)
        low, high = int(ref.data.min()), int(ref.data.max())
        if low < lo or high > hi:
            yield Fault("B8", where, f"weights {low}..{high}, cells {lo}..{hi}")
    if binding.expected and program.weights[binding.expected].shape[-1:] != (binding.rows,):
        yield Fault("B6", where, f"expected {list(program.weights[binding.expected].shape)} for {binding.rows} rows")
    if binding.bias and prod(program.weights[binding.bias].shape) != binding.cols:
        yield Fault("B6", where, f"bias {list(program.weights[binding.bias].shape)} for {binding.cols} columns")
    per_column = {"multiplier": binding.post.multiplier, "shift": binding.post.shift, "gain": binding.readout.gain}
    per_column |= {"readout multiplier": binding.readout.multiplier, "readout shift": binding.readout.shift}
    for name, setting in per_column.items():
        if isinstance(setting, str) and prod(program.weights[setting].shape) not in (1, binding.cols):
            yield Fault("B6", where, f"{name} {list(program.weights[setting].shape)} for {binding.cols} columns")


def _setting_faults(program: Program, binding: Binding, where: str) -> Iterator[Fault]:
    readout, post = binding.readout, binding.post
    kind = _at(program.chip, "macro", "readout", "kind")
    if kind is not None and kind != readout.kind:
        yield Fault("B7", where, f"readout {readout.kind} on a chip with {kind}")
    if post.lo > post.hi:
        yield Fault("B7", where, f"lo {post.lo}, hi {post.hi}")
    for name, shift in (("shift", post.shift), ("readout shift", readout.shift)):
        low, high = _values(program, shift)
        if low < 0 or high > 62:
            yield Fault("B7", where, f"{name} {low}..{high}")
    if not 0 <= binding.input_shift <= 16:
        yield Fault("B7", where, f"input shift {binding.input_shift}")
    pairs = len(readout.slice_bits) in (0, 2) and len(readout.plane_bits) in (0, 2)
    if readout.kind == "adc" and not (1 <= readout.bits <= 24 and pairs and all(n > 0 for n in _digits(binding))):
        yield Fault("B7", where, f"{readout.bits} bits, digits {_digits(binding)}")
    if not 0 <= readout.slice_shift <= (readout.slice_bits or (0, 0))[-1]:
        yield Fault("B7", where, f"slices of {readout.slice_bits} bits {readout.slice_shift} apart")
    yield from _drive_faults(binding, where)
    if readout.kind == "wtm2101":
        yield from _gain_faults(program, binding, where)


def _drive_faults(binding: Binding, where: str) -> Iterator[Fault]:
    """Ranges of the drivers, rows driven negated, and settings per row part."""
    readout, drive, ends = binding.readout, binding.drive, binding.negated
    if drive and (len(drive) != 2 or not drive[0] <= 0 <= drive[1]):
        yield Fault("B7", where, f"drive {drive}")
    rising = all(a < b for a, b in pairwise(ends))
    if ends and (len(ends) % 2 or not drive or not rising or ends[0] < 0 or ends[-1] > binding.rows):
        yield Fault("B7", where, f"negated {ends} of {binding.rows} rows, drive {drive}")
    count = max(len(readout.parts) - 1, 1)
    if readout.finer and (len(readout.finer) != count or not all(0 <= up <= readout.finest for up in readout.finer)):
        yield Fault("B7", where, f"finer {readout.finer} for {count} parts")
    if not 0 <= readout.finest <= 16:
        yield Fault("B7", where, f"finest {readout.finest}")
    if any(not 0 <= part < count for part in readout.biased) or not 0 <= readout.reads <= 64:
        yield Fault("B7", where, f"biased {readout.biased}, reads {readout.reads} for {count} parts")


def _digits(binding: Binding) -> tuple[int, ...]:
    return binding.readout.slice_bits + binding.readout.plane_bits


def _gain_faults(program: Program, binding: Binding, where: str) -> Iterator[Fault]:
    lo, hi = _range(program.chip, "macro", "readout", "gain") or (1, 1 << 30)
    gain, k = binding.readout.gain, binding.readout.k
    data = program.weights[gain].data if isinstance(gain, str) else None
    gains = {gain} if isinstance(gain, int) else set() if data is None else {int(g) for g in data.ravel()}
    down = k if len(binding.readout.parts) > 2 else 0  # a part is read at gain / 2**(k + finer)
    most = down + max(binding.readout.finer, default=0)
    wrong = [g for g in sorted(gains) if g & (g - 1) or g >> most < lo or g >> down > hi]
    if wrong or not 0 <= k <= 16:
        yield Fault("B7", where, f"gain {wrong[0] if wrong else gain}, k {k}, on a chip with powers of two {lo}..{hi}")


def _values(program: Program, setting: int | str) -> tuple[int, int]:
    """The smallest and largest entry of a number or weight; 0 where there is no data."""
    if isinstance(setting, int):
        return setting, setting
    data = program.weights[setting].data
    return (0, 0) if data is None or not data.size else (int(data.min()), int(data.max()))


# tiles


def _cover_faults(binding: Binding, where: str) -> Iterator[Fault]:
    rows, cols = binding.rows, binding.cols
    outside = [t for t in binding.tiles if not _inside(t, rows, cols)]
    twice = [pair for pair in combinations(binding.tiles, 2) if _share(*pair)]
    covered = sum(t.rows * t.cols for t in binding.tiles)
    if outside:
        yield Fault("B1", where, f"tile {_show(outside[0])} outside {rows} x {cols}")
    elif twice:
        yield Fault("B1", where, f"tiles {_show(twice[0][0])} and {_show(twice[0][1])} overlap")
    elif covered != rows * cols:
        yield Fault("B1", where, f"{covered} of {rows * cols} weights covered")
    parts = binding.readout.parts or (0, rows)
    rising = all(a < b for a, b in pairwise(parts))
    if parts[0] != 0 or parts[-1] != rows or not rising:
        yield Fault("B4", where, f"parts {parts} of {rows} rows")
    elif binding.readout.kind != "exact":
        allowed = set(pairwise(parts))
        for tile in (t for t in binding.tiles if (t.row0, t.row0 + t.rows) not in allowed):
            yield Fault("B4", where, f"tile {_show(tile)}, parts {parts}")


def _inside(tile: Tile, rows: int, cols: int) -> bool:
    fits = tile.row0 + tile.rows <= rows and tile.col0 + tile.cols <= cols
    return fits and min(tile.row0, tile.col0) >= 0 and min(tile.rows, tile.cols) >= 1


def _share(a: Tile, b: Tile) -> bool:
    """Whether two tiles hold a common part of the matrix."""
    return _meet(a.row0, a.rows, b.row0, b.rows) and _meet(a.col0, a.cols, b.col0, b.cols)


def _meet(a: int, a_count: int, b: int, b_count: int) -> bool:
    return a < b + b_count and b < a + a_count


def _place_faults(chip: Mapping[str, Any], binding: Binding, where: str) -> Iterator[Fault]:
    rows, cols = _at(chip, "array", "rows"), _at(chip, "array", "cols")
    arrays, reserved = _at(chip, "macro", "arrays") or 1, _at(chip, "macro", "reserved_columns") or 0
    bias_rows, macros = _at(chip, "macro", "bias_rows"), _at(chip, "core", "macros")
    for tile in binding.tiles:
        if tile.macro < 0 or (macros is not None and tile.macro >= macros):
            yield Fault("B2", where, f"macro {tile.macro} of {macros} in a core")
        if cols is not None and not reserved <= tile.x <= tile.x + tile.cols <= cols:
            yield Fault("B2", where, f"tile {_show(tile)}, usable columns {reserved}..{cols - 1}")
        if rows is not None and (tile.y < 0 or tile.y // rows >= arrays or tile.y % rows + tile.rows > rows):
            yield Fault("B2", where, f"tile {_show(tile)}, {arrays} arrays of {rows} rows")
        end = tile.bias0 + tile.bias_rows
        if min(tile.bias_rows, tile.bias0) < 0 or (bias_rows is not None and end > bias_rows):
            yield Fault("B5", where, f"bias rows {tile.bias0}..{tile.bias0 + tile.bias_rows - 1} of {bias_rows}")


def _apart_faults(held: list[Held]) -> Iterator[Fault]:
    """Pairs of tiles on one macro that share cells or bias rows; what the program loads may take turns."""
    held = sorted(dict.fromkeys(held), key=lambda h: h[2].x)
    fixed = [h for h in held if not h[3]]
    for i, first in enumerate(fixed):
        for second in fixed[i + 1 :]:
            if second[2].x >= first[2].x + first[2].cols:
                break
            yield from _pair_faults(first, second)
    for first in held if len(fixed) < len(held) else ():
        for second in fixed if first[3] else ():
            if _meet(first[2].x, first[2].cols, second[2].x, second[2].cols):
                yield from _pair_faults(first, second)


def _pair_faults(first: Held, second: Held) -> Iterator[Fault]:
    """Faults of two tiles that share columns."""
    (where, binding, tile, _), (other_where, other_binding, other, _) = first, second
    if (binding.weight, binding.bias, tile) == (other_binding.weight, other_binding.bias, other):
        return  # the same cells, used twice
    both = f"tile {_show(tile)} and {_show(other)} of {other_where}"
    if _meet(tile.y, tile.rows, other.y, other.rows):
        yield Fault("B3", where, both)
    if tile.bias_rows and other.bias_rows and _meet(tile.bias0, tile.bias_rows, other.bias0, other.bias_rows):
        yield Fault("B5", where, f"{both}, bias rows {tile.bias0} and {other.bias0}")


def _show(tile: Tile) -> str:
    return (
        f"rows {tile.row0}..{tile.row0 + tile.rows - 1} columns {tile.col0}..{tile.col0 + tile.cols - 1}"
        f" at macro {tile.macro} x {tile.x} y {tile.y}"
    )


# the chip description, as far as it goes


def _at(chip: Mapping[str, Any], *path: str) -> Any:
    """The value at a path of the chip description; none where it stops short."""
    value: Any = chip
    for key in path:
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value


def _range(chip: Mapping[str, Any], *path: str) -> tuple[int, int] | None:
    found = _at(chip, *path)
    return (int(found[0]), int(found[1])) if isinstance(found, list | tuple) else None
