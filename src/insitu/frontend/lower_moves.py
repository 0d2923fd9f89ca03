"""Moves of ONNX as Slices, Reshapes, Transposes and picks by constant indices; resizing as weighted picks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper

from insitu.frontend.call import Call, need
from insitu.frontend.fold import ints
from insitu.isa.host import encode_model, run_host

Array = npt.NDArray[Any]
MOST_TAPS = 4  # inputs that one output of a resize may weigh


def _copied(call: Call, value: str) -> None:
    call.write({"shape": call.builder.types[value].shape}, op="Reshape", inputs=[value])


def _split(call: Call) -> None:
    axis = call.axis(int(call.attrs.get("axis", 0)))
    size, count = call.size(axis), len(call.node.outputs)
    given = call.constant(1)
    need(given is not None or not call.has(1))
    parts = ints(given) if given is not None else [int(p) for p in call.attrs.get("split", ())]
    if not parts:
        each = -(-size // count)
        parts = [max(min(each, size - i * each), 0) for i in range(count)]
    need(len(parts) == count and sum(parts) == size and min(parts) > 0)
    at = 0
    for i, part in enumerate(parts):
        cut = {"axes": (axis,), "starts": (at,), "ends": (at + part,), "steps": (1,)}
        call.result(i, "Slice", call.node.inputs[:1], cut)
        at += part


def _gather(call: Call) -> None:
    """By constant indices on the chip; rows of a table of constants by an integer input too."""
    axis, index = call.axis(int(call.attrs.get("axis", 0))), call.constant(1)
    if index is None:
        kind = call.builder.types[call.node.inputs[1]]
        need(kind.dtype in ("i32", "i64"))
        return call.write({"axis": axis}, op="Gather", inputs=call.node.inputs[:2])
    size = call.size(axis)
    places = np.where(index < 0, index + size, index).astype(np.int64)
    need(places.size > 0 and 0 <= int(places.min()) <= int(places.max()) < size)
    steps = np.diff(places.reshape(-1))
    if places.ndim <= 1 and (places.size == 1 or np.all(steps == 1)):
        first = int(places.reshape(-1)[0])
        value = call.cut(call.node.inputs[0], axis, first, first + places.size)
        shape = call.shape()
        return call.write({"shape": (*shape[:axis], *places.shape, *shape[axis + 1 :])}, op="Reshape", inputs=[value])
    return call.write({"axis": axis}, op="Gather", inputs=[call.node.inputs[0], call.table("index", places)])


def _expand(call: Call) -> None:
    target = call.constant(1)
    need(target is not None)
    assert target is not None
    shape = call.known_sizes()
    _copied(call, expanded(call, call.node.inputs[0], np.broadcast_shapes(shape, tuple(ints(target)))))


def expanded(call: Call, value: str, shape: Sequence[int]) -> str:
    """A value repeated to a larger shape."""
    own = call.builder.types[value].shape
    value = call.reshaped(value, (*(1,) * (len(shape) - len(own)), *own))
    for axis, size in enumerate(shape):
        if call.builder.types[value].shape[axis] == 1 and size != 1:
            value = call.picked(value, np.zeros(size), axis)
    return value


def _tile(call: Call) -> None:
    repeats, value = call.constant(1), call.node.inputs[0]
    need(repeats is not None)
    assert repeats is not None
    for axis, count in enumerate(ints(repeats)):
        if count != 1:
            value = call.picked(value, np.tile(np.arange(call.size(axis)), count), axis)
    _copied(call, value)


def _depth_to_space(call: Call) -> None:
    n, c, h, w = call.known_sizes()
    b = int(call.attrs["blocksize"])
    need(c % (b * b) == 0)
    shape, perm = ((n, b, b, c // b // b, h, w), (0, 3, 4, 1, 5, 2))
    if call.attrs.get("mode", "DCR") == "CRD":
        shape, perm = (n, c // b // b, b, b, h, w), (0, 1, 4, 2, 5, 3)
    value = call.turned(call.reshaped(call.node.inputs[0], shape), perm)
    call.write({"shape": (n, c // b // b, h * b, w * b)}, op="Reshape", inputs=[value])


def _space_to_depth(call: Call) -> None:
    n, c, h, w = call.known_sizes()
    b = int(call.attrs["blocksize"])
    need(h % b == 0 and w % b == 0)
    value = call.turned(call.reshaped(call.node.inputs[0], (n, c, h // b, b, w // b, b)), (0, 3, 5, 1, 2, 4))
    call.write({"shape": (n, c * b * b, h // b, w // b)}, op="Reshape", inputs=[value])


def _trilu(call: Call) -> None:
    k = call.constant(1)
    need(k is not None or not call.has(1))
    shape = call.known_sizes()
    ones = np.ones(shape[-2:], np.float32)
    cut = np.triu if call.attrs.get("upper", 1) else np.tril
    mask = cut(ones, 0 if k is None else int(k.reshape(())))
    call.write(op="Mul", inputs=[call.node.inputs[0], call.table("mask", mask)])


def padded(call: Call, pads: Sequence[int]) -> None:
    """Padding with what is there: reflect, edge, wrap."""
    mode, rank, value = str(call.attrs["mode"]), len(call.shape()), call.node.inputs[0]
    need(mode in ("reflect", "edge", "wrap") and min(pads, default=0) >= 0)
    for axis in range(rank):
        width = (pads[axis], pads[axis + rank])
        if any(width):
            value = call.picked(value, np.pad(np.arange(call.size(axis)), width, mode=mode), axis)  # type: ignore[call-overload]
    _copied(call, value)


def _reverse_sequence(call: Call) -> None:
    lengths = call.constant(1)
    along, batch = int(call.attrs.get("time_axis", 0)), int(call.attrs.get("batch_axis", 1))
    need(lengths is not None and call.shape()[batch] == 1)
    assert lengths is not None
    index, count = np.arange(call.size(along)), int(lengths.reshape(-1)[0])
    index[:count] = index[:count][::-1]
    _copied(call, call.picked(call.node.inputs[0], index, along))


# resizing


def _resize(call: Call) -> None:
    sizes = _targets(call)
    value = call.node.inputs[0]
    for axis, (size, arguments) in enumerate(sizes):
        if arguments is not None and (size != call.size(axis) or call.attrs.get("mode", "nearest") != "nearest"):
            value = _weighed(call, value, axis, _weights(call, call.size(axis), arguments))
    _copied(call, value)


def _targets(call: Call) -> list[tuple[int, list[tuple[str, Array]] | None]]:
    """(new size, scale or size argument) per axis; none where the axis stays."""
    shape = call.known_sizes()
    need(call.attrs.get("keep_aspect_ratio_policy", "stretch") == "stretch")
    need(call.attrs.get("coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize")
    old = call.node.op == "Upsample" or call.opset < 11
    scales = call.constant(1 if old else 2) if call.has(1 if old else 2) else None
    scales = np.asarray(call.attrs["scales"]) if scales is None and "scales" in call.attrs else scales
    wanted = None if old else call.constant(3)
    given = wanted if wanted is not None and wanted.size else scales
    need(given is not None and given.size > 0)
    assert given is not None
    axes = [call.axis(int(a)) for a in call.attrs.get("axes", range(len(shape)))]
    need(len(axes) == given.size)
    out: list[tuple[int, list[tuple[str, Array]] | None]] = [(d, None) for d in shape]
    for axis, number in zip(axes, given.reshape(-1).tolist(), strict=True):
        if given is wanted:
            size = int(number)
            out[axis] = size, [("sizes", np.array([1, 1, 0, size], np.int64))] if size != shape[axis] else None
        else:
            size = int(np.floor(np.float32(shape[axis]) * np.float32(number)))
            out[axis] = size, [("scales", np.array([1, 1, 1, number], np.float32))] if number != 1 else None
    return out


def _weights(call: Call, size: int, arguments: list[tuple[str, Array]]) -> Array:
    """What each output of one axis takes from each input, [in, out]: the operator itself, run on unit vectors."""
    units = np.eye(size, dtype=np.float32)[None, None]
    [(kind, given)] = arguments
    given = given.copy()
    if kind == "sizes":
        given[2] = size
    attrs = {k: v for k, v in call.attrs.items() if k not in ("axes", "keep_aspect_ratio_policy", "scales", "#element")}
    old = call.node.op == "Upsample" or call.opset < 11
    names = ["x", "given"] if old else ["x", "", "given"] if kind == "scales" else ["x", "", "", "given"]
    if call.node.op == "Upsample" and call.opset < 9:
        attrs["scales"], names = [float(v) for v in given], ["x"]
    node = helper.make_node(call.node.op, names, ["y"], **attrs)
    constants = [
        helper.make_node(
            "Constant",
            [],
            ["given"],
            value=helper.make_tensor(
                "given", TensorProto.FLOAT if kind == "scales" else TensorProto.INT64, [4], given.tolist()
            ),
        )
    ]
    body = [*constants, node] if "given" in names else [node]
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("x", "y")]
    function = helper.make_function("insitu.host", "resize", ["x"], ["y"], body, [helper.make_opsetid("", call.opset)])
    call_ = helper.make_node("resize", ["x"], ["y"], domain="insitu.host")
    graph = helper.make_graph([call_], "resize", info[:1], info[1:])
    imports = [helper.make_opsetid("", call.opset), helper.make_opsetid("insitu.host", 1)]
    model = helper.make_model(graph, opset_imports=imports, functions=[function], ir_version=10)
    return np.asarray(run_host(encode_model(model.SerializeToString()), [units])[0])[0, 0]


def _weighed(call: Call, value: str, axis: int, weights: Array) -> str:
    """Outputs as sums of picked inputs times weights along one axis."""
    taps = int((weights != 0).sum(axis=0).max(initial=0))
    need(0 < taps <= MOST_TAPS)
    order = np.argsort(weights == 0, axis=0, kind="stable")[:taps]  # inputs that count, first ones first
    total, rank = "", len(call.shape())
    for row in order:
        share = weights[row, np.arange(weights.shape[1])].astype(np.float32)
        part = call.picked(value, row, axis)
        if not np.all(share == 1):
            shape = [-1 if i == axis else 1 for i in range(rank)]
            part = call.helper("Mul", [part, call.table("share", share.reshape(shape))])
        total = call.helper("Add", [total, part]) if total else part
    return total


MOVES: dict[str, Callable[[Call], None]] = {
    "Split": _split, "Gather": _gather, "Expand": _expand, "Tile": _tile, "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth, "Trilu": _trilu, "Resize": _resize, "Upsample": _resize,
    "ReverseSequence": _reverse_sequence,
}  # fmt: skip
