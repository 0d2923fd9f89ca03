"""Layers of ONNX in normal form: transposed and 3-D convolutions, sums over letters (Einsum), norms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.frontend.call import Call, need
from insitu.frontend.windows import conv

Array = npt.NDArray[Any]


def _numbers(call: Call, name: str, rank: int, default: int) -> list[int]:
    return [int(v) for v in call.attrs.get(name, ())] or [default] * rank


def _transposed(call: Call) -> None:
    """A transposed convolution: one convolution whose channels are the phases of every output pixel, interleaved.

    Output o = q * stride + p takes x[q - t] * w[t * stride + p], so phase p is a convolution with every stride-th tap
    and nothing is multiplied by inserted zeros.  Dilated kernels are written out with zeros first.
    """
    w, bias = call.constant(1), call.constant(2)
    sizes = call.known_sizes()
    n = len(sizes) - 2
    need(w is not None and n in (1, 2, 3) and (bias is not None or not call.has(2)))
    assert w is not None
    group = int(call.attrs.get("group", 1))
    strides, dilations, more = (
        _numbers(call, k, n, d) for k, d in (("strides", 1), ("dilations", 1), ("output_padding", 0))
    )
    begin, out = _transposed_sizes(call, w.shape[2:], sizes[2:], strides, dilations, more)
    taps = _spread_taps(w.astype(np.float32), dilations)
    weights, reach = _phases(taps, strides, group)
    pads = tuple(r - 1 for r in reach)
    each = prod(strides)
    more_names = [] if bias is None else [call.table("bias", np.repeat(bias.astype(np.float32), each))]
    ones = (1,) * n
    if n == 3:
        y = _by_slices(call, weights, more_names, ones, ones, (*pads, *pads), group)
    else:
        attrs = {"strides": ones, "dilations": ones, "pads": (*pads, *pads), "group": group}
        y = call.helper("Conv", [call.node.inputs[0], call.table("phases", weights), *more_names], attrs)
    channels, space = w.shape[1] * group, [s + r - 1 for s, r in zip(sizes[2:], reach, strict=True)]
    if each > 1:
        y = call.reshaped(y, (sizes[0], channels, *strides, *space))
        y = call.turned(y, (0, 1, *(i for a in range(n) for i in (2 + n + a, 2 + a))))
    full = [q * s for q, s in zip(space, strides, strict=True)]
    y = call.reshaped(y, (sizes[0], channels, *full))
    _cropped(call, y, begin, out, full)


def _cropped(call: Call, y: str, begin: Sequence[int], out: Sequence[int], full: Sequence[int]) -> None:
    """The output's part of the full map; where it reaches beyond, zeros (a bias makes that another number)."""
    n = len(out)
    over = [max(b + o - f, 0) for b, o, f in zip(begin, out, full, strict=True)]
    under = [max(-b, 0) for b in begin]
    for axis in range(n):
        first = max(begin[axis], 0)
        y = call.cut(y, 2 + axis, first, min(begin[axis] + out[axis], full[axis]))
    if any((*over, *under)):
        bias = call.constant(2)
        need(bias is None or not bias.any())
        return call.write({"pads": (0, 0, *under, 0, 0, *over), "value": 0.0}, op="Pad", inputs=[y])
    return call.write({"shape": call.builder.types[y].shape}, op="Reshape", inputs=[y])


def _transposed_sizes(
    call: Call, kernel: Sequence[int], space: Sequence[int], strides: Sequence[int], dilations: Sequence[int],
    more: list[int],
) -> tuple[list[int], list[int]]:  # fmt: skip
    """(cut at the front, size) of each output axis."""
    n = len(kernel)
    pads = _numbers(call, "pads", 2 * n, 0)
    wanted, auto = call.attrs.get("output_shape"), call.attrs.get("auto_pad", "NOTSET")
    begin, out = pads[:n], list[int]()
    for i, size in enumerate(space):
        full = strides[i] * (size - 1) + more[i] + (kernel[i] - 1) * dilations[i] + 1
        if wanted or auto.startswith("SAME"):
            target = [int(v) for v in wanted][-n:][i] if wanted else size * strides[i]
            total = max(full - target, 0)
            begin[i] = total // 2 if auto == "SAME_UPPER" else total - total // 2
            out.append(target)
        else:
            out.append(full - pads[i] - pads[n + i])
    return begin, out


