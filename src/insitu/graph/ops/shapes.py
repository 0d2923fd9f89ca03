"""Shape and type rules: what an operator makes of its inputs' types, and what is wrong with them in the user's words.

Sizes may be names (bound at run time) wherever a rule does not need the number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from insitu.base.errors import ModelError
from insitu.graph.graph import Array, Node
from insitu.graph.types import Dim, TensorType

Shape = tuple[Dim, ...]
MAX_ELEMENTS = 1 << 31
WINDOWED = ("Conv", "MaxPool", "AveragePool")


def infer(node: Node, types: Mapping[str, TensorType], constants: Mapping[str, Array]) -> tuple[TensorType, ...]:
    """The types of a node's outputs; ModelError names the node and what does not fit."""
    if node.op == "Host":
        return tuple(types[v] for v in node.outputs)
    rule = RULES.get(node.op)
    if rule is None:
        raise _fault(node, "the operator is not supported", f"one of {', '.join(sorted(RULES))}")
    missing = [v for v in node.inputs if v and v not in types]
    if missing:
        raise _fault(node, f"the type of its input {missing[0]!r} is not known", "a typed input")
    call = _Call(node, types, constants)
    if len(call.shapes) < LEAST_INPUTS.get(node.op, 1):
        raise _fault(node, f"{len(call.shapes)} inputs", f"at least {LEAST_INPUTS.get(node.op, 1)}")
    dtype = call.types[node.inputs[0]].dtype if node.op in ("Gather", "Scatter") else _common_dtype(call)
    shape = rule(call)
    check_size(node, shape)
    return (TensorType(shape, dtype),) * len(node.outputs)


@dataclass(frozen=True)
class _Call:
    """A node with what is known of its inputs; absent inputs have no entry in `shapes`."""

    node: Node
    types: Mapping[str, TensorType]
    constants: Mapping[str, Array]

    @property
    def shapes(self) -> list[Shape]:
        return [self.types[v].shape for v in self.node.inputs if v]

    @property
    def x(self) -> Shape:
        return self.shapes[0]

    def ints(self, name: str, default: Sequence[int] | None = None) -> tuple[int, ...]:
        value = self.node.attr(name, default)
        if not isinstance(value, tuple | list) or not all(isinstance(v, int) for v in value):  # pyright: ignore[reportUnknownVariableType]
            raise self.fault(f"its attribute {name} is {value!r}", "a list of integers")
        return tuple(value)  # pyright: ignore[reportUnknownArgumentType]

    def fault(self, got: str, need: str) -> ModelError:
        return _fault(self.node, got, need)


def _fault(node: Node, got: str, need: str) -> ModelError:
    return ModelError(f"node {node.name!r} ({node.op})", got, need)


def _common_dtype(call: _Call) -> str:
    """The first input's element type; floats do not mix with other types."""
    names = [v for v in call.node.inputs if v]
    wide = [v for v in names if v in call.constants and call.types[v].dtype == "f64"]  # biases that keep 32 bits
    dtypes = list(dict.fromkeys(call.types[v].dtype for v in names if v not in wide or len(wide) == len(names)))
    if len(dtypes) > 1 and any(d.startswith("f") for d in dtypes):
        raise call.fault(f"inputs of the types {', '.join(dtypes)}", "inputs of one type")
    return dtypes[0]


def check_size(node: Node, shape: Shape) -> None:
    """ModelError for a result without elements, or with more than anybody holds."""
    known = prod(d for d in shape if isinstance(d, int))
    if any(isinstance(d, int) and d < 1 for d in shape):
        raise _fault(node, f"its result would have the shape {text(shape)}", "every size at least 1")
    if known > MAX_ELEMENTS:
        raise _fault(node, f"its result {text(shape)} would have {known:,} elements", f"at most {MAX_ELEMENTS:,}")


def text(shape: Sequence[Dim]) -> str:
    """A shape as people write it: 1x3x32x32; "scalar" for no dimensions."""
    return "x".join(str(d) for d in shape) or "scalar"


# elementwise


def _same(call: _Call) -> Shape:
    return call.x


def _broadcast(call: _Call) -> Shape:
    try:
        return broadcast(*call.shapes)
    except ValueError:
        got = " and ".join(text(s) for s in call.shapes)
        raise call.fault(
            f"inputs of the shapes {got}", "shapes that broadcast (equal sizes, or 1, from the right)"
        ) from None


def broadcast(*shapes: Shape) -> Shape:
    """NumPy's broadcasting with named sizes; ValueError where sizes differ."""
    rank = max(len(s) for s in shapes)
    out: list[Dim] = []
    for column in zip(*((1,) * (rank - len(s)) + s for s in shapes), strict=True):
        sizes = {d for d in column if d != 1} or {1}
        if len(sizes) > 1:
            raise ValueError(sizes)
        out.append(sizes.pop())
    return tuple(out)


