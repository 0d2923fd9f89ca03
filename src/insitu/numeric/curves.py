"""Functions of one number as text: what a look-up table is filled from, in float64.

An expression is a list of words in prefix order over the variable `x`: "mul x sigmoid x" is SiLU.  Comparisons give 0
or 1.  The same words become ONNX operators in the float reference (graph/export.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.errors import ModelError

Floats = npt.NDArray[np.float64]
MOST_WORDS = 400
Tree = str | float | tuple[Any, ...]


def _erf(x: Floats) -> Floats:
    return np.vectorize(math.erf, otypes=[np.float64])(x)


def _sigmoid(x: Floats) -> Floats:
    return np.exp(-np.logaddexp(0.0, -x))


def _truth(test: Callable[[Floats, Floats], npt.NDArray[np.bool_]]) -> Callable[[Floats, Floats], Floats]:
    return lambda a, b: test(a, b).astype(np.float64)


UNARY: Mapping[str, tuple[str, Callable[[Floats], Floats]]] = {  # name: (ONNX operator, function)
    "neg": ("Neg", np.negative), "abs": ("Abs", np.abs), "exp": ("Exp", np.exp), "log": ("Log", np.log),
    "sqrt": ("Sqrt", np.sqrt), "reciprocal": ("Reciprocal", np.reciprocal), "sigmoid": ("Sigmoid", _sigmoid),
    "tanh": ("Tanh", np.tanh), "erf": ("Erf", _erf), "softplus": ("Softplus", lambda x: np.logaddexp(0.0, x)),
    "sin": ("Sin", np.sin), "cos": ("Cos", np.cos), "tan": ("Tan", np.tan), "asin": ("Asin", np.arcsin),
    "acos": ("Acos", np.arccos), "atan": ("Atan", np.arctan), "sinh": ("Sinh", np.sinh), "cosh": ("Cosh", np.cosh),
    "asinh": ("Asinh", np.arcsinh), "acosh": ("Acosh", np.arccosh), "atanh": ("Atanh", np.arctanh),
    "floor": ("Floor", np.floor), "ceil": ("Ceil", np.ceil), "round": ("Round", np.rint), "sign": ("Sign", np.sign),
}  # fmt: skip
BINARY: Mapping[str, tuple[str, Callable[[Floats, Floats], Floats]]] = {
    "add": ("Add", np.add), "sub": ("Sub", np.subtract), "mul": ("Mul", np.multiply), "div": ("Div", np.divide),
    "pow": ("Pow", np.power), "min": ("Min", np.minimum), "max": ("Max", np.maximum),
    "less": ("Less", _truth(np.less)), "greater": ("Greater", _truth(np.greater)),
    "equal": ("Equal", _truth(np.equal)), "less_equal": ("LessOrEqual", _truth(np.less_equal)),
    "greater_equal": ("GreaterOrEqual", _truth(np.greater_equal)),
}  # fmt: skip
COMPARISONS = ("less", "greater", "equal", "less_equal", "greater_equal")


@cache
def parse(text: str) -> Tree:
    """The tree of an expression: "x", a number, or (name, operand, ...)."""
    words = text.split()
    if len(words) > MOST_WORDS:
        raise _fault(f"{len(words)} words", f"at most {MOST_WORDS}")
    tree, end = _tree(words, 0)
    if end != len(words):
        raise _fault(f"{text!r}", "one expression")
    return tree


def _tree(words: Sequence[str], at: int) -> tuple[Tree, int]:
    if at >= len(words):
        raise _fault("an expression that breaks off", "an operand for every function")
    word = words[at]
    if word == "x":
        return "x", at + 1
    count = 1 if word in UNARY else 2 if word in BINARY else 0
    if not count:
        return _number(word), at + 1
    parts: list[Tree] = []
    at += 1
    for _ in range(count):
        part, at = _tree(words, at)
        parts.append(part)
    return (word, *parts), at


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise _fault(f"the word {word!r}", f"x, a number, or one of {', '.join((*UNARY, *BINARY))}") from None


def _fault(got: str, need: str) -> ModelError:
    return ModelError("function of one number", got, need)


def evaluate(text: str, x: npt.NDArray[Any]) -> Floats:
    """The values of an expression at `x`, in float64; NaN becomes 0."""
    with np.errstate(all="ignore"):
        values = _value(parse(text), np.asarray(x, np.float64))
    return np.where(np.isnan(values), 0.0, np.broadcast_to(values, np.shape(x)))


def _value(tree: Tree, x: Floats) -> Floats:
    if isinstance(tree, str):
        return x
    if not isinstance(tree, tuple):
        return np.asarray(tree, np.float64)
    operands = [_value(t, x) for t in tree[1:]]
    if tree[0] in UNARY:
        return UNARY[tree[0]][1](operands[0])
    return BINARY[tree[0]][1](operands[0], operands[1])


def composed(outer: str, inner: str) -> str:
    """`outer` of `inner`."""
    return " ".join(inner if word == "x" else word for word in outer.split())
