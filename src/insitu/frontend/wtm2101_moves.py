"""Operators of the vendor dialect that move codes.  A feature map is stored N, W, H, C there, which Reshape sees."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from insitu.frontend.wtm2101_draft import Call, Draft, Value
from insitu.frontend.wtm2101_layers import integers
from insitu.graph.graph import Attr

Operator = Callable[[Draft, Call], Value]


def _numbers(draft: Draft, call: Call, names: tuple[str, ...], index: int) -> tuple[int, ...] | None:
    """Integers of an attribute of one of these names, or of the constant at an input."""
    for name in names:
        if call.attrs.get(name) is not None:
            return tuple(int(v) for v in np.asarray(call.attrs[name]).reshape(-1))
    inputs = call.node.inputs
    array = draft.builder.constants.get(inputs[index]) if index < len(inputs) else None
    return None if array is None else tuple(integers(call, array).reshape(-1).tolist())


def _first(draft: Draft, call: Call) -> Value:
    return draft.values[call.node.inputs[0]]


def concat(draft: Draft, call: Call) -> Value:
    """Concat."""
    values = [draft.values.get(v) for v in call.node.inputs]
    known = [v for v in values if v is not None]
    if len(known) != len(values):
        raise call.fault("an input that is constant", "values of the network")
    axis = call.integer("axis", 1)
    if not call.relu:
        return draft.joined(known, axis, name=call.name, output=call.output)
    y = draft.joined(known, axis, name=f"{call.name}.joined")
    return draft.clipped(y, 0, max(y.hi, 0), name=call.name, output=call.output)


def slice_(draft: Draft, call: Call) -> Value:
    """Slice, its bounds as attributes or as inputs."""
    x = _first(draft, call)
    shape = draft.shape(x)
    starts, ends = _numbers(draft, call, ("starts", "begin"), 1), _numbers(draft, call, ("ends", "end"), 2)
    if starts is None or ends is None:
        raise call.fault("bounds that are no constants", "starts and ends")
    axes = _numbers(draft, call, ("axes",), 3) or tuple(range(len(starts)))
    steps = _numbers(draft, call, ("steps", "strides"), 4) or (1,) * len(starts)
    axes = tuple(a % len(shape) for a in axes)
    bounds = [slice(s, e, t).indices(shape[a])[:2] for s, e, t, a in zip(starts, ends, steps, axes, strict=True)]
    if min(steps) < 1:
        raise call.fault(f"steps {steps}", "steps of at least 1")
    attrs: dict[str, Attr] = {
        "axes": axes, "starts": tuple(b[0] for b in bounds), "ends": tuple(b[1] for b in bounds), "steps": steps
    }  # fmt: skip
    return draft.move("Slice", x, name=call.name, output=call.output, attrs=attrs)


def split(draft: Draft, call: Call) -> list[Value]:
    """Split into as many parts as there are outputs."""
    x, outputs = _first(draft, call), call.node.outputs
    shape = draft.shape(x)
    axis = call.integer("axis", 0) % len(shape)
    sizes = _numbers(draft, call, ("split",), 1) or (-(-shape[axis] // len(outputs)),) * len(outputs)
    bounds = np.minimum(np.cumsum((0, *sizes)), shape[axis]).tolist()
    if len(sizes) != len(outputs) or bounds[-1] != shape[axis]:
        raise call.fault(f"parts {sizes} of {shape[axis]}", f"{len(outputs)} parts that make it up")
    names = [f"{call.name}.{i}" for i in range(len(outputs))]
    return [
        draft.cut(x, axis, bounds[i], bounds[i + 1], name=names[i], output=output) for i, output in enumerate(outputs)
    ]


def reshape(draft: Draft, call: Call) -> Value:
    """Reshape and Flatten: elements in the order N, W, H, C on both sides, as the chip stores them."""
    x = _first(draft, call)
    shape = draft.shape(x)
    target = (shape[0], -1) if call.node.op == "Flatten" else _numbers(draft, call, ("shape",), 1)
    if target is None:
        raise call.fault("a shape that is no constant", "numbers")
    if call.node.op in ("Squeeze", "Unsqueeze"):
        raise call.fault("an operator of shapes", "Reshape")
    sizes = _resolved(draft, call, shape, target)
    stored = (sizes[0], *reversed(sizes[1:])) if len(sizes) > 2 else sizes
    turn, back = len(shape) > 2, len(sizes) > 2
    if turn:
        perm = (0, *range(len(shape) - 1, 0, -1))
        x = draft.move("Transpose", x, name=f"{call.name}.stored", attrs={"perm": perm})
    name = f"{call.name}.line" if back else call.name
    x = draft.move("Reshape", x, name=name, output="" if back else call.output, attrs={"shape": stored})
    if not back:
        return x
    perm = (0, *range(len(sizes) - 1, 0, -1))
    return draft.move("Transpose", x, name=call.name, output=call.output, attrs={"perm": perm})


def _resolved(draft: Draft, call: Call, shape: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, ...]:
    """The target with its -1 and 0; in a streamed network the size that counts frames becomes 1."""
    sizes = [shape[i] if d == 0 and i < len(shape) else d for i, d in enumerate(target)]
    total = prod(shape)
    known = prod(d for d in sizes if d != -1)
    if draft.streamed and -1 not in sizes and known != total and known % total == 0:
        frames = known // total
        axis = next((i for i in (0, len(sizes) - 1) if sizes[i] == frames), None)
        if axis is not None:
            sizes[axis] = 1
            known //= frames
    if sizes.count(-1) == 1 and known and total % known == 0:
        sizes[sizes.index(-1)] = total // known
        known = total
    if known != total or min(sizes) < 1:
        raise call.fault(f"the shape {target} for {shape}", "as many elements")
    return tuple(sizes)


def transpose(draft: Draft, call: Call) -> Value:
    """Transpose and Permute (whose attribute is dims)."""
    x = _first(draft, call)
    rank = len(draft.shape(x))
    perm = _numbers(draft, call, ("perm", "dims"), 1) or tuple(reversed(range(rank)))
    if sorted(perm) != list(range(rank)):
        raise call.fault(f"the order {perm}", f"an order of 0 to {rank - 1}")
    return draft.move("Transpose", x, name=call.name, output=call.output, attrs={"perm": perm})


def squeeze(draft: Draft, call: Call) -> Value:
    """Squeeze and Unsqueeze."""
    x = _first(draft, call)
    shape, axes = draft.shape(x), _numbers(draft, call, ("axes",), 1)
    if call.node.op == "Squeeze":
        drop = {a % len(shape) for a in axes} if axes is not None else {i for i, d in enumerate(shape) if d == 1 and i}
        sizes = tuple(d for i, d in enumerate(shape) if i not in drop)
    else:
        rank = len(shape) + len(axes or ())
        at, rest = {a % rank for a in axes or ()}, iter(shape)
        sizes = tuple(1 if i in at else next(rest) for i in range(rank))
    return draft.move("Reshape", x, name=call.name, output=call.output, attrs={"shape": sizes})


def identity(draft: Draft, call: Call) -> Value:
    """Identity."""
    x = _first(draft, call)
    return draft.clipped(x, x.lo, x.hi, name=call.name, output=call.output)


MOVES: dict[str, Operator] = {
    "Concat": concat, "Slice": slice_, "Reshape": reshape, "Flatten": reshape, "Transpose": transpose,
    "Permute": transpose, "Squeeze": squeeze, "Unsqueeze": squeeze, "Identity": identity,
}  # fmt: skip
