"""What macros do with a binding: exact integer products when ideal, the chip's physics otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from insitu.circuit.effects import Physics
from insitu.circuit.macro import step_of
from insitu.circuit.spec import MacroChip
from insitu.circuit.tile import Cells, adc_bend, column_error, read_noise_sd, tile_cells
from insitu.isa.program import Binding, Program, Section, Tile
from insitu.numeric.readout import adc_range, finer_step, wtm2101_join
from insitu.numeric.slicing import digit_shifts, offset_slices, slice_weights
from insitu.sim.bound import Analog, Arrays, BoundMatrix, stacked
from insitu.sim.drive import drive, drive_floats, drive_signed, peak_of
from insitu.sim.narrow import finish, narrower, trunc_q2
from insitu.sim.noisy import reader
from insitu.sim.products import Matrix, exact_matrix
from insitu.sim.reads import TOGETHER, Reads, ideal_total, noisy_codes
from insitu.sim.spares import Moved, moved_columns
from insitu.sim.trims import Known, measured, trimmed

Array = npt.NDArray[Any]
INT64 = np.int64
DENSE = 0.75  # above this share of programmed cells, read noise counts all rows


@dataclass(frozen=True)
class MacroModel:
    """How macros behave: ideal, or one chip instance's physics from `seed`."""

    chip: MacroChip | None = None
    physics: Physics = field(default_factory=Physics)
    seed: int = 0
    instance: int = 0
    in_lines: ClassVar[bool] = True  # whether kernels may take products straight from memory to memory

    @property
    def ideal(self) -> bool:
        """Whether codes are the exact integers."""
        return self.chip is None or self.physics.ideal

    def bind(self, program: Program, section: Section, binding: Binding, *, dtype: npt.DTypeLike) -> BoundMatrix:
        """The binding's matrices for input codes of `dtype`."""
        weights = program.weight(binding.weight)
        bias = program.weight(binding.bias).astype(INT64) if binding.bias else np.zeros(binding.cols, INT64)
        bounds = binding.readout.parts or (0, binding.rows)
        parts = tuple(slice(a, b) for a, b in pairwise(bounds))
        peak = peak_of(binding, dtype)
        ideal = tuple(exact_matrix(weights[p], peak=peak, bias=bias) for p in parts)
        columns = _column_settings(program, binding)
        stream = self._core(section) << 16 | section.bindings.index(binding)
        slices = tuple(_sliced(binding, weights[p]) for p in parts) if binding.readout.kind == "adc" else ()
        bound = BoundMatrix(binding, bias, parts, ideal, columns[0], columns[1], stream, slices)
        if self.ideal or binding.readout.kind == "exact":
            return bound
        known = _known(program, binding, dtype)
        analog = tuple(
            self._analog(section, binding, weights, bias, i, p, columns[1], known) for i, p in enumerate(parts)
        )
        bias = bias - _taken(binding, analog)
        analog, stack = stacked(analog)
        return replace(bound, bias=bias, analog=analog, stack=stack)

    def read(self, bound: BoundMatrix, codes: Array, *, first_vector: int = 0, sequence: int = 0) -> Array:
        """Output codes [vectors, columns] of stored input codes [vectors, rows].

        `first_vector` and `sequence` number the reads, so that noise depends on neither blocks nor threads.
        """
        kind = bound.binding.readout.kind
        if bound.analog:
            return self._noisy(bound, codes, Reads(first_vector, sequence))
        if bound.narrow and codes.dtype.itemsize <= 2:
            return self._converted(bound, codes)
        x = drive(bound.binding, codes)
        if kind == "exact":
            acc = bound.ideal[0].times(x)
            return finish(bound, acc, np.empty(acc.shape, np.int32))
        return self._wtm2101(bound, x) if kind == "wtm2101" else self._adc(bound, x)

    def reader(self, bound: BoundMatrix, dtype: Any) -> Callable[[Array, int, int], Array]:
        """`read` of codes of one type as a function (codes, first vector, sequence), its tables made once."""
        binding = bound.binding
        plain = not binding.drive and not binding.negated
        if (single := reader(self, bound, dtype)) is not None:
            return single
        if binding.readout.kind != "exact" or not plain:
            return lambda codes, first, sequence: self.read(bound, codes, first_vector=first, sequence=sequence)
        store = narrower(bound.bias, bound.multiplier, bound.shift, bound.binding.post, bound=bound.ideal[0].bound)
        weights, zero = bound.ideal[0].data, bound.binding.zero_in

        def exact(codes: Array, first: int, sequence: int) -> Array:
            del first, sequence  # nothing is drawn
            x = codes.astype(weights.dtype)
            if zero:
                x -= weights.dtype.type(zero)
            return store(x @ weights)

        return exact

    def _noisy(self, bound: BoundMatrix, codes: Array, reads: Reads) -> Array:
        """Codes under physics of stored codes, a block of vectors at a time."""
        if (single := reader(self, bound, codes.dtype)) is not None:
            return single(codes, reads.first, reads.sequence)
        out = np.empty((len(codes), bound.binding.cols), np.int32)
        for at in range(0, len(codes), TOGETHER):
            driven, signed = drive_floats(bound.binding, codes[at : at + TOGETHER])
            found = noisy_codes(self, bound, driven, reads.after(at), signed=signed)
            if bound.binding.readout.kind == "adc":
                finish(bound, found, out[at : at + TOGETHER])
            else:
                out[at : at + TOGETHER] = found
        return out

    @staticmethod
    def _converted(bound: BoundMatrix, codes: Array) -> Array:
        """Codes of an ideal converter, a block of vectors at a time."""
        out = np.empty((len(codes), bound.binding.cols), np.int32)
        for at in range(0, len(codes), TOGETHER):
            driven, signed = drive_floats(bound.binding, codes[at : at + TOGETHER])
            finish(bound, ideal_total(bound, driven, signed=signed, across=False), out[at : at + TOGETHER])
        return out

    @staticmethod
    def _wtm2101(bound: BoundMatrix, x: Array) -> Array:
        post, readout = bound.binding.post, bound.binding.readout
        whole = len(bound.parts) == 1
        steps, held = readout.finer or (0,) * len(bound.parts), readout.biased or (0,)
        lo, hi = (post.lo, post.hi) if whole else (-128, 127)
        codes: list[Array] = []
        for index, part in enumerate(bound.parts):
            bias = bound.bias if index in held else np.zeros_like(bound.bias)
            down = 0 if whole else readout.k + steps[index]
            codes.append(trunc_q2(bound.ideal[index].times(x[:, part]), bias, bound.shift - down, lo, hi))
        if whole:
            return codes[0]
        return wtm2101_join(np.stack(codes).astype(INT64), readout.k, lo=post.lo, hi=post.hi, finer=steps)

    def _adc(self, bound: BoundMatrix, x: Array) -> Array:
        readout = bound.binding.readout
        assert isinstance(readout.multiplier, int)
        assert isinstance(readout.shift, int)
        bits, step = readout.plane_bits
        total = np.zeros((len(x), bound.binding.cols), bound.total_type)
        signed = bool(np.issubdtype(x.dtype, np.signedinteger))
        steps = readout.finer or (0,) * len(bound.parts)
        for index, part in enumerate(bound.parts):
            rest = readout.finest - steps[index]
            for up_x, plane in _planes(x[:, part], bits=bits, step=step, signed=signed):
                self._convert(bound, index, plane, up_x + rest, total)
        return finish(bound, total, np.empty(total.shape, np.int32))

    @staticmethod
    def _convert(bound: BoundMatrix, index: int, plane: Array, up: int, total: Array) -> None:
        """Add the ideal converter's codes of one plane, all slices, to `total`, times 2**up."""
        from insitu.sim.kernels import add_codes

        readout = bound.binding.readout
        lo, hi = adc_range(readout.bits, signed=readout.signed)
        finer = readout.finer[index] if readout.finer else 0
        multiplier, shift = finer_step(int(readout.multiplier), int(readout.shift), finer)
        for up_w, matrix in bound.slices[index]:
            acc = np.ascontiguousarray(matrix.times(plane))
            add_codes(acc, multiplier, shift, lo, hi, up + up_w, total)

    def _analog(
        self,
        section: Section,
        binding: Binding,
        weights: Array,
        bias: Array,
        index: int,
        part: slice,
        shift: Array,
        known: Known,
    ) -> tuple[tuple[int, Analog], ...]:
        """The arrays that hold rows `part`, the row part `index`: one per weight slice."""
        readout = binding.readout
        finer, first = readout.finer[index] if readout.finer else 0, index in (readout.biased or (0,))
        if readout.kind == "wtm2101":
            gain = np.left_shift(INT64(1), shift) >> (readout.k + finer if len(readout.parts) > 2 else 0)
            return (
                (
                    0,
                    self._array(
                        section, binding, weights, part, np.asarray(gain, np.float64), bias if first else None, known
                    ),
                ),
            )
        step = float(step_of(readout, multiplier=readout.multiplier, shift=readout.shift)) / 2.0**finer
        step = np.full(binding.cols, step)
        bits, each = readout.slice_bits
        digits = slice_weights(
            weights, bits=bits, step=each, shift=readout.slice_shift, offset=readout.encoding == "offset_column"
        )
        offsets = replace(known, mean=None)  # converters have offsets of their own, which `compensated` is a share of
        levels = offset_slices(weights, bits=bits, step=each) if self._offset() else [None] * len(digits)
        return tuple(
            (up, self._array(section, binding, d, part, step, None, offsets, slice_index=i, levels=levels[i]))
            for i, (up, d) in enumerate(digits)
        )

    def _offset(self) -> bool:
        return self.chip is not None and self.chip.macro.weights.encoding == "offset_column"

    def _array(
        self, section: Section, binding: Binding, weights: Array, part: slice, step: Array, bias: Array | None,
        known: Known, *, slice_index: int = 0, levels: tuple[Array, int] | None = None,
    ) -> Analog:  # fmt: skip
        """Cells and column errors of rows `part`, trimmed where the chip measures its columns one by one."""
        assert self.chip is not None
        given = (section, binding, weights, part, step, bias, known.mean)
        found, own = (
            self._untrimmed(*given, slice_index=slice_index, levels=levels),
            self.physics.calibration(self.chip),
        )
        if known.inputs is None or not own.trims:
            return found
        then = found  # as it was when it was measured
        if not own.column_drift and self.physics.time > 0:
            fresh = replace(self, physics=self.physics.after(0.0))
            then = fresh._untrimmed(*given, slice_index=slice_index, levels=levels)
        index = binding.readout.parts.index(part.start) if binding.readout.parts else 0
        stream = self._core(section) << 16 | section.bindings.index(binding)
        trims = measured(
            self, binding, then, weights[part], bias, known.inputs[:, part], signed=known.signed,
            place=index << 8 | slice_index, stream=stream,
        )  # fmt: skip
        return trimmed(found, trims)

    def _untrimmed(
        self,
        section: Section,
        binding: Binding,
        weights: Array,
        part: slice,
        step: Array,
        bias: Array | None,
        frames: Array | None,
        *,
        slice_index: int = 0,
        levels: tuple[Array, int] | None = None,
    ) -> Analog:
        """Cells and column errors of the tiles that hold rows `part`, put together."""
        assert self.chip is not None
        held, variance = np.zeros((2, part.stop - part.start, binding.cols))
        gain, offset = np.ones(binding.cols), np.zeros(binding.cols)
        codes, uneven, bend = 1 << binding.readout.bits, False, None
        macro = 0
        for tile in binding.tiles:
            if not part.start <= tile.row0 < part.stop:
                continue
            macro = self._macro(section, tile)
            rows = slice(tile.row0 - part.start, tile.row0 - part.start + tile.rows)
            cols = slice(tile.col0, tile.col0 + tile.cols)
            where = partial(_bound, self.chip, self.physics, self.seed, self.instance, macro)
            block = (slice(tile.row0, tile.row0 + tile.rows), cols)
            mine = None if levels is None else (levels[0][block], levels[1])
            found: Cells = where(tile_cells)(weights[block], y0=tile.y, x0=tile.x, slice_index=slice_index, levels=mine)
            held[rows, cols] = found.weights
            if found.variance is not None:
                variance[rows, cols], uneven = found.variance, True
            table = where(adc_bend)(tile.cols, codes, x0=tile.x, slice_index=slice_index)
            bend = _placed(bend, table, cols, binding.cols)
            error = where(column_error)(tile.cols, x0=tile.x, step=step[cols], slice_index=slice_index)
            gain[cols], offset[cols] = error
            if self.physics.calibration(self.chip).spare_columns:
                for at in self._moved(where, tile, weights[block], found, slice_index, mine):
                    column = tile.col0 + at.column
                    held[rows, column] = at.cells.weights[:, 0]
                    if at.cells.variance is not None:
                        variance[rows, column] = at.cells.variance[:, 0]
                    own = where(column_error)(1, x0=at.x, step=step[column : column + 1], slice_index=slice_index)
                    gain[column], offset[column] = float(own[0][0]), float(own[1][0])
                    if bend is not None:
                        bend[column] = where(adc_bend)(1, codes, x0=at.x, slice_index=slice_index)[0]
        squares, averaged = np.array([[0.0], [1.0]]), binding.readout.reads
        noise = read_noise_sd(squares, chip=self.chip, physics=self.physics, step=step[None, :], reads=averaged) ** 2
        slope = float((noise[1] - noise[0]).mean())
        if bias is not None:  # bias rows are driven with a constant code: part of the column sum, of its gain too
            offset = offset + gain * bias / step
        if frames is not None and self.physics.calibration(self.chip).column_offset:
            wanted = frames[part] @ weights[part] + (0 if bias is None else bias)
            seen = gain * (frames[part] @ held + (0 if bias is None else bias))
            offset = offset - self._removed() * (seen - wanted) / step
        sparse = self.chip.cell.erased_exact and np.count_nonzero(weights[part]) < DENSE * weights[part].size
        spread = (weights[part] != 0).astype(np.float32) if sparse and slope > 0 else None
        if uneven:  # cells differ: the common part joins theirs
            reads = averaged or self.physics.calibration(self.chip).reads
            alike = slope * (1.0 if spread is None else spread)
            spread, slope = (variance / reads + alike).astype(np.float32), 1.0
        return Analog(held.astype(np.float32), gain, offset, step, slope, noise[0], macro, spread, bend)

    def _moved(
        self, where: Callable[..., Any], tile: Tile, wanted: Array, now: Cells, slice_index: int,
        levels: tuple[Array, int] | None,
    ) -> list[Moved]:  # fmt: skip
        """The tile's columns that lie in reserved ones, chosen by what cells held when they were verified."""
        assert self.chip is not None
        fresh = {"physics": self.physics.after(0.0)} if self.physics.time > 0 else {}
        place: dict[str, Any] = {"y0": tile.y, "slice_index": slice_index}
        made = where(tile_cells)(wanted, x0=tile.x, levels=levels, **place, **fresh) if fresh else now

        def cells(column: int, x: int) -> tuple[Cells, Cells]:
            mine = None if levels is None else (levels[0][:, column : column + 1], levels[1])
            given: dict[str, Any] = {"x0": x, "levels": mine, **place}
            own = wanted[:, column : column + 1]
            after = where(tile_cells)(own, **given)
            return (where(tile_cells)(own, **given, **fresh) if fresh else after), after

        return list(moved_columns(tile, wanted, made.weights, self.chip, cells))

    def _removed(self) -> float:
        """Share of a column's mean error on its calibration frames that the chip's compensation takes away."""
        spec = getattr(getattr(self.chip, "physics", None), "column_offset", None)
        return 1.0 - (spec.compensated if spec is not None else 0.0)

    def _macro(self, section: Section, tile: Tile) -> int:
        macros = getattr(getattr(self.chip, "core", None), "macros", 1)
        return self._core(section) * int(macros) + tile.macro

    def _core(self, section: Section) -> int:
        """The core's number over all chips."""
        return section.chip * int(getattr(self.chip, "cores", 1)) + section.core


