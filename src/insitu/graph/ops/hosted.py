"""Operators for the host inside a network of real numbers, and the same operators between codes.

A Host node's model holds one call of a function: the operator with its constants, between conversions.  In a captured
graph every tensor is float32 outside the function (integers and truth values as numbers), so that any neighbour can
read it; `recoded` puts the quantization of operands into the function too, so that one HOST command takes codes and
gives codes:

    real = (code - zero) * scale          code = clip(floor(real / scale + 1/2) + zero, lo, hi)
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from insitu.graph.types import HOST, TensorType, integer_dtype
from insitu.isa.host import encode_model
from insitu.numeric.affine import QuantSpec

Array = npt.NDArray[Any]
DOMAIN = "insitu.host"
ELEMENTS = {
    "f32": TensorProto.FLOAT, "u8": TensorProto.UINT8, "i8": TensorProto.INT8, "u16": TensorProto.UINT16,
    "i16": TensorProto.INT16, "i32": TensorProto.INT32, "i64": TensorProto.INT64, "bool": TensorProto.BOOL,
    "f16": TensorProto.FLOAT16, "f64": TensorProto.DOUBLE, "u32": TensorProto.UINT32, "u64": TensorProto.UINT64,
}  # fmt: skip


def host_model(
    nodes: Sequence[onnx.NodeProto],
    *,
    operator: str,
    feeds: Mapping[str, tuple[TensorType, int]],
    results: Mapping[str, tuple[TensorType, int]],
    constants: Mapping[str, Array],
    opsets: Mapping[str, int],
) -> str:
    """The model of a Host node: `nodes` as one operator; feeds and results have a type here and an ONNX element type.

    An ONNX element type of 0 is one that only the host knows.
    """
    body = list[onnx.NodeProto]()
    renamed = dict[str, str]()
    for name, (kind, element) in feeds.items():
        if _converted(kind, element):
            renamed[name] = f"{name}.given"
            body.append(helper.make_node("Cast", [renamed[name]], [name], to=element))
    body += list(nodes)
    outputs: list[str] = []
    for name, (kind, element) in results.items():
        last = f"{name}.taken" if _converted(kind, element) else name
        if last != name:
            body.append(helper.make_node("Cast", [name], [last], to=ELEMENTS[kind.dtype]))
        outputs.append(last)
    inputs = [*(renamed.get(n, n) for n in feeds), *constants]
    imports = [helper.make_opsetid(d, v) for d, v in opsets.items()]
    function = helper.make_function(DOMAIN, _plain(operator), inputs, outputs, body, imports)
    places = [_info(f"in{i}", kind, element) for i, (kind, element) in enumerate(feeds.values())]
    ends = [_info(f"out{i}", kind, element) for i, (kind, element) in enumerate(results.values())]
    return _packed(function, places, ends, opsets, list(constants.values()))


def _plain(operator: str) -> str:
    return operator.replace("::", ".")


def _converted(kind: TensorType, element: int) -> bool:
    return kind.dtype != HOST and element != 0 and ELEMENTS[kind.dtype] != element


def _constant(name: str, array: Array) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(array, order="C"), name))


def _info(name: str, kind: TensorType, element: int) -> onnx.ValueInfoProto:
    if kind.dtype == HOST:
        return helper.make_tensor_value_info(name, element, None) if element else onnx.ValueInfoProto(name=name)
    return helper.make_tensor_value_info(name, ELEMENTS[kind.dtype], list(kind.shape))


def _packed(
    function: onnx.FunctionProto,
    places: Sequence[onnx.ValueInfoProto],
    ends: Sequence[onnx.ValueInfoProto],
    opsets: Mapping[str, int],
    constants: Sequence[Array],
) -> str:
    """The model of one call; constants stand outside the function, where ONNX Runtime looks for them."""
    tensors = [numpy_helper.from_array(np.asarray(a, order="C"), f"constant{i}") for i, a in enumerate(constants)]
    names = [*(p.name for p in places), *(t.name for t in tensors)]
    call = helper.make_node(function.name, names, [e.name for e in ends], domain=DOMAIN)
    graph = helper.make_graph([call], "host", list(places), list(ends), tensors)
    imports = [helper.make_opsetid(d, v) for d, v in {**opsets, DOMAIN: 1}.items()]
    model = helper.make_model(graph, opset_imports=imports, functions=[function], ir_version=10)
    return encode_model(model.SerializeToString())


def recoded(model: str, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> str:
    """The model of a Host node for operands of these types; those with a QuantSpec are codes."""
    proto = onnx.ModelProto.FromString(base64.b64decode(model))
    function = proto.functions[0]
    before, after = list[onnx.NodeProto](), list[onnx.NodeProto]()
    for i, kind in enumerate(inputs):
        if kind.quant is not None:
            inner, function.input[i] = function.input[i], f"code.in{i}"
            before += _dequantized(f"code.in{i}", inner, kind.quant, kind.rank, function)
            proto.graph.input[i].CopyFrom(_info(f"in{i}", kind, 1))
    for i, kind in enumerate(outputs):
        if kind.quant is not None:
            inner, function.output[i] = function.output[i], f"code.out{i}"
            after += _quantized(inner, f"code.out{i}", kind, function)
            proto.graph.output[i].CopyFrom(_info(f"out{i}", kind, 1))
    body = [*before, *function.node, *after]
    del function.node[:]
    function.node.extend(body)
    return encode_model(proto.SerializeToString())


def _scaling(name: str, spec: QuantSpec, rank: int) -> tuple[list[onnx.NodeProto], str, str]:
    """Constants scale and zero point, shaped to broadcast."""
    scale = np.asarray(spec.scales(rank), np.float32)
    zero = np.asarray(float(spec.zero_point), np.float32)
    names = f"{name}.scale", f"{name}.zero"
    return [_constant(names[0], scale), _constant(names[1], zero)], *names


def _dequantized(
    code: str, real: str, spec: QuantSpec, rank: int, function: onnx.FunctionProto
) -> list[onnx.NodeProto]:
    constants, scale, zero = _scaling(code, spec, rank)
    return [
        *constants,
        helper.make_node("Cast", [code], [f"{code}.f"], to=TensorProto.FLOAT),
        helper.make_node("Sub", [f"{code}.f", zero], [f"{code}.c"]),
        helper.make_node("Mul", [f"{code}.c", scale], [real]),
    ]


def _quantized(real: str, code: str, kind: TensorType, function: onnx.FunctionProto) -> list[onnx.NodeProto]:
    spec = kind.quant
    assert spec is not None
    constants, scale, zero = _scaling(code, spec, kind.rank)
    lo, hi, half = (np.asarray(v, np.float32) for v in (float(spec.lo), float(spec.hi), 0.5))
    bounds = [_constant(f"{code}.{n}", v) for n, v in (("lo", lo), ("hi", hi), ("half", half))]
    element = ELEMENTS[integer_dtype(spec.bits, signed=spec.signed)]
    return [
        *constants,
        *bounds,
        helper.make_node("Div", [real, scale], [f"{code}.a"]),
        helper.make_node("Add", [f"{code}.a", f"{code}.half"], [f"{code}.b"]),
        helper.make_node("Floor", [f"{code}.b"], [f"{code}.d"]),
        helper.make_node("Add", [f"{code}.d", zero], [f"{code}.e"]),
        helper.make_node("Max", [f"{code}.e", f"{code}.lo"], [f"{code}.g"]),
        helper.make_node("Min", [f"{code}.g", f"{code}.hi"], [f"{code}.h"]),
        helper.make_node("Cast", [f"{code}.h"], [code], to=element),
    ]