# products


def _gemm(call: _Call) -> Shape:
    a, b = call.shapes[:2]
    if len(a) != 2 or len(b) != 2:
        raise call.fault(f"inputs of the shapes {text(a)} and {text(b)}", "two matrices (2 dimensions each)")
    rows, inner = a
    wide, cols = reversed(b) if call.node.attr("transB", 0) else b
    _inner(call, inner, wide)
    return (rows, cols)


def _inner(call: _Call, left: Dim, right: Dim) -> None:
    if left != right:
        need = "equal inner sizes (columns of the first, rows of the second)"
        raise call.fault(f"a product of {text(call.shapes[0])} with {text(call.shapes[1])}", need)


def _matmul(call: _Call) -> Shape:
    a, b = call.shapes[:2]
    if not a or not b:
        raise call.fault(f"inputs of the shapes {text(a)} and {text(b)}", "at least 1 dimension each")
    left, right = a if len(a) > 1 else (1, *a), b if len(b) > 1 else (*b, 1)
    _inner(call, left[-1], right[-2])
    try:
        lead = broadcast(left[:-2], right[:-2])
    except ValueError:
        raise call.fault(f"a product of {text(a)} with {text(b)}", "leading sizes that broadcast") from None
    return (*lead, *left[-2:-1][: len(a) > 1], *right[-1:][: len(b) > 1])


def _conv(call: _Call) -> Shape:
    x, w = call.shapes[:2]
    if len(x) < 3 or len(w) != len(x):
        need = "an input of 3 or 4 dimensions (samples, channels, space) and weights of as many"
        raise call.fault(f"an input {text(x)} and weights {text(w)}", need)
    group, channels, out = call.node.attr("group", 1), x[1], w[0]
    each = w[1]
    if not isinstance(group, int) or group < 1 or not isinstance(out, int) or out % group:
        raise call.fault(
            f"group = {group} with {out} output channels", "a group count that divides the output channels"
        )
    if not isinstance(each, int) or channels != each * group:
        need = f"{each} x {group} (group) input channels" if isinstance(each, int) else "weights of known size"
        raise call.fault(f"an input {text(x)} with {channels} channels for weights {text(w)}", need)
    if len(call.shapes) > 2 and call.shapes[2] != (out,):
        raise call.fault(f"a bias of the shape {text(call.shapes[2])}", f"{out} numbers, one per output channel")
    return (x[0], out, *_windows(call, _kernel(call)))


def _batch_norm(call: _Call) -> Shape:
    x = call.x
    if len(x) < 2:
        raise call.fault(f"an input {text(x)}", "at least 2 dimensions (samples, channels)")
    wrong = [text(s) for s in call.shapes[1:] if s != (x[1],)]
    if wrong or len(call.shapes) != 5:
        raise call.fault(f"parameters of the shapes {', '.join(wrong) or 'none'}", f"four vectors of {x[1]} channels")
    return x


# windows


def _kernel(call: _Call) -> tuple[int, ...]:
    if call.node.op == "Conv":
        return tuple(d for d in call.shapes[1][2:] if isinstance(d, int))
    return call.ints("kernel_shape")