def _taken(binding: Binding, analog: Arrays) -> Array:
    """What trims of columns take from the sums of codes, in their finest step [columns]."""
    readout, taken = binding.readout, np.zeros(binding.cols, INT64)
    steps = readout.finer or (0,) * len(analog)
    for index, slices in enumerate(analog):
        for up, array in slices:
            if array.after is not None:
                taken += array.after.astype(INT64) << (up + readout.finest - steps[index])
    return taken


def _known(program: Program, binding: Binding, dtype: npt.DTypeLike) -> Known:
    """What a binding's columns are calibrated with."""
    if not binding.expected:
        return Known()
    rows = program.weight(binding.expected).astype(np.float64).reshape(-1, binding.rows)
    return Known(rows[0], rows[1:] if len(rows) > 1 else None, drive_signed(binding, dtype))


def _placed(bend: Array | None, table: Array | None, cols: slice, count: int) -> Array | None:
    """A table of all columns with those of one tile in their place."""
    if table is None:
        return bend
    whole = np.zeros((count, table.shape[1])) if bend is None else bend
    whole[cols] = table
    return whole


def _bound(
    chip: MacroChip, physics: Physics, seed: int, instance: int, macro: int, model: Callable[..., Any]
) -> Callable[..., Any]:
    """A physics function with the place of its draws filled in."""
    return partial(model, chip=chip, physics=physics, seed=seed, instance=instance, macro=macro)


