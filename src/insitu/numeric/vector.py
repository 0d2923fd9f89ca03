"""The vector unit's tables: what each function of V1, V2, RED and CVT makes of its elements (DESIGN 2).

Shared by interpreter, reference semantics and simulator.  f16 is computed in f32 and rounded; integers wrap around.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import fsum
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.numeric import real

Array = npt.NDArray[Any]
Unary = Callable[[Array], Array]
Binary = Callable[[Array, Array], Array]
SURE = 2.0**-52  # twice the relative error of a float64 sum, per term


def unary(name: str, x: Array) -> Array:
    """V1: one function of each element."""
    with np.errstate(all="ignore"):
        if x.dtype == np.float16:
            result = UNARY[name](x.astype(np.float32))
            return result.astype(np.float16) if result.dtype == np.float32 else result
        return UNARY[name](x)


def binary(name: str, a: Array, b: Array) -> Array:
    """V2: one function of each pair of elements, shapes broadcast."""
    with np.errstate(all="ignore"):
        if a.dtype == np.float16:
            result = BINARY[name](a.astype(np.float32), b.astype(np.float32))
            return result.astype(np.float16) if result.dtype == np.float32 else result
        return np.asarray(BINARY[name](a, b))


def fold(name: str, x: Array, count: int) -> Array:
    """RED: the last `count` axes reduced, the elements taken in row-major order."""
    flat = np.ascontiguousarray(x).reshape(*x.shape[: x.ndim - count], -1)
    with np.errstate(all="ignore"):
        if x.dtype == np.float16:
            return FOLD[name](flat.astype(np.float32)).astype(np.int64 if name.startswith("arg") else np.float16)
        return FOLD[name](flat)


def convert(x: Array, dtype: npt.DTypeLike) -> Array:
    """CVT: to another element type; floats to integers cut toward zero, integers wrap, anything but 0 is true."""
    kind = np.dtype(dtype)
    with np.errstate(all="ignore"):
        if x.dtype.kind == "f" and kind.kind in "iu":
            whole = np.trunc(np.where(np.isfinite(x), x, 0).astype(np.float64))
            return np.clip(whole, -(2.0**63), 2.0**63 - 1024).astype(np.int64).astype(kind)
        return x.astype(kind)


def _tree(join: Binary, empty: float) -> Unary:
    """A pairwise tree over the next power of two, as the adders are wired."""

    def run(x: Array) -> Array:
        size = 1 << max(x.shape[-1] - 1, 0).bit_length()
        padded = np.full((*x.shape[:-1], size), empty, x.dtype)
        padded[..., : x.shape[-1]] = x
        while padded.shape[-1] > 1:
            padded = join(padded[..., 0::2], padded[..., 1::2])
        return padded[..., 0]

    return run


def _sum(x: Array) -> Array:
    return _ADD(x) if x.dtype.kind == "f" else x.sum(axis=-1, dtype=x.dtype)


def _product(x: Array) -> Array:
    return _TIMES(x) if x.dtype.kind == "f" else x.prod(axis=-1, dtype=x.dtype)


def _last(pick: Callable[..., Any]) -> Unary:
    return lambda x: np.asarray(x.shape[-1] - 1 - pick(x[..., ::-1], axis=-1), np.int64)


def _first(pick: Callable[..., Any]) -> Unary:
    return lambda x: np.asarray(pick(x, axis=-1), np.int64)


_ADD, _TIMES = _tree(np.add, 0.0), _tree(np.multiply, 1.0)


def _mean(x: Array) -> Array:
    total = _sum(x)
    return total / x.dtype.type(x.shape[-1]) if x.dtype.kind == "f" else divide(total, np.asarray(x.shape[-1], x.dtype))


def divide(a: Array, b: Array) -> Array:
    """A / b; integers toward zero, and 0 for a division by 0."""
    if a.dtype.kind == "f":
        return a / b
    safe = np.where(b == 0, np.ones_like(b), b)
    quotient = np.floor_divide(a, safe)
    toward = quotient + ((np.remainder(a, safe) != 0) & ((a < 0) != (safe < 0))).astype(a.dtype)
    return np.where(b == 0, np.zeros_like(toward), toward).astype(a.dtype)


def _modulo(a: Array, b: Array) -> Array:
    return np.mod(a, b) if a.dtype.kind == "f" else np.mod(a, np.where(b == 0, np.ones_like(b), b))


def _power(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return real.power(a, b)
    if b.dtype.kind == "f":
        return convert(real.power(a.astype(np.float64), b.astype(np.float64)), a.dtype)
    return np.power(a, np.maximum(b, 0).astype(a.dtype)).astype(a.dtype)


def _larger(a: Array, b: Array) -> Array:
    return np.maximum(a, b)  # NaN where either is


def _shift(a: Array, b: Array, *, left: bool) -> Array:
    wide = b >= a.dtype.itemsize * 8
    count = np.where(wide, np.zeros_like(b), b)
    moved = np.left_shift(a, count) if left else np.right_shift(a, count)
    signed = a.dtype.kind == "i" and not left
    empty = np.where(a < 0, -np.ones_like(a), np.zeros_like(a)) if signed else np.zeros_like(a)
    return np.where(wide, empty, moved).astype(a.dtype)


def _bool(x: Array) -> Array:
    return x.astype(np.bool_)


def _sign(x: Array) -> Array:
    return np.sign(x)


UNARY: Mapping[str, Unary] = {
    "copy": lambda x: x, "neg": np.negative, "abs": np.abs, "relu": lambda x: np.maximum(x, x.dtype.type(0)),
    "exp": real.exp, "log": real.log, "sqrt": np.sqrt, "reciprocal": lambda x: x.dtype.type(1) / x,
    "tanh": real.tanh, "sigmoid": real.sigmoid, "erf": real.erf, "sin": real.sin, "cos": real.cos, "tan": real.tan,
    "sinh": real.sinh, "cosh": real.cosh, "asin": real.asin, "acos": real.acos, "atan": real.atan,
    "asinh": real.asinh, "acosh": real.acosh, "atanh": real.atanh, "softplus": real.softplus,
    "floor": np.floor, "ceil": np.ceil, "round": np.rint, "trunc": np.trunc, "sign": _sign,
    "not": lambda x: ~_bool(x), "invert": np.invert,
    "isnan": np.isnan, "isinf": np.isinf, "isposinf": np.isposinf, "isneginf": np.isneginf,
}  # fmt: skip
BINARY: Mapping[str, Binary] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": divide, "max": _larger, "min": np.minimum,
    "pow": _power, "mod": _modulo, "fmod": np.fmod, "prelu": lambda a, b: np.where(a < 0, a * b, a),
    "equal": np.equal, "less": np.less, "greater": np.greater,
    "less_equal": np.less_equal, "greater_equal": np.greater_equal,
    "and": lambda a, b: _bool(a) & _bool(b), "or": lambda a, b: _bool(a) | _bool(b),
    "xor": lambda a, b: _bool(a) ^ _bool(b),
    "bit_and": np.bitwise_and, "bit_or": np.bitwise_or, "bit_xor": np.bitwise_xor,
    "shift_left": lambda a, b: _shift(a, b, left=True), "shift_right": lambda a, b: _shift(a, b, left=False),
}  # fmt: skip
FOLD: Mapping[str, Unary] = {
    "sum": _sum, "prod": _product, "mean": _mean,
    "max": lambda x: np.asarray(x.max(axis=-1)), "min": lambda x: np.asarray(x.min(axis=-1)),
    "argmax": _first(np.argmax), "argmin": _first(np.argmin), "argmax_last": _last(np.argmax),
    "argmin_last": _last(np.argmin),
    "any": lambda x: np.asarray(x.any(axis=-1)), "all": lambda x: np.asarray(x.all(axis=-1)),
}  # fmt: skip
TRUTH = frozenset(
    (
        "not", "isnan", "isinf", "isposinf", "isneginf", "equal", "less", "greater", "less_equal", "greater_equal",
        "and", "or", "xor", "any", "all",
    )
)  # fmt: skip  # functions whose results are truth values
FUNCTIONS: tuple[str, ...] = tuple(dict.fromkeys((*UNARY, *BINARY, *FOLD)))


def result_dtype(name: str, dtype: str) -> str:
    """The element type of a function's results for operands of `dtype`."""
    return "bool" if name in TRUTH else "i64" if name.startswith("arg") else dtype


