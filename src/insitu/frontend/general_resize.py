"""ONNX resizing as gathers and products, and quantization as arithmetic."""

from __future__ import annotations

from math import floor
from typing import Any

import numpy as np

from insitu.frontend.general_ops import Op, Rule, UnloweredError

# resizing


def _resize(op: Op) -> str:
    x, shape = op.x(), op.shape()
    old = op.opset < 11 or op.attrs.get("upsample")
    scales = op.const(1 if old else 2)
    given = None if old else op.const(3)
    axes = [a % op.rank for a in op.attr("axes", range(op.rank))]
    mode, place = (
        _text(op.attr(k, d)) for k, d in (("mode", "nearest"), ("coordinate_transformation_mode", "half_pixel"))
    )
    place = "asymmetric" if old else place
    if op.attr("antialias", 0) or (place == "tf_crop_and_resize"):
        raise UnloweredError
    factor = (
        {a: float(s) for a, s in zip(axes, scales.reshape(-1), strict=True)}
        if scales is not None and scales.size
        else {}
    )
    sizes = (
        {a: int(s) for a, s in zip(axes, given.reshape(-1), strict=True)} if given is not None and given.size else {}
    )
    policy = _text(op.attr("keep_aspect_ratio_policy", "stretch"))
    if sizes and policy != "stretch":
        pick = max if policy == "not_smaller" else min
        common = float(pick(sizes[a] / shape[a] for a in axes))
        factor = dict.fromkeys(axes, common)
        sizes = {a: floor(common * shape[a] + 0.5) for a in axes}
    for axis in axes:
        out = sizes[axis] if axis in sizes else floor(shape[axis] * factor[axis])
        scale = factor[axis] if axis in factor else out / shape[axis]
        if out != shape[axis] or scale != 1:
            x = _resized(op, x, axis, out, scale, mode, place)
    return x


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _resized(op: Op, x: str, axis: int, out: int, scale: float, mode: str, place: str) -> str:
    net, size = op.net, op.net.shape(x)[axis]
    at = _coordinates(out, size, scale, place)
    if mode == "nearest":
        how = (
            "floor"
            if op.opset < 11 or op.attrs.get("upsample")
            else _text(op.attr("nearest_mode", "round_prefer_floor"))
        )
        rounded = {
            "round_prefer_floor": np.ceil(at - 0.5),
            "round_prefer_ceil": np.floor(at + 0.5),
            "floor": np.floor(at),
        }
        index = np.clip(rounded.get(how, np.ceil(at)), 0, size - 1).astype(np.int64)
        return net.gather(x, net.constant(index), axis)
    op.floats()
    matrix = _weights(at, size, "cubic" in mode, op.attr("cubic_coeff_a", -0.75), bool(op.attr("exclude_outside", 0)))
    turned = net.move_axis(x, axis, -1)
    rows = net.reshape(turned, (-1, size))
    y = net.matmul(rows, net.constant(matrix, net.dtype(x)))
    return net.move_axis(net.reshape(y, (*net.shape(turned)[:-1], out)), -1, axis)


def _coordinates(out: int, size: int, scale: float, place: str) -> Any:
    i = np.arange(out, dtype=np.float64)
    match place:
        case "align_corners":
            return i * (size - 1) / (out - 1) if out > 1 else i * 0
        case "asymmetric":
            return i / scale
        case "pytorch_half_pixel":
            return (i + 0.5) / scale - 0.5 if out > 1 else i * 0
        case "half_pixel_symmetric":
            adjust = out / (scale * size)
            return size / 2 * (1 - adjust) + (i + 0.5) / scale - 0.5
        case "half_pixel":
            return (i + 0.5) / scale - 0.5
        case _:
            raise UnloweredError


def _weights(at: Any, size: int, cubic: bool, a: float, exclude: bool) -> Any:
    """[in, out] weights of a linear or cubic interpolation, clamped at the edges."""
    matrix = np.zeros((size, len(at)))
    for j, x in enumerate(at):
        base = floor(x)
        r = x - base
        taps = {base: 1 - r, base + 1: r}
        if cubic:
            far, near = (
                (lambda d: ((a * d - 5 * a) * d + 8 * a) * d - 4 * a),
                (lambda d: ((a + 2) * d - (a + 3)) * d * d + 1),
            )
            taps = {base - 1: far(1 + r), base: near(r), base + 1: near(1 - r), base + 2: far(2 - r)}
        if exclude:
            taps = {i: w for i, w in taps.items() if 0 <= i < size}
            taps = {i: w / sum(taps.values()) for i, w in taps.items()}
        for i, w in taps.items():
            matrix[min(max(i, 0), size - 1), j] += w
    return matrix


# quantization as arithmetic


def _along(op: Op, x: str, value: str) -> str:
    """A per-axis table shaped to broadcast against x."""
    net = op.net
    if len(net.shape(value)) == 0 or net.shape(value) == (1,):
        return net.reshape(value, ())
    if len(net.shape(value)) != 1 or op.attr("block_size", 0):
        raise UnloweredError
    axis = op.attr("axis", 1) % op.rank
    return net.reshape(value, [-1 if i == axis else 1 for i in range(op.rank)])


CODES = {2: "u8", 3: "i8", 4: "u16", 5: "i16"}


def _zero_of(op: Op, kind: str) -> str:
    """The zero point, or 0."""
    return _along(op, op.x(), op.x(2)) if op.has(2) else op.net.constant(0, kind)


def _dequantize(op: Op) -> str:
    net, x, kind = op.net, op.x(), op.net.dtype(op.x())
    if net.dtype(op.x(1)) != "f32" or op.attr("output_dtype", 0) not in (0, 1):
        raise UnloweredError
    if kind in CODES.values():
        return net.add("DQ", [x, _along(op, x, op.x(1)), _zero_of(op, kind)])
    y = net.cast(x, "i32")
    y = net.v2("sub", y, net.cast(_zero_of(op, kind), "i32")) if op.has(2) else y
    return net.v2("mul", net.cast(y, "f32"), _along(op, x, op.x(1)))


def _quantize(op: Op) -> str:
    net, x = op.net, op.x()
    to = net.dtype(op.x(2)) if op.has(2) else {0: "u8", **CODES}.get(op.attr("output_dtype", 0), "")
    if to not in CODES.values() or net.dtype(x) != "f32" or net.dtype(op.x(1)) != "f32":
        raise UnloweredError
    return net.add("Q", [x, _along(op, x, op.x(1)), _zero_of(op, to)], to=to)


def _dynamic(op: Op) -> list[str]:
    if op.net.dtype(op.x()) != "f32":
        raise UnloweredError
    return op.net.dynamic(op.x(), "u8")


RESIZING: dict[str, Rule] = {
    "Resize": _resize, "Upsample": _resize, "DequantizeLinear": _dequantize, "QuantizeLinear": _quantize,
    "DynamicQuantizeLinear": _dynamic,
}  # fmt: skip
