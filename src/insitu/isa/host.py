"""The host's side of a HOST command: one operator of ONNX, run by ONNX Runtime.

The model of a command has exactly one node (with its subgraphs, if it has any) and may hold constants.  Where ONNX
Runtime has no kernel, ONNX's own reference implementation runs; `runner` says which of the two it is.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from insitu.base.errors import ProgramError

Runner = Literal["onnxruntime", "onnx.reference"]
MOST_MODELS = 256  # kept loaded


def encode_model(data: bytes) -> str:
    """A one-node model as text."""
    return base64.b64encode(data).decode()


def runner(model: str) -> Runner:
    """What runs this operator."""
    return _loaded(model)[0]


def run_host(model: str, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of a one-node model for its inputs, in order; ProgramError where it cannot be run."""
    kind, session, names, fetch = _loaded(model)
    feeds = dict(zip(names, inputs, strict=True))
    try:
        found = _ort(session, feeds, fetch) if kind == "onnxruntime" else session.run(None, feeds)
    except Exception as error:  # noqa: BLE001  (a host library may raise anything)
        found = _second_try(model, feeds, kind, error)
    return [np.asarray(v) if isinstance(v, np.ndarray | np.generic) else v for v in found]


def _second_try(model: str, feeds: dict[str, Any], kind: Runner, error: Exception) -> list[Any]:
    """Element types that ONNX Runtime's Python door does not take go to the reference implementation."""
    text = (str(error).splitlines() or [type(error).__name__])[0][:200]
    if kind == "onnxruntime":
        try:
            return _reference(base64.b64decode(model)).run(None, feeds)
        except Exception as second:  # noqa: BLE001
            text += f"; {(str(second).splitlines() or [''])[0][:100]}"
    raise ProgramError("host operator", text, "inputs it accepts")


def _reference(data: bytes) -> Any:
    import onnx
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(onnx.ModelProto.FromString(data))


def _ort(session: Any, feeds: dict[str, Any], fetch: tuple[str, ...]) -> list[Any]:
    return list(session.run(list(fetch), {n: _contiguous(v) for n, v in feeds.items()}))


def _contiguous(value: Any) -> Any:
    return np.ascontiguousarray(value).reshape(np.shape(value)) if isinstance(value, np.ndarray) else value


@lru_cache(maxsize=MOST_MODELS)
def _loaded(model: str) -> tuple[Runner, Any, tuple[str, ...], tuple[str, ...]]:
    import onnx

    proto = onnx.ModelProto.FromString(base64.b64decode(model))
    if len(proto.graph.node) != 1:
        raise ProgramError("host operator", f"{len(proto.graph.node)} operators", "one operator a command")
    if any(t.data_location == onnx.TensorProto.EXTERNAL or t.external_data for t in proto.graph.initializer):
        raise ProgramError("host operator", "constants in another file", "constants inside the program")
    names = tuple(v.name for v in proto.graph.input)
    fetch = tuple(v.name for v in proto.graph.output)
    session = _session(proto)
    if session is not None:
        return "onnxruntime", session, names, fetch
    try:
        return "onnx.reference", _reference(base64.b64decode(model)), names, fetch
    except Exception as error:  # noqa: BLE001
        op = proto.graph.node[0].op_type
        raise ProgramError(
            f"host operator {op}", str(error).splitlines()[0][:200], "an operator the host has"
        ) from None


def _session(proto: Any) -> Any:
    """A session of ONNX Runtime, by an older opset of the same operator where the newest has no kernel; none else."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    for candidate in _versions(proto):
        try:
            return ort.InferenceSession(candidate.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception:  # noqa: BLE001  (each version may fail in its own way)
            continue
    return None


def _versions(proto: Any) -> list[Any]:
    """The model as it is, and with opsets at which the operator had other versions."""
    import onnx

    node = proto.graph.node[0]
    domain = node.domain
    version = next((o.version for o in proto.opset_import if o.domain == domain), 1)
    known = {version}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.name == node.op_type and schema.domain == domain and schema.since_version <= version:
            known.add(schema.since_version)
    out: list[Any] = []
    for opset in sorted(known, reverse=True)[:3]:
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        for item in copy.opset_import:
            if item.domain == domain:
                item.version = opset
        copy.ir_version = min(copy.ir_version or 10, 11)
        out.append(copy)
    return out
