"""Columns of an array measured by the chip's own reads of known inputs, and trimmed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from insitu.base.random import read_normals
from insitu.circuit.panels import Variances
from insitu.circuit.trim import Trims, column_trims, summed_trims
from insitu.isa.program import Binding
from insitu.numeric.readout import adc_range
from insitu.sim.bound import Analog

if TYPE_CHECKING:
    from insitu.sim.macro import MacroModel

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Known:
    """What a binding's columns are calibrated with: driven codes of its rows, [rows] on average and [inputs, rows].

    `signed`: whether the top input plane carries a sign.
    """

    mean: Array | None = None
    inputs: Array | None = None
    signed: bool = True


def measured(
    model: MacroModel, binding: Binding, analog: Analog, weights: Array, bias: Array | None, inputs: Array, *,
    signed: bool, place: int, stream: int,
) -> Trims:  # fmt: skip
    """The trims of one array: `inputs` [n, rows] are driven plane by plane and each read `known_reads` times."""
    from insitu.sim.reads import planes_of

    assert model.chip is not None
    readout, reads = binding.readout, model.physics.calibration(model.chip).known_reads
    lo, hi = (-128, 127) if readout.kind == "wtm2101" else adc_range(readout.bits, signed=readout.signed)
    driven = np.ascontiguousarray(inputs - binding.zero_in, np.float32)
    planes = [(0, driven)] if readout.kind == "wtm2101" else list(planes_of(driven, readout, signed=signed))
    wanted = np.stack([p.astype(np.float64) @ weights + (0 if bias is None else bias) for _, p in planes]) / analog.step
    plane = np.concatenate([p for _, p in planes])
    seen = _read(model, binding, analog, plane, reads, lo, hi, place=place, stream=stream).reshape(wanted.shape)
    if len(planes) == 1:
        return column_trims(wanted[0], seen[0], lo=lo, hi=hi)
    places = np.array([2.0**up for up, _ in planes])
    return summed_trims(*(np.tensordot(places, codes, axes=1) for codes in (np.clip(wanted, lo, hi), seen)))


def _read(
    model: MacroModel, binding: Binding, analog: Analog, plane: npt.NDArray[np.float32], reads: int, lo: int, hi: int,
    *, place: int, stream: int,
) -> npt.NDArray[np.float64]:  # fmt: skip
    """Mean codes of `reads` reads of each row of `plane`; they draw from a stream of their own."""
    from insitu.sim.reads import bent_codes, driven_levels, squares_of

    driven = driven_levels(model, plane, binding)
    acc, squares = driven @ analog.weights, squares_of(driven, analog)
    total = np.zeros(acc.shape)
    where = {"instance": model.instance, "macro": analog.macro << 16 | place, "time": stream & 0xFFFFFFFF}
    for read in range(reads):
        normals = read_normals(model.seed, "calibration", *acc.shape, first=read * len(acc), **where)
        total += bent_codes(acc, squares, analog, normals, binding.readout, lo, hi)
    return total / reads


def trimmed(analog: Analog, trims: Trims) -> Analog:
    """The array behind its trims: what cells add to a read is multiplied like the signal."""
    factor = trims.gain**2
    spread, slope = analog.spread, analog.slope
    assert not isinstance(spread, Variances)  # arrays are trimmed before they are packed
    if spread is None:
        slope = slope * float(factor.mean())
    else:
        spread = (spread * factor).astype(np.float32)
    offset = (analog.offset - trims.offset) * trims.gain
    return replace(analog, gain=analog.gain * trims.gain, offset=offset, slope=slope, spread=spread, after=trims.after)
