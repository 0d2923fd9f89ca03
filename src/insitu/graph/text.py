"""Graphs as text that people read and diff, and that parses back to an equal Graph.

    graph kws level=quantized
      meta opset = 17
      input x : i8[1, 490] quant(8, signed, scale=0.5, zero=-3)
      const conv.bias : i64[2] = [3, -4]
      const conv.weight : i8[28, 1, 10, 4] = sha256:9c1e...
      h : i8[1, 28, 40, 7] = Conv(x, conv.weight, conv.bias) {group=1, pads=[0, 0]} as conv1
      state s : i8[1, 4] from h
      output h
    data sha256:9c1e... 1120
      <base64>
    end

A size by name (`f32[N, 3]`) is bound at run time, `_` is an absent input, and `as` names a node that is not called
like its output.  Names with other characters stand as JSON strings.  Large tables stand by hash, their bytes
follow the graph.
"""

from __future__ import annotations

import base64
import hashlib
import json
import operator
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.errors import InternalError, ModelError
from insitu.base.store import write_text
from insitu.graph.graph import Attr, Graph, Node, const_type
from insitu.graph.text_parse import HASH_DIGITS, NUMPY_TYPES, PLAIN, RESERVED, parse_graph
from insitu.graph.types import TensorType
from insitu.numeric.affine import QuantSpec

__all__ = ["load_graph", "parse_graph", "print_graph", "same_graph", "save_graph"]

Array = npt.NDArray[Any]
INLINE = 16  # elements of a table that is written in its line
WIDTH = 96  # characters of base64 in a line
MAX_BYTES = 1 << 31


def print_graph(graph: Graph, *, weights: bool = True) -> str:
    """The graph as text; without `weights` large tables stand by hash only, and the text does not parse back."""
    data: dict[str, bytes] = {}
    lines = [f"graph {name_text(graph.name)} level={graph.level}"]
    lines += [f"  {line}" for line in _body(graph, data)]
    if weights:
        for digest, content in data.items():
            lines.append(f"data {digest} {len(content)}")
            encoded = base64.b64encode(content).decode()
            lines += [f"  {encoded[i : i + WIDTH]}" for i in range(0, len(encoded), WIDTH)]
    return "\n".join([*lines, "end", ""])


def same_graph(a: Graph, b: Graph) -> bool:
    """True where two graphs are equal in everything, weights included."""
    return print_graph(a) == print_graph(b)


def save_graph(graph: Graph, path: str | Path) -> Path:
    """Writes a .graph file, all of it or nothing; returns its path."""
    return write_text(path, print_graph(graph))


def load_graph(path: str | Path) -> Graph:
    """The verified graph of a .graph file; ModelError names file and line of what is wrong."""
    from insitu.graph.verify import verify

    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(str(path), "the file is too large", f"at most {MAX_BYTES:,} bytes")
        text = path.read_text("utf-8")
    except OSError as error:
        raise ModelError(str(path), f"the file cannot be read ({error.strerror})", "a readable .graph file") from None
    except UnicodeDecodeError:
        raise ModelError(str(path), "this is not text", "a .graph file, as `compile -o F.graph` writes it") from None
    return verify(parse_graph(text, where=str(path)), where=str(path))


def _body(graph: Graph, data: dict[str, bytes]) -> Iterator[str]:
    """The lines of the graph itself; fills `data` with the tables that stand by hash."""
    for key in sorted(graph.meta):
        yield f"meta {name_text(key)} = {_attr(graph.meta[key])}"
    for value in graph.inputs:
        yield f"input {_typed(value, graph.types[value], data)}"
    for name in _constants(graph):
        kind = graph.types.get(name) or const_type(graph.constants[name])
        yield f"const {_typed(name, kind, data)} = {_table(name, graph.constants[name], kind, data)}"
    for state in graph.states:
        yield f"state {_typed(state.input, graph.types[state.input], data)} from {name_text(state.output)}"
    for node in graph.nodes:
        yield _node(graph, node, data)
    for value in graph.outputs:
        yield f"output {name_text(value)}"


def _constants(graph: Graph) -> list[str]:
    """Constants in the order of their first use, the rest by name."""
    used = dict.fromkeys(v for n in graph.nodes for v in n.inputs if v in graph.constants)
    return [*used, *sorted(graph.constants.keys() - used.keys())]


def _node(graph: Graph, node: Node, data: dict[str, bytes]) -> str:
    left = ", ".join(_typed(v, graph.types[v], data) if v else "_" for v in node.outputs)
    call = f"{name_text(node.op)}({', '.join(name_text(v) if v else '_' for v in node.inputs)})"
    attrs = ", ".join(f"{name_text(k)}={_attr(node.attrs[k])}" for k in sorted(node.attrs))
    own = "" if node.outputs and node.name == node.outputs[0] else f" as {name_text(node.name)}"
    return f"{left} = {call}{f' {{{attrs}}}' if attrs else ''}{own}"


def _typed(name: str, kind: TensorType, data: dict[str, bytes]) -> str:
    dims = ", ".join(str(d) if isinstance(d, int) else _symbol(d) for d in kind.shape)
    quant = f" {_quant(kind.quant, data)}" if kind.quant else ""
    return f"{name_text(name)} : {kind.dtype}[{dims}]{quant}"


def _symbol(name: str) -> str:
    """A size's name; quoted where it would read as a number."""
    return json.dumps(name) if name.lstrip("-").isdigit() else name_text(name)


def _quant(spec: QuantSpec, data: dict[str, bytes]) -> str:
    sign = "signed" if spec.signed else "unsigned"
    scale = np.asarray(spec.scale, np.float64)
    many = f"[{', '.join(_float(s) for s in spec.scale)}]" if scale.size <= INLINE else _stored(scale, data)
    text = f"quant({spec.bits}, {sign}, scale={_float(spec.scale[0]) if spec.axis is None else many}"
    text += f", zero={spec.zero_point}" if spec.zero_point else ""
    return text + (f", axis={spec.axis})" if spec.axis is not None else ")")


def _table(name: str, array: Array, kind: TensorType, data: dict[str, bytes]) -> str:
    """A constant's values in the line, or the hash of its bytes."""
    if array.dtype != NUMPY_TYPES[kind.dtype] or array.shape != kind.shape:
        raise InternalError(f"constant {name!r}", f"{array.dtype} {array.shape}", f"{kind.dtype} {kind.shape}")
    if array.size > INLINE or not np.all(np.isfinite(array)):
        return _stored(array, data)
    return f"[{', '.join(_number(v) for v in array.reshape(-1))}]"


def _stored(array: Array, data: dict[str, bytes]) -> str:
    content = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()[:HASH_DIGITS]}"
    data[digest] = content
    return digest


def _number(value: Any) -> str:
    """One element: the shortest decimal that reads back as the same number."""
    return str(int(value)) if np.asarray(value).dtype.kind in "iub" else str(value)


def _float(value: float) -> str:
    return float.__repr__(float(value))


def _attr(value: Attr) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(_attr(v) for v in value)}]"
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value)
    return _float(value) if isinstance(value, float | np.floating) else str(operator.index(value))


def name_text(name: str) -> str:
    """A name as it stands in the text: plain, or as a JSON string."""
    return name if PLAIN.fullmatch(name) and name not in RESERVED else json.dumps(name)