def _spread_taps(w: Array, dilations: Sequence[int]) -> Array:
    """The kernel with zeros between its taps."""
    shape = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations, strict=True)]
    wide = np.zeros((*w.shape[:2], *shape), w.dtype)
    wide[(slice(None), slice(None), *(slice(None, None, d) for d in dilations))] = w
    return wide


def _phases(w: Array, strides: Sequence[int], group: int) -> tuple[Array, list[int]]:
    """Weights [outputs * phases, inputs / group, taps..] of the phases, taps backward, and taps per axis."""
    n = w.ndim - 2
    reach = [-(-k // s) for k, s in zip(w.shape[2:], strides, strict=True)]
    full = [r * s for r, s in zip(reach, strides, strict=True)]
    wide = np.zeros((*w.shape[:2], *full), w.dtype)
    wide[(slice(None), slice(None), *(slice(0, k) for k in w.shape[2:]))] = w
    inputs, outputs = w.shape[0] // group, w.shape[1]
    split = [v for pair in zip(reach, strides, strict=True) for v in pair]
    parts = wide.reshape(group, inputs, outputs, *split)
    taps, phases = [3 + 2 * a for a in range(n)], [4 + 2 * a for a in range(n)]
    parts = parts.transpose(0, 2, *phases, 1, *taps)
    parts = np.flip(parts, axis=tuple(range(parts.ndim - n, parts.ndim)))
    return np.ascontiguousarray(parts.reshape(group * outputs * prod(strides), inputs, *reach)), reach


def _conv(call: Call) -> None:
    """2-D and 1-D as they are; 3-D as a 2-D convolution over depth slices put side by side as channels."""
    w = call.constant(1)
    need(w is not None and (call.constant(2) is not None or not call.has(2)))
    assert w is not None
    if w.ndim == 5 and len(call.shape()) == 5:
        return _conv_3d(call, w)
    return conv(call)


def _conv_3d(call: Call, w: Array) -> None:
    strides, dilations, pads = (_numbers(call, k, m, d) for k, m, d in (
        ("strides", 3, 1), ("dilations", 3, 1), ("pads", 6, 0)))  # fmt: skip
    pads = _auto_pads(call, w.shape[2:], strides, dilations) or pads
    y = _by_slices(call, w, call.node.inputs[2:3], strides, dilations, pads, int(call.attrs.get("group", 1)))
    call.write({"shape": call.builder.types[y].shape}, op="Reshape", inputs=[y])


def _auto_pads(call: Call, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> list[int]:
    """What auto_pad stands for; empty where it says that `pads` do."""
    auto = call.attrs.get("auto_pad", "NOTSET")
    if auto == "NOTSET":
        return []
    if auto == "VALID":
        return [0] * (2 * len(kernel))
    space = call.known_sizes()[2:]
    full = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    totals = [max((-(-s // t) - 1) * t + f - s, 0) for s, t, f in zip(space, strides, full, strict=True)]
    less, rest = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return [*less, *rest] if auto == "SAME_UPPER" else [*rest, *less]


def _by_slices(
    call: Call, w: Array, bias: Sequence[str], strides: Sequence[int], dilations: Sequence[int], pads: Sequence[int],
    group: int,
) -> str:  # fmt: skip
    """A 3-D convolution of the first input [n, c, depth, height, width] with w [out, c / group, k, kh, kw]."""
    n, c, depth, height, width = call.known_sizes()
    x = call.node.inputs[0]
    if pads[0] or pads[3]:
        x = call.helper("Pad", [x], {"pads": (0, 0, pads[0], 0, 0, 0, 0, pads[3], 0, 0), "value": 0.0})
    total, k = depth + pads[0] + pads[3], w.shape[2]
    out = (total - (k - 1) * dilations[0] - 1) // strides[0] + 1
    slices = [
        call.cut(x, 2, i * dilations[0], i * dilations[0] + (out - 1) * strides[0] + 1, strides[0]) for i in range(k)
    ]
    wide = call.turned(call.helper("Concat", slices, {"axis": 1}) if k > 1 else slices[0], (0, 2, 1, 3, 4))
    if group > 1 and k > 1:  # slices of a group's channels side by side
        wide = call.reshaped(wide, (n * out, k, group, c // group, height * width))
        wide = call.turned(wide, (0, 2, 1, 3, 4))
    wide = call.reshaped(wide, (n * out, k * c, height, width))
    weights = np.ascontiguousarray(w.transpose(0, 2, 1, 3, 4).reshape(w.shape[0], -1, *w.shape[3:]))
    attrs = {"strides": tuple(strides[1:]), "dilations": tuple(dilations[1:]), "group": group,
             "pads": (pads[1], pads[2], pads[4], pads[5])}  # fmt: skip
    y = call.helper("Conv", [wide, call.table("slices", weights), *bias], attrs)
    shape = call.builder.types[y].shape
    return call.turned(call.reshaped(y, (n, out, *shape[1:])), (0, 2, 1, 3, 4))


# sums over letters


def _einsum(call: Call) -> None:
    """Operands without repeated letters: Transposes and a MatMul for each after the first, from left to right."""
    text = str(call.attrs["equation"]).replace(" ", "")
    left, arrow, out = text.partition("->")
    terms, names = left.split(","), list(call.node.inputs)
    need(len(terms) == len(names))
    spare = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in text]
    ranks = [len(call.shape(i)) for i in range(len(names))]
    dots = max((r - len(t.replace("...", "")) for r, t in zip(ranks, terms, strict=True) if "..." in t), default=0)
    terms = [t.replace("...", "".join(spare[:dots])) for t in terms]
    if not arrow:
        out = ("..." if dots else "") + "".join(sorted(c for c in set(left) - set(",.") if left.count(c) == 1))
    out = out.replace("...", "".join(spare[:dots]))
    need(all(len(set(t)) == len(t) == r for t, r in zip(terms, ranks, strict=True)))
    parts = [
        _summed(call, v, t, [*out, *(c for j, o in enumerate(terms) if j != i for c in o)])
        for i, (v, t) in enumerate(zip(names, terms, strict=True))
    ]
    value, letters = parts[0]
    for i, part in enumerate(parts[1:], 2):
        value, letters = _contracted(call, [(value, letters), part], out + "".join(t for _, t in parts[i:]))
    perm = [letters.index(c) for c in out]
    call.write({"perm": tuple(perm)}, op="Transpose", inputs=[value])


def _summed(call: Call, value: str, letters: str, kept: Sequence[str]) -> tuple[str, str]:
    gone = tuple(i for i, c in enumerate(letters) if c not in kept)
    if gone:
        need(value not in call.builder.constants)
        value = call.helper("ReduceSum", [value], {"axes": gone, "keepdims": 0})
    return value, "".join(c for c in letters if c in kept)


def _contracted(call: Call, parts: list[tuple[str, str]], out: str) -> tuple[str, str]:
    if parts[0][0] in call.builder.constants:
        parts = parts[::-1]
    (a, la), (b, lb) = parts
    batch = [c for c in la if c in lb and c in out]
    inner = [c for c in la if c in lb and c not in out]
    m, n = [c for c in la if c not in lb], [c for c in lb if c not in la]
    types = call.builder.types
    size = {c: int(d) for c, d in (*zip(la, types[a].shape, strict=True), *zip(lb, types[b].shape, strict=True))}
    rows, deep, cols = (prod(size[c] for c in g) for g in (m, inner, n))
    lead = [size[c] for c in batch]
    left = call.reshaped(call.turned(a, [la.index(c) for c in (*batch, *m, *inner)]), (*lead, rows, deep))
    right = call.reshaped(call.turned(b, [lb.index(c) for c in (*batch, *inner, *n)]), (*lead, deep, cols))
    letters = [*batch, *m, *n]
    y = call.reshaped(call.helper("MatMul", [left, right]), [size[c] for c in letters])
    return y, "".join(letters)


# norms


def _normed(call: Call, x: str, axes: Sequence[int], *, center: bool = True, epsilon: float = 1e-5) -> str:
    return call.helper("Norm", [x], {"axes": tuple(axes), "epsilon": epsilon, "center": int(center)})


def _scaled(call: Call, value: str, scale: Array | None, shift: Array | None) -> None:
    """A value times a scale plus a shift, as the node's output."""
    if scale is not None:
        value = call.helper("Mul", [value, call.table("scale", scale.astype(np.float32))])
    if shift is not None:
        value = call.helper("Add", [value, call.table("shift", shift.astype(np.float32))])
    call.write({"shape": call.builder.types[value].shape}, op="Reshape", inputs=[value])


def _tables(call: Call, *places: int) -> list[Array | None]:
    found = [call.constant(i) for i in places]
    need(all(f is not None or not call.has(i) for f, i in zip(found, places, strict=True)))
    return found


def _layer_norm(call: Call) -> None:
    need(len([v for v in call.node.outputs if v]) == 1)
    scale, shift = _tables(call, 1, 2)
    axis, rank = call.axis(int(call.attrs.get("axis", -1))), len(call.shape())
    value = _normed(
        call, call.node.inputs[0], range(axis, rank), epsilon=float(call.attrs.get("epsilon", 1e-5)),
        center=call.node.op == "LayerNormalization",
    )  # fmt: skip
    _scaled(call, value, scale, shift)


def _skip_norm(call: Call) -> None:
    """ONNX Runtime's norm of a sum; the sum itself is its fourth output."""
    simple = call.node.op.startswith("SkipSimplified")
    scale, shift, bias = _tables(call, 2, *((9, 3) if simple else (3, 4)))
    need(len(call.node.outputs) < 2 or not any(call.node.outputs[1:3]))
    total = call.helper("Add", call.node.inputs[:2])
    total = call.helper("Add", [total, call.table("bias", bias)]) if bias is not None else total
    rank = len(call.builder.types[total].shape)
    call.result(3, "Reshape", [total], {"shape": call.builder.types[total].shape})
    value = _normed(call, total, [rank - 1], center=not simple, epsilon=float(call.attrs.get("epsilon", 1e-12)))
    _scaled(call, value, scale, shift)


def _channels(call: Call, table: Array | None, channels: int) -> Array | None:
    """One number per channel, shaped to broadcast over an image."""
    if table is None:
        return None
    rank = len(call.shape())
    each = np.repeat(table.reshape(-1), channels // table.size)
    return each.reshape(1, channels, *(1,) * (rank - 2))


def _instance_norm(call: Call) -> None:
    scale, shift = _tables(call, 1, 2)
    c = call.known_sizes()[1]
    value = _normed(
        call, call.node.inputs[0], range(2, len(call.shape())), epsilon=float(call.attrs.get("epsilon", 1e-5))
    )
    _scaled(call, value, _channels(call, scale, c), _channels(call, shift, c))


def _group_norm(call: Call) -> None:
    scale, shift = _tables(call, 1, 2)
    shape, groups = call.known_sizes(), int(call.attrs.get("num_groups", call.attrs.get("groups", 1)))
    need(shape[1] % groups == 0)
    flat = call.reshaped(call.node.inputs[0], (shape[0], groups, prod(shape[1:]) // groups))
    value = call.reshaped(_normed(call, flat, [2], epsilon=float(call.attrs.get("epsilon", 1e-5))), shape)
    _scaled(call, value, _channels(call, scale, shape[1]), _channels(call, shift, shape[1]))


def _lp_norm(call: Call) -> None:
    axis = call.axis(int(call.attrs.get("axis", -1)))
    need(int(call.attrs.get("p", 2)) == 2)
    value = _normed(call, call.node.inputs[0], [axis], center=False, epsilon=0.0)
    call.write(op="Mul", inputs=[value, call.number(float(call.size(axis)) ** -0.5)])


def _mean_variance(call: Call) -> None:
    axes = [call.axis(int(a)) for a in call.attrs.get("axes", (0, 2, 3))]
    call.write({"axes": tuple(axes), "epsilon": 1e-9, "center": 1}, op="Norm")


def _lrn(call: Call) -> None:
    """X * (bias + alpha * mean of the squares of near channels) ^ -beta: a pool over channels and a table."""
    shape, size = call.known_sizes(), int(call.attrs["size"])
    alpha, beta, bias = (float(call.attrs.get(k, d)) for k, d in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    x = call.node.inputs[0]
    square = call.reshaped(call.curved("mul x x", x), (shape[0], 1, shape[1], prod(shape[2:])))
    window = {
        "kernel_shape": (size, 1), "strides": (1, 1), "dilations": (1, 1), "count_include_pad": 1,
        "pads": ((size - 1) // 2, 0, size // 2, 0),
    }  # fmt: skip
    near = call.reshaped(call.helper("AveragePool", [square], window), shape)
    factor = call.curved(f"pow add {bias!r} mul {alpha!r} x {-beta!r}", near)
    call.write(op="Mul", inputs=[x, factor])


LAYERS: dict[str, Callable[[Call], None]] = {
    "ConvTranspose": _transposed, "Conv": _conv, "Einsum": _einsum, "LayerNormalization": _layer_norm,
    "RMSNormalization": _layer_norm, "SimplifiedLayerNormalization": _layer_norm,
    "SkipLayerNormalization": _skip_norm, "SkipSimplifiedLayerNormalization": _skip_norm,
    "InstanceNormalization": _instance_norm, "GroupNormalization": _group_norm, "LpNormalization": _lp_norm,
    "MeanVarianceNormalization": _mean_variance, "LRN": _lrn,
}  # fmt: skip
