"""Several chips: layers go to chips in runs that balance cells; what a chip needs of another comes over a link.

The result is a graph again: a layer larger than a chip becomes parts by columns, whose outputs are put side by side,
and a Transfer copies a value into the memory of a chip that reads it.
"""

from __future__ import annotations

from collections.abc import Mapping as Dict
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.arch.spec import Chip
from insitu.base.errors import InfeasibleError
from insitu.compiler.mapping import Mapping, Placed
from insitu.compiler.place import packings, place
from insitu.compiler.tile import owners, pieces, rectangles, usable_columns, weight_nodes
from insitu.graph.graph import Graph, Node, const_type
from insitu.graph.types import TensorType
from insitu.numeric.affine import QuantSpec

SLACKS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 1.0)  # above an even share of the cells
Columns = tuple[int, int] | None  # of a layer; none: all
Share = list[tuple[Node, Columns]]  # what one chip holds


def spread(graph: Graph, chip: Chip, *, most: int) -> tuple[Graph, Mapping] | None:
    """The graph and its places on as few chips as can be found, at most `most`; none where they do not suffice."""
    needs = layer_cells(graph, chip)
    least = max(2, ceil(sum(needs.values()) / chip.capacity))
    for count in range(least, most + 1):
        tried: set[float] = set()
        for slack in SLACKS:
            share = min(float(chip.capacity), sum(needs.values()) / count * (1 + slack))
            found = None if share in tried else _try(graph, chip, needs, share, count)
            tried.add(share)
            if found is not None:
                return found
    return None


def layer_cells(graph: Graph, chip: Chip) -> dict[str, int]:
    """Cells of each weight layer, groups packed as densely as they go."""
    nodes, owner = weight_nodes(graph), owners(graph)
    pack = packings(nodes)[0]
    return {n.name: 0 for n in nodes} | {
        n.name: sum(r.rows * r.cols for p in pieces(graph, n, chip, pack=pack) for r in rectangles(graph, n, p, chip))
        for n in nodes
        if owner[n.name] == n.name
    }


def _try(graph: Graph, chip: Chip, needs: Dict[str, int], share: float, count: int) -> tuple[Graph, Mapping] | None:
    """Layers in order onto chips of at most `share` cells each, then places; none where that does not work out."""
    shares = _divide(graph, chip, needs, share)
    if shares is None or len(shares) > count:
        return None
    cut = _Cut.of(graph, shares)
    layers: dict[str, tuple[Placed, ...]] = {}
    used = 0
    for number in range(len(shares)):
        nodes = [n for n in weight_nodes(cut.graph) if cut.homes[n.name] == number]
        try:
            mapping = place(cut.graph, chip, nodes=nodes)
        except InfeasibleError:
            return None
        used += mapping.cells_used
        first = number * chip.cores
        layers |= {k: tuple(replace(p, core=p.core + first) for p in v) for k, v in mapping.layers.items()}
    linked = _link(cut.graph, cut.homes)
    facts = {"chips": len(shares), "chips_at_least": max(1, ceil(sum(needs.values()) / chip.capacity))}
    return linked.graph, Mapping(
        layers, used, chip.capacity * len(shares), chips=len(shares), homes=linked.homes, facts=facts
    )


