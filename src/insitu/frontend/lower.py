"""One ONNX operator of any opset -> our nodes: arguments as attributes, sizes resolved, one form per meaning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from insitu.frontend.call import Attrs, Call
from insitu.frontend.fold import axes_of, ints, slice_arguments
from insitu.frontend.lower_moves import padded
from insitu.frontend.windows import conv, global_max, pool
from insitu.graph.ops.shapes import resolve_reshape, slice_bounds, text


def variant_fault(op: str, attrs: Attrs, static: Sequence[bool]) -> str:
    """Why a supported operator is used in a way that is not supported; "" where it is fine."""
    rule = VARIANTS.get(op)
    return rule(attrs, static) if rule else ""


def _weights_fault(attrs: Attrs, static: Sequence[bool]) -> str:
    return "" if all(static[1:]) else "weights that are not constants"


VARIANTS: dict[str, Callable[[Attrs, Sequence[bool]], str]] = {
    "Conv": _weights_fault,
    "BatchNormalization": lambda a, s: "training_mode" if a.get("training_mode", 0) else _weights_fault(a, s),
    "Pad": _weights_fault,
    "Div": lambda a, s: "" if s[-1] else "a divisor that is not constant",
    "MaxPool": lambda a, s: "storage_order" if a.get("storage_order", 0) else "",
    "Reshape": _weights_fault, "Slice": _weights_fault, "Clip": _weights_fault, "ReduceMean": _weights_fault,
    "Squeeze": _weights_fault, "Unsqueeze": _weights_fault,
}  # fmt: skip


# products


def _gemm(call: Call) -> None:
    if call.attrs.get("transA", 0):
        turned = call.turned(call.node.inputs[0], (1, 0))
        inner = replace(call.node, inputs=(turned, *call.node.inputs[1:]))
        return _gemm(replace(call, node=inner, attrs={k: v for k, v in call.attrs.items() if k != "transA"}))
    alpha, beta = float(call.attrs.get("alpha", 1.0)), float(call.attrs.get("beta", 1.0))
    transposed = int(call.attrs.get("transB", 0))
    fixed = call.constant(1) is not None and (not call.has(2) or call.constant(2) is not None)
    if fixed:
        names = [v for v in call.node.inputs[:3] if v]
        return call.write({"alpha": alpha, "beta": beta, "transB": transposed}, inputs=names)
    right = call.helper("Transpose", [call.node.inputs[1]], {"perm": (1, 0)}) if transposed else call.node.inputs[1]
    if call.constant(1) is not None and transposed:
        right = call.table("weight", np.ascontiguousarray(call.builder.constants[call.node.inputs[1]].T))
    value = call.helper("MatMul", [call.node.inputs[0], right])
    if alpha != 1.0 or not call.has(2):
        value = call.helper("Mul", [value, call.table("alpha", np.full(1, alpha, np.float32))])
    if not call.has(2):
        return call.write({"shape": call.builder.types[value].shape}, op="Reshape", inputs=[value])
    addend = call.node.inputs[2]
    if beta != 1.0:
        addend = call.helper("Mul", [addend, call.table("beta", np.full(1, beta, np.float32))])
    return call.write(op="Add", inputs=[value, addend])


def _matmul(call: Call) -> None:
    call.write(inputs=call.node.inputs[:2])


def _batch_norm(call: Call) -> None:
    if len(call.node.inputs) != 5:
        raise call.fault(f"{len(call.node.inputs)} inputs", "5 (input, scale, bias, mean, variance)")
    epsilon, variance = float(call.attrs.get("epsilon", 1e-5)), call.constant(4)
    if variance is not None and np.any(variance <= -epsilon):
        raise call.fault(f"variances with epsilon = {epsilon:g} that are not positive", "positive variances")
    call.write({"epsilon": epsilon}, inputs=call.node.inputs)


# elementwise


FARTHEST = 1e9  # what stands for infinity in a mask that is added


def _commutative(call: Call) -> None:
    """Add and Mul, a constant operand second."""
    a, b = call.node.inputs[:2]
    a, b = (b, a) if a in call.builder.constants else (a, b)
    constant = call.builder.constants.get(b)
    if call.node.op == "Add" and constant is not None and constant.size and np.isinf(constant).any():
        b = call.table("mask", np.nan_to_num(constant, nan=np.nan, posinf=FARTHEST, neginf=-FARTHEST))
    call.write(inputs=(a, b))


def _sub(call: Call) -> None:
    a, b = call.node.inputs[:2]
    constant = call.constant(1)
    if constant is not None:
        return call.write(op="Add", inputs=[a, call.table("negated", -constant)])
    return call.write(inputs=[a, b])


def _div(call: Call) -> None:
    divisor = call.constant(1)
    assert divisor is not None
    if np.any(divisor == 0) or not np.all(np.isfinite(divisor)):
        raise call.fault("a division by zero or by no number", "a finite divisor without zeros")
    with np.errstate(over="ignore"):  # an infinite inverse is found with the other weights
        inverse = (1.0 / divisor.astype(np.float64)).astype(np.float32)
    call.write(op="Mul", inputs=[call.node.inputs[0], call.table("inverse", inverse)])


def _relu(call: Call) -> None:
    call.write()


def _clip(call: Call) -> None:
    low, high = (_bound(call, i, name, default) for i, name, default in ((1, "min", -np.inf), (2, "max", np.inf)))
    call.write({"lo": min(low, high), "hi": high})


def _bound(call: Call, index: int, name: str, default: float) -> float:
    constant = call.constant(index)
    if constant is not None and constant.size != 1:
        raise call.fault(f"{name} with {constant.size} values", "one number")
    value = float(call.attrs.get(name, default)) if constant is None else float(constant.reshape(()))
    if np.isnan(value):
        raise call.fault(f"{name} is not a number", "a number")
    limit = float(np.finfo(np.float32).max)
    return value if abs(value) < limit else float(np.copysign(np.inf, value))


def _softmax(call: Call) -> None:
    rank = len(call.shape())
    if call.opset >= 13:
        return call.write({"axis": call.axis(int(call.attrs.get("axis", -1)))})
    axis = call.axis(int(call.attrs.get("axis", 1)))  # before opset 13: over all axes from here on, as one
    wide = [i for i in range(axis, rank) if call.shape()[i] != 1]
    if len(wide) <= 1:
        return call.write({"axis": wide[0] if wide else axis})
    rest = call.shape()[axis:]
    sizes = int(np.prod([call.size(i) for i in range(axis, rank)]))
    flat = call.helper(
        "Reshape", call.node.inputs[:1], {"shape": (*call.shape()[:axis], sizes, *(1,) * (len(rest) - 1))}
    )
    soft = call.helper("Softmax", [flat], {"axis": axis})
    return call.write({"shape": call.shape()}, op="Reshape", inputs=[soft])


# pools and means


def _global_average(call: Call) -> None:
    call.write()


def _reduce_mean(call: Call) -> None:
    given = axes_of(call.constants(), call.attrs)
    if not given and call.attrs.get("noop_with_empty_axes", 0):
        return call.write({"shape": call.shape()}, op="Reshape")
    axes = sorted({call.axis(a) for a in given}) if given else range(len(call.shape()))
    return call.write({"axes": tuple(axes), "keepdims": int(call.attrs.get("keepdims", 1))})


# moving


def _concat(call: Call) -> None:
    call.write({"axis": call.axis(int(call.attrs.get("axis", 0)))}, inputs=[v for v in call.node.inputs if v])


def _slice(call: Call) -> None:
    starts, ends, axes, steps = slice_arguments(call.constants(), call.attrs)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise call.fault(
            f"starts {starts}, ends {ends}, axes {axes}, steps {steps}", "as many of each, and no step of 0"
        )
    begins: list[int] = []
    stops: list[int] = []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = call.size(call.axis(axis))
        begin, stop, _ = slice_bounds(size, start, end, step)
        begins.append(begin)
        stops.append(stop if stop >= 0 else -size - 1)
    positive = tuple(call.axis(a) for a in axes)
    call.write({"starts": tuple(begins), "ends": tuple(stops), "axes": positive, "steps": tuple(steps)})


def _pad(call: Call) -> None:
    rank = len(call.shape())
    pads = _pad_widths(call, rank)
    if call.attrs.get("mode", "constant") != "constant":
        padded(call, pads)
        return None
    value = call.constant(2)
    real = _number(call.attrs.get("value")) if value is None else float(value.reshape(-1)[0]) if value.size else 0.0
    if np.isnan(real):
        raise call.fault("padding with NaN", "a number")
    source = call.node.inputs[0]
    if min(pads, default=0) < 0:  # a negative pad cuts
        source = _cut(call, source, pads)
    return call.write({"pads": tuple(max(p, 0) for p in pads), "value": real}, inputs=[source])


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _cut(call: Call, source: str, pads: Sequence[int]) -> str:
    """The input without what negative pads take away."""
    rank = len(call.shape())
    axes = tuple(i for i in range(rank) if min(pads[i], pads[i + rank]) < 0)
    starts = tuple(max(-pads[i], 0) for i in axes)
    ends = tuple(call.size(i) - max(-pads[i + rank], 0) for i in axes)
    return call.helper("Slice", [source], {"starts": starts, "ends": ends, "axes": axes, "steps": (1,) * len(axes)})


def _pad_widths(call: Call, rank: int) -> list[int]:
    given = call.constant(1)
    pads = [int(p) for p in call.attrs.get("pads", ())] if given is None else ints(given)
    axes_input = call.constant(3)
    axes = list(range(rank)) if axes_input is None else [call.axis(a) for a in ints(axes_input)]
    if len(pads) != 2 * len(axes):
        raise call.fault(f"pads {pads} for an input {text(call.shape())}", f"{2 * len(axes)} numbers")
    whole = [0] * (2 * rank)
    for i, axis in enumerate(axes):
        whole[axis], whole[axis + rank] = pads[i], pads[i + len(axes)]
    return whole


def _copy(call: Call) -> None:
    """A Reshape to the same shape: the pass that drops copies removes it where names allow."""
    call.write({"shape": call.shape()}, op="Reshape")


def _reshape(call: Call) -> None:
    given = call.constant(1)
    target = [int(d) for d in call.attrs.get("shape", ())] if given is None else ints(given)
    shape = resolve_reshape(call.shape(), target, allow_zero=bool(call.attrs.get("allowzero", 0)))
    if shape is None:
        raise call.fault(f"an input {text(call.shape())} for the shape {target}", "as many elements")
    call.write({"shape": shape})


def _flatten(call: Call) -> None:
    call.write({"axis": int(call.attrs.get("axis", 1))})


def _transpose(call: Call) -> None:
    rank = len(call.shape())
    call.write({"perm": tuple(int(p) for p in call.attrs.get("perm", ())) or tuple(reversed(range(rank)))})


def _squeeze(call: Call) -> None:
    given = axes_of(call.constants(), call.attrs)
    if given is None:  # all sizes of 1, but the batch stays
        axes = [i for i, d in enumerate(call.shape()) if d == 1 and not (i == 0 and call.batched)]
    else:
        axes = sorted({call.axis(a) for a in given})
    call.write({"axes": tuple(axes)})


def _unsqueeze(call: Call) -> None:
    given = axes_of(call.constants(), call.attrs)
    if given is None:
        raise call.fault("no axes", "the axes to insert")
    rank = len(call.shape()) + len(given)
    call.write({"axes": tuple(sorted(call.axis(a, rank=rank) for a in given))})


LOWERINGS: dict[str, Callable[[Call], None]] = {
    "Conv": conv, "Gemm": _gemm, "MatMul": _matmul, "BatchNormalization": _batch_norm,
    "Relu": _relu, "Clip": _clip, "Add": _commutative, "Mul": _commutative, "Sub": _sub, "Div": _div,
    "Softmax": _softmax,
    "MaxPool": pool, "AveragePool": pool, "GlobalAveragePool": _global_average, "GlobalMaxPool": global_max,
    "ReduceMean": _reduce_mean, "Concat": _concat, "Slice": _slice, "Pad": _pad,
    "Reshape": _reshape, "Flatten": _flatten, "Transpose": _transpose, "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze, "Identity": _copy, "Dropout": _copy,
}  # fmt: skip
