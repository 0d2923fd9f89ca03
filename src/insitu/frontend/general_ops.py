"""ONNX operators as operators of the vector unit: elementwise, reductions, moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.frontend.net import Net

Array = npt.NDArray[Any]
TYPES = {1: "f32", 2: "u8", 3: "i8", 4: "u16", 5: "i16", 6: "i32", 7: "i64", 9: "bool", 10: "f16", 11: "f64", 12: "u32",
         13: "u64"}  # fmt: skip


class UnloweredError(Exception):
    """This operator, used like this, has no lowering."""


@dataclass(frozen=True)
class Op:
    """One ONNX node: its inputs as values ("" where absent) and its attributes."""

    net: Net
    inputs: tuple[str, ...]
    attrs: dict[str, Any]
    opset: int
    outputs: int

    def has(self, index: int) -> bool:
        """Whether an input is given."""
        return index < len(self.inputs) and bool(self.inputs[index])

    def x(self, index: int = 0) -> str:
        """An input that has to be there."""
        if not self.has(index):
            raise UnloweredError
        return self.inputs[index]

    def shape(self, index: int = 0) -> tuple[int, ...]:
        """The sizes of an input."""
        return self.net.shape(self.x(index))

    @property
    def rank(self) -> int:
        """The rank of the first input."""
        return len(self.shape())

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self.attrs.get(name, default)

    def const(self, index: int) -> Array | None:
        """An input's constant; none where it is absent."""
        if not self.has(index):
            return None
        value = self.net.known(self.x(index))
        if value is None:
            raise UnloweredError
        return value

    def ints(self, index: int, name: str = "") -> list[int] | None:
        """A list of integers given as a constant input or an attribute."""
        value = self.const(index)
        if value is None:
            given = self.attr(name) if name else None
            return None if given is None else [int(v) for v in np.asarray(given).reshape(-1)]
        return [int(v) for v in value.reshape(-1)]

    def axis(self, default: int | None = None, name: str = "axis") -> int:
        """The attribute axis, from the front."""
        axis = self.attr(name, default)
        if axis is None or not -self.rank <= axis < max(self.rank, 1):
            raise UnloweredError
        return axis % max(self.rank, 1)

    def floats(self) -> None:
        """Refuse what is not a float."""
        if not self.net.dtype(self.x()).startswith("f"):
            raise UnloweredError


Rule = Callable[[Op], "str | list[str]"]


def _v1(fn: str) -> Rule:
    return lambda op: op.net.v1(fn, op.x())


def _v2(fn: str) -> Rule:
    def run(op: Op) -> str:
        a, b = op.x(0), op.x(1)
        if op.opset < 7 and op.attr("broadcast", 0):  # the second operand lines up at `axis`
            start = op.attr("axis", op.rank - len(op.shape(1)))
            b = op.net.reshape(b, (*op.shape(1), *(1,) * (op.rank - start % max(op.rank, 1) - len(op.shape(1)))))
        return op.net.v2(fn, a, b)

    return run


def _variadic(fn: str) -> Rule:
    def run(op: Op) -> str:
        total = op.x()
        for index in range(1, len(op.inputs)):
            total = op.net.v2(fn, total, op.x(index))
        return total

    return run


def _mean(op: Op) -> str:
    total = _variadic("add")(op)
    assert isinstance(total, str)
    return op.net.v2n("div", total, len(op.inputs))


def _mod(op: Op) -> str:
    return op.net.v2("fmod" if op.attr("fmod", 0) else "mod", op.x(), op.x(1))


def _pow(op: Op) -> str:
    a, b = op.x(), op.x(1)
    return op.net.v2("pow", a, b)


def _clip(op: Op) -> str:
    x = op.x()
    low = op.x(1) if op.has(1) else op.net.like(op.attr("min"), x) if "min" in op.attrs else ""
    high = op.x(2) if op.has(2) else op.net.like(op.attr("max"), x) if "max" in op.attrs else ""
    x = op.net.v2("max", x, low) if low else x
    return op.net.v2("min", x, high) if high else x


def _where(op: Op) -> str:
    return op.net.select(op.x(), op.x(1), op.x(2))


def _leaky(op: Op) -> str:
    return op.net.v2n("prelu", op.x(), op.attr("alpha", 0.01))


def _prelu(op: Op) -> str:
    slope = op.x(1)
    if op.opset < 7 and len(op.shape(1)) == 1 and op.rank > 1:
        slope = op.net.reshape(slope, (op.shape(1)[0], *(1,) * (op.rank - 2)))
    return op.net.v2("prelu", op.x(), slope)


def _exp_minus_one(op: Op, x: str) -> str:
    return op.net.v2n("sub", op.net.v1("exp", x), 1.0)


