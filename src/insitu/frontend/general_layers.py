"""ONNX layers as products and reductions: convolutions, pools, matrix products, norms."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from insitu.frontend.general_ops import Op, Rule, UnloweredError
from insitu.frontend.net import Net

# windows


def spatial(op: Op, kernel: Sequence[int]) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
    """(strides, dilations, begin pads, end pads, output sizes) of a windowed operator, ceil_mode as extra end pads."""
    n = len(kernel)
    strides, dilations = (list(op.attr(name) or [1] * n) for name in ("strides", "dilations"))
    pads = list(op.attr("pads") or [0] * (2 * n))
    begin, end, out = pads[:n], pads[n:], list[int]()
    auto = op.attr("auto_pad", "NOTSET")
    auto = auto.decode() if isinstance(auto, bytes) else auto
    for i, size in enumerate(op.shape()[2:]):
        reach = (kernel[i] - 1) * dilations[i] + 1
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            total = max((-(-size // strides[i]) - 1) * strides[i] + reach - size, 0)
            begin[i], end[i] = (total // 2, total - total // 2)[:: 1 if auto == "SAME_UPPER" else -1]
        elif auto == "VALID":
            begin[i] = end[i] = 0
        room = size + begin[i] + end[i] - reach
        steps = room // strides[i] + 1
        if op.attr("ceil_mode", 0):
            steps = -(-room // strides[i]) + 1
            steps -= (steps - 1) * strides[i] >= size + begin[i]  # no window may start in the end padding
        out.append(steps)
    return strides, dilations, begin, end, out


def windows(net: Net, x: str, kernel: Sequence[int], op: Op, value: float) -> tuple[str, list[int]]:
    """Padded windows [N, C, positions, kernel] and the number of elements in each that are data or given padding."""
    strides, dilations, begin, end, out = spatial(op, kernel)
    shape = net.shape(x)
    extra = [
        max((o - 1) * s + (k - 1) * d + 1 - (size + b + e), 0)
        for o, s, k, d, size, b, e in zip(out, strides, kernel, dilations, shape[2:], begin, end, strict=True)
    ]
    padded = net.pad(x, (0, 0, *begin), (0, 0, *(e + more for e, more in zip(end, extra, strict=True))), value)
    view = net.window(padded, kernel, strides, dilations)
    counted = np.ones(shape[2:])
    if op.attr("count_include_pad", 0):
        counted = np.pad(counted, list(zip(begin, end, strict=True)), constant_values=1)
        counted = np.pad(counted, [(0, more) for more in extra])
    else:
        counted = np.pad(counted, [(b, e + more) for b, e, more in zip(begin, end, extra, strict=True)])
    spot = Net()
    spot.label = "count"
    counts = spot.window(spot.constant(counted), kernel, strides, dilations)
    taken = spot.constants[counts].reshape(*out_of(spot.shape(counts), len(kernel)), -1).sum(-1)
    if net.shape(view)[2 : 2 + len(out)] != tuple(out):
        lead = net.shape(view)
        for axis, size in enumerate(out):
            view = net.slice(view, 2 + axis, 0, size)
        del lead
        taken = taken[tuple(slice(0, o) for o in out)]
    return view, taken.reshape(-1).astype(int).tolist()


def out_of(shape: Sequence[int], kernel: int) -> tuple[int, ...]:
    """The positions of a window shape."""
    return tuple(shape[: len(shape) - kernel])


def conv_of(net: Net, x: str, w: str, bias: str, group: int) -> str:
    """Windows [N, C, O.., K..] times weights [M, C / group, K..]."""
    shape, wide = net.shape(x), net.shape(w)
    n = len(wide) - 2
    channels, outputs = shape[1] // group, wide[0] // group
    if channels == 1 and outputs == 1:  # depthwise: nothing to share, so the vector unit does it
        y = _depthwise(net, x, w, n)
        parts = [y]
    else:
        parts = []
        for g in range(group):
            mine = net.slice(x, 1, g * channels, (g + 1) * channels)
            own = net.slice(w, 0, g * outputs, (g + 1) * outputs)
            parts.append(_group(net, mine, own, n))
    y = net.concat(parts, 1)
    return net.v2("add", y, net.reshape(bias, (-1, *(1,) * n))) if bias else y


def _depthwise(net: Net, x: str, w: str, n: int) -> str:
    kernel = net.shape(w)[2:]
    weights = net.reshape(w, (net.shape(w)[0], *(1,) * n, *kernel))
    products = net.v2("mul", x, weights)
    return net.reduce("sum", products, range(2 + n, 2 + 2 * n), keep=False)


def _group(net: Net, x: str, w: str, n: int) -> str:
    shape = net.shape(x)
    rows = net.transpose(x, (0, *range(2, 2 + n), 1, *range(2 + n, 2 + 2 * n)))
    matrix = net.transpose(net.reshape(w, (net.shape(w)[0], -1)), (1, 0))
    if w in net.constants and net.dtype(w) == "f32":
        y = net.add("MVM", [rows, matrix], rows=n + 1)
    else:
        flat = net.reshape(rows, (shape[0], prod(shape[2 : 2 + n]), -1))
        y = net.reshape(net.add("MMA", [flat, matrix]), (shape[0], *shape[2 : 2 + n], -1))
    return net.transpose(y, (0, n + 1, *range(1, n + 1)))


def _conv(op: Op) -> str:
    net, w = op.net, op.x(1)
    if net.dtype(w)[0] != "f":
        raise UnloweredError
    view, _ = windows(net, op.x(), net.shape(w)[2:], op, 0)
    return conv_of(net, view, w, op.x(2) if op.has(2) else "", op.attr("group", 1))


def _conv_integer(op: Op) -> str:
    net = op.net
    x, w = (net.cast(op.x(i), "i32") for i in (0, 1))
    for_x, for_w = (net.cast(op.x(i), "i32") if op.has(i) else "" for i in (2, 3))
    x = net.v2("sub", x, for_x) if for_x else x
    if for_w:
        w = net.v2("sub", w, net.reshape(for_w, (-1, 1, 1, 1)) if net.shape(for_w) else for_w)
    view, _ = windows(net, x, net.shape(w)[2:], op, 0)
    return conv_of(net, view, w, "", op.attr("group", 1))


def _conv_transpose(op: Op) -> str:
    net, x, w = op.net, op.x(), op.x(1)
    kernel, n, group = op.shape(1)[2:], op.rank - 2, op.attr("group", 1)
    strides, dilations, more = (
        list(op.attr(k) or [d] * n) for k, d in (("strides", 1), ("dilations", 1), ("output_padding", 0))
    )
    begin, end = _transposed_pads(op, kernel, strides, dilations, more)
    for axis, step in enumerate(strides):  # step - 1 zeros between neighbours
        shape = list(net.shape(x))
        wide = net.unsqueeze(x, [3 + axis])
        after = [0] * len(net.shape(wide))
        after[3 + axis] = step - 1
        wide = net.pad(wide, [0] * len(after), after, 0)
        shape[2 + axis] *= step
        x = net.slice(net.reshape(wide, shape), 2 + axis, 0, shape[2 + axis] - step + 1)
    edge = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
    front = [e - b for e, b in zip(edge, begin, strict=True)]
    back = [e - b + m for e, b, m in zip(edge, end, more, strict=True)]
    x = net.pad(x, (0, 0, *front), (0, 0, *back), 0)
    for axis, size in enumerate(kernel):
        w = net.slice(w, 2 + axis, size - 1, -1, -1) if size > 1 else w
    c, m = net.shape(w)[0] // group, net.shape(w)[1]
    parts = [net.slice(w, 0, g * c, (g + 1) * c) for g in range(group)]
    swapped = [net.transpose(p, (1, 0, *range(2, 2 + n))) for p in parts]
    y = net.concat(swapped, 0)
    del m
    view = net.window(x, kernel, (1,) * n, dilations)
    return conv_of(net, view, y, op.x(2) if op.has(2) else "", group)


def _transposed_pads(
    op: Op, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], more: list[int]
) -> tuple[list[int], list[int]]:
    n = len(kernel)
    pads = list(op.attr("pads") or [0] * (2 * n))
    begin, end = pads[:n], pads[n:]
    auto, wanted = op.attr("auto_pad", "NOTSET"), op.attr("output_shape")
    auto = auto.decode() if isinstance(auto, bytes) else auto
    for i, size in enumerate(op.shape()[2:]):
        full = strides[i] * (size - 1) + more[i] + (kernel[i] - 1) * dilations[i] + 1
        if wanted or auto.startswith("SAME"):
            target = list(wanted)[-n:][i] if wanted else size * strides[i]
            total = full - target
            begin[i], end[i] = (
                (total // 2, total - total // 2) if auto == "SAME_UPPER" else (total - total // 2, total // 2)
            )
            if wanted and auto != "SAME_UPPER":
                begin[i], end[i] = total - total // 2, total // 2
    return begin, end


# pools


def _max_pool(op: Op) -> list[str]:
    net, x, kernel = op.net, op.x(), list(op.attr("kernel_shape"))
    dtype, n = net.dtype(x), len(kernel)
    low = -np.inf if dtype[0] == "f" else np.iinfo(np.dtype({"u8": "u1", "i8": "i1"}.get(dtype, "i4"))).min
    view, _ = windows(net, x, kernel, op, float(low))
    axes = range(2 + n, 2 + 2 * n)
    best = net.reduce("max", view, axes, keep=False)
    if op.outputs < 2:
        return [best]
    strides, dilations, begin, _, out = spatial(op, kernel)
    sizes = op.shape()[2:]
    steps = [prod(sizes[i + 1 :]) for i in range(n)]
    if op.attr("storage_order", 0):
        steps = [prod(sizes[:i]) for i in range(n)]
    inside = sum(np.indices(kernel)[i] * dilations[i] * steps[i] for i in range(n))
    first = sum((np.indices(out)[i] * strides[i] - begin[i]) * steps[i] for i in range(n))
    planes = np.arange(prod(op.shape()[:2])).reshape(*op.shape()[:2], *(1,) * n) * prod(sizes)
    base = net.constant(np.asarray(planes + np.asarray(first), np.int64))
    place = net.gather(
        net.constant(np.asarray(inside, np.int64).reshape(-1)), net.reduce("argmax", view, axes, keep=False), 0
    )
    return [best, net.v2("add", place, base)]


def _average_pool(op: Op) -> str:
    net, kernel = op.net, list(op.attr("kernel_shape"))
    op.floats()
    n = len(kernel)
    view, counts = windows(net, op.x(), kernel, op, 0)
    total = net.reduce("sum", view, range(2 + n, 2 + 2 * n), keep=False)
    table = np.asarray(counts).reshape(net.shape(view)[2 : 2 + n])
    return net.v2("div", total, net.constant(table, net.dtype(total)))


def _lp_pool(op: Op) -> str:
    net, kernel, p = op.net, list(op.attr("kernel_shape")), op.attr("p", 2)
    n = len(kernel)
    view, _ = windows(net, net.v2n("pow", net.v1("abs", op.x()), p), kernel, op, 0)
    return net.v2n("pow", net.reduce("sum", view, range(2 + n, 2 + 2 * n), keep=False), 1 / p)


def _global(fn: str) -> Rule:
    return lambda op: op.net.reduce(fn, op.x(), range(2, op.rank))


def _global_lp(op: Op) -> str:
    net, p = op.net, op.attr("p", 2)
    total = net.reduce("sum", net.v2n("pow", net.v1("abs", op.x()), p), range(2, op.rank))
    return net.v2n("pow", total, 1 / p)


# products


def _gemm(op: Op) -> str:
    net, a, b = op.net, op.x(), op.x(1)
    op.floats()
    a = net.transpose(a, (1, 0)) if op.attr("transA", 0) else a
    b = net.transpose(b, (1, 0)) if op.attr("transB", 0) else b
    if len(net.shape(a)) != 2:
        a = net.reshape(a, (net.shape(a)[0], -1))
    y = net.matmul(a, b)
    alpha, beta = op.attr("alpha", 1.0), op.attr("beta", 1.0)
    y = net.v2n("mul", y, alpha) if alpha != 1 else y
    if not op.has(2):
        return y
    c = net.v2n("mul", op.x(2), beta) if beta != 1 else op.x(2)
    return net.v2("add", y, c)


def _matmul(op: Op) -> str:
    op.floats()
    return product(op.net, op.x(), op.x(1))


def product(net: Net, a: str, b: str) -> str:
    """NumPy's matmul, vectors included."""
    left, right = len(net.shape(a)) == 1, len(net.shape(b)) == 1
    a = net.unsqueeze(a, [0]) if left else a
    b = net.unsqueeze(b, [1]) if right else b
    y = net.matmul(a, b)
    y = net.squeeze(y, [-1]) if right else y
    return net.squeeze(y, [-1 if right else -2]) if left else y


