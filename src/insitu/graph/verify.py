"""What holds for a graph at each level; a graph that breaks it is refused with one message that lists every fault.

Every level: each value is written once and before it is read, has a type, and the type is what the shape rules say;
constants match their types; a state's input and output are alike.
quantized: values and weights are integers with a QuantSpec whose codes they hold, each node has the numbers it computes
with, what only moves codes keeps their meaning, and no sum can leave int32 whatever the inputs are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.errors import ModelError
from insitu.graph.graph import Attr, Graph, Node
from insitu.graph.ops.float import OWN, is_plain
from insitu.graph.ops.float import infer as infer_plain
from insitu.graph.ops.lut import lut_faults
from insitu.graph.ops.mvm import block_signs, drive_range, input_codes, parts_of
from insitu.graph.ops.shapes import RULES, infer, text
from insitu.graph.text_parse import NUMPY_TYPES
from insitu.graph.types import TensorType
from insitu.numeric.affine import ROUNDINGS, QuantSpec

Array = npt.NDArray[Any]
MOVES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Pad", "Concat", "MaxPool", "ReduceMax")
READOUTS = ("exact", "adc", "wtm2101")
NEEDED: dict[str, tuple[str, ...]] = {
    "Conv": ("readout", "lo", "hi"), "MatMul": ("lo", "hi"), "Softmax": ("lo", "hi"), "Pad": ("code",),
    "Add": ("scale_a", "scale_b", "shift", "lo", "hi"), "Mul": ("multiplier", "shift", "lo", "hi"),
    "Requantize": ("multiplier", "shift", "lo", "hi"), "AveragePool": ("multiplier", "shift", "lo", "hi"),
    "ReduceMean": ("multiplier", "shift", "lo", "hi"), "ReduceSum": ("multiplier", "shift", "lo", "hi"),
}  # fmt: skip
ALWAYS: dict[str, tuple[str, ...]] = {
    "Slice": ("starts", "ends", "axes", "steps"), "Pad": ("pads",), "Transpose": ("perm",), "Reshape": ("shape",),
    "ReduceMean": ("axes",), "ReduceSum": ("axes",), "ReduceMax": ("axes",), "Norm": ("axes",),
    "Concat": ("axis",), "MaxPool": ("kernel_shape",), "AveragePool": ("kernel_shape",),
}  # fmt: skip
NUMBERS = frozenset(("act_lo", "act_hi", "alpha", "beta", "epsilon", "value"))
WHOLE = frozenset(
    (
        "group", "axis", "transB", "keepdims", "count_include_pad", "code", "multiplier", "shift", "scale_a", "scale_b",
        "k", "input_shift", "input_offset", "adc_bits", "adc_m", "adc_s", "input_bits", "plane_bits", "weight_bits",
        "slice_bits", "slice_shift", "slice_offset", "apart", "reads",
    )
)  # fmt: skip
LISTS = frozenset(
    (
        "strides",
        "pads",
        "dilations",
        "kernel_shape",
        "axes",
        "starts",
        "ends",
        "steps",
        "perm",
        "parts",
        "blocks",
        "finer",
        "drive",
    )
)
SHIFTS = frozenset(("shift", "input_shift", "k", "adc_s"))
MOST_LISTED = 40
LIMIT = 1 << 31
MOST_FINER, MOST_READS = 16, 64


def verify(graph: Graph, *, where: str = "graph") -> Graph:
    """The graph itself; ModelError with all broken invariants of its level."""
    found = [*_structure(graph), *_constants(graph), *_attributes(graph)]
    if not found:  # the rest presumes names and types that hold together
        found = [*_types(graph), *_states(graph)]
    if not found and graph.level != "captured":
        codes = (node for node in graph.nodes if not is_plain(graph, node))
        found = [*_codes(graph), *(fault for node in codes for fault in _quantized(graph, node))]
    if found:
        more = f"; and {len(found) - MOST_LISTED} more" if len(found) > MOST_LISTED else ""
        got = f"{len(found)} fault{'s' if len(found) > 1 else ''}: {'; '.join(found[:MOST_LISTED])}{more}"
        raise ModelError(where, got, f"a graph that is sound at level {graph.level}", code="graph_invariant")
    return graph


def _label(node: Node) -> str:
    return f"node {node.name!r} ({node.op})"


# every level


def _structure(graph: Graph) -> Iterator[str]:
    """Single assignment, order, names and operators."""
    given = [*graph.inputs, *graph.constants, *graph.state_inputs]
    ready, names = set(given), set[str]()
    yield from (f"{v!r} is input, state or constant twice" for v, count in Counter(given).items() if count > 1)
    for node in graph.nodes:
        if node.name in names:
            yield f"two nodes are called {node.name!r}"
        names.add(node.name)
        if node.op not in RULES and node.op != "Host" and (graph.level == "captured" or node.op not in OWN):
            yield f"{_label(node)} is no operator of the graph"
        for value in dict.fromkeys(v for v in node.inputs if v and v not in ready):
            yield f"{_label(node)} reads {value!r} before it is written"
        for value in filter(None, node.outputs):
            if value in ready:
                yield f"{_label(node)} writes {value!r}, which is there already"
            ready.add(value)
        if not any(node.outputs):
            yield f"{_label(node)} writes nothing"
    ends = [("output", v) for v in graph.outputs] + [("state output", s.output) for s in graph.states]
    yield from (f"{kind} {value!r} is never written" for kind, value in ends if value not in ready)
    if not graph.outputs:
        yield "there is no output"
    yield from (f"{value!r} has no type" for value in sorted(ready) if value not in graph.types)


def _constants(graph: Graph) -> Iterator[str]:
    for name, array in graph.constants.items():
        kind = graph.types.get(name)
        if kind is not None and (array.shape != kind.shape or array.dtype != NUMPY_TYPES[kind.dtype]):
            yield f"constant {name!r} is {array.dtype} {text(array.shape)}, its type {kind.dtype} {text(kind.shape)}"
        elif graph.level == "captured" and array.dtype.kind == "f" and not np.all(np.isfinite(array)):
            yield f"constant {name!r} has values that are not finite"


def _types(graph: Graph) -> Iterator[str]:
    """Types by the shape rules; element types too, where values are real numbers."""
    for node in graph.nodes:
        try:
            plain = graph.level != "captured" and is_plain(graph, node)
            wanted = infer_plain(node, graph.types) if plain else infer(node, graph.types, graph.constants)
        except ModelError as error:
            yield f"{error.where}: {error.got}; needs {error.need}"
            continue
        for value, kind in zip(node.outputs, wanted, strict=True):
            own = graph.types[value] if value else kind
            if own.shape != kind.shape or (graph.level == "captured" and own.dtype != kind.dtype):
                need = f"{kind.dtype} {text(kind.shape)}" if graph.level == "captured" else text(kind.shape)
                yield f"{_label(node)}: {value!r} is {own.dtype} {text(own.shape)}; needs {need}"


def _states(graph: Graph) -> Iterator[str]:
    for state in graph.states:
        if graph.types[state.input] != graph.types[state.output]:
            yield f"state {state.input!r} and its next value {state.output!r} have different types"


def _whole(value: Attr, *, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _attributes(graph: Graph) -> Iterator[str]:
    """Attributes of a type or size that no operator can mean."""
    bounds = ("lo", "hi")
    for node in graph.nodes:
        missing = [name for name in ALWAYS.get(node.op, ()) if name not in node.attrs]
        if missing:
            yield f"{_label(node)} lacks {', '.join(missing)}"
    for node, name, value in ((n, name, value) for n in graph.nodes for name, value in n.attrs.items()):
        whole = _whole(value, least=0, most=62) if name in SHIFTS else _whole(value, least=-(1 << 62), most=1 << 62)
        if name in WHOLE or (name in bounds and graph.level != "captured"):
            fine, need = whole, "an integer in range"
        elif name in NUMBERS or name in bounds:
            fine, need = isinstance(value, int | float) and value == value, "a number"
        elif name in LISTS:
            fine, need = isinstance(value, tuple) and all(isinstance(v, int) for v in value), "a list of integers"
        else:
            continue
        if not fine:
            yield f"{_label(node)}: {name} = {value!r}; needs {need}"


# integers


def _codes(graph: Graph) -> Iterator[str]:
    """Every value has a spec, its element type holds its codes, and constants stay inside theirs."""
    codes = [n for n in graph.nodes if not is_plain(graph, n)]
    held = {v for s in graph.states for v in (s.input, s.output) if graph.types[v].dtype[0] != "f"}
    read = {v for n in codes for v in n.inputs} | held
    given = [v for v in (*graph.inputs, *graph.state_inputs) if v in read or graph.types[v].quant is not None]
    for value in [*given, *(v for n in codes for v in n.outputs if v)]:
        kind = graph.types[value]
        if kind.quant is None or not _holds(kind, kind.quant):
            spec = f"{kind.quant.bits} bits" if kind.quant else "no quantization"
            yield f"{value!r} is {kind.dtype} with {spec}; needs integers that hold its codes"
    for name, array in graph.constants.items():
        quant = graph.types[name].quant
        if quant is not None and not _scales_fit(graph.types[name], quant):
            yield f"constant {name!r} is {array.dtype} {text(array.shape)}; needs scales that fit it"
        elif quant is not None and array.size and (int(array.min()) < quant.lo or int(array.max()) > quant.hi):
            yield f"constant {name!r} has codes {array.min()} to {array.max()}; needs {quant.lo} to {quant.hi}"


def _scales_fit(kind: TensorType, quant: QuantSpec) -> bool:
    """True where there is one scale per index of the axis."""
    if quant.axis is None:
        return True
    return -kind.rank <= quant.axis < kind.rank and kind.shape[quant.axis] in (len(quant.scale), *kind.symbols)


def _holds(kind: TensorType, quant: QuantSpec) -> bool:
    dtype = NUMPY_TYPES[kind.dtype]
    if dtype.kind not in "iu" or not _scales_fit(kind, quant):
        return False
    return np.iinfo(dtype).min <= quant.lo and quant.hi <= np.iinfo(dtype).max


def _quantized(graph: Graph, node: Node) -> Iterator[str]:
    """Faults of one node of a quantized graph."""
    label, out = _label(node), graph.types[node.output].quant
    assert out is not None
    needed = (name for name in NEEDED.get(node.op, ()) if not _is_product(graph, node, name))
    missing = [name for name in needed if name not in node.attrs]
    if missing:
        yield f"{label} lacks {', '.join(missing)}"
        return
    if "lo" in node.attrs and not out.lo <= int(node.attr("lo")) <= int(node.attr("hi")) <= out.hi:
        yield f"{label}: codes {node.attr('lo')} to {node.attr('hi')}; needs a range within {out.lo} to {out.hi}"
    if node.attr("rounding", ROUNDINGS[0]) not in ROUNDINGS:
        yield f"{label}: rounding {node.attr('rounding')!r}; needs one of {', '.join(ROUNDINGS)}"
    if not 0 <= int(node.attr("multiplier", 1)) < LIMIT:
        yield f"{label}: multiplier {node.attr('multiplier')}; needs 0 to 2^31 - 1"
    if node.op == "Lut":
        yield from (f"{label}: {fault}" for fault in lut_faults(node, graph.constants.get(node.inputs[1]), out))
    elif node.op in MOVES:
        yield from _moved(graph, node, out)
    elif node.op in ("Conv", "MatMul") and node.inputs[1] in graph.constants:
        yield from _layer(graph, node)
    else:
        yield from _sums(graph, node)


def _is_product(graph: Graph, node: Node, attr: str) -> bool:
    """True for what a product of two run-time matrices does not need."""
    return attr == "readout" and node.inputs[1] not in graph.constants


def _moved(graph: Graph, node: Node, out: QuantSpec) -> Iterator[str]:
    names = [v for v in node.inputs if v and graph.types[v].quant is not None]
    if any(graph.types[v].quant != out for v in names) and out.axis is None:
        yield f"{_label(node)} changes what codes stand for"
    if node.op == "Pad" and not out.lo <= int(node.attr("code")) <= out.hi:
        yield f"{_label(node)}: pads with {node.attr('code')}; needs {out.lo} to {out.hi}"


def _layer(graph: Graph, node: Node) -> Iterator[str]:
    """A weight layer: its tables, its readout, its row parts, and its sums."""
    label, readout = _label(node), node.attr("readout", "")
    if readout not in READOUTS:
        yield f"{label}: readout {readout!r}; needs one of {', '.join(READOUTS)}"
        return
    tables = (2, 5) if readout == "wtm2101" else (2, 3, 4)
    if len(node.inputs) <= tables[-1] or not all(node.inputs[i] for i in tables):
        yield f"{label} has {len(node.inputs)} inputs; needs weights, bias and the tables of its readout"
        return
    weights, x = graph.constants[node.inputs[1]], graph.types[node.inputs[0]].quant
    columns = weights.shape[0 if node.op == "Conv" else 1]
    bad = [v for v in node.inputs[2:] if v and graph.constants.get(v, np.zeros(0)).shape not in ((columns,), (1,))]
    if bad or weights.dtype.kind not in "iu" or x is None:
        yield f"{label}: {', '.join(map(repr, bad)) or 'the weights'}; needs integer tables of {columns} columns"
        return
    yield from _tables(graph, node)
    blocks, rows = len(block_signs(node)), prod(weights.shape[1:]) if node.op == "Conv" else weights.shape[0]
    yield from _parts(node, rows * blocks)
    yield from _transforms(node, rows * blocks)
    lo, hi = driven_range(node, x)
    flat = weights.reshape(columns, -1).T if node.op == "Conv" else weights
    peak = peak_sum(flat, graph.constants[node.inputs[2]], lo=lo, hi=hi) * blocks
    if peak >= LIMIT:
        yield f"{label}: sums up to {peak:,}; needs sums below 2^31 (fewer rows or smaller weights)"


def _tables(graph: Graph, node: Node) -> Iterator[str]:
    if node.attr("readout") == "adc" and not 1 <= int(node.attr("adc_m", 1)) < LIMIT:
        yield f"{_label(node)}: adc_m = {node.attr('adc_m')}; needs 1 to 2^31 - 1"
    if node.attr("readout") == "wtm2101":
        gain, down = graph.constants[node.inputs[5]], int(node.attr("k", 0)) + max(node.attr("finer", ()), default=0)
        if gain.min() < 1 or np.any(gain & (gain - 1)) or int(gain.min()) >> down < 1:
            yield f"{_label(node)}: gains {gain.min()} to {gain.max()}; needs powers of two above 2^k"
        return
    columns = graph.constants[node.inputs[5]] if len(node.inputs) > 5 and node.inputs[5] else np.zeros(1, np.int64)
    most = 0 if node.attr("readout") == "exact" else MOST_FINER
    if columns.dtype.kind not in "iu" or columns.min() < 0 or columns.max() > 2 * most:
        yield f"{_label(node)}: columns finer by {columns.min()} to {columns.max()}; needs 0 to {2 * most}"
    multiplier, shift = (graph.constants.get(v) for v in node.inputs[3:5])
    if multiplier is None or shift is None:
        yield f"{_label(node)} lacks its multiplier and shift tables"
    elif multiplier.min() < 0 or multiplier.max() >= LIMIT or shift.min() < 0 or shift.max() > 62:
        yield f"{_label(node)}: multipliers or shifts out of range; needs 31 bits and shifts of 0 to 62"


def _parts(node: Node, rows: int) -> Iterator[str]:
    parts = tuple(node.attr("parts", ()))
    if parts and (parts[0] != 0 or parts[-1] != rows or any(a >= b for a, b in pairwise(parts))):
        yield f"{_label(node)}: row parts {list(parts)}; needs rising bounds from 0 to {rows}"


def _transforms(node: Node, rows: int) -> Iterator[str]:
    """What precision transforms wrote (compiler/precision.py): blocks of rows, the drivers' range, steps of parts."""
    label, signs, drive = _label(node), tuple(node.attr("blocks", (1,))), tuple(node.attr("drive", (0, 0)))
    count, apart = len(parts_of(node, rows)), int(node.attr("apart", 1))
    if not signs or any(s not in (1, -1) for s in signs) or (min(signs) < 0 and drive_range(node) is None):
        yield f"{label}: blocks {list(signs)}; needs signs 1 or -1, and a range of the drivers for -1"
    if len(drive) != 2 or not drive[0] <= 0 <= drive[1]:
        yield f"{label}: drive {list(drive)}; needs the lowest and highest code of the drivers"
    if apart < 1 or len(signs) % apart or (apart > 1 and count % apart):
        yield f"{label}: {apart} copies apart; needs a number of blocks and of row parts that they divide"
    steps = tuple(node.attr("finer", ()))
    if steps and (len(steps) != count or not all(0 <= up <= MOST_FINER for up in steps)):
        yield f"{label}: finer {list(steps)}; needs 0 to {MOST_FINER} for each of {count} row parts"
    if not 0 <= int(node.attr("reads", 0)) <= MOST_READS:
        yield f"{label}: reads = {node.attr('reads')}; needs 0 to {MOST_READS}"
    if node.attr("plane_bits") is not None and not int(node.attr("plane_bits")) >= 1:
        yield f"{label}: plane_bits = {node.attr('plane_bits')}; needs at least 1"


