"""GroupNorm of the vendor dialect, which divides by what only a run tells: one operator of the processor.

Codes are integers, so the sums of a group and of its squares are exact; all that follows is one float64 operation after
the other, each rounded once.  No order of additions and no library changes a code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper

from insitu.frontend.wtm2101_draft import Call, Draft, Value, rounding, spec_of
from insitu.graph.ops.hosted import ELEMENTS, host_model
from insitu.graph.types import TensorType, integer_dtype

OPSET = 17
MOST = 1 << 18  # elements of a group: count times sum of squares stays below 2^53
EPSILON = 1e-5
Step = tuple[str, tuple[str, ...], str]  # operator, what it reads, what it writes
ROUNDED: Mapping[str, Sequence[Step]] = {
    "half_up": (("Add", ("code", "half"), "up"), ("Floor", ("up",), "whole")),
    "half_even": (("Round", ("code",), "whole"),),
    "floor": (("Floor", ("code",), "whole"),),
}


def group_norm(draft: Draft, call: Call) -> Value:
    """((x * scale_in - mean) / sqrt(variance + epsilon) * gamma + beta) / scale_out of groups of channels."""
    x = draft.values[call.node.inputs[0]]
    shape, groups = draft.shape(x), call.integer("num_groups", 1)
    channels = shape[1] if len(shape) > 1 and shape[0] == 1 else 0
    fits = channels >= 1 and call.integer("num_channels", channels) == channels
    if not fits or groups < 1 or channels % groups:
        got = f"{groups} groups of the {call.attrs.get('num_channels', channels)} channels of an input {shape}"
        raise call.fault(got, "a map [1, C, ..] whose C channels make up equal groups")
    if prod(shape[1:]) // groups > MOST:
        raise call.fault(f"groups of {prod(shape[1:]) // groups:,} elements", f"at most {MOST:,}")
    into, out = call.number("scale_in", 1.0), call.number("scale_out", 1.0)
    epsilon = call.number("epsilon", call.number("eps", EPSILON))
    if not (1e-6 < into < 1e6 and 1e-6 < out < 1e6 and 0 < epsilon < 1e6):
        got = f"scale_in {into:g}, scale_out {out:g}, epsilon {epsilon:g}"
        raise call.fault(got, "positive numbers of ordinary size")
    gamma, beta = (_channels(draft, call, i, channels, default) for i, default in ((1, 1.0), (2, 0.0)))
    spec = spec_of(call.low, 127)
    result = TensorType(shape, integer_dtype(spec.bits, signed=spec.signed))
    given = draft.builder.types[x.name]
    wide = (1, channels, *(1 for _ in shape[2:]))
    constants = {
        "grouped": np.array([1, groups, -1]), "shape": np.array(shape), "axis": np.array([2]),
        "count": _real(prod(shape[1:]) // groups), "into": _real(into), "epsilon": _real(epsilon),
        "gamma": gamma.reshape(wide), "beta": beta.reshape(wide), "out": _real(out), "half": _real(0.5),
        "lo": _real(call.low), "hi": _real(127),
    }  # fmt: skip
    model = host_model(
        [*_normalized(), helper.make_node("Cast", ["held"], ["y"], to=ELEMENTS[result.dtype])],
        operator="GroupNorm",
        feeds={"x": (given, ELEMENTS[given.dtype])},
        results={"y": (result, ELEMENTS[result.dtype])},
        constants=constants,
        opsets={"": OPSET},
    )
    attrs = {"operator": "GroupNorm", "model": model}
    return draft.hosted(x, result.sizes(), call.low, 127, name=call.name, output=call.output, attrs=attrs)


def _normalized() -> list[NodeProto]:
    """`held`, the codes of the norm as float64: d = n x - sum x, e = n sum x^2 - (sum x)^2, both exact."""
    steps: Sequence[Step] = (
        ("Reshape", ("real", "grouped"), "r"), ("ReduceSum", ("r", "axis"), "sum"), ("Mul", ("r", "count"), "nx"),
        ("Sub", ("nx", "sum"), "d"), ("Mul", ("r", "r"), "rr"), ("ReduceSum", ("rr", "axis"), "squares"),
        ("Mul", ("squares", "count"), "nsquares"), ("Mul", ("sum", "sum"), "sumsum"),
        ("Sub", ("nsquares", "sumsum"), "e"), ("Mul", ("e", "into"), "e1"), ("Mul", ("e1", "into"), "e2"),
        ("Mul", ("count", "count"), "nn"), ("Mul", ("nn", "epsilon"), "least"), ("Add", ("e2", "least"), "v"),
        ("Sqrt", ("v",), "root"), ("Mul", ("d", "into"), "d1"), ("Div", ("d1", "root"), "normal"),
        ("Reshape", ("normal", "shape"), "z"), ("Mul", ("z", "gamma"), "zg"), ("Add", ("zg", "beta"), "zb"),
        ("Div", ("zb", "out"), "code"), *ROUNDED[rounding("GroupNorm")], ("Max", ("whole", "lo"), "above"),
        ("Min", ("above", "hi"), "held"),
    )  # fmt: skip
    first = helper.make_node("Cast", ["x"], ["real"], to=TensorProto.DOUBLE)
    return [first, *(helper.make_node(op, list(names), [y]) for op, names, y in steps)]


def _real(value: float) -> npt.NDArray[np.float64]:
    return np.asarray(value, np.float64)


def _channels(draft: Draft, call: Call, index: int, channels: int, default: float) -> npt.NDArray[np.float64]:
    """A parameter with one finite number per channel; it may be left out."""
    name = call.node.inputs[index] if index < len(call.node.inputs) else ""
    if not name:
        return np.full(channels, default)
    array: npt.NDArray[Any] | None = draft.builder.constants.get(name)
    if array is None:
        raise call.fault(f"its input {index + 1} is no constant", "one number per channel, stored in the file")
    values = np.asarray(array, np.float64).reshape(-1)
    if values.size != channels or not np.isfinite(values).all():
        raise call.fault(f"{values.size} numbers, or not finite ones", f"{channels} finite numbers, one per channel")
    return values