def _matmul_integer(op: Op) -> str:
    net = op.net
    a, b = (net.cast(op.x(i), "i32") for i in (0, 1))
    if op.has(2):
        zero = net.cast(op.x(2), "i32")
        a = net.v2(
            "sub", a, net.unsqueeze(zero, [1]) if len(net.shape(zero)) == 1 and net.shape(zero) != (1,) else zero
        )
    b = net.v2("sub", b, net.cast(op.x(3), "i32")) if op.has(3) else b
    return product(net, a, b)


def _einsum(op: Op) -> str:
    """One or two operands without repeated letters."""
    net, text = op.net, op.attr("equation")
    text = (text.decode() if isinstance(text, bytes) else text).replace(" ", "")
    left, arrow, out = text.partition("->")
    terms = left.split(",")
    op.floats()
    spare = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in text]
    dots = max((len(op.shape(i)) - len(t.replace("...", "")) for i, t in enumerate(terms) if "..." in t), default=0)
    terms = [t.replace("...", "".join(spare[:dots])) for t in terms]
    if not arrow:
        every = "".join(terms)
        out = ("..." if dots else "") + "".join(sorted(c for c in set(left) - set(",.") if every.count(c) == 1))
    out = out.replace("...", "".join(spare[:dots]))
    if len(terms) > 2 or any(len(set(t)) != len(t) or len(t) != len(op.shape(i)) for i, t in enumerate(terms)):
        raise UnloweredError
    parts = [_summed(net, op.x(i), t, [*out, *(terms[1 - i] if len(terms) == 2 else "")]) for i, t in enumerate(terms)]
    if len(parts) == 1:
        value, letters = parts[0]
        return net.transpose(value, [letters.index(c) for c in out])
    return _contracted(net, parts, out)


