"""Storage: which values share memory, the halos convolutions read, and byte addresses by lifetime.

A convolution reads its padding from a halo of zero points around the stored tensor, so windows are plain strided
addresses and nothing is copied.  A value that only MaxPools read with padding has a halo of the lowest code; one that
both kinds read is copied for the MaxPools (`split_pads`).  Transpose, Slice and contiguous reshapes are views of their
input's storage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod

from insitu.base.errors import Infeasible, InfeasibleError
from insitu.graph.graph import Graph, Node
from insitu.graph.ops.float import VIEWS, is_plain
from insitu.graph.ops.mvm import spatial_pads
from insitu.graph.types import HOST, Dim
from insitu.isa.elements import packed_type
from insitu.isa.program import Location

RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
WINDOWED = ("Conv", "MaxPool", "AveragePool")
ALIGN = 16
ONLY_MAX = frozenset(("MaxPool",))
Halo = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Storage:
    """Locations of all values; `homes` are the values that own memory, with halo and element count."""

    locations: Mapping[str, Location]
    halos: Mapping[str, Halo]
    counts: Mapping[str, int]
    views: frozenset[str]
    fills: Mapping[str, int]  # code of each value's halo


def lay_out(graph: Graph, sizes: Mapping[str, int]) -> Storage:
    """Where every value of a quantized graph is stored."""
    need, kinds = _halo_needs(graph)
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
        if graph.type(value).dtype != HOST:
            own(value)
    inside = in_place(graph)
    for node in graph.nodes:
        if node.name in inside:
            locations[node.output] = locations[node.inputs[0]]
            continue
        if is_plain(graph, node):
            _lay_out_plain(graph, node, locations, views, own)
            continue
        view = None if need.get(node.output) and node.op != "Transpose" else _view(graph, node, locations, halos)
        if view is None or (node.output in graph.outputs and view.symbol in graph.state_inputs):
            own(node.output)
        else:
            locations[node.output] = view
            views.add(node.output)
    return Storage(locations, halos, counts, frozenset(views), {v: _fill(graph, v, kinds[v]) for v in need})


def in_place(graph: Graph) -> frozenset[str]:
    """Scatters that write into a state, where nobody wants the old one any more: the cache of a decoder."""
    states, readers = {s.input: s.output for s in graph.states}, graph.consumers()
    return frozenset(
        n.name
        for n in graph.nodes
        if n.op == "Scatter" and states.get(n.inputs[0]) == n.output and len(readers[n.inputs[0]]) == 1
    )


def packed_values(graph: Graph) -> dict[str, str]:
    """States of at most 4 bits whose entries a Scatter replaces, and what is gathered of them: packed element types."""
    inside, found = in_place(graph), dict[str, str]()
    for node in graph.nodes:
        quant = graph.type(node.inputs[0]).quant if node.name in inside else None
        dtype = packed_type(quant.bits, signed=quant.lo < 0) if quant else ""
        if dtype:
            found[node.inputs[0]] = found[node.output] = dtype
        elif node.op in (*RESHAPES, "Gather") and node.inputs[0] in found:
            found[node.output] = found[node.inputs[0]]
    return found


def _lay_out_plain(
    graph: Graph, node: Node, locations: dict[str, Location], views: set[str], own: Callable[[str], None]
) -> None:
    """Outputs of a node on numbers: a view where its addresses can be written down, else memory of their own."""
    view = plain_view(graph, node, locations[node.inputs[0]]) if node.op in VIEWS else None
    if view is not None and node.output not in graph.outputs:
        locations[node.output] = view
        views.add(node.output)
        return
    for value in node.outputs:
        if value and graph.type(value).dtype != HOST:
            own(value)


def plain_view(graph: Graph, node: Node, source: Location) -> Location | None:
    """What a move without a command makes of its input's addresses; none for a Reshape that has to copy."""
    shape = graph.type(node.output).shape
    match node.op:
        case "Reshape":
            return _reshape_view(source, shape)
        case "Transpose":
            return Location(source.symbol, source.offset, shape, tuple(source.strides[p] for p in node.attr("perm")))
        case "Expand":
            missing = len(shape) - len(source.shape)
            strides = [0] * missing + [0 if n == 1 else s for n, s in zip(source.shape, source.strides, strict=True)]
            return Location(source.symbol, source.offset, shape, tuple(strides))
        case "Window":
            lead = len(source.shape) - len(node.attr("kernel"))
            inner = source.strides[lead:]
            steps = [s * k for s, k in zip(inner, node.attr("strides"), strict=True)]
            taps = [s * d for s, d in zip(inner, node.attr("dilations"), strict=True)]
            return Location(source.symbol, source.offset, shape, (*source.strides[:lead], *steps, *taps))
        case _:
            return _plain_slice(node, source, shape)


def _plain_slice(node: Node, source: Location, shape: tuple[Dim, ...]) -> Location:
    offset, strides = source.offset, list(source.strides)
    cuts = (node.attr(name) for name in ("axes", "starts", "ends", "steps"))
    for axis, start, end, step in zip(*cuts, strict=True):
        first, _, _ = slice(start, end, step).indices(int(source.shape[axis]))
        offset += first * strides[axis]
        strides[axis] *= step
    return Location(source.symbol, offset, shape, tuple(strides))


