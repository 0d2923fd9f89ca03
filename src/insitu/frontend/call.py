"""One node of an ONNX file while it is written into the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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

    def table(self, suffix: str, array: Array) -> str:
        """A new constant of this node."""
        return self.builder.constant(f"{self.node.name}_{suffix}", array)

    def fault(self, got: str, need: str) -> ModelError:
        return ModelError(f"node {self.node.name!r} ({self.node.op})", got, need)