def _summed(net: Net, x: str, letters: str, kept: Sequence[str]) -> tuple[str, str]:
    gone = [i for i, c in enumerate(letters) if c not in kept]
    return net.reduce("sum", x, gone, keep=False) if gone else x, "".join(c for c in letters if c in kept)


def _contracted(net: Net, parts: list[tuple[str, str]], out: str) -> str:
    (a, la), (b, lb) = parts
    batch = [c for c in la if c in lb and c in out]
    inner = [c for c in la if c in lb and c not in out]
    m, n = [c for c in la if c not in lb], [c for c in lb if c not in la]
    size = {**dict(zip(la, net.shape(a), strict=True)), **dict(zip(lb, net.shape(b), strict=True))}
    many = [prod(size[c] for c in group) for group in (batch, m, inner, n)]
    left = net.reshape(net.transpose(a, [la.index(c) for c in (*batch, *m, *inner)]), (many[0], many[1], many[2]))
    right = net.reshape(net.transpose(b, [lb.index(c) for c in (*batch, *inner, *n)]), (many[0], many[2], many[3]))
    letters = [*batch, *m, *n]
    y = net.reshape(net.add("MMA", [left, right]), [size[c] for c in letters])
    return net.transpose(y, [letters.index(c) for c in out])


# norms


