"""A binding's product in launches of the Triton kernel: what goes in, and whether it can be done that way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from insitu.base.random import effect_key, rows_together
from insitu.numeric.readout import adc_range, finer_step
from insitu.numeric.slicing import digit_shifts
from insitu.sim.bound import Analog
from insitu.sim.gpu.tensors import Launch, Stream, TensorMatrix, spread_of
from insitu.sim.products import FLOAT64_EXACT

TILE = (64, 32, 64)  # vectors, rows and columns of a program at a time
WARPS = 8
WIDE = (256, 256, 256)  # the same where programs are interpreted: each of their operations is a call of NumPy's
Tables = npt.NDArray[Any]
_launching = Lock()  # the interpreter patches Triton's language while a kernel runs


@cache
def runs_on(device: str) -> bool:
    """Whether Triton is there and runs on tensors of a device: a GPU's, or any where it interprets its kernels."""
    try:
        from insitu.sim.gpu.kernels import product
    except ImportError:
        return False
    return device.startswith("cuda") or interpreted(product)


def interpreted(kernel: Any) -> bool:
    """Whether Triton runs a kernel in Python, as TRITON_INTERPRET=1 asks it to when the kernel is loaded."""
    return type(kernel).__name__ == "InterpretedFunction"


def launches(bound: TensorMatrix) -> tuple[Launch, ...]:
    """One launch for a binding, or one for each row part that is joined digitally; none where the kernel cannot."""
    kind = bound.binding.readout.kind
    if bound.bow is not None or any(a.bend is not None for part in bound.analog for _, a in part):
        return ()
    if kind == "adc" and bound.total_type != np.int32:
        return ()
    if bound.analog:
        return _of_arrays(bound)
    if kind == "adc":
        return _of_converter(bound)
    if any(matrix.data.dtype != np.float32 for matrix in bound.ideal):
        return ()
    return _of_parts(bound) if kind == "wtm2101" else _of_sums(bound)


