"""Float ONNX for operators that ONNX writes in several nodes: functions of one number and norms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.graph.graph import Node
from insitu.numeric.curves import BINARY, COMPARISONS, UNARY, Tree, parse

Array = npt.NDArray[Any]
Put = Callable[[str, Sequence[str], str, Mapping[str, Any] | None], None]
Tensor = Callable[[str, Array], str]


def export_curve(put: Put, tensor: Tensor, text: str, source: str, output: str) -> None:
    """The nodes of an expression of one value."""
    count = 0

    def fresh() -> str:
        nonlocal count
        count += 1
        return f"{output}#{count}"

    def write(tree: Tree, target: str) -> str:
        if tree == "x":
            return source
        if not isinstance(tree, tuple):
            return tensor(fresh(), np.full((), tree, np.float32))
        op = (UNARY.get(tree[0]) or BINARY[tree[0]])[0]
        names = [write(t, fresh()) for t in tree[1:]]
        if tree[0] in COMPARISONS:
            put(op, names, f"{target}#truth", None)
            put("Cast", [f"{target}#truth"], target, {"to": 1})
        else:
            put(op, names, target, None)
        return target

    if write(parse(text), output) != output:
        put("Identity", [source], output, None)


def export_norm(put: Put, tensor: Tensor, node: Node, source: str, output: str) -> None:
    """(x - mean) / sqrt(mean square + epsilon) over axes; without `center` the mean stays."""
    axes = tensor(f"{output}#axes", np.asarray(node.attr("axes"), np.int64))
    epsilon = tensor(f"{output}#epsilon", np.full((), node.attr("epsilon"), np.float32))
    middle = source
    if node.attr("center", 1):
        put("ReduceMean", [source, axes], f"{output}#mean", {"keepdims": 1})
        put("Sub", [source, f"{output}#mean"], f"{output}#middle", None)
        middle = f"{output}#middle"
    put("Mul", [middle, middle], f"{output}#square", None)
    put("ReduceMean", [f"{output}#square", axes], f"{output}#variance", {"keepdims": 1})
    put("Add", [f"{output}#variance", epsilon], f"{output}#more", None)
    put("Sqrt", [f"{output}#more"], f"{output}#spread", None)
    put("Div", [middle, f"{output}#spread"], output, None)


def export_scatter(put: Put, tensor: Tensor, axis: int, rank: int, names: Sequence[str], output: str) -> None:
    """Entries of one axis replaced: ScatterND along the first axis, the scattered one moved there and back."""
    data, index, new = names
    perm = [axis, *(i for i in range(rank) if i != axis)]
    put("Transpose", [data], f"{output}#data", {"perm": perm})
    put("Transpose", [new], f"{output}#new", {"perm": perm})
    put("Unsqueeze", [index, tensor(f"{output}#last", np.asarray([-1], np.int64))], f"{output}#index", None)
    put("ScatterND", [f"{output}#data", f"{output}#index", f"{output}#new"], f"{output}#moved", None)
    put("Transpose", [f"{output}#moved"], output, {"perm": [perm.index(i) for i in range(rank)]})
