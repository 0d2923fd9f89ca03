"""Adapt: a captured graph for one chip, before its numbers are chosen.

Norms become what the chip's vector unit computes: sums, products and one look-up table where it has 16-bit integers, an
operator of the host where it has bytes only.  Products of two run-time operands go to the host where the chip has no
MMA.  Values that only wide commands read get more bits (attribute `bits`): what a norm reads and its insides, what a
softmax reads.  Large negative constants that mask a softmax become just large enough.

    mean = sum x / n;  d = x - mean;  v = sum d^2 / n;  r = table(v) = 1 / sqrt(v + eps);  norm = d * r

Codes: d 14 bits, d^2 at most 16, v 14, r 16, so the table's relative error is at most 2**-15 * (largest v / v), and
that of r 2**-16 * (largest r / r).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from insitu.arch.spec import Chip
from insitu.compiler.draft import MOVES, is_weight_layer
from insitu.compiler.offload import offloaded
from insitu.graph.graph import Attr, Graph, Node, const_type
from insitu.graph.rewrite import Builder, Names

SPREAD_BITS, TABLE_BITS, WIDE_BITS, SOFTMAX_BITS = 14, 14, 16, 12
CURVE_BITS = 12  # of what a table is looked up with
SUM_BITS = 30  # of a sum over codes, sign aside
BYTES = ".bytes"  # behind the name of a value: the same numbers in narrow codes
MASKED = -128.0  # a number that no softmax sees beside others: exp(-128)
WIDE = ("Add", "Sub", "Mul", "Relu", "Clip")
GROWING = (*WIDE, "MatMul", "Curve", "ReduceMean", "ReduceSum", "Softmax", "Concat")


def run(graph: Graph, chip: Chip) -> Graph:
    """The network as this chip computes it; a graph that was adapted already stays as it is."""
    if graph.meta.get("adapted") == chip.name or graph.level != "captured":
        return graph
    wide = chip.core.vector.format != "int8" and chip.capabilities.scales == "any"
    graph = _folded(_masks(graph))
    graph = _parted(_norms(graph)) if wide else _hosted_norms(graph)
    if not chip.capabilities.mma:
        graph = _hosted(graph, [n for n in graph.nodes if n.op == "MatMul" and not is_weight_layer(graph, n)])
    graph = _tables(graph, chip)
    graph = _widths(graph) if chip.core.vector.format != "int8" else graph
    return replace(graph, meta={**graph.meta, "adapted": chip.name})


def _hosted(graph: Graph, nodes: Sequence[Node]) -> Graph:
    """These nodes as operators of the host."""
    names = {n.name for n in nodes}
    if not names:
        return graph
    return graph.with_nodes(offloaded(graph, n) if n.name in names else n for n in graph.nodes)


def _hosted_norms(graph: Graph) -> Graph:
    """Norms, with the scale and shift behind them, as operators of the host."""
    chains = {n.name: [n, *_affine(graph, n)] for n in graph.nodes if n.op == "Norm"}
    gone = {n.name for chain in chains.values() for n in chain[1:]}
    if any(graph.types[n.output].quant is not None for chain in chains.values() for n in chain[:-1]):
        return _hosted(graph, [chain[0] for chain in chains.values()])
    nodes = [offloaded(graph, *chains[n.name]) if n.name in chains else n for n in graph.nodes if n.name not in gone]
    return graph.with_nodes(nodes) if chains else graph


TABLE_SHARE = 8  # a table that rows are picked from may take this part of the memory


def _tables(graph: Graph, chip: Chip) -> Graph:
    """Rows of large tables are picked by the host: the table stays in its memory."""
    most = int(chip.memories["ram"].size) // TABLE_SHARE

    def placed(node: Node) -> Node:
        table = graph.constants.get(node.inputs[0]) if node.op == "Gather" else None
        return node if table is None or table.size <= most else replace(node, attrs={**node.attrs, "hosted": 1})

    return graph.with_nodes(placed(n) for n in graph.nodes)


# masks of a softmax


def _masks(graph: Graph) -> Graph:
    """Constants far below 0 that only mask softmaxes, at MASKED."""
    readers, marked = graph.consumers(), set[str]()
    for node in reversed(graph.nodes):
        mine = readers.get(node.output, [])
        fine = bool(mine) and node.output not in graph.outputs
        if fine and all(r.op == "Softmax" or (r.op in ("Add", *MOVES) and r.name in marked) for r in mine):
            marked.add(node.name)
    constants, types, renamed = dict(graph.constants), dict(graph.types), list[Node]()
    for node in graph.nodes:
        value = node.inputs[1] if node.op in ("Add", "Mul") and node.name in marked else ""
        array = graph.constants.get(value)
        if array is None or float(array.min(initial=0.0)) >= MASKED:
            renamed.append(node)
            continue
        least = np.asarray(np.maximum(array, min(MASKED, float(array.max()) + MASKED)), np.float32)
        name = f"{node.name}.mask"
        constants[name], types[name] = least, const_type(least)
        renamed.append(replace(node, inputs=(node.inputs[0], name)))
    return graph.with_nodes(renamed, types=types, constants=constants)


# norms


def _folded(graph: Graph) -> Graph:
    """Scale and shift behind a norm in the weight layers that alone read them."""
    for norm in [n for n in graph.nodes if n.op == "Norm"]:
        graph = _fold_one(graph, norm)
    return graph


def _affine(graph: Graph, norm: Node) -> list[Node]:
    """Products with and sums of constants behind a norm, each the only reader of what is before it."""
    readers, found, value = graph.consumers(), list[Node](), norm.output
    while len(mine := readers.get(value, [])) == 1 and mine[0].op in ("Mul", "Add") and value not in graph.outputs:
        if mine[0].inputs[1] not in graph.constants or mine[0].attrs.keys() & {"act_lo", "act_hi"}:
            break
        found.append(mine[0])
        value = mine[0].output
    return found


def _fold_one(graph: Graph, norm: Node) -> Graph:
    readers, value, gone = graph.consumers(), norm.output, list[Node]()
    size = graph.type(norm.output).shape[-1]
    scale, shift = np.ones(()), np.zeros(())
    for node in _affine(graph, norm):
        constant = graph.constants[node.inputs[1]]
        if constant.shape[-1:] not in ((size,), (1,), ()) or constant.size not in (1, size):
            break
        row = constant.astype(np.float64).reshape(-1)
        scale, shift = (scale * row, shift * row) if node.op == "Mul" else (scale, shift + row)
        gone.append(node)
        value = node.output
    layers = readers.get(value, [])
    whole = all(n.op == "MatMul" and is_weight_layer(graph, n) and n.inputs[0] == value for n in layers)
    if not gone or not layers or not whole or value in graph.outputs:
        return graph
    constants, types, nodes = dict(graph.constants), dict(graph.types), list[Node]()
    for node in graph.nodes:
        if node in gone:
            continue
        if node not in layers:
            nodes.append(node)
            continue
        w, b = (graph.constants[v].astype(np.float64) for v in node.inputs[1:3])
        tables = {
            f"{node.name}.normed": np.broadcast_to(scale.reshape(-1, 1) if scale.ndim else scale, w.shape) * w,
            f"{node.name}.shifted": b + np.broadcast_to(shift, (w.shape[0],)) @ w,
        }
        for name, table in tables.items():
            constants[name] = table.astype(np.float32)
            types[name] = const_type(constants[name])
        nodes.append(replace(node, inputs=(norm.output, *tables)))
    return graph.with_nodes(nodes, types=types, constants=constants)


def _norms(graph: Graph) -> Graph:
    """Norms as sums, products and a table."""
    if not any(n.op == "Norm" for n in graph.nodes):
        return graph
    builder = Builder(graph.types, graph.constants, taken=(v for n in graph.nodes for v in n.outputs))
    for node in graph.nodes:
        if node.op == "Norm":
            _norm(builder, node)
        else:
            builder.add(node, typed=True)
    return builder.finish(graph)


def _norm(builder: Builder, node: Node) -> None:
    x, axes, count = node.inputs[0], tuple(node.attr("axes")), elements(builder, node)
    kept: dict[str, Attr] = {"axes": axes, "keepdims": 1}

    def write(op: str, suffix: str, inputs: Sequence[str], bits: int, attrs: dict[str, Attr] | None = None) -> str:
        return builder.emit(op, inputs, name=f"{node.name}_{suffix}", attrs={**(attrs or {}), "bits": bits})

    middle = x
    if node.attr("center", 1):
        middle = write("Sub", "middle", [x, write("ReduceMean", "mean", [x], WIDE_BITS, kept)], SPREAD_BITS)
    square = write("Mul", "square", [middle, middle], min(WIDE_BITS, SUM_BITS - count.bit_length()))
    variance = write("ReduceMean", "variance", [square], TABLE_BITS, kept)
    text = f"reciprocal sqrt add x {float(node.attr('epsilon'))!r}"
    inverse = write("Curve", "inverse", [variance], WIDE_BITS, {"expr": text})
    builder.emit("Mul", [middle, inverse], name=node.name, output=node.output, attrs={"normed": 1})


def elements(builder: Builder, node: Node) -> int:
    """Elements that a norm takes together."""
    shape = builder.types[node.inputs[0]].shape
    return prod(d for d in (shape[a] for a in node.attr("axes")) if isinstance(d, int))


def _parted(graph: Graph) -> Graph:
    """What a norm writes for weight layers and for sums, once for either: the ones read bytes, the others wide codes.

    Weight layers then have a scale for every channel (algo/equalize.py), which no sum could take.
    """
    normed, nodes, types = _normed(graph), list[Node](), dict(graph.types)
    names, values = Names(n.name for n in graph.nodes), Names(graph.types)
    moved: dict[str, str] = {}  # reader: what it reads instead
    for node in graph.nodes:
        if node.name in moved:
            node = replace(node, inputs=(moved[node.name], *node.inputs[1:]))
        nodes.append(node)
        layers = _apart(graph, node.output) if normed.intersection(node.outputs) else []
        if layers:
            own = values.fresh(f"{node.output}{BYTES}")
            nodes.append(replace(node, name=names.fresh(f"{node.name}{BYTES}"), outputs=(own,)))
            types[own] = types[node.output]
            moved |= {r.name: own for r in layers}
    return graph.with_nodes(nodes, types=types) if moved else graph


def _apart(graph: Graph, value: str) -> list[Node]:
    """The readers that lead to weight layers, where all others are sums and the like; none where nothing is to part."""
    readers = graph.consumers().get(value, [])
    ends = {*graph.outputs, *(v for s in graph.states for v in (s.input, s.output))}
    layers = [r for r in readers if _feeds_layers(graph, r, value)]
    wide = [r for r in readers if r.op in WIDE]
    free = value not in ends and graph.types[value].quant is None
    return layers if free and wide and len(layers) + len(wide) == len(readers) else []


def _feeds_layers(graph: Graph, reader: Node, value: str) -> bool:
    """Whether a reader is a weight layer, or only moves codes to such."""
    if reader.op in MOVES:
        behind = graph.consumers().get(reader.output, [])
        return bool(behind) and all(_feeds_layers(graph, r, reader.output) for r in behind)
    return is_weight_layer(graph, reader) and reader.inputs[0] == value


# widths


def _widths(graph: Graph) -> Graph:
    """More bits for values whose every reader can use them."""
    readers, bits, nodes, normed = graph.consumers(), dict[str, int](), list[Node](), _normed(graph)
    ends = {*graph.outputs, *(v for s in graph.states for v in (s.input, s.output))}
    for node in reversed(graph.nodes):
        own = int(node.attr("bits", 0))
        if node.attr("wide"):  # an output that is wanted finely
            bits[node.output] = WIDE_BITS
            node = replace(node, attrs={**node.attrs, "bits": WIDE_BITS})
        elif own:
            bits[node.output] = own
        else:
            mine = readers.get(node.output, [])
            wanted = [_reads(graph, r, node.output, bits) for r in mine] if node.output not in ends else []
            bits[node.output] = min(wanted, default=8)
            if node.output in normed and wanted and all(r.op in WIDE for r in mine):
                bits[node.output] = WIDE_BITS
            picked = node.op == "Gather" and node.inputs[0] in graph.constants
            if (node.op in GROWING or picked) and bits[node.output] > 8:
                node = replace(node, attrs={**node.attrs, "bits": bits[node.output]})
        nodes.append(node)
    return graph.with_nodes(reversed(nodes))


def _normed(graph: Graph) -> set[str]:
    """Outputs of norms, scaled and shifted ones too."""
    found: set[str] = set()
    for node in graph.nodes:
        scaled = node.op in ("Mul", "Add") and node.inputs[0] in found and node.inputs[1] in graph.constants
        if node.attr("normed") or scaled:
            found.add(node.output)
    return found


def _reads(graph: Graph, reader: Node, value: str, bits: dict[str, int]) -> int:
    """Bits that a reader can take."""
    if reader.op == "Softmax":
        return SOFTMAX_BITS
    if reader.attr("normed"):  # a norm's own product takes what its sums take, whatever it writes
        return WIDE_BITS
    if reader.op in ("ReduceMean", "ReduceSum"):
        shape = graph.type(value).shape
        count = prod(d for d in (shape[a] for a in reader.attr("axes")) if isinstance(d, int))
        return min(WIDE_BITS, SUM_BITS - count.bit_length()) if bits.get(reader.output, 8) > 8 else 8
    if reader.op == "MatMul" and not is_weight_layer(graph, reader):
        return _left_bits(graph, reader) if value == reader.inputs[0] != reader.inputs[1] else 8
    if reader.op in WIDE:
        return WIDE_BITS
    if reader.op == "Curve":
        return CURVE_BITS
    return bits.get(reader.output, 8) if reader.op in (*MOVES, "Concat") else 8


def _left_bits(graph: Graph, product: Node) -> int:
    """Bits of the left operand of a run-time product whose right one has 8: sums stay in SUM_BITS."""
    inner = graph.type(product.inputs[1]).shape[-2]
    return min(WIDE_BITS, SUM_BITS - 8 - inner.bit_length()) if isinstance(inner, int) else 8