def _operand_constants(graph: Graph) -> list[str]:
    """Constants that vector commands read from memory."""
    plain = [v for n in graph.nodes if is_plain(graph, n) for v in (n.inputs[:1] if n.op == "MVM" else n.inputs)]
    return list(dict.fromkeys([*_code_constants(graph), *(v for v in plain if v in graph.constants)]))


def _code_constants(graph: Graph) -> list[str]:
    elementwise = [n for n in graph.nodes if n.op in ("Add", "Mul", "Concat")]
    maps = [n.inputs[1] for n in graph.nodes if n.op == "AveragePool" and len(n.inputs) > 1]
    return list(dict.fromkeys([v for n in elementwise for v in n.inputs if v in graph.constants] + maps))


def _size(dim: Dim, sizes: Mapping[str, int]) -> int:
    return sizes[dim] if isinstance(dim, str) else dim


def _fill(graph: Graph, value: str, readers: frozenset[str]) -> int:
    """What a halo holds: the lowest code where only MaxPools read it, else the zero point."""
    quant = graph.type(value).quant
    assert quant is not None
    return quant.lo if readers == ONLY_MAX else quant.zero_point


def split_pads(graph: Graph) -> Graph:
    """A padded MaxPool reads a padded copy where its input's halo has to hold other codes than the lowest."""
    _, kinds = _halo_needs(graph)
    nodes: list[Node] = []
    types = dict(graph.types)
    for node in graph.nodes:
        value = node.inputs[0] if node.inputs else ""
        quant = types[value].quant if value else None
        padded = node.op == "MaxPool" and any(node.attr("pads", ()))
        if padded and quant and kinds[value] != ONLY_MAX and quant.lo != quant.zero_point:
            half = len(node.attr("pads")) // 2
            before, after = ((0, 0, *node.attr("pads")[i : i + half]) for i in (0, half))
            copy = f"{node.name}.padded"
            sizes = zip(types[value].shape, before, after, strict=True)
            shape = tuple(d if isinstance(d, str) else d + b + a for d, b, a in sizes)
            types[copy] = replace(types[value], shape=shape)
            nodes.append(Node(copy, "Pad", (value,), (copy,), {"pads": (*before, *after), "code": quant.lo}))
            node = replace(node, inputs=(copy,), attrs={**node.attrs, "pads": (0,) * (2 * half)})
        nodes.append(node)
    return graph.with_nodes(nodes, types=types)


def _halo_needs(graph: Graph) -> tuple[dict[str, Halo], dict[str, frozenset[str]]]:
    """(padding that readers want around each value, operators of those readers); Transpose hands both on."""
    need: dict[str, Halo] = {}
    kinds: dict[str, frozenset[str]] = {}

    def widen(value: str, halo: Halo, readers: frozenset[str]) -> None:
        kinds[value] = kinds.get(value, frozenset()) | readers
        old = need.get(value, ((0, 0),) * len(halo))
        need[value] = tuple((max(a[0], b[0]), max(a[1], b[1])) for a, b in zip(old, halo, strict=True))

    for node in reversed(graph.nodes):
        if node.op in WINDOWED and any(node.attr("pads", ())):
            halo = ((0, 0), (0, 0), *spatial_pads(tuple(node.attr("pads"))))
            widen(node.inputs[0], halo, frozenset((node.op,)))
        elif node.op == "Transpose" and node.output in need:
            halo = need[node.output]
            back = dict(zip(permutation(node, len(halo)), halo, strict=True))
            widen(node.inputs[0], tuple(back[i] for i in range(len(halo))), kinds[node.output])
    return need, kinds


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
    """A reshape of evenly spaced storage; sizes bound at run time must stay what they are."""
    old, new = segments(source.shape, source.strides), segments(shape, (0,) * len(shape))
    if [s.symbol for s in old] != [s.symbol for s in new]:
        return None
    strides: list[int] = []
    for before, after in zip(old, new, strict=True):
        step = _even_step(before)
        if step is None:
            return None
        strides += [step * prod(after.sizes[i + 1 :]) for i in range(len(after.sizes))]
        strides += [before.stride] if before.symbol else []
    return Location(source.symbol, source.offset, shape, tuple(strides))


@dataclass(frozen=True)
class Segment:
    """Neighbouring dimensions of known size, and the one of a size bound at run time that follows ("": the end)."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    symbol: str = ""
    stride: int = 0


def segments(shape: tuple[Dim, ...], strides: tuple[int, ...]) -> list[Segment]:
    """Dimensions cut behind every size that is bound at run time."""
    out: list[Segment] = []
    sizes: list[int] = []
    steps: list[int] = []
    for size, stride in zip(shape, strides, strict=True):
        if isinstance(size, str):
            out.append(Segment(tuple(sizes), tuple(steps), size, stride))
            sizes, steps = [], []
        else:
            sizes.append(size)
            steps.append(stride)
    return [*out, Segment(tuple(sizes), tuple(steps))]


def _even_step(segment: Segment) -> int | None:
    """The distance between neighbouring elements in row-major order; none where it varies."""
    real = [(d, s) for d, s in zip(segment.sizes, segment.strides, strict=True) if d != 1]
    step = first = real[-1][1] if real else 1
    for size, stride in reversed(real):
        if stride != step:
            return None
        step *= size
    return first


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