def run(launch: Launch, bound: TensorMatrix, codes: Tensor, stream: Stream) -> Tensor:
    """Codes (or, without requantization, sums) int32 [vectors, columns] of stored codes [vectors, rows]."""
    from insitu.sim.gpu import kernels

    product: Any = kernels.product
    (vectors, rows), columns, post = codes.shape, bound.binding.cols, bound.binding.post
    out = torch.empty((vectors, columns), dtype=torch.int32, device=codes.device)
    limits = WIDE if interpreted(product) else TILE
    high, deep, wide = (min(most, _power(n)) for most, n in zip(limits, (vectors, rows, columns), strict=True))
    grid = (-(-vectors // high), -(-columns // wide))
    effect = effect_key("read_noise")
    arrays = (launch.weights, launch.spread, launch.tables, launch.reads, launch.slopes)
    with _launching:
        product[grid](
            codes, *arrays, bound.drive, *bound.post, out,
            rows, columns, len(launch.reads), vectors, *launch.ends, post.zero_point, post.lo, post.hi,
            stream.first, stream.time, stream.instance, stream.seed, effect, rows_together(columns),
            KIND=launch.kind, CELLS=launch.cells, NOISY=launch.noisy, REQUANTIZE=launch.requantize,
            VECTORS=high, ROWS=deep, COLUMNS=wide, num_warps=WARPS, enable_fp_fusion=True,
        )  # fmt: skip
    return out


def _power(size: int) -> int:
    """The next power of two, 16 at least: what Triton multiplies."""
    return max(16, 1 << (size - 1).bit_length())


# what goes in


@dataclass(frozen=True)
class Read:
    """One read of an array: its rows, its plane's shift and mask, its slice, its name (or factor), its power of two."""

    part: slice
    plane: tuple[int, int]
    slice: int
    name: int
    up: int
    table: Tables  # [lines, columns]
    slope: float = 0.0


def _launch(
    bound: TensorMatrix, kind: Any, reads: Sequence[Read], weights: Tensor, *,
    ends: tuple[int, int] = (0, 0), spread: Tensor | None = None,
) -> Launch:  # fmt: skip
    """The arguments of the kernel for these reads; weights and spread are [slices, rows, columns]."""
    from insitu.sim.gpu.kernels import ADC, ALIKE, EACH, QUIET, WTM2101

    analog = kind.value in (ADC.value, WTM2101.value)
    each, lines = weights[0].numel(), reads[0].table.size
    fields = [
        (r.part.start, r.part.stop, *r.plane, r.slice * each, i * lines, r.name, r.up) for i, r in enumerate(reads)
    ]
    slopes, tables = np.array([r.slope for r in reads]), np.stack([r.table for r in reads])
    cells = QUIET if not slopes.any() else ALIKE if spread is None else EACH
    noisy = analog and bool(slopes.any() or tables[:, 3].any())
    requantize = bound.exact_scale is not None and bound.binding.readout.kind != "wtm2101"
    held = bound.carried(tables, np.float32 if analog else np.float64)
    whole, factors = bound.carried(fields, np.int64), bound.carried(slopes, np.float32)
    uneven = bound.carried(np.zeros(1), np.float32) if spread is None else spread
    return Launch(
        kind.value, cells.value, noisy, requantize, ends, weights, uneven, held, whole, factors
    )  # fmt: skip


def _of_arrays(bound: TensorMatrix) -> tuple[Launch, ...]:
    """Reads under physics."""
    from insitu.sim.gpu.kernels import ADC, WTM2101

    post, readout, alone = bound.binding.post, bound.binding.readout, len(bound.parts) == 1
    slices = range(len(bound.analog[0]))
    held = _side_by_side([[part[s][1].cells for part in bound.analog] for s in slices], bound)
    uneven = None
    if any(analog.spread is not None for part in bound.analog for _, analog in part):
        uneven = _side_by_side([[_noise(part[s][1]) for part in bound.analog] for s in slices], bound)
    every = list(_array_reads(bound))
    if readout.kind == "adc":
        return (_launch(bound, ADC, every, held, ends=adc_range(readout.bits, signed=readout.signed), spread=uneven),)
    ends = (post.lo, post.hi) if alone else (-128, 127)
    return tuple(_launch(bound, WTM2101, [read], held, ends=ends, spread=uneven) for read in every)


def _array_reads(bound: TensorMatrix) -> Iterator[Read]:
    """Every plane of every array, with the names of insitu.sim.reads."""
    *_, tables, slope, names, shifts = bound.arrays
    whole = bound.binding.readout.kind == "wtm2101"
    for index, part in enumerate(bound.parts):
        for number, plane in enumerate(_planes(bound)):
            for s in range(names.shape[1]):
                name = int(names[index, s]) | (index if whole else number << 4)
                up = plane[0] + int(shifts[index, s])
                yield Read(part, plane, s, name, up, tables[index, s], float(slope[index, s]))


def _noise(analog: Analog) -> Tables:
    """The read noise of each cell of an array in units of its slope, also where all have the same."""
    spread = spread_of(analog)
    return np.ones_like(analog.cells) if spread is None else spread


def _of_sums(bound: TensorMatrix) -> tuple[Launch, ...]:
    """An exact readout: the column sums themselves."""
    from insitu.sim.gpu.kernels import SUM

    read = Read(slice(0, bound.binding.rows), (0, 0), 0, 1, 0, np.zeros((1, 1)))
    return (_launch(bound, SUM, [read], _side_by_side([[m.data for m in bound.ideal]], bound)),)


def _of_parts(bound: TensorMatrix) -> tuple[Launch, ...]:
    """Ideal codes of the wtm2101 readout."""
    from insitu.sim.gpu.kernels import IDEAL_WTM2101

    post, readout, alone = bound.binding.post, bound.binding.readout, len(bound.parts) == 1
    steps, biased = readout.finer or (0,) * len(bound.parts), readout.biased or (0,)
    ends = (post.lo, post.hi) if alone else (-128, 127)
    held, found = _side_by_side([[m.data for m in bound.ideal]], bound), list[Launch]()
    for index, part in enumerate(bound.parts):
        scale = np.exp2(-(bound.shift - (0 if alone else readout.k + steps[index])).astype(np.float64))
        table = np.stack([scale, bound.bias if index in biased else np.zeros_like(bound.bias)])
        found.append(_launch(bound, IDEAL_WTM2101, [Read(part, (0, 0), 0, 0, 0, table)], held, ends=ends))
    return tuple(found)


def _of_converter(bound: TensorMatrix) -> tuple[Launch, ...]:
    """An ideal converter: products as they are where none of its codes is rounded or clipped, else every plane."""
    from insitu.sim.gpu.kernels import IDEAL_ADC, SUM

    readout = bound.binding.readout
    steps = readout.finer or (0,) * len(bound.parts)
    rest = [readout.finest - step for step in steps]
    if None not in bound.lossless and all(m.data.dtype == np.float32 for m in bound.ideal):
        none = np.zeros((1, 1))
        pairs = zip(bound.parts, bound.lossless, rest, strict=True)
        whole = [Read(part, (0, 0), 0, int(factor or 0), up, none) for part, factor, up in pairs]
        return (_launch(bound, SUM, whole, _side_by_side([[m.data for m in bound.ideal]], bound)),)
    reads: list[Read] = []
    for index, part in enumerate(bound.parts):
        multiplier, shift = finer_step(int(readout.multiplier), int(readout.shift), steps[index])
        for _, matrix in bound.slices[index]:
            if matrix.data.dtype != np.float32 or matrix.bound * multiplier >= FLOAT64_EXACT:
                return ()
        scale = np.full((1, 1), float(multiplier) * 2.0**-shift)
        for plane in _planes(bound):
            for s, (up_w, _) in enumerate(bound.slices[index]):
                reads.append(Read(part, plane, s, 0, plane[0] + up_w + rest[index], scale))
    digits = [[part[s][1].data for part in bound.slices] for s in range(len(bound.slices[0]))]
    ends = adc_range(readout.bits, signed=readout.signed)
    return (_launch(bound, IDEAL_ADC, reads, _side_by_side(digits, bound), ends=ends),)


def _side_by_side(matrices: Sequence[Sequence[Tables]], bound: TensorMatrix) -> Tensor:
    """[slices, rows, columns] of matrices by slice and row part."""
    return bound.carried(np.stack([np.concatenate(parts) for parts in matrices]), np.float32)


def _planes(bound: TensorMatrix) -> list[tuple[int, int]]:
    """(shift, mask) of every plane of inputs; one of mask 0: the input as it is."""
    bits, step = bound.binding.readout.plane_bits or (1, 1)
    if step >= bits:
        return [(0, 0)]
    shifts = digit_shifts(bits, step)
    return [(s, -1 if bound.signed and s == shifts[-1] else (1 << step) - 1) for s in shifts]
