"""Scales and zero points of an ONNX file as specs, of run-time values and of constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.errors import ModelError
from insitu.graph.graph import Attr, Node
from insitu.numeric.affine import QuantSpec

Array = npt.NDArray[Any]
MOST_BITS = 16  # of run-time codes that a graph quantizes to
OUTPUT_TYPES = {2: (8, False), 3: (8, True), 4: (16, False), 5: (16, True), 21: (4, False), 22: (4, True)}


@dataclass(frozen=True)
class Coded:
    """Constant codes: real = (codes - zero) * scale; several scales go per index of `axis`, or in blocks along it."""

    codes: Array
    scale: npt.NDArray[np.float64]
    zero: Array
    axis: int | None = None
    block: int = 0

    @staticmethod
    def of(codes: Array, scale: Array, zero: Array | None, *, axis: int, block: int, where: str) -> Coded:
        """From the arrays of a file; ModelError names what does not fit."""
        steps = np.asarray(scale, np.float64)
        zeros = np.zeros(steps.shape, np.int64) if zero is None else np.asarray(zero)
        if zeros.dtype.kind == "f" or codes.dtype.kind == "f":
            raise ModelError(f"node {where!r}", "codes in floating point (float8)", "integer codes")
        check_scales(steps, where)
        many = steps.size > 1
        if many and codes.ndim == 0:
            raise ModelError(f"node {where!r}", f"{steps.size} scales for a single number", "one scale")
        at = axis % codes.ndim if many and -codes.ndim <= axis < codes.ndim else axis
        fits = block > 0 or not many or (steps.ndim == 1 and at < codes.ndim and steps.size == codes.shape[at])
        if not fits or zeros.size not in (1, steps.size):
            got = f"{steps.size} scales and {zeros.size} zero points on axis {axis} of the shape {list(codes.shape)}"
            raise ModelError(f"node {where!r}", got, "one of each per index of the axis")
        if block == 0:
            steps, zeros = (steps.reshape(-1), zeros.reshape(-1)) if many else (steps.reshape(()), zeros.reshape(-1)[0])
        return Coded(codes, steps, np.asarray(zeros, np.int64), at if many else None, block)

    def _shaped(self, values: Array) -> Array:
        """Scales or zero points against the codes."""
        if self.block and self.axis is not None:
            wide = np.repeat(values, self.block, axis=self.axis)
            return np.take(wide, np.arange(self.codes.shape[self.axis]), axis=self.axis)
        if self.axis is None or values.size == 1:
            return values.reshape(())
        shape = [1] * self.codes.ndim
        shape[self.axis] = -1
        return values.reshape(shape)

    def steps(self) -> Array:
        """The codes without their zero points."""
        return np.asarray(self.codes, np.int64) - self._shaped(self.zero)

    def real(self) -> Array:
        """What the codes stand for: float32, or float64 where codes have more bits than float32 holds."""
        values = self.steps() * self._shaped(self.scale)
        return values if self._wide() else values.astype(np.float32)

    def _wide(self) -> bool:
        steps = self.steps()
        return bool(np.abs(steps).max(initial=0) >= 1 << 23) or self.codes.dtype.itemsize >= 4

    def spec(self) -> QuantSpec | None:
        """The spec with zero point 0 that holds the steps; none where scales come in blocks."""
        if self.block and self.axis is not None:
            return None
        steps = self.steps()
        need = max(int(steps.max(initial=0)).bit_length(), int(-1 - steps.min(initial=0)).bit_length()) + 1
        bits = 32 if self._wide() else max(8, need)
        return QuantSpec(min(bits, 32), signed=True, scale=tuple(np.atleast_1d(self.scale).tolist()), axis=self.axis)


def check_scales(scale: Array, where: str) -> None:
    """Scales are positive and finite; ModelError."""
    bad = scale[~(np.isfinite(scale) & (scale > 0))]
    if bad.size or not scale.size:
        raise ModelError(
            f"node {where!r}", f"a scale of {bad.reshape(-1)[0] if bad.size else 'nothing'}", "positive ones"
        )


def spec_of(
    scale: Array, zero: Array | None, *, attrs: Any, kind: tuple[int, bool] | None, default: QuantSpec | None, rank: int
) -> QuantSpec:
    """The spec of run-time codes; `kind` is (bits, signed) where the file's zero point has no NumPy type of its own."""
    steps = np.asarray(scale, np.float64)
    check_scales(steps, "")
    bits, signed = kind or _kind(zero, attrs, default)
    zeros = np.unique(np.zeros(1, np.int64) if zero is None else np.asarray(zero, np.int64))
    if zeros.size > 1:
        raise ModelError("", "a zero point per channel at run time", "one zero point")
    if int(attrs.get("block_size", 0)):
        raise ModelError("", "scales in blocks at run time", "one scale, or one per channel")
    many = steps.size > 1
    axis = int(attrs.get("axis", 1)) if many else None
    if axis is not None and (steps.ndim != 1 or not -rank <= axis < rank):
        raise ModelError("", f"{steps.size} scales on axis {axis} of {rank} dimensions", "one scale per channel")
    values = tuple(float(s) for s in steps.reshape(-1))
    return QuantSpec(
        bits, signed=signed, scale=values, zero_point=int(zeros[0]), axis=axis % rank if axis is not None else None
    )


def _kind(zero: Array | None, attrs: Any, default: QuantSpec | None) -> tuple[int, bool]:
    """Bits and sign of codes: by the zero point's type, the node's output_dtype, or what is known."""
    if zero is None:
        known = OUTPUT_TYPES.get(int(attrs.get("output_dtype", 0)))
        return known or ((default.bits, default.signed) if default is not None else (8, False))
    if zero.dtype.kind not in "iu":
        raise ModelError("", "codes in floating point (float8)", "integer codes")
    return 8 * zero.dtype.itemsize, zero.dtype.kind == "i"


def spec_attrs(spec: QuantSpec) -> dict[str, Attr]:
    """A spec as attributes of a node."""
    found: dict[str, Attr] = {"scale": spec.scale, "zero_point": spec.zero_point, "bits": spec.bits}
    found["signed"] = int(spec.signed)
    return found if spec.axis is None else {**found, "axis": spec.axis}


def spec_in(node: Node) -> QuantSpec:
    """The spec that `spec_attrs` wrote."""
    bits, zero = int(node.attr("bits")), int(node.attr("zero_point"))
    signed, scale = bool(node.attr("signed")), tuple(node.attr("scale"))
    return QuantSpec(bits, signed=signed, scale=scale, zero_point=zero, axis=node.attr("axis"))