def _divide(graph: Graph, chip: Chip, needs: Dict[str, int], share: float) -> list[Share] | None:
    shares: list[Share] = [[]]
    room = share
    owner = owners(graph)
    for node in weight_nodes(graph):
        need = needs[node.name]
        if owner[node.name] != node.name:  # weights that are there already
            for held in shares:
                held += [(node, columns) for other, columns in held if other.name == owner[node.name]]
            continue
        if need > share and int(node.attr("group", 1)) > 1:
            return None
        if need <= share:
            if need > room:
                shares.append([])
                room = share
            shares[-1].append((node, None))
            room -= need
            continue
        width, chunk = graph.type(node.output).shape[_axis(node)], column_step(chip)
        assert isinstance(width, int)
        each, at = need * chunk / width, 0
        if each > share:
            return None
        while at < width:
            many = int(room // each) * chunk
            if not many:
                shares.append([])
                room = share
                continue
            end = min(width, at + many)
            shares[-1].append((node, (at, end)))
            room -= need * (end - at) / width
            at = end
    return shares


def column_step(chip: Chip) -> int:
    """Columns by which a layer is cut: an array's, or a part of them where a chip has few arrays."""
    few = chip.macros * chip.macro.arrays < 16
    return max(1, usable_columns(chip) // 16) if few else usable_columns(chip)


def _axis(node: Node) -> int:
    """The axis of a layer's output that counts its columns."""
    return 1 if node.op != "MatMul" else -1


# layers cut into parts


@dataclass
class _Cut:
    """The graph with its large layers in parts, and the chip of every node."""

    graph: Graph
    homes: dict[str, int] = field(default_factory=dict[str, int])

    @classmethod
    def of(cls, graph: Graph, shares: list[Share]) -> _Cut:
        parts: dict[str, list[tuple[int, Columns]]] = {}
        for number, share in enumerate(shares):
            for node, columns in share:
                parts.setdefault(node.name, []).append((number, columns))
        nodes: list[Node] = []
        types: dict[str, TensorType] = {}
        constants: dict[str, npt.NDArray[Any]] = {}
        homes: dict[str, int] = {}
        chips = dict.fromkeys((*graph.inputs, *graph.state_inputs), 0)
        for node in graph.nodes:
            held = parts.get(node.name, [])
            if len(held) > 1:
                made = _in_parts(graph, node, held, types, constants)
                homes |= {n.name: c for n, (c, _) in zip(made, held, strict=False)}
                nodes += made
                homes[made[-1].name] = held[-1][0]
            else:
                nodes.append(node)
                homes[node.name] = held[0][0] if held else max([chips[v] for v in node.inputs if v in chips], default=0)
            chips |= dict.fromkeys(node.outputs, homes[nodes[-1].name])
        return cls(graph.with_nodes(nodes, types=types, constants=constants), homes)


def _in_parts(
    graph: Graph,
    node: Node,
    held: list[tuple[int, Columns]],
    types: dict[str, TensorType],
    constants: dict[str, npt.NDArray[Any]],
) -> list[Node]:
    """A layer as parts by columns, and the Concat of their outputs."""
    whole, axis = graph.type(node.output), _axis(node)
    made: list[Node] = []
    for index, (_, columns) in enumerate(held):
        assert columns is not None
        name, (a, b) = f"{node.name}.part{index}", columns
        inputs = [node.inputs[0]]
        for position, value in enumerate(node.inputs[1:], 1):
            array = np.asarray(graph.constants[value]) if value else np.zeros(0)
            if not value or array.size == 1:
                inputs.append(value)
                continue
            array = np.ascontiguousarray(array[:, a:b] if position == 1 and node.op == "MatMul" else array[a:b])
            inputs.append(f"{value}.part{index}")
            constants[inputs[-1]] = array
            types[inputs[-1]] = replace(graph.types.get(value) or const_type(array), shape=tuple(array.shape))
        shape = list(whole.shape)
        shape[axis] = b - a
        types[name] = replace(whole, shape=tuple(shape), quant=_cut_quant(whole.quant, a, b))
        made.append(Node(name, node.op, tuple(inputs), (name,), {**node.attrs, "layer": node.name}))
    joined = {"axis": axis % len(whole.shape)}
    return [*made, Node(node.name, "Concat", tuple(n.output for n in made), node.outputs, joined)]


def _cut_quant(quant: QuantSpec | None, a: int, b: int) -> QuantSpec | None:
    """The quantization of columns a..b; scales by channel are theirs."""
    if quant is None or quant.axis is None:
        return quant
    return replace(quant, scale=quant.scale[a:b])


# values copied between chips


@dataclass(frozen=True)
class _Linked:
    graph: Graph
    homes: Dict[str, int]


def _link(graph: Graph, homes: Dict[str, int]) -> _Linked:
    """Transfers before nodes that read a value of another chip; Concat copies anyway, and reads it where it is."""
    chips = dict.fromkeys((*graph.inputs, *graph.state_inputs), 0)
    nodes: list[Node] = []
    homes = dict(homes)
    types: dict[str, TensorType] = {}
    constants: dict[str, npt.NDArray[Any]] = {}
    owner: dict[str, int] = {}
    for node in graph.nodes:
        home = homes[node.name]
        inputs: list[str] = []
        for value in node.inputs:
            copy = f"{value}@{home}"
            if value in graph.constants and owner.setdefault(value, home) != home:
                constants[copy], types[copy] = (
                    graph.constants[value],
                    graph.types.get(value) or const_type(graph.constants[value]),
                )
            elif value in chips and chips[value] != home and node.op != "Concat":
                if copy not in types:
                    types[copy] = graph.type(value)
                    nodes.append(Node(copy, "Transfer", (value,), (copy,), {}))
                    homes[copy] = home
            else:
                copy = value
            inputs.append(copy)
        nodes.append(replace(node, inputs=tuple(inputs)))
        chips |= dict.fromkeys(node.outputs, home)
    return _Linked(graph.with_nodes(nodes, types=types, constants=constants), homes)
