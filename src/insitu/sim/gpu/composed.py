"""Products of a binding in torch operations, one after another: what the fused kernel is held against, on any device.

Whole numbers below 2**53 are exact in float64, so ideal codes are those of every other path.  Analog ones go through
the functions of arrays that the simulator calls with NumPy's (drive_levels, read_codes), with the same draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from insitu.circuit.converter import drive_levels
from insitu.circuit.macro import read_codes
from insitu.numeric.readout import adc_range, finer_step
from insitu.numeric.slicing import digit_shifts
from insitu.sim.gpu.draws import read_normals
from insitu.sim.gpu.tensors import HeldArray, Stream, TensorMatrix


def driven(bound: TensorMatrix, codes: Tensor) -> Tensor:
    """Driven rows in float64 of stored codes."""
    scale, add, lo, hi = bound.line
    return torch.clip(codes.double() * scale + add, lo, hi)


def total_of(bound: TensorMatrix, x: Tensor, stream: Stream) -> Tensor:
    """Sums [vectors, columns] of driven rows that are to be requantized: exact ones, or those of a converter's codes.

    int64; of kinds `exact` and `adc`.
    """
    if bound.binding.readout.kind == "exact":
        return (x @ bound.whole[0]).long()
    return _noisy_total(bound, x, stream) if bound.analog else _ideal_total(bound, x)


def partials_of(bound: TensorMatrix, x: Tensor, stream: Stream) -> list[Tensor]:
    """Codes of the wtm2101 readout of every row part, int32; of one part they are the output's."""
    post, readout, alone = bound.binding.post, bound.binding.readout, len(bound.parts) == 1
    lo, hi = (post.lo, post.hi) if alone else (-128, 127)
    steps, biased = readout.finer or (0,) * len(bound.parts), readout.biased or (0,)
    bias, shift = bound.carried(bound.bias), bound.carried(bound.shift)
    found: list[Tensor] = []
    for index, part in enumerate(bound.parts):
        if bound.analog:
            codes = _read(bound, bound.held[index][0][1], x[:, part], stream, index, lo, hi)
        else:
            gain = torch.exp2(shift - (0 if alone else readout.k + steps[index]))
            acc = x[:, part] @ bound.whole[index] + (bias if index in biased else 0.0)
            codes = torch.clip(read_codes(acc, readout, gain=gain, lo=lo), max=hi)
        found.append(codes.int())
    return found


def requantized(bound: TensorMatrix, total: Tensor) -> Tensor:
    """Output codes of sums, to the nearest even, where float64 holds all that comes before the rounding."""
    (bias, factor), post = bound.post, bound.binding.post
    codes = torch.round((total.double() + bias) * factor) + post.zero_point
    return torch.clip(codes, post.lo, post.hi).int()


def _ideal_total(bound: TensorMatrix, x: Tensor) -> Tensor:
    readout = bound.binding.readout
    total = torch.zeros(len(x), bound.binding.cols, dtype=torch.int64, device=x.device)
    steps = readout.finer or (0,) * len(bound.parts)
    for index, factor in enumerate(bound.lossless):
        rest = readout.finest - steps[index]
        if factor is not None:  # no code of this part can be rounded or clipped
            total += (x[:, bound.parts[index]] @ bound.whole[index]).long() * factor << rest
            continue
        multiplier, shift = finer_step(int(readout.multiplier), int(readout.shift), steps[index])
        for up_x, plane in _planes(bound, x[:, bound.parts[index]]):
            for up_w, digits in bound.digits[index]:
                codes: Tensor = read_codes(plane @ digits, readout, multiplier=multiplier, shift=shift)
                total += codes.long() << (up_x + up_w + rest)
    return total


def _noisy_total(bound: TensorMatrix, x: Tensor, stream: Stream) -> Tensor:
    """As insitu.sim.reads.noisy_codes."""
    readout = bound.binding.readout
    lo, hi = adc_range(readout.bits, signed=readout.signed)
    total = torch.zeros(len(x), bound.binding.cols, dtype=torch.int64, device=x.device)
    steps = readout.finer or (0,) * len(bound.parts)
    for number, (up_x, plane) in enumerate(_planes(bound, x)):
        for index, part in enumerate(bound.parts):
            for up_w, array in bound.held[index]:
                codes = _read(bound, array, plane[:, part], stream, index << 8 | number << 4 | up_w, lo, hi)
                total += codes.long() << (up_x + up_w + readout.finest - steps[index])
    return total


def _planes(bound: TensorMatrix, x: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(shift, digits) of driven rows that hold whole numbers."""
    bits, step = bound.binding.readout.plane_bits
    if step >= bits:
        yield 0, x
        return
    shifts, whole = digit_shifts(bits, step), x.long()
    for shift in shifts:
        mask = -1 if bound.signed and shift == shifts[-1] else (1 << step) - 1
        yield shift, ((whole >> shift) & mask).double()


def _read(bound: TensorMatrix, array: HeldArray, x: Tensor, stream: Stream, name: int, lo: int, hi: int) -> Tensor:
    """Codes of one noisy read of rows x."""
    if bound.bow is not None:
        bow, bits, step = bound.bow
        x = drive_levels(x, bow=bow, bits=bits, step=step)
    squares = (x * x).sum(1, keepdim=True) if array.spread is None else (x * x) @ array.spread
    place: dict[str, Any] = {"instance": stream.instance, "macro": array.macro << 16 | name, "time": stream.time}
    shape = (len(x), bound.binding.cols)
    z = read_normals(stream.seed, "read_noise", *shape, first=stream.first, device=x.device, **place)
    readout = bound.binding.readout
    unit: dict[str, Any] = {"multiplier": 1.0 / array.step} if readout.kind == "adc" else {"gain": array.step}
    codes = read_codes(
        x @ array.weights, readout, lo=lo, column_gain=array.gain, column_offset=array.offset, bend_table=array.bend,
        read_noise=torch.sqrt(array.slope * squares + array.floor) * z, **unit,
    )  # fmt: skip
    return torch.clip(codes, max=hi)
