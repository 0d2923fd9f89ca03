"""Weights in memory banks: columns dealt out among the cores, and a symbol in the banks for each matrix."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from insitu.arch.spec import Chip
from insitu.base.errors import Infeasible, InfeasibleError
from insitu.compiler.commands import Op
from insitu.compiler.emitter import Emitter
from insitu.compiler.mapping import Mapping, Placed
from insitu.compiler.storage import ALIGN
from insitu.compiler.tile import Rect, balanced, pieces, weight_nodes
from insitu.graph.graph import Graph
from insitu.isa.check_data import BANKS
from insitu.isa.elements import element
from insitu.isa.program import Binding, Descriptor, Symbol, space_of


def place_in_banks(graph: Graph, chip: Chip) -> Mapping:
    """Every matrix cut by columns over the cores, whole where it has fewer columns than one core has banks.

    Raises InfeasibleError where the weights are more than the banks hold.
    """
    layers: dict[str, tuple[Placed, ...]] = {}
    filled = [0] * chip.cores
    for node in weight_nodes(graph):
        placed: list[Placed] = []
        for piece in pieces(graph, node, chip, pack=chip.core.macros):
            share = max(-(-piece.cols // chip.cores), chip.core.macros)
            for a, b in pairwise(balanced(piece.cols, share)):
                core = min(range(chip.cores), key=lambda c: (filled[c], c))
                filled[core] += piece.rows * (b - a)
                placed.append(Placed(Rect(piece, 0, piece.rows, a, b - a, 0), core, 0, 0, 0, 0))
        layers[node.name] = tuple(placed)
    _check_room(layers, sum(filled), chip)
    return Mapping(layers, sum(filled), chip.capacity)


def _check_room(layers: dict[str, tuple[Placed, ...]], used: int, chip: Chip) -> None:
    if used <= chip.capacity:
        return
    size = {name: sum(p.rect.rows * p.rect.cols for p in placed) for name, placed in layers.items()}
    largest = tuple(sorted(size, key=lambda n: -size[n])[:5])
    ways = ("use a smaller network", f"copy the chip file and enlarge memories.{BANKS}.size")
    item = Infeasible(f"memory {BANKS}", float(used), float(chip.capacity), "B", largest, ways)
    raise InfeasibleError([item], chip.name)


def in_banks(emitter: Emitter, op: Op) -> Op:
    """An MVM as the GEMV of a matrix in the banks."""
    out, source, binding = op.operands
    assert isinstance(binding, Binding)
    emitter.banked.append(binding.weight)
    weights = Descriptor(binding.weight, 0, (binding.rows, binding.cols), (binding.cols, 1))
    return Op("GEMV", (out, source, weights, binding), op.loops)


def bank_symbols(emitter: Emitter, names: Sequence[str]) -> tuple[list[Symbol], dict[str, int]]:
    """The weight symbols in the banks, one behind the other, and the bytes in use."""
    symbols: list[Symbol] = []
    top = 0
    for name in names:
        ref = emitter.weights[name]
        kind = element(ref.dtype)
        assert kind is not None, ref.dtype
        count = ref.shape[0] * ref.shape[1]
        symbols.append(Symbol(name, "weight", space_of(0, BANKS), kind.name, count, top, weight=name))
        top = -(-(top + count * kind.width) // ALIGN) * ALIGN
    return symbols, {space_of(0, BANKS): top} if symbols else {}
