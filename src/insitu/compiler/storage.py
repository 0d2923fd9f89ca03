"""Storage: which values share memory, the halos convolutions read, and byte addresses by lifetime.

A convolution reads its padding from a halo of zero points around the stored tensor, so windows are plain strided
addresses and nothing is copied.  Transpose, Slice and contiguous reshapes are views of their input's storage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from insitu.base.errors import Infeasible, InfeasibleError
from insitu.graph.graph import Graph, Node
from insitu.graph.ops.mvm import spatial_pads
from insitu.graph.types import Dim
from insitu.isa.program import Location

RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
WINDOWED = ("Conv", "MaxPool", "AveragePool")
ALIGN = 16
Halo = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Storage:
    """Locations of all values; `homes` are the values that own memory, with halo and element count."""

    locations: Mapping[str, Location]
    halos: Mapping[str, Halo]
    counts: Mapping[str, int]
    views: frozenset[str]


def lay_out(graph: Graph, sizes: Mapping[str, int]) -> Storage:
    """Where every value of a quantized graph is stored."""
    need = _halo_needs(graph)
    locations: dict[str, Location] = {}
    halos: dict[str, Halo] = {}
    counts: dict[str, int] = {}
    views: set[str] = set()

    def own(value: str) -> None:
        shape = graph.type(value).shape
        halo = need.get(value, ((0, 0),) * len(shape))
        padded = [_size(d, sizes) + sum(h) for d, h in zip(shape, halo, strict=True)]
        strides = tuple(prod(padded[i + 1 :]) for i in range(len(padded)))
        offset = sum(h[0] * s for h, s in zip(halo, strides, strict=True))
        locations[value], halos[value], counts[value] = Location(value, offset, shape, strides), halo, prod(padded)

    for value in (*graph.inputs, *graph.state_inputs, *_operand_constants(graph)):
        own(value)
    for node in graph.nodes:
        view = None if need.get(node.output) and node.op != "Transpose" else _view(graph, node, locations, halos)
        if view is None:
            own(node.output)
        else:
            locations[node.output] = view
            views.add(node.output)
    return Storage(locations, halos, counts, frozenset(views))


def _operand_constants(graph: Graph) -> list[str]:
    """Constants that vector commands read from memory."""
    elementwise = [n for n in graph.nodes if n.op in ("Add", "Mul", "Concat")]
    maps = [n.inputs[1] for n in graph.nodes if n.op == "AveragePool" and len(n.inputs) > 1]
    return list(dict.fromkeys([v for n in elementwise for v in n.inputs if v in graph.constants] + maps))


def _size(dim: Dim, sizes: Mapping[str, int]) -> int:
    return sizes[dim] if isinstance(dim, str) else dim


def _halo_needs(graph: Graph) -> dict[str, Halo]:
    """Padding that readers want around each value; Transpose hands it on to its input."""
    need: dict[str, Halo] = {}

    def widen(value: str, halo: Halo) -> None:
        old = need.get(value, ((0, 0),) * len(halo))
        need[value] = tuple((max(a[0], b[0]), max(a[1], b[1])) for a, b in zip(old, halo, strict=True))

    for node in reversed(graph.nodes):
        if node.op in WINDOWED and any(node.attr("pads", ())):
            widen(node.inputs[0], ((0, 0), (0, 0), *spatial_pads(tuple(node.attr("pads")))))
        elif node.op == "Transpose" and node.output in need:
            halo = need[node.output]
            back = dict(zip(permutation(node, len(halo)), halo, strict=True))
            widen(node.inputs[0], tuple(back[i] for i in range(len(halo))))
    return need


def permutation(node: Node, rank: int) -> tuple[int, ...]:
    """The axes order of a Transpose."""
    return tuple(node.attr("perm") or reversed(range(rank)))


def _view(graph: Graph, node: Node, locations: Mapping[str, Location], halos: Mapping[str, Halo]) -> Location | None:
    """The output as a view of the input's storage; None where it needs memory of its own."""
    if node.op not in (*RESHAPES, "Transpose", "Slice"):
        return None
    source = locations[node.inputs[0]]
    shape = graph.type(node.output).shape
    if node.op == "Transpose":
        order = permutation(node, len(shape))
        return Location(source.symbol, source.offset, shape, tuple(source.strides[p] for p in order))
    if node.op == "Slice":
        return _slice_view(node, source, shape)
    return _reshape_view(source, shape)


def _slice_view(node: Node, source: Location, shape: tuple[Dim, ...]) -> Location | None:
    offset, strides = source.offset, list(source.strides)
    for axis, start, end, step in zip(
        node.attr("axes"), node.attr("starts"), node.attr("ends"), node.attr("steps"), strict=True
    ):
        size = source.shape[axis]
        if step < 0 or isinstance(size, str):
            return None
        first, _, _ = slice(start, end, step).indices(size)
        offset += first * strides[axis]
        strides[axis] *= step
    return Location(source.symbol, offset, shape, tuple(strides))


def _reshape_view(source: Location, shape: tuple[Dim, ...]) -> Location | None:
    """A reshape of contiguous storage; unit dimensions of the source do not count."""
    real = [(d, s) for d, s in zip(source.shape, source.strides, strict=True) if d != 1]
    if any(isinstance(d, str) for d in (*source.shape, *shape)):
        same = [d for d, _ in real] == [d for d in shape if d != 1]
        if not same:
            return None
        strides = iter([s for _, s in real])
        return Location(source.symbol, source.offset, shape, tuple(0 if d == 1 else next(strides) for d in shape))
    step = 1
    for size, stride in reversed(real):
        if stride != step:
            return None
        step *= int(size)
    sizes = [int(d) for d in shape]
    return Location(source.symbol, source.offset, shape, tuple(prod(sizes[i + 1 :]) for i in range(len(sizes))))


@dataclass(frozen=True)
class Block:
    """A piece of memory with its first and last use (positions in the command order)."""

    name: str
    bytes: int
    first: int
    last: int


def allocate(blocks: list[Block], *, space: str, bound: int, chip: str) -> tuple[dict[str, int], int]:
    """(byte address of each block, bytes in use): first fit over blocks alive at the same time, larger ones first.

    Raises InfeasibleError when the memory is too small.
    """
    placed: list[tuple[int, Block]] = []
    for block in sorted(blocks, key=lambda b: (-b.bytes, b.first, b.name)):
        address = 0
        for start, other in sorted(
            ((a, b) for a, b in placed if b.first <= block.last and block.first <= b.last), key=lambda p: p[0]
        ):
            if address + block.bytes <= start:
                break
            address = max(address, -(-(start + other.bytes) // ALIGN) * ALIGN)
        placed.append((address, block))
    top = max((a + b.bytes for a, b in placed), default=0)
    if top > bound:
        biggest = tuple(b.name for b in sorted(blocks, key=lambda b: (-b.bytes, b.name))[:5])
        ways = (
            "use smaller inputs or a network with smaller feature maps",
            f"copy the chip file and enlarge memories.{space}.size",
        )
        raise InfeasibleError([Infeasible(f"memory {space}", float(top), float(bound), "B", biggest, ways)], chip)
    return {b.name: a for a, b in placed}, -(-top // ALIGN) * ALIGN