def driven_range(node: Node, x: QuantSpec) -> tuple[int, int]:
    """The smallest and largest code a macro's rows are driven with, 0 included."""
    ends = [int(input_codes(np.asarray(q), node, sign=s)) for q in (x.lo, x.hi) for s in block_signs(node)]
    return min(*ends, 0), max(*ends, 0)


def peak_sum(weights: Array, bias: Array, *, lo: int, hi: int) -> int:
    """The largest magnitude of any column's sum, or a part of it, for inputs of lo..hi; weights are [rows, cols]."""
    w = weights.astype(np.int64)
    up = np.where(w > 0, w * hi, w * lo).sum(axis=0)
    down = np.where(w > 0, w * lo, w * hi).sum(axis=0)
    b = bias.astype(np.int64)
    return int(max(np.abs(up + np.maximum(b, 0)).max(initial=0), np.abs(down + np.minimum(b, 0)).max(initial=0)))


def _sums(graph: Graph, node: Node) -> Iterator[str]:
    """Sums of the other operators."""
    reach = [_reach(graph.types[v].quant) for v in node.inputs if v and graph.types[v].quant is not None]
    shape = graph.types[node.inputs[0]].shape
    peak, limit = 0, LIMIT
    if node.op == "MatMul":
        peak = reach[0] * reach[1] * (shape[-1] if isinstance(shape[-1], int) else 1)
    elif node.op in ("ReduceMean", "ReduceSum"):
        peak = reach[0] * prod(d for d in (shape[a] for a in node.attr("axes")) if isinstance(d, int))
    elif node.op == "AveragePool":
        peak = reach[0] * prod(node.attr("kernel_shape"))
    elif node.op == "Add":
        scales = abs(int(node.attr("scale_a"))), abs(int(node.attr("scale_b")))
        peak, limit = sum(r * s for r, s in zip(reach, scales, strict=False)), 1 << 62
    if node.op in ("Add", "Mul") and len(node.inputs) > 2:
        yield from _factors(graph, node)
    if peak >= limit:
        yield f"{_label(node)}: sums up to {peak:,}; needs sums below 2^{limit.bit_length() - 1}"


def _factors(graph: Graph, node: Node) -> Iterator[str]:
    """Multipliers per channel of an elementwise operator."""
    table = graph.constants.get(node.inputs[2])
    if table is None or table.dtype.kind not in "iu" or table.min() < 0 or table.max() >= LIMIT:
        yield f"{_label(node)}: {node.inputs[2]!r} as its multipliers; needs a constant of integers from 0 to 2^31 - 1"


def _reach(quant: QuantSpec | None) -> int:
    """The largest distance of a code from the zero point."""
    return max(quant.hi - quant.zero_point, quant.zero_point - quant.lo) if quant else 0
