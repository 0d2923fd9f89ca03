"""Where attention goes: its products on the vector unit, or with keys or values written into arrays.

Writing pays where a code is used often (arch/stored.py): by the queries of a prompt, by heads that share keys.  Only
macros without weights take them, of the core that multiplies.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

from insitu.arch.spec import Chip
from insitu.arch.stored import Product, able, in_arrays, on_vector_unit, pays, tiles
from insitu.compiler.commands import Op
from insitu.compiler.emitter import Emitter
from insitu.compiler.place import Shelf
from insitu.graph.graph import Graph, Node
from insitu.isa.program import Descriptor, Vector
from insitu.isa.stored import stored_product


def chosen(emitter: Emitter, node: Node, op: Op, core: int) -> Op:
    """An MMA as it is, or as an AMM where arrays do it for less; both figures are noted in the program's facts."""
    chip, (_, a, b, settings) = emitter.chip, op.operands
    if not able(chip) or not _bound(op):
        return op
    assert isinstance(a, Descriptor)
    assert isinstance(b, Descriptor)
    assert isinstance(settings, Vector)
    product = stored_product(a, b, replace(settings, bits=_bits(emitter, node.inputs[0])))
    times, (first, count) = prod(int(t) for t in op.loops), free_macros(emitter, core)
    fits = _fits(emitter, node.inputs[1])
    lanes = on_vector_unit(product, chip)
    arrays = in_arrays(product, chip, count) if count and fits else None
    wins = arrays is not None and pays(lanes, arrays)
    fact: dict[str, Any] = {
        "node": node.name, "where": "arrays" if wins else "vector unit", "uses": product.vectors * 1.0,
        "macros": count if fits else 0, "macs": product.macs * times,
        "vector_unit": lanes.to_json(times),
        "arrays": arrays.to_json(times) if arrays else None,
    }  # fmt: skip
    emitter.products.append(fact)
    if not wins:
        return op
    stored = replace(settings, macros=(first, count), bits=product.bits)
    return replace(op, op="AMM", operands=(*op.operands[:3], stored))


def free_macros(emitter: Emitter, core: int) -> tuple[int, int]:
    """(first, how many) of the longest run of macros of a core that hold nothing."""
    mapping = emitter.mapping
    rows = [*mapping.layers.values(), *(c.places for copies in mapping.copies.values() for c in copies)]
    held = {p.macro for places in rows for p in places if p.core == core}
    if emitter.numbers:  # matrices of numbers lie from macro 0 on
        held |= {t.macro for tiles in emitter.numbers.values() for t in tiles}
    best, start = (0, 0), 0
    for macro in range(emitter.chip.core.macros + 1):
        if macro in held or macro == emitter.chip.core.macros:
            best, start = max(best, (start, macro - start), key=lambda run: run[1]), macro + 1
    return best


def reserve(graph: Graph, chip: Chip, shelf: Shelf) -> None:
    """Keep empty macros of each core from copies of layers, as many as its largest product needs that pays there."""
    if not able(chip):
        return
    wanted = [n for n in (_product(graph, node) for node in graph.nodes) if n is not None]
    for macros in shelf:
        empty = [m for m in macros if not m.used]
        most = len(empty) // 2
        needs = [p.matrices * tiles(p, chip) for p in wanted if most and pays(on_vector_unit(p, chip),
                                                                             in_arrays(p, chip, most))]  # fmt: skip
        for macro in empty[len(empty) - min(most, max(needs, default=0)) :]:
            macro.free = []


def _product(graph: Graph, node: Node) -> Product | None:
    """A run-time product of codes that cells take, by its shapes."""
    if node.op != "MatMul" or node.inputs[1] in graph.constants:
        return None
    a, b = (graph.type(v) for v in node.inputs[:2])
    if a.symbols or b.symbols or a.quant is None or b.quant is None or b.dtype != "i8":
        return None
    matrices, rows, cols = prod(b.sizes()[:-2]), *b.sizes()[-2:]
    return Product(matrices, a.count() // (matrices * rows), rows, cols, a.quant.bits)


def _bound(op: Op) -> bool:
    """Whether all sizes are known."""
    sizes = [n for d in op.operands if isinstance(d, Descriptor) for n in d.sizes]
    return all(isinstance(n, int) for n in (*sizes, *op.loops))


def _bits(emitter: Emitter, value: str) -> int:
    quant = emitter.graph.type(value).quant
    assert quant is not None
    return quant.bits


def _fits(emitter: Emitter, value: str) -> bool:
    """Whether cells take every code that a second operand's element type holds."""
    kind, (low, high) = emitter.graph.type(value), emitter.chip.array.cell_range
    return kind.dtype == "i8" and low <= -128 and high >= 127
