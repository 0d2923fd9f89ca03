"""A network while it is lowered to the vector unit's operators: small verbs that add nodes and know every type.

What depends on constants alone is computed at once, so shape arithmetic leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.graph.graph import Attr, Graph, Node, const_type
from insitu.graph.ops.float import infer, run
from insitu.graph.rewrite import Names
from insitu.graph.types import HOST, TensorType

Array = npt.NDArray[Any]
MOST_FOLDED = 1 << 28  # elements of one computed constant


class Net:
    """Nodes, types and constants so far; names are values."""

    def __init__(self) -> None:
        self.types: dict[str, TensorType] = {}
        self.constants: dict[str, Array] = {}
        self.nodes: list[Node] = []
        self.names = Names()
        self.label = "node"  # what new nodes are called after
        self.exact_folds = True
        self.when: tuple[tuple[str, int], ...] = ()  # what new nodes are needed for: (value, what it has to be)

    # values

    def shape(self, value: str) -> tuple[int, ...]:
        """The sizes of a value."""
        return self.types[value].sizes()

    def dtype(self, value: str) -> str:
        """The element type of a value."""
        return self.types[value].dtype

    def known(self, value: str) -> Array | None:
        """A value that is constant."""
        return self.constants.get(value)

    def is_host(self, value: str) -> bool:
        """Whether only the host holds a value."""
        return self.types[value].dtype == HOST

    def constant(self, array: Array | float, dtype: str = "") -> str:
        """A constant."""
        from insitu.graph.ops.float import numpy_type

        data = np.asarray(array, numpy_type(dtype)) if dtype else np.asarray(array)
        name = self.names.fresh(f"{self.label}.c")
        self.constants[name], self.types[name] = data, const_type(data)
        return name

    def like(self, number: float, value: str) -> str:
        """A number of the element type of a value."""
        return self.constant(number, self.dtype(value))

    def add(self, op: str, inputs: Sequence[str], **attrs: Attr) -> str:
        """One operator; its value where all inputs are constant."""
        name = self.names.fresh(f"{self.label}.{op.lower()}")
        node = Node(name, op, tuple(inputs), (name,), {**attrs, **self._needed()})
        kind = infer(node, self.types)[0]
        self.types[name] = kind
        if all(v in self.constants for v in inputs) and kind.count() <= MOST_FOLDED:
            graph = Graph("fold", "quantized", (), (), (), self.types, self.constants)
            value = np.ascontiguousarray(run(graph, node, {})[0][0])
            self.constants[name] = value.reshape(kind.sizes())
        else:
            self.nodes.append(node)
        return name

    def host(self, inputs: Sequence[str], outputs: Sequence[TensorType], attrs: Mapping[str, Attr]) -> list[str]:
        """One operator for the host."""
        name = self.names.fresh(f"{self.label}.host")
        names = tuple(self.names.fresh(f"{name}.{i}") for i in range(len(outputs)))
        self.types.update(zip(names, outputs, strict=True))
        self.nodes.append(Node(name, "Host", tuple(inputs), names, {**attrs, **self._needed()}))
        return list(names)

    def dynamic(self, x: str, to: str, *, lead: int = 0) -> list[str]:
        """Codes with the scale and zero of the data themselves: one of each, or one for each of the first axes."""
        name = self.names.fresh(f"{self.label}.qdyn")
        names = (name, *(self.names.fresh(f"{name}.{part}") for part in ("scale", "zero")))
        node = Node(name, "QDYN", (x,), names, {"to": to, "lead": lead, **self._needed()})
        self.types.update(zip(names, infer(node, self.types), strict=True))
        self.nodes.append(node)
        return list(names)

    def _needed(self) -> dict[str, Attr]:
        if not self.when:
            return {}
        return {"when": tuple(v for v, _ in self.when), "taken": tuple(t for _, t in self.when)}

    # arithmetic

    def v1(self, fn: str, x: str) -> str:
        """One function of each element."""
        return self.add("V1", [x], fn=fn)

    def v2(self, fn: str, a: str, b: str) -> str:
        """One function of each pair of elements."""
        return self.add("V2", [a, b], fn=fn)

    def v2n(self, fn: str, a: str, number: float) -> str:
        """A function of each element and a number."""
        return self.v2(fn, a, self.like(number, a))

    def select(self, chosen: str, a: str, b: str) -> str:
        """The element of a where chosen is true, else of b."""
        return self.add("SEL", [chosen, a, b])

    def reduce(self, fn: str, x: str, axes: Sequence[int], *, keep: bool = True) -> str:
        """Axes reduced."""
        axes = tuple(sorted({a % max(len(self.shape(x)), 1) for a in axes}))
        if not axes and not fn.startswith("arg"):
            return x
        return self.add("RED", [x], fn=fn, axes=axes, keepdims=int(keep))

    def cast(self, x: str, dtype: str) -> str:
        """Another element type."""
        return x if self.dtype(x) == dtype else self.add("CVT", [x], to=dtype)

    def matmul(self, a: str, b: str) -> str:
        """Two matrices, or stacks of them; a constant one on macros where it is one matrix."""
        fixed = b in self.constants and self.dtype(b) == "f32" and len(self.shape(b)) == 2 and a not in self.constants
        return self.add("MVM", [a, b], rows=1) if fixed else self.add("MMA", [a, b])

    # moves

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """The same elements in row-major order; one size may be -1."""
        sizes = [int(d) for d in shape]
        if -1 in sizes:
            rest = -prod(sizes)
            sizes[sizes.index(-1)] = prod(self.shape(x)) // max(rest, 1)
        if prod(sizes) != prod(self.shape(x)):
            raise ValueError(f"{self.shape(x)} as {sizes}")
        return x if tuple(sizes) == self.shape(x) else self.add("Reshape", [x], shape=tuple(sizes))

    def transpose(self, x: str, perm: Sequence[int]) -> str:
        """Axes in another order."""
        perm = tuple(int(p) for p in perm)
        return x if perm == tuple(range(len(perm))) else self.add("Transpose", [x], perm=perm)

    def move_axis(self, x: str, source: int, target: int) -> str:
        """One axis at another place."""
        order = list(range(len(self.shape(x))))
        order.insert(target % len(order), order.pop(source % len(order)))
        return self.transpose(x, order)

    def slice(self, x: str, axis: int, start: int, end: int, step: int = 1) -> str:
        """A range of one axis; for a negative step `end` may be below 0."""
        size = self.shape(x)[axis]
        if (start, end, step) == (0, size, 1):
            return x
        end = end if end >= 0 else -size - 1
        return self.add("Slice", [x], axes=(axis,), starts=(int(start),), ends=(int(end),), steps=(int(step),))

    def concat(self, parts: Sequence[str], axis: int) -> str:
        """Values side by side; empty ones are left out."""
        axis %= len(self.shape(parts[0]))
        full = [p for p in parts if prod(self.shape(p))] or list(parts[:1])
        return full[0] if len(full) == 1 else self.add("Concat", full, axis=axis)

    def expand(self, x: str, shape: Sequence[int]) -> str:
        """Repeated along axes of size 1 and new leading axes."""
        shape = np.broadcast_shapes(self.shape(x), tuple(int(d) for d in shape))
        return x if shape == self.shape(x) else self.add("Expand", [x], shape=shape)

    def pad(self, x: str, before: Sequence[int], after: Sequence[int], value: float = 0) -> str:
        """Padding around every axis; negative widths cut."""
        for axis, (b, a) in enumerate(zip(before, after, strict=True)):
            if min(b, a) < 0:
                x = self.slice(x, axis, max(-b, 0), self.shape(x)[axis] - max(-a, 0))
        before, after = ([max(int(w), 0) for w in widths] for widths in (before, after))
        if not any((*before, *after)):
            return x
        number = value if self.dtype(x).startswith("f") else int(value)
        return self.add("Pad", [x], pads=(*before, *after), value=float(number) if self.dtype(x)[0] == "f" else number)

    def window(self, x: str, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> str:
        """Windows over the last axes: [.., positions, kernel]."""
        return self.add(
            "Window", [x], kernel=tuple(kernel), strides=tuple(strides), dilations=tuple(dilations)
        )  # fmt: skip

    def gather(self, x: str, index: str, axis: int) -> str:
        """Elements of an axis by index; negative ones count from the end."""
        return self.add("Gather", [x, index], axis=axis % len(self.shape(x)))

    def scatter(self, x: str, index: str, updates: str, axis: int) -> str:
        """Entries of an axis replaced; of equal indices the last one stays."""
        return self.add("Scatter", [x, index, updates], axis=axis % len(self.shape(x)))

    def place(self, x: str, at: str, new: str, axis: int) -> str:
        """Neighbouring entries of an axis replaced, from a place of the run on."""
        return self.add("Place", [x, at, new], axis=axis % len(self.shape(x)))

    def squeeze(self, x: str, axes: Sequence[int]) -> str:
        """Axes of size 1 removed."""
        shape = self.shape(x)
        gone = {a % len(shape) for a in axes}
        if any(shape[a] != 1 for a in gone):
            raise ValueError("an axis that is not 1")
        return self.reshape(x, [d for i, d in enumerate(shape) if i not in gone])

    def unsqueeze(self, x: str, axes: Sequence[int]) -> str:
        """New axes of size 1."""
        rank = len(self.shape(x)) + len(axes)
        new, old = {a % rank for a in axes}, list(self.shape(x))
        return self.reshape(x, [1 if i in new else old.pop(0) for i in range(rank)])
