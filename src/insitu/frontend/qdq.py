"""ONNX's own quantized forms, written as QuantizeLinear and DequantizeLinear around float operators.

QDQ graphs hold that form already.  QLinear* operators and the *Integer ones become it here: inputs through
DequantizeLinear, the float operator, the result through QuantizeLinear.  Weights are constants of real numbers whose
type carries their spec, so that no code is lost; a bias keeps all 32 bits as float64.  `qdq_strip` takes it from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.errors import ModelError
from insitu.frontend.call import Call
from insitu.frontend.qdq_spec import Coded, spec_attrs, spec_of
from insitu.graph.graph import Node
from insitu.graph.rewrite import Builder
from insitu.graph.types import TensorType, integer_dtype
from insitu.numeric.affine import QuantSpec
from insitu.numeric.affine import quantize as codes_of

Array = npt.NDArray[Any]
Lowering = Callable[[Call], None]
MICROSOFT = "com.microsoft"
ACCUMULATOR = QuantSpec(32, signed=True, scale=(1.0,))  # what *Integer operators give


def quantize_linear(call: Call) -> None:
    """Real numbers to codes; a constant at once."""
    spec = _spec(call, 1, default=QuantSpec(8, signed=False, scale=(1.0,)))
    constant = call.constant(0)
    if constant is not None:
        return _write_constant(call, codes_of(np.asarray(constant, np.float32), spec), spec)
    return _emit_quantize(call, call.node.inputs[0], call.node.output, _activation(call, spec, call.node.inputs[0]))


def dequantize_linear(call: Call) -> None:
    """Codes to real numbers; a constant keeps its spec in its type."""
    constant = call.constant(0)
    if constant is not None:
        return _real_constant(call, call.node.inputs[0], 1, output=call.node.output)
    spec = _spec(call, 1, default=_typed(call, call.node.inputs[0]))
    spec = _activation(call, spec, call.node.inputs[0])
    return _emit_dequantize(call, call.node.inputs[0], call.node.output, spec)


def cast(call: Call) -> None:
    """Codes of a sum to the same real numbers, and real numbers to real numbers."""
    kind = call.builder.types[call.node.inputs[0]]
    if int(call.attrs.get("to", 1)) not in (1, 10, 11, 16):
        raise call.fault("a cast to integers at run time", "a cast to a floating-point type")
    if kind.dtype != "f32":
        spec = kind.quant or QuantSpec(32, signed=True, scale=(1.0,))
        return _emit_dequantize(call, call.node.inputs[0], call.node.output, spec)
    return call.write({"shape": call.shape()}, op="Reshape")


# operators on codes


def _linear(op: str, *, bias: bool = False, second: bool = False) -> Lowering:
    """QLinearConv, QLinearMatMul, QLinearAdd, QLinearMul: (x, sx, zx[, w, sw, zw], sy, zy[, bias])."""

    def lower(call: Call) -> None:
        count = 3 * (2 if second else 1)
        values = [_operand(call, 3 * i) for i in range(count // 3)]
        if bias and call.has(count + 2):
            values.append(_bias(call, count + 2, values[0], values[1]))
        _apply(call, op, values, _spec(call, count, default=None))

    return lower


def _gemm(call: Call) -> None:
    """com.microsoft QGemm: (a, sa, za, b, sb, zb, bias, sy, zy); without sy its result is real."""
    values = [_operand(call, 0), _operand(call, 3)]
    if call.has(6):
        values.append(_bias(call, 6, values[0], values[1], alpha=float(call.attrs.get("alpha", 1.0))))
    _apply(call, "Gemm", values, _spec(call, 7, default=None) if call.has(7) else None)


def _concat(call: Call) -> None:
    """com.microsoft QLinearConcat: (sy, zy, then x, sx, zx of every input)."""
    values = [_operand(call, 2 + 3 * i) for i in range((len(call.node.inputs) - 2) // 3)]
    _apply(call, "Concat", values, _spec(call, 0, default=None))


def _unary(op: str) -> Lowering:
    def lower(call: Call) -> None:
        if int(call.attrs.get("channels_last", 0)):
            raise call.fault("channels_last = 1", "channels first")
        _apply(call, op, [_operand(call, 0)], _spec(call, 3, default=None))

    return lower


def _integer(op: str) -> Lowering:
    """ConvInteger, MatMulInteger: (x, w[, zx[, zw]]), sums as they are."""

    def lower(call: Call) -> None:
        values: list[str] = []
        for index in (0, 1):
            zero = call.constant(2 + index) if call.has(2 + index) else None
            if call.has(2 + index) and zero is None:
                raise call.fault(f"the zero point {call.node.inputs[2 + index]!r} at run time", "a constant zero point")
            values.append(_unscaled(call, index, zero))
        _apply(call, op, values, ACCUMULATOR)

    return lower


def _unscaled(call: Call, index: int, zero: Array | None) -> str:
    """An operand of an *Integer operator as real numbers: codes without their zero point, scale 1."""
    name, constant = call.node.inputs[index], call.constant(index)
    dtype = constant.dtype if constant is not None else _numpy(call.builder.types[name])
    zeros = np.zeros((), np.int64) if zero is None else np.asarray(zero, np.int64)
    if constant is not None:
        coded = Coded(np.asarray(constant, np.int64), np.ones(zeros.shape), zeros, None if zeros.ndim == 0 else 0)
        if zeros.size > 1:  # one zero point per row of a matrix, per output channel of a filter
            coded = replace(coded, axis=0 if call.node.op == "ConvInteger" else constant.ndim - 1)
        return _constant(call, f"{name}.real", coded)
    if zeros.size > 1:
        raise call.fault("a zero point per row at run time", "one zero point")
    bits, signed = 8 * dtype.itemsize, dtype.kind == "i"
    spec = QuantSpec(bits, signed=signed, scale=(1.0,), zero_point=int(zeros.reshape(())))
    return _dequantized(call, name, spec)


def _operand(call: Call, index: int) -> str:
    """Real numbers of an operand (value, scale, zero point) of a QLinear operator."""
    name = call.node.inputs[index]
    if call.constant(index) is not None:
        output = call.builder.fresh(f"{name}.real")
        _real_constant(call, name, index + 1, output=output)
        return output
    spec = _spec(call, index + 1, default=_typed(call, name))
    return _dequantized(call, name, _activation(call, spec, name))


def _bias(call: Call, index: int, x: str, w: str, *, alpha: float = 1.0) -> str:
    """An int32 bias at the product of the scales of x and w."""
    codes = call.constant(index)
    sx, sw = call.builder.types[x].quant, call.builder.types[w].quant
    if codes is None or sx is None or sw is None:
        raise call.fault("a bias, or the weights beside it, at run time", "constants")
    scale = (np.asarray(sw.scale) * sx.scale[0] * alpha).astype(np.float32).astype(np.float64)
    axis = None if scale.size == 1 else codes.ndim - 1
    coded = Coded(
        np.asarray(codes, np.int64), scale if axis is not None else scale.reshape(()), np.zeros((), int), axis
    )
    return _constant(call, f"{call.node.inputs[index]}.real", coded)


def _apply(call: Call, op: str, values: list[str], spec: QuantSpec | None) -> None:
    """The float operator on real values, its result through `spec`; real where there is none."""
    output = call.node.output if spec is None else call.builder.fresh(f"{call.node.output}.real")
    node = Node(call.node.name, op, tuple(values), (output,))
    if op not in call.rules:
        raise call.fault(f"the operator {op}", "an operator that is supported on real numbers")
    call.rules[op](replace(call, node=node))
    if spec is not None:
        _emit_quantize(call, output, call.node.output, _activation(call, spec, output))


# specs and nodes


def followed(builder: Builder, node: Node, value: Array, attrs: Mapping[str, Any]) -> QuantSpec | None:
    """The spec of quantized weights behind an operator that only moved them."""
    spec = builder.types[node.inputs[0]].quant if node.inputs and node.inputs[0] in builder.types else None
    if spec is None or node.op not in ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"):
        return None
    if spec.axis is None:
        return spec
    before = builder.constants[node.inputs[0]].shape
    if node.op == "Transpose":
        order = list(attrs.get("perm") or reversed(range(len(before))))
        return replace(spec, axis=order.index(spec.axis))
    for axis, size in enumerate(value.shape):
        if size == before[spec.axis] and prod(value.shape[:axis]) == prod(before[: spec.axis]):
            return replace(spec, axis=axis)
    return None


def _spec(call: Call, index: int, *, default: QuantSpec | None) -> QuantSpec:
    """The spec that the scale at input `index` and the zero point behind it give."""
    scale, zero = call.constant(index), call.constant(index + 1) if call.has(index + 1) else None
    if scale is None or (call.has(index + 1) and zero is None):
        raise call.fault("a scale or zero point at run time", "constants")
    rank = len(call.shape()) if call.node.op in ("QuantizeLinear", "DequantizeLinear") else 0
    try:
        return spec_of(scale, zero, attrs=call.attrs, kind=_narrow(call, index + 1), default=default, rank=rank)
    except ModelError as error:
        raise call.fault(error.got, error.need) from None


def _narrow(call: Call, index: int) -> tuple[int, bool] | None:
    """Bits and sign of a constant with fewer than 8 bits, which NumPy has no type for."""
    quant = call.builder.types[call.node.inputs[index]].quant if call.has(index) else None
    return None if quant is None else (quant.bits, quant.signed)


def _typed(call: Call, name: str) -> QuantSpec:
    """Bits and sign of a value where no zero point says them."""
    kind = call.builder.types[name]
    if kind.quant is not None:
        return kind.quant
    return QuantSpec(8, signed=kind.dtype.startswith("i"), scale=(1.0,))


def _activation(call: Call, spec: QuantSpec, value: str) -> QuantSpec:
    """A spec of run-time codes: its axis counts from the end."""
    if spec.axis is None:
        return spec
    return replace(spec, axis=spec.axis - len(call.builder.types[value].shape))


def _numpy(kind: TensorType) -> np.dtype[Any]:
    bits, signed = (kind.quant.bits, kind.quant.signed) if kind.quant is not None else (8, False)
    return np.dtype(f"{'i' if signed else 'u'}{4 if bits > 16 else 2 if bits > 8 else 1}")


def _real_constant(call: Call, name: str, index: int, *, output: str) -> None:
    """The constant codes `name` as real numbers called `output`, by the scale at input `index`."""
    codes = call.builder.constants[name]
    scale, zero = call.constant(index), call.constant(index + 1) if call.has(index + 1) else None
    if scale is None or (call.has(index + 1) and zero is None):
        raise call.fault("a scale or zero point at run time", "constants")
    block = int(call.attrs.get("block_size", 0))
    coded = Coded.of(codes, scale, zero, axis=_weight_axis(call, codes), block=block, where=call.node.name)
    _declare(call, output, coded)


def _weight_axis(call: Call, codes: Array) -> int:
    """The axis along which a constant has a scale per index: the output channels of QLinear operators."""
    if call.node.op == "DequantizeLinear":
        return int(call.attrs.get("axis", 1))
    if call.node.op == "QLinearConv" or int(call.attrs.get("transB", 0)):
        return 0
    return codes.ndim - 1


def _constant(call: Call, base: str, coded: Coded) -> str:
    name = call.builder.fresh(base)
    _declare(call, name, coded)
    return name


def _declare(call: Call, name: str, coded: Coded) -> None:
    array, spec = coded.real(), coded.spec()
    call.builder.constants[name] = array
    call.builder.types[name] = TensorType(array.shape, "f64" if array.dtype == np.float64 else "f32", spec)


def _write_constant(call: Call, codes: Array, spec: QuantSpec) -> None:
    kind = integer_dtype(spec.bits, signed=spec.signed)
    array = codes.astype(f"{'int' if spec.signed else 'uint'}{kind[1:]}")
    call.builder.constants[call.node.output] = array
    call.builder.types[call.node.output] = TensorType(array.shape, kind, spec)


def _dequantized(call: Call, name: str, spec: QuantSpec) -> str:
    output = call.builder.fresh(f"{name}.real")
    _emit_dequantize(call, name, output, spec)
    return output


def _emit_quantize(call: Call, source: str, output: str, spec: QuantSpec) -> None:
    shape = call.builder.types[source].shape
    call.builder.types[output] = TensorType(shape, integer_dtype(spec.bits, signed=spec.signed), spec)
    name = f"{call.node.name}_quantize" if call.node.op != "QuantizeLinear" else call.node.name
    call.builder.add(Node(name, "QuantizeLinear", (source,), (output,), spec_attrs(spec)), typed=True)


def _emit_dequantize(call: Call, source: str, output: str, spec: QuantSpec) -> None:
    call.builder.types[output] = TensorType(call.builder.types[source].shape, "f32", spec)
    name = f"{call.node.name}_dequantize" if call.node.op != "DequantizeLinear" else call.node.name
    call.builder.add(Node(name, "DequantizeLinear", (source,), (output,), spec_attrs(spec)), typed=True)


QDQ: dict[str, Lowering] = {
    "QuantizeLinear": quantize_linear, "DequantizeLinear": dequantize_linear, "Cast": cast,
    "QLinearConv": _linear("Conv", bias=True, second=True), "QLinearMatMul": _linear("MatMul", second=True),
    "ConvInteger": _integer("Conv"), "MatMulInteger": _integer("MatMul"),
    **{
        f"{MICROSOFT}::{op}": lowering
        for op, lowering in (
            ("QuantizeLinear", quantize_linear), ("DequantizeLinear", dequantize_linear), ("QGemm", _gemm),
            ("QLinearAdd", _linear("Add", second=True)), ("QLinearMul", _linear("Mul", second=True)),
            ("QLinearConcat", _concat), ("QLinearSigmoid", _unary("Sigmoid")),
            ("QLinearLeakyRelu", _unary("LeakyRelu")), ("QLinearSoftmax", _unary("Softmax")),
            ("QLinearGlobalAveragePool", _unary("GlobalAveragePool")),
            ("QLinearAveragePool", _unary("AveragePool")), ("QLinearReduceMean", _unary("ReduceMean")),
        )
    },
}  # fmt: skip
LEAST: dict[str, int] = {  # inputs that each of them needs
    "QuantizeLinear": 2, "DequantizeLinear": 2, "QLinearConv": 8, "QLinearMatMul": 8, "ConvInteger": 2,
    "MatMulInteger": 2, f"{MICROSOFT}::QuantizeLinear": 2, f"{MICROSOFT}::DequantizeLinear": 2,
    f"{MICROSOFT}::QGemm": 6, f"{MICROSOFT}::QLinearAdd": 7, f"{MICROSOFT}::QLinearMul": 7,
    f"{MICROSOFT}::QLinearConcat": 5, f"{MICROSOFT}::QLinearReduceMean": 4,
    **{f"{MICROSOFT}::QLinear{op}": 4 for op in
       ("Sigmoid", "LeakyRelu", "Softmax", "GlobalAveragePool", "AveragePool")},
}  # fmt: skip
