"""An expression of one number (numeric/curves.py) as ONNX operators, for the float reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.numeric.curves import BINARY, COMPARISONS, UNARY, Tree, parse

Put = Callable[[str, Sequence[str], str, Mapping[str, Any] | None], None]
Constant = Callable[[str, npt.NDArray[Any]], str]


def export_curve(put: Put, tensor: Constant, text: str, source: str, output: str) -> None:
    """Nodes that compute `text` of `source` into `output`; `put` writes one, `tensor` a constant."""
    _write(put, tensor, parse(text), source, output)


def _write(put: Put, tensor: Constant, tree: Tree, source: str, output: str) -> None:
    if not isinstance(tree, tuple):
        put("Identity", [_name(put, tensor, tree, source, output)], output, None)
        return
    names = [_name(put, tensor, part, source, f"{output}#{i}") for i, part in enumerate(tree[1:])]
    if tree[0] in COMPARISONS:
        put(BINARY[tree[0]][0], names, f"{output}#truth", None)
        put("Cast", [f"{output}#truth"], output, {"to": 1})
        return
    put((UNARY if tree[0] in UNARY else BINARY)[tree[0]][0], names, output, None)


def _name(put: Put, tensor: Constant, tree: Tree, source: str, output: str) -> str:
    if isinstance(tree, str):
        return source
    if not isinstance(tree, tuple):
        return tensor(f"{output}#number", np.full((), tree, np.float32))
    _write(put, tensor, tree, source, output)
    return output
