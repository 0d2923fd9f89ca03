"""One ONNX operator of any opset -> our nodes: arguments as attributes, sizes resolved, one form per meaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.errors import ModelError
from insitu.frontend.fold import axes_of, ints, slice_arguments
from insitu.graph.graph import Attr, Node
from insitu.graph.ops.shapes import resolve_reshape, slice_bounds, text
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


def variant_fault(op: str, attrs: Attrs, static: Sequence[bool]) -> str:
    """Why a supported operator is used in a way that is not supported; "" where it is fine."""
    rule = VARIANTS.get(op)
    return rule(attrs, static) if rule else ""


def _weights_fault(attrs: Attrs, static: Sequence[bool]) -> str:
    return "" if all(static[1:]) else "weights that are not constants"


VARIANTS: dict[str, Callable[[Attrs, Sequence[bool]], str]] = {
    "Conv": _weights_fault,
    "BatchNormalization": lambda a, s: "training_mode" if a.get("training_mode", 0) else _weights_fault(a, s),
    "Gemm": lambda a, s: "transA" if a.get("transA", 0) else "",
    "Pad": lambda a, s: f"mode {a['mode']}" if a.get("mode", "constant") != "constant" else _weights_fault(a, s),
    "Div": lambda a, s: "" if s[-1] else "a divisor that is not constant",
    "MaxPool": lambda a, s: "storage_order" if a.get("storage_order", 0) else "",
    "Reshape": _weights_fault, "Slice": _weights_fault, "Clip": _weights_fault, "ReduceMean": _weights_fault,
    "Squeeze": _weights_fault, "Unsqueeze": _weights_fault,
}  # fmt: skip


# products


def _conv(call: Call) -> None:
    w = call.constant(1)
    if w is None or len(call.shape()) not in (3, 4) or w.ndim != len(call.shape()):
        got = f"an input {text(call.shape())} and weights {text(call.shape(1))}"
        raise call.fault(got, "a 1-D or 2-D convolution: inputs and weights of 3 or 4 dimensions")
    kernel = tuple(int(d) for d in w.shape[2:])
    given = call.attrs.get("kernel_shape")
    if given is not None and tuple(given) != kernel:
        raise call.fault(f"kernel_shape {list(given)} for weights {text(w.shape)}", "equal sizes")
    attrs = _window(call, kernel)
    call.write({**attrs, "group": int(call.attrs.get("group", 1))}, inputs=call.node.inputs)


def _window(call: Call, kernel: tuple[int, ...]) -> dict[str, Attr]:
    """strides, pads and dilations, with auto_pad resolved."""
    rank = len(kernel)
    if len(call.shape()) != rank + 2:
        raise call.fault(
            f"a kernel {list(kernel)} for an input {text(call.shape())}", f"an input of {rank + 2} dimensions"
        )
    strides = _numbers(call, "strides", rank)
    dilations = _numbers(call, "dilations", rank)
    pads = tuple(int(p) for p in call.attrs.get("pads", ())) or (0,) * (2 * rank)
    auto = call.attrs.get("auto_pad", "NOTSET")
    if auto == "VALID":
        pads = (0,) * (2 * rank)
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = _same_pads(call, kernel, strides, dilations, lower=auto == "SAME_LOWER")
    elif auto != "NOTSET":
        raise call.fault(f"auto_pad {auto!r}", "NOTSET, VALID, SAME_UPPER or SAME_LOWER")
    return {"strides": strides, "pads": pads, "dilations": dilations}


def _numbers(call: Call, name: str, rank: int) -> tuple[int, ...]:
    values = tuple(int(v) for v in call.attrs.get(name, ())) or (1,) * rank
    if len(values) != rank or min(values) < 1:
        raise call.fault(f"{name} {list(values)}", f"{rank} numbers of at least 1")
    return values


def _same_pads(
    call: Call, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...], *, lower: bool
) -> tuple[int, ...]:
    begins: list[int] = []
    ends: list[int] = []
    for i, (k, s, d) in enumerate(zip(kernel, strides, dilations, strict=True)):
        size = call.size(i + 2)
        total = max((ceil(size / s) - 1) * s + (k - 1) * d + 1 - size, 0)
        begin = total - total // 2 if lower else total // 2
        begins.append(begin)
        ends.append(total - begin)
    return (*begins, *ends)


def _gemm(call: Call) -> None:
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
        value = call.helper("Mul", [value, call.table("alpha", np.float32([alpha]))])
    if not call.has(2):
        return call.write({"shape": call.builder.types[value].shape}, op="Reshape", inputs=[value])
    addend = call.node.inputs[2]
    if beta != 1.0:
        addend = call.helper("Mul", [addend, call.table("beta", np.float32([beta]))])
    return call.write(op="Add", inputs=[value, addend])


def _matmul(call: Call) -> None:
    call.write(inputs=call.node.inputs[:2])


def _batch_norm(call: Call) -> None:
    if len(call.node.inputs) != 5:
        raise call.fault(f"{len(call.node.inputs)} inputs", "5 (input, scale, bias, mean, variance)")
    call.write({"epsilon": float(call.attrs.get("epsilon", 1e-5))}, inputs=call.node.inputs)


# elementwise


def _commutative(call: Call) -> None:
    """Add and Mul, a constant operand second."""
    a, b = call.node.inputs[:2]
    call.write(inputs=(b, a) if a in call.builder.constants else (a, b))


def _sub(call: Call) -> None:
    a, b = call.node.inputs[:2]
    constant = call.constant(1)
    if constant is not None:
        return call.write(op="Add", inputs=[a, call.table("negated", -constant)])
    negated = call.helper("Mul", [b, call.table("minus_one", np.float32([-1.0]))])
    return call.write(op="Add", inputs=[negated, a] if a in call.builder.constants else [a, negated])


def _div(call: Call) -> None:
    divisor = call.constant(1)
    assert divisor is not None
    if not np.all(divisor):
        raise call.fault("a division by zero", "a divisor without zeros")
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


def _pool(call: Call) -> None:
    kernel = tuple(int(k) for k in call.attrs.get("kernel_shape", ()))
    if not kernel or min(kernel) < 1:
        raise call.fault(f"kernel_shape {list(kernel)}", "one number of at least 1 per spatial axis")
    attrs = _window(call, kernel)
    source, average = call.node.inputs[0], call.node.op == "AveragePool"
    inclusive = average and bool(call.attrs.get("count_include_pad", 0))
    before: tuple[int, ...] = tuple(attrs["pads"])  # pyright: ignore[reportArgumentType, reportUnknownVariableType]
    if call.attrs.get("ceil_mode", 0) and call.attrs.get("auto_pad", "NOTSET") == "NOTSET":
        attrs["pads"] = _ceil_pads(call, kernel, attrs)
        if inclusive and attrs["pads"] != before:  # the extra cells do not count, the given ones do
            source = call.helper("Pad", [source], {"pads": _all_axes(before), "value": 0.0})
            rank = len(kernel)
            extra = tuple(p - q for p, q in zip(attrs["pads"][rank:], before[rank:], strict=True))  # pyright: ignore
            attrs["pads"], inclusive = ((0,) * rank + extra), False
    if average:
        attrs["count_include_pad"] = int(inclusive and any(attrs["pads"]))  # pyright: ignore[reportArgumentType]
    call.write({"kernel_shape": kernel, **attrs}, inputs=[source])


def _all_axes(pads: tuple[int, ...]) -> tuple[int, ...]:
    rank = len(pads) // 2
    return (0, 0, *pads[:rank], 0, 0, *pads[rank:])


def _ceil_pads(call: Call, kernel: tuple[int, ...], attrs: Mapping[str, Any]) -> tuple[int, ...]:
    """Pads that make the last, partial window a whole one, as ceil_mode asks."""
    rank, pads = len(kernel), list(attrs["pads"])
    for i, (k, s, d) in enumerate(zip(kernel, attrs["strides"], attrs["dilations"], strict=True)):
        size, reach = call.size(i + 2), (k - 1) * d + 1
        count = -(-(size + pads[i] + pads[i + rank] - reach) // s) + 1
        if (count - 1) * s >= size + pads[i]:
            count -= 1  # a window has to start inside the input or its left padding
        pads[i + rank] = max((count - 1) * s + reach - size - pads[i], 0 if count > 0 else pads[i + rank])
    return tuple(pads)


def _global_max(call: Call) -> None:
    rank = len(call.shape()) - 2
    if rank < 1:
        raise call.fault(f"an input {text(call.shape())}", "at least 3 dimensions (samples, channels, space)")
    ones, kernel = (1,) * rank, tuple(call.size(i + 2) for i in range(rank))
    call.write({"kernel_shape": kernel, "strides": ones, "pads": (0,) * (2 * rank), "dilations": ones}, op="MaxPool")


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
    value = call.constant(2)
    real = float(call.attrs.get("value", 0.0)) if value is None else float(value.reshape(-1)[0]) if value.size else 0.0
    source = call.node.inputs[0]
    if min(pads, default=0) < 0:  # a negative pad cuts
        sizes = [call.size(i) for i in range(rank)]
        starts, ends = (
            [max(-p, 0) for p in pads[:rank]],
            [s - max(-p, 0) for s, p in zip(sizes, pads[rank:], strict=True)],
        )
        cut: dict[str, Attr] = {
            "starts": tuple(starts),
            "ends": tuple(ends),
            "axes": tuple(range(rank)),
            "steps": (1,) * rank,
        }
        source = call.helper("Slice", [source], cut)
    call.write({"pads": tuple(max(p, 0) for p in pads), "value": real}, inputs=[source])


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
    "Conv": _conv, "Gemm": _gemm, "MatMul": _matmul, "BatchNormalization": _batch_norm,
    "Relu": _relu, "Clip": _clip, "Add": _commutative, "Mul": _commutative, "Sub": _sub, "Div": _div,
    "Softmax": _softmax,
    "MaxPool": _pool, "AveragePool": _pool, "GlobalAveragePool": _global_average, "GlobalMaxPool": _global_max,
    "ReduceMean": _reduce_mean, "Concat": _concat, "Slice": _slice, "Pad": _pad,
    "Reshape": _reshape, "Flatten": _flatten, "Transpose": _transpose, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze, "Identity": _copy, "Dropout": _copy,
}  # fmt: skip
