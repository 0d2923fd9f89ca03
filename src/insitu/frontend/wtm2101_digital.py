"""Digital operators of the vendor dialect: shifts, sums, products, tables, pools, and what only moves codes."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from insitu.frontend.wtm2101_conv import windows
from insitu.frontend.wtm2101_draft import INT8, UINT8, Array, Call, Draft, Value, rounding, spec_of
from insitu.frontend.wtm2101_layers import integers
from insitu.graph.graph import Attr
from insitu.graph.ops.lut import byte_table
from insitu.numeric.affine import Ints, multiplier_of
from insitu.numeric.functions import softmax_table

FACTOR_BITS = 15  # of a BatchNormalization's factor per channel
Operator = Callable[[Draft, Call], Value]


def first(draft: Draft, call: Call) -> Value:
    """The value at the first input."""
    return draft.values[call.node.inputs[0]]


def _scaled(
    draft: Draft, call: Call, x: Value, *, factor: int, shift: int, offset: int = 0, op: str = "Scale"
) -> Value:
    """(x * factor + offset) * 2**shift, in a byte: unsigned where nothing is below 0, as the next array reads it."""
    up, down = max(shift, 0), max(-shift, 0)
    if factor == 1 and shift == 0 and offset == 0 and not call.relu and x.lo >= INT8[0] and x.hi <= UINT8[1]:
        return draft.clipped(x, x.lo, x.hi, name=call.name, output=call.output)
    ends = sorted(((v * factor + offset) << up) >> down for v in (x.lo, x.hi))
    low, high = UINT8 if ends[0] >= 0 else INT8
    lo, hi = max(low, 0 if call.relu else ends[0]), min(high, max(ends[1], 0))
    lo = min(lo, hi)
    mode = rounding(op)
    if factor >= 0 and offset == 0:
        attrs: dict[str, Attr] = {"multiplier": factor << up}
        return draft.arithmetic(
            "Requantize", [x], lo, hi, name=call.name, output=call.output, rounding=mode, shift=down, attrs=attrs
        )
    attrs = {"scale_a": factor << up, "scale_b": (offset << up) if offset else 0}
    other: Value | str = x
    if offset:
        other = draft.constant(f"{call.name}.one", np.ones((1,), np.int8), spec=spec_of(*INT8))
    return draft.arithmetic(
        "Add", [x, other], lo, hi, name=call.name, output=call.output, rounding=mode, shift=down, attrs=attrs
    )


def scale(draft: Draft, call: Call) -> Value:
    """Scale away from an array layer: a power of two below 1 is a shift, an integer a product."""
    if "op_types" in call.attrs:
        return scalar(draft, call)
    value = call.number("scale", 1.0)
    places = -np.log2(abs(value)) if value else 0.0
    if value.is_integer() and abs(value) <= 255:
        return _scaled(draft, call, first(draft, call), factor=int(value), shift=0)
    if 0 < abs(value) < 1 and float(places).is_integer() and places <= 13:
        return _scaled(draft, call, first(draft, call), factor=1 if value > 0 else -1, shift=-int(places))
    raise call.fault(f"scale = {value:g}", "2^-n with n up to 13, or an integer up to 255; FloatScale takes others")


def scalar(draft: Draft, call: Call) -> Value:
    """Scalar: x * scale or x + scale, then a shift (to the left where it is positive)."""
    kind, value = str(call.attrs.get("op_types", "mul")), call.number("scale", 1)
    shift = call.integer("shift_bit", 0)
    if kind not in ("mul", "add") or not value.is_integer() or abs(value) > 255 or abs(shift) > 14:
        raise call.fault(
            f"{kind} by {value:g}, shift_bit {shift}", "mul or add of an integer up to 255, 14 places at most"
        )
    factor, offset = (int(value), 0) if kind == "mul" else (1, int(value))
    return _scaled(draft, call, first(draft, call), factor=factor, offset=offset, shift=shift, op="Scalar")


def _operand(draft: Draft, call: Call, index: int) -> Value | str:
    name = call.node.inputs[index]
    if name in draft.values:
        return draft.values[name]
    array = integers(call, draft.builder.constants[name])
    spec = spec_of(int(array.min(initial=0)), int(array.max(initial=0)))
    return draft.constant(f"{call.name}.{index}", array.astype(np.int8 if spec.bits == 8 else np.int32), spec=spec)


def binary(draft: Draft, call: Call) -> Value:
    """Add and Mul (Added, Multi), shifted to 8 bits."""
    op = {"Added": "Add", "Multi": "Mul"}.get(call.node.op, call.node.op)
    pair = [_operand(draft, call, i) for i in (0, 1)]
    held = iter(draft.aligned([v for v in pair if isinstance(v, Value)], name=call.name))
    pair = [next(held) if isinstance(v, Value) else v for v in pair]
    shift = call.integer("shift_bit", 0)
    if abs(shift) > 14:
        raise call.fault(f"shift_bit {shift}", "14 places at most")
    up = 1 << max(shift, 0)
    attrs: dict[str, Attr] = {"scale_a": up, "scale_b": up} if op == "Add" else {"multiplier": up}
    return draft.arithmetic(
        op, pair, call.low, INT8[1], name=call.name, output=call.output, rounding=rounding(op),
        shift=max(-shift, 0), attrs=attrs,
    )  # fmt: skip


def relu(draft: Draft, call: Call) -> Value:
    """A Relu that could not be taken into the node before."""
    x = first(draft, call)
    return draft.clipped(x, 0, max(x.hi, 0), name=call.name, output=call.output)


# tables


def look_up(draft: Draft, call: Call, x: Value, table: Array, *, name: str = "", output: str = "") -> Value:
    """table[x mod 256], or table[2 x mod 1024]."""
    entries = integers(call, table).reshape(-1)
    if entries.size not in (256, 1024) or np.abs(entries).max() > 255:
        raise call.fault(f"a table of {entries.size} entries", "256 or 1024 entries of 8 bits")
    name, shift = name or call.name, 1 if entries.size == 1024 else 0
    span = (x.hi - x.lo + 1) << shift
    if span > entries.size:  # codes that share entries would not be told apart
        x = draft.clipped(x, max(x.lo, INT8[0]), min(x.hi, INT8[1]), name=f"{name}.byte")
    constant = draft.constant(f"{name}.table", entries.astype(np.int32))
    lo, hi = int(entries.min()), int(entries.max())
    attrs: dict[str, Attr] = {"input_shift": shift} if shift else {}
    return draft.put("Lut", [x, constant], lo, hi, name=name, output=output, attrs=attrs)


def act_lut(draft: Draft, call: Call) -> Value:
    """ActLut with its own table."""
    table = call.attrs.get("table_params")
    if table is None and len(call.node.inputs) > 1:
        table = draft.builder.constants.get(call.node.inputs[1])
    if table is None:
        raise call.fault("no table_params", "a table of 256 or 1024 entries")
    return look_up(draft, call, first(draft, call), np.asarray(table), output=call.output)


def _of_bytes(function: Callable[[Array], Array]) -> Operator:
    """An operator that is a table over int8 codes."""

    def operator(draft: Draft, call: Call) -> Value:
        codes = np.arange(*INT8, dtype=np.float64)
        table = byte_table(np.rint(function(np.append(codes, 127.0))).astype(np.int64))
        return look_up(draft, call, first(draft, call), table, output=call.output)

    return operator


def _table_of(draft: Draft, call: Call, results: Callable[[Ints], Ints]) -> Value:
    """An operator computed once for every code of its input."""
    x = first(draft, call)
    if x.hi - x.lo > 255:
        x = draft.clipped(x, *INT8, name=f"{call.name}.byte")
    codes = np.arange(x.lo, x.lo + 256)
    table = np.zeros(256, np.int64)
    table[codes % 256] = results(codes)
    used = table[np.arange(x.lo, x.hi + 1) % 256]
    table = np.clip(table, used.min(), used.max())
    constant = draft.constant(f"{call.name}.table", table.astype(np.int32))
    return draft.put("Lut", [x, constant], int(table.min()), int(table.max()), name=call.name, output=call.output)


def float_scale(draft: Draft, call: Call) -> Value:
    """(int)(x * scale + 0.5) in float32, clipped: a table."""
    factor, bits = np.float32(call.number("scale", 1.0)), call.integer("clip_bits", 7)
    if not 1 <= bits <= 15:
        raise call.fault(f"clip_bits = {bits}", "1 to 15")

    def results(codes: Ints) -> Ints:
        wide = codes.astype(np.float32) * factor + np.float32(0.5)
        return np.clip(np.trunc(wide), -(1 << bits), (1 << bits) - 1).astype(np.int64)

    return _table_of(draft, call, results)


def clear_low_bits(draft: Draft, call: Call) -> Value:
    """The low bits rounded away, toward zero after half of them is added."""
    bits = call.integer("bits", 0)
    if not 1 <= bits <= 7:
        raise call.fault(f"bits = {bits}", "1 to 7")
    half = 1 << (bits - 1)

    def results(codes: Ints) -> Ints:
        moved = np.where(codes > 0, codes + half, codes - half)
        return np.clip(np.sign(moved) * ((np.abs(moved) >> bits) << bits), -128, 255)

    return _table_of(draft, call, results)


# windows and channels


def pool(draft: Draft, call: Call) -> Value:
    """AveragePool, GlobalAveragePool and MaxPool."""
    x = first(draft, call)
    shape = draft.shape(x)
    rank = len(shape) - 2
    whole = call.node.op.startswith("Global")
    kernel = shape[2:] if whole else tuple(call.attrs.get("kernel_shape") or ())[:rank]
    strides, dilations, pads = windows(call, shape[2:], kernel)
    if len(kernel) != rank or call.attrs.get("ceil_mode", 0):
        raise call.fault(
            f"kernel {kernel}, ceil_mode {call.attrs.get('ceil_mode', 0)}", f"{rank} sizes, and ceil_mode 0"
        )
    attrs: dict[str, Attr] = {"kernel_shape": kernel, "strides": strides, "pads": pads, "dilations": dilations}
    if call.node.op == "MaxPool":
        lo = max(x.lo, 0) if call.relu else x.lo
        y = draft.move("MaxPool", x, name=call.name, output="" if call.relu else call.output, attrs=attrs)
        return draft.clipped(y, lo, max(x.hi, 0), name=f"{call.name}.relu", output=call.output) if call.relu else y
    return _mean(draft, call, "AveragePool", attrs | {"count_include_pad": 1}, prod(kernel))


def _mean(draft: Draft, call: Call, op: str, attrs: dict[str, Attr], count: int) -> Value:
    ratio = call.number("scale_in", 1.0) / call.number("scale_out", 1.0) / count
    if not np.isfinite(ratio) or not 1e-6 < ratio < 1e6:
        raise call.fault(f"scale_in / scale_out of {ratio * count:g}", "a ratio of ordinary size")
    multiplier, shift = (int(v[0]) for v in multiplier_of(ratio))
    lo = max(call.low, 0 if first(draft, call).lo >= 0 else INT8[0])
    own = attrs | {"multiplier": multiplier, "shift": shift, "rounding": rounding("AveragePool"), "lo": lo, "hi": 127}
    return draft.put(op, [first(draft, call)], lo, 127, name=call.name, output=call.output, attrs=own)


def reduce_mean(draft: Draft, call: Call) -> Value:
    """Mean over axes."""
    shape = draft.shape(first(draft, call))
    given = call.attrs.get("axes")
    if given is None and len(call.node.inputs) > 1:
        given = draft.builder.constants.get(call.node.inputs[1])
    axes = tuple(int(a) % len(shape) for a in np.asarray(given if given is not None else range(len(shape))).reshape(-1))
    attrs: dict[str, Attr] = {"axes": axes, "keepdims": int(bool(call.attrs.get("keepdims", 1)))}
    return _mean(draft, call, "ReduceMean", attrs, prod(shape[a] for a in axes))


def batch_norm(draft: Draft, call: Call) -> Value:
    """A factor and an offset per channel, in 15 bits and one shift."""
    x = first(draft, call)
    arrays = [draft.builder.constants.get(v) for v in call.node.inputs[1:5]]
    if len(arrays) != 4 or any(a is None for a in arrays):
        raise call.fault("parameters that are no constants", "scale, bias, mean and variance")
    gamma, beta, mean, var = (np.asarray(a, np.float64) for a in arrays if a is not None)
    into, out = call.number("scale_in", 1.0), call.number("scale_out", 1.0)
    if var.size and var.min() < 0:
        raise call.fault(f"a variance of {var.min():g}", "variances of at least 0")
    spread = np.sqrt(var + call.number("epsilon", 1e-5))
    with np.errstate(all="ignore"):  # what is not finite is refused below
        factor, offset = gamma * into / (spread * out), (beta - mean * gamma / spread) / out
    if not (np.isfinite(factor).all() and np.isfinite(offset).all()) or gamma.shape != (draft.shape(x)[1],):
        raise call.fault("parameters that are not finite, or not one per channel", "finite numbers per channel")
    shift = int(np.clip(FACTOR_BITS - 1 - np.ceil(np.log2(max(np.abs(factor).max(), 2.0**-20))), 0, 20))
    wide = (1, -1) + (1,) * (len(draft.shape(x)) - 2)
    factors = np.rint(factor * 2.0**shift).astype(np.int64).reshape(wide)
    offsets = np.clip(np.rint(offset * 2.0**shift), -(1 << 30), 1 << 30).astype(np.int64).reshape(wide)
    spec = spec_of(-(1 << 31), (1 << 31) - 1)
    tables = [
        draft.constant(f"{call.name}.{n}", t.astype(np.int32), spec=spec)
        for n, t in (("factor", factors), ("offset", offsets))
    ]
    product = draft.arithmetic("Mul", [x, tables[0]], spec.lo, spec.hi, name=f"{call.name}.product")
    return draft.arithmetic(
        "Add", [product, tables[1]], call.low, 127, name=call.name, output=call.output,
        rounding=rounding("BatchNormalization"), shift=shift,
    )  # fmt: skip


def softmax(draft: Draft, call: Call) -> Value:
    """Softmax in units of 1/256; the vendor's scale_out of 1/255 is taken for the same."""
    x, out = first(draft, call), call.number("scale_out", 1 / 256)
    if not 1 / 257 < out < 1 / 254:
        raise call.fault(f"scale_out = {out:g}", "1/255 or 1/256")
    table = softmax_table(call.number("scale_in", 1.0), 256)
    constant = draft.constant(f"{call.name}.table", table)
    attrs: dict[str, Attr] = {"axis": call.integer("axis", -1), "lo": 0, "hi": 255}
    return draft.put("Softmax", [x, constant], 0, 255, name=call.name, output=call.output, attrs=attrs)


OPERATORS: dict[str, Operator] = {
    "Scale": scale, "Scalar": scalar, "Add": binary, "Added": binary, "Mul": binary, "Multi": binary, "Relu": relu,
    "ActLut": act_lut, "FloatScale": float_scale, "ClearLowBits": clear_low_bits,
    "Sigmoid": _of_bytes(lambda x: 127 / (1 + np.exp(-x / 8))), "Tanh": _of_bytes(lambda x: 127 * np.tanh(x / 8)),
    "AveragePool": pool, "GlobalAveragePool": pool, "MaxPool": pool, "ReduceMean": reduce_mean,
    "BatchNormalization": batch_norm, "Softmax": softmax,
}  # fmt: skip