def _windows(call: _Call, kernel: tuple[int, ...]) -> Shape:
    """Output sizes of windows over the spatial axes of x."""
    space = call.x[2:]
    named = [d for d in space if isinstance(d, str)]
    if named:
        raise call.fault(f"an input {text(call.x)} whose size {named[0]!r} is not known", "known spatial sizes")
    rank = len(space)
    strides, dilations = call.ints("strides", (1,) * rank), call.ints("dilations", (1,) * rank)
    pads = call.ints("pads", (0,) * (2 * rank))
    if (len(kernel), len(strides), len(dilations), len(pads)) != (rank, rank, rank, 2 * rank):
        got = f"kernel {kernel}, strides {strides}, dilations {dilations}, pads {pads}"
        raise call.fault(got, f"{rank} numbers each and {2 * rank} pads for an input {text(call.x)}")
    if min((*kernel, *strides, *dilations)) < 1 or min(pads) < 0:
        got = f"kernel {kernel}, strides {strides}, dilations {dilations}, pads {pads}"
        raise call.fault(got, "kernel, strides and dilations of at least 1, pads of at least 0")
    out: list[Dim] = []
    for i, size in enumerate(space):
        room = int(size) + pads[i] + pads[i + rank] - ((kernel[i] - 1) * dilations[i] + 1)
        if room < 0:
            raise call.fault(
                f"a window of {kernel} over an input {text(call.x)}", "a window no larger than the padded input"
            )
        out.append(room // strides[i] + 1)
    return tuple(out)


def _pool(call: _Call) -> Shape:
    if len(call.x) < 3:
        raise call.fault(f"an input {text(call.x)}", "at least 3 dimensions (samples, channels, space)")
    return (*call.x[:2], *_windows(call, _kernel(call)))


def _global_pool(call: _Call) -> Shape:
    if len(call.x) < 3:
        raise call.fault(f"an input {text(call.x)}", "at least 3 dimensions (samples, channels, space)")
    return (*call.x[:2], *(1,) * (len(call.x) - 2))


def _reduce(call: _Call) -> Shape:
    axes = {_axis(call, a) for a in call.ints("axes")}
    if call.node.attr("keepdims", 1):
        return tuple(1 if i in axes else d for i, d in enumerate(call.x))
    return tuple(d for i, d in enumerate(call.x) if i not in axes)


def _gather(call: _Call) -> Shape:
    axis = _axis(call, call.node.attr("axis", 0))
    return (*call.x[:axis], *call.shapes[1], *call.x[axis + 1 :])


def _scatter(call: _Call) -> Shape:
    """(x, index, new): entries of one axis replaced."""
    axis, (x, index, new) = _axis(call, call.node.attr("axis", 0)), call.shapes[:3]
    if new != (*x[:axis], *index, *x[axis + 1 :]):
        got = f"entries {text(new)} at {text(index)} places of {text(x)}"
        raise call.fault(got, f"entries {text((*x[:axis], *index, *x[axis + 1 :]))}")
    return x


def _norm(call: _Call) -> Shape:
    for axis in call.ints("axes"):
        _axis(call, axis)
    return call.x


def _axis(call: _Call, axis: object, *, rank: int | None = None) -> int:
    rank = len(call.x) if rank is None else rank
    if not isinstance(axis, int) or not -rank <= axis < rank:
        raise call.fault(f"axis {axis} of {rank} dimensions", f"an axis from {-rank} to {rank - 1}")
    return axis % rank


def _softmax(call: _Call) -> Shape:
    _axis(call, call.node.attr("axis", -1))
    return call.x


# moving


def _concat(call: _Call) -> Shape:
    axis = _axis(call, call.node.attr("axis"))
    for shape in call.shapes[1:]:
        if len(shape) != len(call.x) or any(
            i != axis and d != e for i, (d, e) in enumerate(zip(call.x, shape, strict=True))
        ):
            got = f"inputs of the shapes {', '.join(text(s) for s in call.shapes)}"
            raise call.fault(got, f"equal shapes except along axis {axis}")
    sizes = [s[axis] for s in call.shapes]
    if any(isinstance(d, str) for d in sizes):
        raise call.fault(
            f"a size {next(d for d in sizes if isinstance(d, str))!r} along axis {axis}", "known sizes there"
        )
    return (*call.x[:axis], sum(int(d) for d in sizes), *call.x[axis + 1 :])


def _slice(call: _Call) -> Shape:
    starts, ends, axes = (call.ints(n) for n in ("starts", "ends", "axes"))
    steps = call.ints("steps", (1,) * len(starts))
    if len({len(starts), len(ends), len(axes), len(steps)}) != 1 or 0 in steps:
        raise call.fault(
            f"starts {starts}, ends {ends}, axes {axes}, steps {steps}", "as many of each, and no step of 0"
        )
    shape = list(call.x)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = shape[_axis(call, axis)]
        if isinstance(size, str):
            raise call.fault(f"a cut along a size {size!r} that is not known", "a known size there")
        shape[_axis(call, axis)] = len(range(*slice_bounds(size, start, end, step)))
    return tuple(shape)


def slice_bounds(size: int, start: int, end: int, step: int) -> tuple[int, int, int]:
    """ONNX's clamping of start and end (-1 as end of a backward slice means "before the first")."""
    return slice(start, end, step).indices(size)


def _pad(call: _Call) -> Shape:
    pads, rank = call.ints("pads"), len(call.x)
    if len(pads) != 2 * rank or min(pads, default=0) < 0:
        raise call.fault(f"pads {pads} for an input {text(call.x)}", f"{2 * rank} numbers of at least 0")
    return tuple(_grown(call, d, pads[i] + pads[i + rank]) for i, d in enumerate(call.x))


def _grown(call: _Call, size: Dim, more: int) -> Dim:
    if isinstance(size, str) and more:
        raise call.fault(f"padding of a size {size!r} that is not known", "a known size there")
    return size if isinstance(size, str) else size + more


def _flatten(call: _Call) -> Shape:
    rank, axis = len(call.x), call.node.attr("axis", 1)
    if not isinstance(axis, int) or not -rank <= axis <= rank:
        raise call.fault(f"axis {axis} of {rank} dimensions", f"an axis from {-rank} to {rank}")
    cut = axis + rank if axis < 0 else axis
    return (_merged(call, call.x[:cut]), _merged(call, call.x[cut:]))


def _merged(call: _Call, dims: Shape) -> Dim:
    names = [d for d in dims if isinstance(d, str)]
    known = prod(d for d in dims if isinstance(d, int))
    if len(names) > 1 or (names and known != 1):
        raise call.fault(f"the sizes {text(dims)} in one", "known sizes there")
    return names[0] if names else known


def _reshape(call: _Call) -> Shape:
    target = call.node.attr("shape")
    if not isinstance(target, tuple):
        raise call.fault(f"its attribute shape is {target!r}", "a list of sizes")
    shape: Shape = tuple(target)  # pyright: ignore[reportUnknownArgumentType]
    if sorted(d for d in shape if isinstance(d, str)) != sorted(d for d in call.x if isinstance(d, str)) or _known(
        shape
    ) != _known(call.x):
        raise call.fault(f"an input {text(call.x)} for the shape {text(shape)}", "as many elements")
    return shape


def _known(shape: Shape) -> int:
    return prod(d for d in shape if isinstance(d, int))


def resolve_reshape(x: Shape, target: Sequence[int], *, allow_zero: bool = False) -> Shape | None:
    """The target with 0 (copied size) and -1 (what is left) filled in; none where that is not possible."""
    if sum(d == -1 for d in target) > 1 or min(target, default=0) < -1:
        return None
    if any(d == 0 and i >= len(x) for i, d in enumerate(target)) and not allow_zero:
        return None
    shape: list[Dim] = [x[i] if d == 0 and not allow_zero else d for i, d in enumerate(target)]
    if -1 not in target:
        return tuple(shape)
    rest = [d for d in shape if d != -1]
    names = [d for d in x if isinstance(d, str)]
    for name in (d for d in rest if isinstance(d, str)):
        if name not in names:
            return None
        names.remove(name)
    known, whole = _known(tuple(rest)), _known(x)
    if known == 0 or whole % known or len(names) > 1 or (names and whole != known):
        return None
    shape[list(target).index(-1)] = names[0] if names else whole // known
    return tuple(shape)


def _transpose(call: _Call) -> Shape:
    perm = call.ints("perm", tuple(reversed(range(len(call.x)))))
    if sorted(perm) != list(range(len(call.x))):
        raise call.fault(f"perm {perm} for an input {text(call.x)}", f"an order of 0 to {len(call.x) - 1}")
    return tuple(call.x[p] for p in perm)


def _squeeze(call: _Call) -> Shape:
    axes = {_axis(call, a) for a in call.ints("axes")}
    wrong = [a for a in sorted(axes) if call.x[a] != 1]
    if wrong:
        raise call.fault(f"axis {wrong[0]} of {text(call.x)} to drop", "a size of 1 there")
    return tuple(d for i, d in enumerate(call.x) if i not in axes)


def _unsqueeze(call: _Call) -> Shape:
    given = call.ints("axes")
    rank = len(call.x) + len(given)
    axes = [_axis(call, a, rank=rank) for a in given]
    if len(set(axes)) != len(axes):
        raise call.fault(f"axes {given}", "each axis once")
    rest = iter(call.x)
    return tuple(1 if i in axes else next(rest) for i in range(rank))


Rule = Callable[[_Call], Shape]
RULES: dict[str, Rule] = {
    "Conv": _conv, "Gemm": _gemm, "MatMul": _matmul, "BatchNormalization": _batch_norm,
    "Relu": _same, "Clip": _same, "Requantize": _same, "Lut": _same, "Softmax": _softmax, "Curve": _same,
    "Add": _broadcast, "Sub": _broadcast, "Mul": _broadcast, "Norm": _norm, "Gather": _gather, "Scatter": _scatter,
    "ReduceSum": _reduce, "ReduceMax": _reduce,
    "MaxPool": _pool, "AveragePool": _pool, "GlobalAveragePool": _global_pool, "ReduceMean": _reduce,
    "Concat": _concat, "Slice": _slice, "Pad": _pad, "Flatten": _flatten, "Reshape": _reshape,
    "Transpose": _transpose, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze,
}  # fmt: skip
LEAST_INPUTS = {
    "Lut": 2,
    "Conv": 2,
    "Gemm": 2,
    "MatMul": 2,
    "Add": 2,
    "Sub": 2,
    "Gather": 2,
    "Scatter": 3,
    "Mul": 2,
    "BatchNormalization": 5,
}