def _batch_norm(op: Op) -> str:
    net = op.net
    if op.attr("training_mode", 0) or op.outputs > 1 or not op.attr("spatial", 1):
        raise UnloweredError
    scale, bias, mean, variance = (net.reshape(op.x(i), (-1, *(1,) * (op.rank - 2))) for i in (1, 2, 3, 4))
    spread = net.v1("sqrt", net.v2n("add", variance, op.attr("epsilon", 1e-5)))
    return net.v2("add", net.v2("mul", net.v2("div", net.v2("sub", op.x(), mean), spread), scale), bias)


def _instance_norm(op: Op) -> str:
    net, x, axes = op.net, op.x(), range(2, op.rank)
    scale, bias = (net.reshape(op.x(i), (-1, *(1,) * (op.rank - 2))) for i in (1, 2))
    return net.v2("add", net.v2("mul", normalized(net, x, axes, op.attr("epsilon", 1e-5)), scale), bias)


def normalized(net: Net, x: str, axes: Sequence[int], epsilon: float) -> str:
    """(x - mean) / sqrt(variance + epsilon) over axes."""
    centred = net.v2("sub", x, net.reduce("mean", x, axes))
    variance = net.reduce("mean", net.v2("mul", centred, centred), axes)
    return net.v2("div", centred, net.v1("sqrt", net.v2n("add", variance, epsilon)))