def _elu(op: Op) -> str:
    net, x = op.net, op.x()
    low = net.v2n("mul", _exp_minus_one(op, net.v2n("min", x, 0.0)), op.attr("alpha", 1.0))
    return net.select(net.v2n("greater", x, 0.0), x, low)


def _selu(op: Op) -> str:
    net, x = op.net, op.x()
    low = net.v2n("mul", _exp_minus_one(op, net.v2n("min", x, 0.0)), op.attr("alpha", 1.6732632423543772))
    return net.v2n("mul", net.select(net.v2n("greater", x, 0.0), x, low), op.attr("gamma", 1.0507009873554805))


def _celu(op: Op) -> str:
    net, x, alpha = op.net, op.x(), op.attr("alpha", 1.0)
    low = net.v2n("mul", _exp_minus_one(op, net.v2n("div", net.v2n("min", x, 0.0), alpha)), alpha)
    return net.v2("add", net.v2n("max", x, 0.0), low)


def _hard_sigmoid(op: Op, alpha: float = 0.2, beta: float = 0.5) -> str:
    net = op.net
    y = net.v2n("add", net.v2n("mul", op.x(), op.attr("alpha", alpha)), op.attr("beta", beta))
    return net.v2n("min", net.v2n("max", y, 0.0), 1.0)


def _hard_swish(op: Op) -> str:
    return op.net.v2("mul", op.x(), _hard_sigmoid(op, 1 / 6, 0.5))


def _swish(op: Op) -> str:
    return op.net.v2("mul", op.x(), op.net.v1("sigmoid", op.net.v2n("mul", op.x(), op.attr("alpha", 1.0))))


def _mish(op: Op) -> str:
    return op.net.v2("mul", op.x(), op.net.v1("tanh", op.net.v1("softplus", op.x())))


def _softsign(op: Op) -> str:
    return op.net.v2("div", op.x(), op.net.v2n("add", op.net.v1("abs", op.x()), 1.0))


def _gelu(op: Op) -> str:
    net, x = op.net, op.x()
    half = net.v2n("mul", x, 0.5)
    if op.attr("approximate", "none") in ("tanh", b"tanh"):
        cube = net.v2("mul", net.v2("mul", x, x), x)
        inner = net.v2n("mul", net.v2("add", x, net.v2n("mul", cube, 0.044715)), 0.7978845608028654)
        return net.v2("mul", half, net.v2n("add", net.v1("tanh", inner), 1.0))
    return net.v2("mul", half, net.v2n("add", net.v1("erf", net.v2n("mul", x, 0.7071067811865476)), 1.0))


def _thresholded(op: Op) -> str:
    net, x = op.net, op.x()
    return net.select(net.v2n("greater", x, op.attr("alpha", 1.0)), x, net.like(0, x))


def _shrink(op: Op) -> str:
    net, x, lambd, bias = op.net, op.x(), op.attr("lambd", 0.5), op.attr("bias", 0.0)
    zero = net.like(0, x)
    high = net.select(net.v2n("greater", x, lambd), net.v2n("sub", x, bias), zero)
    return net.select(net.v2n("less", x, -lambd), net.v2n("add", x, bias), high)


def _is_inf(op: Op) -> str:
    up, down = op.attr("detect_positive", 1), op.attr("detect_negative", 1)
    if not up and not down:
        return op.net.expand(op.net.constant(np.array(False)), op.shape())
    return op.net.v1("isinf" if up and down else "isposinf" if up else "isneginf", op.x())


def _bit_shift(op: Op) -> str:
    left = op.attr("direction") in ("LEFT", b"LEFT")
    return op.net.v2("shift_left" if left else "shift_right", op.x(), op.x(1))


def _cast(op: Op) -> str:
    to = TYPES.get(int(op.attr("to")))
    if to is None:
        raise UnloweredError
    return _converted(op, to)


def _converted(op: Op, to: str) -> str:
    """A conversion whose result does not hang on how a machine saturates."""
    return op.net.add("Copy", [op.x()]) if op.net.dtype(op.x()) == to else op.net.cast(op.x(), to)


def _cast_like(op: Op) -> str:
    return _converted(op, op.net.dtype(op.x(1)))


def _softmax(op: Op, *, log: bool = False) -> str:
    net, x = op.net, op.x()
    shape = op.shape()
    if op.opset < 13:  # all axes from here on, as one
        axis = op.attr("axis", 1) % max(op.rank, 1)
        x, last = net.reshape(x, (prod(shape[:axis]), prod(shape[axis:]))), 1
    else:
        last = op.axis(-1)
    centred = net.v2("sub", x, net.reduce("max", x, [last]))
    e = net.v1("exp", centred)
    total = net.reduce("sum", e, [last])
    y = net.v2("sub", centred, net.v1("log", total)) if log else net.v2("div", e, total)
    return net.reshape(y, shape)


