"""One node of an ONNX file while it is written into the graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.errors import ModelError
from insitu.graph.graph import Attr, Node
from insitu.graph.ops.shapes import text
from insitu.graph.rewrite import Builder
from insitu.graph.types import Dim

Array = npt.NDArray[Any]
Attrs = Mapping[str, Any]


@dataclass(frozen=True)
class Call:
    """One node of the file while it is written into the graph: its cleaned names and its ONNX attributes."""

    builder: Builder
    node: Node
    attrs: Attrs
    opset: int
    batched: bool
    rules: Mapping[str, Callable[[Call], None]] = field(default_factory=dict[str, "Callable[[Call], None]"])

    def constant(self, index: int) -> Array | None:
        """The constant at an input; none where it is absent or known at run time only."""
        return self.builder.constants.get(self.node.inputs[index]) if self.has(index) else None

    def has(self, index: int) -> bool:
        """True where the optional input `index` is given."""
        return index < len(self.node.inputs) and bool(self.node.inputs[index])

    def constants(self) -> list[Array | None]:
        """All inputs as constants, for the readers of arguments."""
        return [self.constant(i) for i in range(len(self.node.inputs))]

    def shape(self, index: int = 0) -> tuple[Dim, ...]:
        """The shape of an input."""
        return self.builder.types[self.node.inputs[index]].shape

    def axis(self, axis: int, *, rank: int = -1) -> int:
        """An axis counted from the front."""
        rank = len(self.shape()) if rank < 0 else rank
        if not -rank <= axis < rank:
            raise self.fault(f"axis {axis} of {rank} dimensions", f"an axis from {-rank} to {rank - 1}")
        return axis % rank

    def size(self, axis: int) -> int:
        """A size of the first input that has to be known."""
        size = self.shape()[axis]
        if isinstance(size, str):
            raise self.fault(f"its input {text(self.shape())}, whose size {size!r} is not known", "a known size there")
        return size

    def write(
        self, attrs: Mapping[str, Attr] | None = None, *, op: str = "", inputs: Sequence[str] | None = None
    ) -> None:
        """The node itself, as `op` with these attributes."""
        names = self.node.inputs[:1] if inputs is None else inputs
        self.builder.emit(op or self.node.op, names, name=self.node.name, output=self.node.output, attrs=attrs)

    def helper(self, op: str, inputs: Sequence[str], attrs: Mapping[str, Attr] | None = None) -> str:
        """A node before the node itself; returns its value."""
        return self.builder.emit(op, inputs, name=f"{self.node.name}_{op.lower()}", attrs=attrs)

    def curve(self, text: str, value: str = "") -> None:
        """The node itself, as a function of each number of its first input (or of `value`)."""
        self.write({"expr": text}, op="Curve", inputs=[value or self.node.inputs[0]])

    def curved(self, text: str, value: str) -> str:
        """A function of each number of a value, before the node itself."""
        return self.helper("Curve", [value], {"expr": text})

    def result(self, index: int, op: str, inputs: Sequence[str], attrs: Mapping[str, Attr] | None = None) -> None:
        """One of several outputs; those that the file leaves out are not written."""
        if index < len(self.node.outputs) and self.node.outputs[index]:
            self.builder.emit(op, inputs, name=self.node.name, output=self.node.outputs[index], attrs=attrs)

    def reshaped(self, value: str, shape: Sequence[Dim]) -> str:
        """A value in another shape; constants at once."""
        constant = self.builder.constants.get(value)
        if constant is not None:
            return self.table("shaped", constant.reshape([int(d) for d in shape]))
        if self.builder.types[value].shape == tuple(shape):
            return value
        return self.helper("Reshape", [value], {"shape": tuple(shape)})

    def turned(self, value: str, perm: Sequence[int]) -> str:
        """A value with its axes in another order; constants at once."""
        constant = self.builder.constants.get(value)
        if constant is not None:
            return self.table("turned", np.ascontiguousarray(constant.transpose(perm)))
        if tuple(perm) == tuple(range(len(perm))):
            return value
        return self.helper("Transpose", [value], {"perm": tuple(int(p) for p in perm)})

    def cut(self, value: str, axis: int, start: int, end: int, step: int = 1) -> str:
        """A range of one axis; for a negative step `end` may be below 0."""
        constant = self.builder.constants.get(value)
        if constant is not None:
            return self.table("cut", np.ascontiguousarray(constant.take(np.arange(start, end, step), axis)))
        size = int(self.builder.types[value].shape[axis])
        if (start, end, step) == (0, size, 1):
            return value
        end = end if end >= 0 else -size - 1
        return self.helper("Slice", [value], {"axes": (axis,), "starts": (start,), "ends": (end,), "steps": (step,)})

    def picked(self, value: str, index: npt.NDArray[Any], axis: int) -> str:
        """Elements of one axis by constant indices."""
        place = self.table("index", np.asarray(index, np.int64))
        return self.helper("Gather", [value, place], {"axis": axis})

    def number(self, value: float) -> str:
        """A single number as a constant."""
        return self.table("number", np.full(1, value, np.float32))

    def known_sizes(self, index: int = 0) -> tuple[int, ...]:
        """The shape of an input, all of it known."""
        shape = self.shape(index)
        if any(isinstance(d, str) for d in shape):
            raise UnloweredError
        return tuple(int(d) for d in shape)

    def table(self, suffix: str, array: Array) -> str:
        """A new constant of this node."""
        return self.builder.constant(f"{self.node.name}_{suffix}", array)

    def fault(self, got: str, need: str) -> ModelError:
        return ModelError(f"node {self.node.name!r} ({self.node.op})", got, need)


class UnloweredError(Exception):
    """This operator, used like this, has no rule of integers here."""


def need(fine: bool) -> None:
    """Leave the operator to what it is made of, or to the host."""
    if not fine:
        raise UnloweredError