def dot(a: Array, b: Array, to: npt.DTypeLike | None = None) -> Array:
    """Sum over k of a[.., m, k] * b[.., k, n], exact and rounded once to the operands' float type, or to `to`.

    A float64 product decides all elements whose rounding its error bound cannot change; the others are summed exactly.
    """
    kind = a.dtype if to is None else np.dtype(to)
    with np.errstate(all="ignore"):
        wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
        total = wide_a @ wide_b
        sizes = np.sqrt((wide_a**2).sum(-1, keepdims=True)) * np.sqrt((wide_b**2).sum(-2, keepdims=True))
        slack = sizes * (SURE * max(a.shape[-1], 1))  # by Cauchy and Schwarz, no product of magnitudes is needed
        if kind == np.float64:
            return _dot_wide(a, b, total)
        result = total.astype(kind)
        unsure = np.isfinite(total) & ((total - slack).astype(kind) != (total + slack).astype(kind))
    for index in np.argwhere(unsure):
        *lead, m, n = (int(i) for i in index)
        row, column = wide_a[(*_at(lead, wide_a), m)], wide_b[(*_at(lead, wide_b), slice(None), n)]
        result[(*lead, m, n)] = exact_sum(row * column)
    return result


def _dot_wide(a: Array, b: Array, total: Array) -> Array:
    """float64 operands: each product as two numbers, so that the sum is exact; few programs have them."""
    for index in np.argwhere(np.isfinite(total)):
        *lead, m, n = (int(i) for i in index)
        total[(*lead, m, n)] = exact_sum(terms(a[(*_at(lead, a), m)], b[(*_at(lead, b), slice(None), n)]))
    return total


def terms(a: Array, b: Array) -> Array:
    """float64 numbers whose sum is sum(a * b) exactly (barring overflow): products, of float64 with their errors."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    products = x * y
    if a.dtype != np.float64:
        return products
    (xh, xl), (yh, yl) = _halves(x), _halves(y)
    return np.concatenate([products, ((xh * yh - products) + xh * yl + xl * yh) + xl * yl])


def _halves(x: Array) -> tuple[Array, Array]:
    """Veltkamp's split: x = high + low, products of halves exact."""
    big = x * 134217729.0
    high = big - (big - x)
    return high, x - high


def _at(lead: Sequence[int], array: Array) -> tuple[int, ...]:
    """The index of the leading dimensions into an operand that may repeat along them."""
    sizes = array.shape[:-2]
    return tuple(0 if size == 1 else i for i, size in zip(lead[len(lead) - len(sizes) :], sizes, strict=True))


def exact_sum(terms: Array) -> float:
    """The sum of float64 numbers, rounded once."""
    return fsum(terms.tolist())
