"""Macros whose products run on torch tensors; cells and columns are those of insitu.sim.macro, carried over once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from insitu.circuit.spec import MacroChip
from insitu.isa.program import Binding, Program, Section
from insitu.numeric.readout import wtm2101_join
from insitu.sim.bound import BoundMatrix
from insitu.sim.drive import drive_floats, drive_signed
from insitu.sim.gpu import composed, fused
from insitu.sim.gpu.tensors import Stream, TensorMatrix, on_device
from insitu.sim.macro import MacroModel
from insitu.sim.narrow import finish

Array = npt.NDArray[Any]
TOGETHER = 1 << 22  # elements of inputs or outputs at a time


@dataclass(frozen=True)
class TensorModel(MacroModel):
    """Macros whose products run on a device; what it does not take (codes of 32 bits, sums beyond 2**53) stays.

    `fused`: Triton's kernel does what it can, else torch's own operations do all.
    """

    device: str = "cpu"
    fused: bool = False
    in_lines = False

    def bind(self, program: Program, section: Section, binding: Binding, *, dtype: npt.DTypeLike) -> BoundMatrix:
        """As MacroModel.bind, with what products need on the device."""
        bound = super().bind(program, section, binding, dtype=dtype)
        signed = drive_signed(binding, dtype)
        matrix = on_device(bound, self.device, signed=signed, bow=self._bow(binding))
        return replace(matrix, launches=fused.launches(matrix)) if self.fused else matrix

    def read(self, bound: BoundMatrix, codes: Array, *, first_vector: int = 0, sequence: int = 0) -> Array:
        """As MacroModel.read."""
        assert isinstance(bound, TensorMatrix)
        kinds = {matrix.data.dtype for matrix in (*bound.ideal, *(m for part in bound.slices for _, m in part))}
        if codes.dtype.itemsize > 2 or np.dtype(np.int64) in kinds:
            return super().read(bound, codes, first_vector=first_vector, sequence=sequence)
        time = (bound.stream << 12 | (sequence & 0xFFF)) & 0xFFFFFFFF
        out = np.empty((len(codes), bound.binding.cols), np.int32)
        together = max(1, TOGETHER // max(codes.shape[1], out.shape[1]))
        for at in range(0, len(codes), together):
            stream = Stream(self.seed, self.instance, time, first_vector + at)
            _read(bound, codes[at : at + together], stream, out[at : at + together])
        return out

    def reader(self, bound: BoundMatrix, dtype: Any) -> Callable[[Array, int, int], Array]:
        """As MacroModel.reader."""
        return lambda codes, first, sequence: self.read(bound, codes, first_vector=first, sequence=sequence)

    def _bow(self, binding: Binding) -> tuple[float, int, int] | None:
        """(bow, bits, bits at a time) of drivers that are not straight, as insitu.sim.reads.driven_levels."""
        chip: MacroChip | None = self.chip
        spec = None if chip is None else chip.physics.dac
        if chip is None or spec is None or not self.physics.has("dac_nonlinearity"):
            return None
        bits, step = binding.readout.plane_bits
        whole = binding.readout.kind == "wtm2101" or step >= bits
        return spec.bow, chip.macro.input.bits if whole else step, chip.macro.input.bits_per_pass


def _read(bound: TensorMatrix, codes: Array, stream: Stream, out: Array) -> None:
    """Output codes of some vectors into `out`."""
    rows = _rows(bound, codes)
    if bound.binding.readout.kind == "wtm2101":
        found = [part.cpu().numpy() for part in _partials(bound, rows, stream)]
        out[...] = _joined(bound, found) if len(found) > 1 else found[0]
    elif bound.launches:
        (launch,) = bound.launches
        total = fused.run(launch, bound, rows, stream).cpu().numpy()
        out[...] = total if launch.requantize else finish(bound, total, np.empty_like(out))
    else:
        total = composed.total_of(bound, composed.driven(bound, rows), stream)
        if bound.exact_scale is not None:
            out[...] = composed.requantized(bound, total).cpu().numpy()
        else:
            finish(bound, total.cpu().numpy(), out)


def _rows(bound: TensorMatrix, codes: Array) -> Tensor:
    """Stored codes on the device; where some rows are negated they are driven here."""
    if bound.binding.negated:
        codes, _ = drive_floats(bound.binding, codes)
    elif codes.dtype == np.uint16:  # torch computes little with it
        codes = codes.astype(np.int32)
    return torch.from_numpy(np.require(codes, requirements=["C", "W"])).to(bound.device)


def _partials(bound: TensorMatrix, rows: Tensor, stream: Stream) -> list[Tensor]:
    """Codes of the wtm2101 readout of every row part."""
    if not bound.launches:
        return composed.partials_of(bound, composed.driven(bound, rows), stream)
    return [fused.run(launch, bound, rows, stream) for launch in bound.launches]


def _joined(bound: TensorMatrix, codes: list[Array]) -> Array:
    """Output codes of row parts that were read one by one."""
    post, readout = bound.binding.post, bound.binding.readout
    steps = readout.finer or (0,) * len(bound.parts)
    return wtm2101_join(np.stack(codes).astype(np.int64), readout.k, lo=post.lo, hi=post.hi, finer=steps)
