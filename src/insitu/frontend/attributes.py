"""Attributes of an ONNX node as plain values, each of the type its name asks for."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import Any

import onnx

from insitu.base.errors import ModelError
from insitu.frontend.onnx_file import as_text, tensor_array

Attribute = onnx.AttributeProto
NAMES = {Attribute.FLOAT: "a number", Attribute.INT: "an integer", Attribute.INTS: "integers", Attribute.STRING: "text"}
TYPES: dict[str, Any] = {
    **dict.fromkeys(("alpha", "beta", "epsilon", "min", "max", "value_float"), Attribute.FLOAT),
    **dict.fromkeys(
        (
            "allowzero", "axis", "ceil_mode", "count_include_pad", "end", "group", "keepdims", "noop_with_empty_axes",
            "start", "storage_order", "to", "training_mode", "transA", "transB", "value_int",
        ),
        Attribute.INT,
    ),
    **dict.fromkeys(
        ("axes", "dilations", "ends", "kernel_shape", "pads", "perm", "shape", "starts", "strides", "value_ints"),
        Attribute.INTS,
    ),
    **dict.fromkeys(("auto_pad", "mode"), Attribute.STRING),
}  # fmt: skip


def attributes(node: onnx.NodeProto, folder: Path, *, where: str, vendor: bool = False) -> dict[str, Any]:
    """Attribute name -> number, text, list or array; ModelError names one of the wrong type.

    `vendor` files may say "SAME" where pads are meant.
    """
    found: dict[str, Any] = {}
    for attribute in node.attribute:
        name = as_text(attribute.name)
        if vendor and name == "pads" and attribute.type == Attribute.STRING:
            name = "auto_pad"
        wanted = TYPES.get(name, attribute.type)
        if wanted == Attribute.INTS and attribute.type in (Attribute.FLOATS, Attribute.STRINGS) and _empty(attribute):
            found[name] = list[int]()  # an empty list has no type of its own
            continue
        if attribute.type != wanted:
            raise ModelError(where, f"its attribute {name} has another type", NAMES[wanted])
        if wanted == Attribute.FLOAT and isnan(attribute.f):
            raise ModelError(where, f"its attribute {name} is NaN", "a number")
        found[name] = _value(attribute, folder, f"{where}, its attribute {name}")
    return found


def _empty(attribute: onnx.AttributeProto) -> bool:
    return not attribute.floats and not attribute.strings


def _value(attribute: onnx.AttributeProto, folder: Path, where: str) -> Any:
    kind = attribute.type
    if kind == Attribute.FLOAT:
        return attribute.f
    if kind == Attribute.INT:
        return attribute.i
    if kind == Attribute.STRING:
        return attribute.s.decode("utf-8", "replace")
    if kind == Attribute.TENSOR:
        return tensor_array(attribute.t, folder, where=where)
    if kind == Attribute.INTS:
        return list(attribute.ints)
    if kind == Attribute.FLOATS:
        return list(attribute.floats)
    if kind == Attribute.TENSORS:
        return [tensor_array(t, folder, where=where) for t in attribute.tensors]
    if kind == Attribute.STRINGS:
        return [s.decode("utf-8", "replace") for s in attribute.strings]
    return None  # subgraphs, texts and sparse tensors belong to operators that are not supported