def _lrn(op: Op) -> str:
    net, x, size = op.net, op.x(), int(op.attr("size"))
    square = net.move_axis(net.v2("mul", x, x), 1, -1)
    before = [0] * op.rank
    after = [0] * op.rank
    before[-1], after[-1] = (size - 1) // 2, size // 2
    near = net.window(net.pad(square, before, after, 0), (size,), (1,), (1,))
    total = net.move_axis(net.reduce("sum", near, [-1], keep=False), -1, 1)
    scale = net.v2n("add", net.v2n("mul", total, op.attr("alpha", 1e-4) / size), op.attr("bias", 1.0))
    return net.v2("div", x, net.v2n("pow", scale, op.attr("beta", 0.75)))


def _lp_norm(op: Op) -> str:
    net, x, axis, p = op.net, op.x(), op.axis(-1), op.attr("p", 2)
    total = net.reduce("sum", net.v1("abs", x) if p == 1 else net.v2("mul", x, x), [axis])
    size = total if p == 1 else net.v1("sqrt", total)
    zero = net.like(0, x)
    return net.select(net.v2("equal", size, zero), zero, net.v2("div", x, size))


LAYERS: dict[str, Rule] = {
    "Conv": _conv, "ConvInteger": _conv_integer, "ConvTranspose": _conv_transpose, "MaxPool": _max_pool,
    "AveragePool": _average_pool, "LpPool": _lp_pool, "GlobalAveragePool": _global("mean"),
    "GlobalMaxPool": _global("max"), "GlobalLpPool": _global_lp,
    "Gemm": _gemm, "MatMul": _matmul, "MatMulInteger": _matmul_integer, "Einsum": _einsum,
    "BatchNormalization": _batch_norm, "InstanceNormalization": _instance_norm, "LRN": _lrn,
    "LpNormalization": _lp_norm,
}  # fmt: skip