def _sliced(binding: Binding, weights: Array) -> tuple[tuple[int, Matrix], ...]:
    """Weight slices of one part, each in the type its product with one input plane is exact in."""
    (bits, step), offset = binding.readout.slice_bits, binding.readout.encoding == "offset_column"
    peak = 1 << min(binding.readout.plane_bits)
    slices = slice_weights(weights, bits=bits, step=step, shift=binding.readout.slice_shift, offset=offset)
    return tuple((up, exact_matrix(digits, peak=peak)) for up, digits in slices)


def _planes(x: Array, *, bits: int, step: int, signed: bool) -> list[tuple[int, Array]]:
    """numeric.slicing.input_planes in the narrow type the codes come in."""
    if step >= bits:
        return [(0, x)]
    shifts, mask = digit_shifts(bits, step), x.dtype.type((1 << step) - 1)
    planes = [(s, (x >> x.dtype.type(s)) & mask) for s in shifts[:-1]]
    top = x >> x.dtype.type(shifts[-1])
    return [*planes, (shifts[-1], top if signed else top & mask)]


def _column_settings(program: Program, binding: Binding) -> tuple[Array, Array]:
    """(multiplier, shift) per column; a wtm2101 gain is a shift."""
    if binding.readout.kind == "wtm2101":
        gain = _columns(program, binding.readout.gain, binding.cols)
        return np.ones(binding.cols, INT64), np.rint(np.log2(gain)).astype(INT64)
    post = binding.post
    return _columns(program, post.multiplier, binding.cols), _columns(program, post.shift, binding.cols)


def _columns(program: Program, value: int | str, cols: int) -> Array:
    """A setting per column: a number, or a weight with one entry or one per column."""
    table = np.array([value], INT64) if isinstance(value, int) else program.weight(value).astype(INT64).reshape(-1)
    return np.ascontiguousarray(np.broadcast_to(table, (cols,)))