def _hardmax(op: Op) -> str:
    net, x = op.net, op.x()
    if op.opset < 13:
        raise UnloweredError
    axis = op.axis(-1)
    first = net.reduce("argmax", x, [axis])
    place = net.constant(np.arange(op.shape()[axis]).reshape([-1 if i == axis else 1 for i in range(op.rank)]))
    return net.cast(net.v2("equal", first, place), net.dtype(x))


# reductions


def _axes(op: Op) -> list[int] | None:
    """The axes to reduce; none: leave everything as it is."""
    given = op.ints(1, "axes")
    if not given:
        return None if op.attr("noop_with_empty_axes", 0) else list(range(op.rank))
    return given


def _reduce(fn: str, before: str = "", after: str = "") -> Rule:
    def run(op: Op) -> str:
        net, x, axes = op.net, op.x(), _axes(op)
        if before == "square":
            x = net.v2("mul", x, x)
        elif before:
            x = net.v1(before, x)
        if fn in ("max", "min") and net.dtype(x) == "bool":
            x = net.reduce("any" if fn == "max" else "all", x, axes or [], keep=bool(op.attr("keepdims", 1)))
        elif axes is not None:
            x = net.reduce(fn, x, axes, keep=bool(op.attr("keepdims", 1)))
        if after and net.dtype(x)[0] != "f":
            raise UnloweredError
        return net.v1(after, x) if after else x

    return run


def _log_sum_exp(op: Op) -> str:
    net, x, axes, keep = op.net, op.x(), _axes(op), bool(op.attr("keepdims", 1))
    op.floats()
    if axes is None:
        return x
    top = net.reduce("max", x, axes)
    total = net.reduce("sum", net.v1("exp", net.v2("sub", x, top)), axes)
    y = net.v2("add", net.v1("log", total), top)
    return y if keep else net.squeeze(y, axes)


def _arg(fn: str) -> Rule:
    def run(op: Op) -> str:
        name = f"{fn}_last" if op.attr("select_last_index", 0) else fn
        return op.net.reduce(name, op.x(), [op.axis(0)], keep=bool(op.attr("keepdims", 1)))

    return run


LOWERINGS: dict[str, Rule] = {
    **{name: _v1(fn) for name, fn in {
        "Neg": "neg", "Abs": "abs", "Relu": "relu", "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Tanh": "tanh",
        "Reciprocal": "reciprocal", "Sigmoid": "sigmoid", "Erf": "erf", "Sin": "sin", "Cos": "cos", "Tan": "tan",
        "Sinh": "sinh", "Cosh": "cosh", "Asin": "asin", "Acos": "acos", "Atan": "atan", "Asinh": "asinh",
        "Acosh": "acosh", "Atanh": "atanh", "Softplus": "softplus", "Floor": "floor", "Ceil": "ceil",
        "Round": "round", "Sign": "sign", "Not": "not", "BitwiseNot": "invert", "IsNaN": "isnan",
    }.items()},
    **{name: _v2(fn) for name, fn in {
        "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Equal": "equal", "Less": "less", "Greater": "greater",
        "LessOrEqual": "less_equal", "GreaterOrEqual": "greater_equal", "And": "and", "Or": "or", "Xor": "xor",
        "BitwiseAnd": "bit_and", "BitwiseOr": "bit_or", "BitwiseXor": "bit_xor",
    }.items()},
    "Max": _variadic("max"), "Min": _variadic("min"), "Sum": _variadic("add"), "Mean": _mean, "Mod": _mod, "Pow": _pow,
    "Clip": _clip, "Where": _where, "LeakyRelu": _leaky, "PRelu": _prelu, "Elu": _elu, "Selu": _selu, "Celu": _celu,
    "HardSigmoid": _hard_sigmoid, "HardSwish": _hard_swish, "Swish": _swish, "Mish": _mish, "Softsign": _softsign,
    "Gelu": _gelu, "ThresholdedRelu": _thresholded, "Shrink": _shrink, "IsInf": _is_inf, "BitShift": _bit_shift,
    "Cast": _cast, "CastLike": _cast_like, "Softmax": _softmax, "LogSoftmax": lambda op: _softmax(op, log=True),
    "Hardmax": _hardmax,
    "ReduceSum": _reduce("sum"), "ReduceMean": _reduce("mean"), "ReduceProd": _reduce("prod"),
    "ReduceMax": _reduce("max"), "ReduceMin": _reduce("min"), "ReduceL1": _reduce("sum", "abs"),
    "ReduceL2": _reduce("sum", "square", "sqrt"), "ReduceSumSquare": _reduce("sum", "square"),
    "ReduceLogSum": _reduce("sum", "", "log"), "ReduceLogSumExp": _log_sum_exp,
    "ArgMax": _arg("argmax"), "ArgMin": _arg("argmin"),
}  # fmt: skip
