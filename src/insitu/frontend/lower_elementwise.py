"""Elementwise operators and reductions of ONNX as curves, sums and products."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from insitu.frontend.call import Call, need
from insitu.frontend.fold import axes_of

FLOATS = (1, 10, 11, 16)  # ONNX's float element types
FARTHEST = 1e9  # what stands for minus infinity in a mask


def _curve(text: str) -> Callable[[Call], None]:
    return lambda call: call.curve(text)


def _with(rule: Callable[[Callable[[str, float], str]], str]) -> Callable[[Call], None]:
    """A curve whose numbers are attributes."""

    def run(call: Call) -> None:
        call.curve(rule(lambda name, default: repr(float(call.attrs.get(name, default)))))

    return run


def _gelu(call: Call) -> None:
    if call.attrs.get("approximate", "none") == "tanh":
        inner = "mul 0.7978845608028654 add x mul 0.044715 mul x mul x x"
        return call.curve(f"mul mul 0.5 x add 1.0 tanh {inner}")
    return call.curve("mul mul 0.5 x add 1.0 erf mul x 0.7071067811865476")


def _prelu(call: Call) -> None:
    slope = call.constant(1)
    need(slope is not None)
    assert slope is not None
    if slope.size == 1 or np.all(slope == slope.flat[0]):
        return call.curve(f"add max x 0.0 mul {float(slope.flat[0])!r} min x 0.0")
    rank = len(call.shape())
    if call.opset < 7 and slope.ndim == 1 and rank > 1:
        slope = slope.reshape(-1, *(1,) * (rank - 2))
    x = call.node.inputs[0]
    below = call.helper("Clip", [x], {"lo": -np.inf, "hi": 0.0})
    scaled = call.helper("Mul", [below, call.table("slope", slope.astype(np.float32))])
    return call.write(op="Add", inputs=[call.helper("Relu", [x]), scaled])


def _single(call: Call, index: int) -> float | None:
    constant = call.constant(index)
    return float(constant.reshape(())) if constant is not None and constant.size == 1 else None


def _pow(call: Call) -> None:
    base, exponent = _single(call, 0), _single(call, 1)
    if exponent is not None and call.constant(0) is None:
        return call.curve(f"pow x {exponent!r}" if exponent != 2.0 else "mul x x")
    need(base is not None and call.constant(1) is None)
    return call.curve(f"pow {base!r} x", call.node.inputs[1])


def _div(call: Call) -> None:
    a, b = call.node.inputs[:2]
    inverse = call.curved("reciprocal x", b)
    return call.write(op="Mul", inputs=[inverse, a] if a in call.builder.constants else [a, inverse])


def _bounded(op: str) -> Callable[[Call], None]:
    def run(call: Call) -> None:
        names = [v for v in call.node.inputs if v]
        value = names[0] if names[0] not in call.builder.constants else names[-1]
        rest = [v for v in names if v != value] or [value]
        for other in rest[:-1]:
            value = _farther(call, op, value, other, last=False)
        _farther(call, op, value, rest[-1], last=True)

    return run


def _farther(call: Call, op: str, a: str, b: str, *, last: bool) -> str:
    """The larger (or smaller) of two values: a + max(b - a, 0), or a - max(a - b, 0); a bound where b is a number."""
    write = call.write if last else None
    constant = call.builder.constants.get(b)
    if constant is not None and constant.size == 1 and constant.ndim <= len(call.builder.types[a].shape):
        number = float(constant.reshape(()))
        attrs = {"lo": number, "hi": np.inf} if op == "Max" else {"lo": -np.inf, "hi": number}
        return _end(call, write, "Clip", [a], attrs)
    first, second = (b, a) if op == "Max" else (a, b)
    more = call.helper("Relu", [_difference(call, first, second)])
    return _end(call, write, "Add" if op == "Max" else "Sub", [a, more], {})


def _end(call: Call, write: object, op: str, inputs: Sequence[str], attrs: dict[str, float]) -> str:
    if write is None:
        return call.helper(op, inputs, dict(attrs))
    call.write(dict(attrs), op=op, inputs=inputs)
    return ""


def _difference(call: Call, a: str, b: str) -> str:
    return call.helper("Sub", [a, b])


def _sum(call: Call) -> None:
    names = sorted((v for v in call.node.inputs if v), key=lambda v: v in call.builder.constants)
    total = names[0]
    for value in names[1:]:
        total = call.helper("Add", [total, value])
    if call.node.op == "Mean":
        return call.write(op="Mul", inputs=[total, call.number(1 / len(names))])
    return call.write({"shape": call.builder.types[total].shape}, op="Reshape", inputs=[total])


MIRRORED = {"less": "greater", "greater": "less", "less_equal": "greater_equal", "greater_equal": "less_equal",
            "equal": "equal"}  # fmt: skip


def _compare(name: str) -> Callable[[Call], None]:
    def run(call: Call) -> None:
        a, b = call.node.inputs[:2]
        if (number := _single(call, 1)) is not None and a not in call.builder.constants:
            return call.curve(f"{name} x {number!r}")
        if (number := _single(call, 0)) is not None and b not in call.builder.constants:
            return call.curve(f"{MIRRORED[name]} x {number!r}", b)
        return call.curve(f"{name} x 0.0", _difference(call, a, b))

    return run


def _and(call: Call) -> None:
    a, b = call.node.inputs[:2]
    call.write(op="Mul", inputs=[b, a] if a in call.builder.constants else [a, b])


def _or(call: Call) -> None:
    a, b = call.node.inputs[:2]
    total = call.helper("Add", [b, a] if a in call.builder.constants else [a, b])
    call.write({"lo": 0.0, "hi": 1.0}, op="Clip", inputs=[total])


def _xor(call: Call) -> None:
    call.curve("abs x", _difference(call, *call.node.inputs[:2]))


def _where(call: Call) -> None:
    """Choice * a + (1 - choice) * b; where the choice is known, with constants."""
    choice, a, b = call.node.inputs[:3]
    known = call.constant(0)
    if known is not None:
        truth = known.astype(bool)
        first, second = (_part(call, v, mask) for v, mask in ((a, truth), (b, ~truth)))
    else:
        first = _product(call, choice, a)
        second = _product(call, call.helper("Sub", [call.number(1.0), choice]), b)
    names = [second, first] if first in call.builder.constants else [first, second]
    call.write(op="Add", inputs=names)


def _part(call: Call, value: str, mask: np.ndarray) -> str:  # type: ignore[type-arg]
    constant = call.builder.constants.get(value)
    if constant is not None:
        finite = np.nan_to_num(constant.astype(np.float32), posinf=FARTHEST, neginf=-FARTHEST)
        return call.table("part", np.where(mask, np.clip(finite, -FARTHEST, FARTHEST), 0).astype(np.float32))
    return call.helper("Mul", [value, call.table("choice", mask.astype(np.float32))])


def _product(call: Call, choice: str, value: str) -> str:
    constant = call.builder.constants.get(value)
    if constant is not None:
        value = _part(call, value, np.ones((), bool))
        if not call.builder.constants[value].any():
            return call.table("none", np.zeros(1, np.float32))
    return call.helper("Mul", [choice, value])


def _cast(call: Call) -> None:
    """Numbers stay numbers; a float that becomes an integer loses its fraction."""
    to, source = int(call.attrs["to"]), int(call.attrs.get("#element", 1))
    need(to != 8 and source != 8)
    if to in FLOATS or source not in FLOATS:
        return call.write({"shape": call.shape()}, op="Reshape")
    return call.curve("sub 1.0 equal x 0.0" if to == 9 else "mul sign x floor abs x")


# reductions


def _axes(call: Call) -> tuple[int, ...] | None:
    given = axes_of(call.constants(), call.attrs)
    need(not (len(call.node.inputs) > 1 and call.node.inputs[1] and call.constant(1) is None))
    if not given and call.attrs.get("noop_with_empty_axes", 0):
        return None
    rank = len(call.shape())
    return tuple(sorted({call.axis(a) for a in given})) if given else tuple(range(rank))


def _reduce(op: str, before: str = "", after: str = "") -> Callable[[Call], None]:
    """A reduction, with a curve of each element before and of the result behind it."""

    def run(call: Call) -> None:
        axes, x = _axes(call), call.node.inputs[0]
        x = call.curved(before, x) if before else x
        if axes is None or not axes:
            return call.curve(after, x) if after else call.write({"shape": call.shape()}, op="Reshape", inputs=[x])
        attrs = {"axes": axes, "keepdims": int(call.attrs.get("keepdims", 1))}
        if not after:
            return call.write(attrs, op=op, inputs=[x])
        return call.curve(after, call.helper(op, [x], attrs))

    return run


ELEMENTWISE: dict[str, Callable[[Call], None]] = {
    **{op: _curve(f"{op.lower()} x") for op in (
        "Neg", "Abs", "Exp", "Log", "Sqrt", "Reciprocal", "Sigmoid", "Tanh", "Erf", "Softplus", "Sin", "Cos", "Tan",
        "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Floor", "Ceil", "Round", "Sign",
    )},
    "LeakyRelu": _with(lambda a: f"add max x 0.0 mul {a('alpha', 0.01)} min x 0.0"),
    "HardSigmoid": _with(lambda a: f"max 0.0 min 1.0 add {a('beta', 0.5)} mul {a('alpha', 0.2)} x"),
    "HardSwish": _curve("mul x max 0.0 min 1.0 add 0.5 div x 6.0"),
    "Elu": _with(lambda a: f"add max x 0.0 mul {a('alpha', 1.0)} sub exp min x 0.0 1.0"),
    "Celu": _with(lambda a: f"add max x 0.0 mul {a('alpha', 1.0)} sub exp div min x 0.0 {a('alpha', 1.0)} 1.0"),
    "Selu": _with(lambda a: f"mul {a('gamma', 1.0507009873554805)} add max x 0.0 "
                            f"mul {a('alpha', 1.6732632423543772)} sub exp min x 0.0 1.0"),
    "Softsign": _curve("div x add 1.0 abs x"), "Mish": _curve("mul x tanh softplus x"),
    "Swish": _with(lambda a: f"mul x sigmoid mul {a('alpha', 1.0)} x"), "Gelu": _gelu,
    "FastGelu": _curve("mul mul 0.5 x add 1.0 tanh mul 0.7978845608028654 add x mul 0.044715 mul x mul x x"),
    "QuickGelu": _with(lambda a: f"mul x sigmoid mul {a('alpha', 1.702)} x"),
    "ThresholdedRelu": _with(lambda a: f"mul x greater x {a('alpha', 1.0)}"),
    "Shrink": _with(lambda a: f"add mul less x neg {a('lambd', 0.5)} add x {a('bias', 0.0)} "
                              f"mul greater x {a('lambd', 0.5)} sub x {a('bias', 0.0)}"),
    "Not": _curve("sub 1.0 x"), "PRelu": _prelu, "Pow": _pow, "Min": _bounded("Min"), "Max": _bounded("Max"),
    "Sum": _sum, "Mean": _sum, "And": _and, "Or": _or, "Xor": _xor, "Where": _where, "Cast": _cast,
    "Less": _compare("less"), "Greater": _compare("greater"), "Equal": _compare("equal"),
    "LessOrEqual": _compare("less_equal"), "GreaterOrEqual": _compare("greater_equal"),
    "ReduceSum": _reduce("ReduceSum"), "ReduceMax": _reduce("ReduceMax"),
    "ReduceMin": _reduce("ReduceMax", "neg x", "neg x"), "ReduceL1": _reduce("ReduceSum", "abs x"),
    "ReduceL2": _reduce("ReduceSum", "mul x x", "sqrt x"), "ReduceSumSquare": _reduce("ReduceSum", "mul x x"),
    "ReduceLogSum": _reduce("ReduceSum", "", "log x"),
}  # fmt: skip
divided = _div
