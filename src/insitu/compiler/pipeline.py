"""The compiler on one screen: a quantized graph becomes a Program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from collections.abc import Mapping as Dict
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.arch.load import chip_json
from insitu.arch.spec import Chip
from insitu.base.errors import ModelError
from insitu.compiler.banks import bank_symbols
from insitu.compiler.commands import Code, Task
from insitu.compiler.emit import emit_node
from insitu.compiler.emit_float import emit_plain, place_numbers
from insitu.compiler.emitter import Emitter, axes_of, fill_halo, operand_at, vector_op
from insitu.compiler.loads import insert_loads
from insitu.compiler.mapping import Mapping
from insitu.compiler.partition import Objective, allotments
from insitu.compiler.schedule import sections, sync_edges
from insitu.compiler.setup import set_up
from insitu.compiler.share import share_tasks
from insitu.compiler.spare import memory_macros, spare_bytes
from insitu.compiler.storage import Block, Storage, allocate, lay_out, packed_values, split_pads
from insitu.compiler.tile import weight_nodes
from insitu.graph.graph import Graph, Node, State
from insitu.graph.ops.float import is_plain
from insitu.graph.ops.macs import fan_in
from insitu.graph.text import print_graph
from insitu.graph.types import HOST
from insitu.isa.elements import element
from insitu.isa.program import Location, Program, Section, Symbol, space_of

SPACE = "ram"
MOST_PRINTED = 1 << 24  # elements of constants; the graph of a larger program stands by hash, so it is not read back


def compile_graph(
    graph: Graph,
    chip: Chip,
    *,
    sizes: Dict[str, int] | None = None,
    expected: Dict[str, npt.NDArray[Any]] | None = None,
    max_chips: int = 1,
    objective: Objective = "latency",
    search: float = 0.0,
) -> Program:
    """The Program of a quantized graph on a chip; `sizes` bounds every size that is bound at run time.

    `expected` holds, per layer, the mean driven codes [groups, rows] that the chip's own calibration plays.
    `objective`: latency and throughput hold layers more than once where that helps by estimate, cells does not;
    `search` seconds a solver looks for better places (needs the extra "solver").
    Raises InfeasibleError where the network does not fit, on `max_chips` chips if more than one is allowed.
    """
    made = compilations(
        graph, chip, sizes=sizes, expected=expected, max_chips=max_chips, objective=objective, search=search
    )
    return next(made)


def compilations(
    graph: Graph,
    chip: Chip,
    *,
    sizes: Dict[str, int] | None = None,
    expected: Dict[str, npt.NDArray[Any]] | None = None,
    max_chips: int = 1,
    objective: Objective = "latency",
    search: float = 0.0,
) -> Iterator[Program]:
    """Programs worth comparing in time, the best by estimate first; made as they are asked for."""
    missing = [n for n in graph.symbols() if n not in (sizes or {})]
    if missing:
        got, need = f"sizes {', '.join(missing)} without a bound", "the largest value of each"
        raise ModelError(graph.name, got, need, try_=["compile_graph(graph, chip, sizes={...})"])
    products = [n.name for n in graph.nodes if n.op == "MatMul" and n.inputs[1] not in graph.constants]
    if products and not chip.capabilities.mma:
        got, need = "a product of two run-time operands", f"a chip with capability mma, which {chip.name} lacks"
        raise ModelError(f"node {products[0]!r} (MatMul)", got, need)
    for placed, mapping in allotments(graph, chip, max_chips=max_chips, objective=objective, search=search):
        program = emit(placed, chip, source=graph, mapping=mapping, sizes=sizes or {}, expected=expected or {})
        yield replace(program, meta={**program.meta, "objective": objective})


def emit(
    graph: Graph,
    chip: Chip,
    *,
    source: Graph | None = None,
    mapping: Mapping,
    sizes: Dict[str, int],
    expected: Dict[str, npt.NDArray[Any]],
) -> Program:
    """Commands, memory map and weights for a placed graph; `source` is what it was before its layers went to chips."""
    source, graph = source or graph, split_pads(graph)
    storage = lay_out(graph, sizes)
    emitter = Emitter(graph, chip, mapping, storage, expected)
    _fill_input_halos(emitter)
    emitter.numbers = place_numbers(graph, chip)
    for node in graph.nodes:
        (emit_plain if is_plain(graph, node) else emit_node)(emitter, node)
    _carry_states(emitter)
    emitter.tasks = share_tasks(emitter.tasks, mapping)
    symbols, used = _symbols(emitter, chip, sizes)
    modes = memory_macros(emitter.tasks, used, chip)
    spans = {s.name: (s.space, s.address, s.address + _bytes(s)) for s in symbols}

    def overlaps(a: str, b: str) -> bool:
        (left, low, high), (right, start, end) = spans[a], spans[b]
        return a != b and left == right and low < end and start < high

    tasks = insert_loads(emitter.tasks, emitter.reloaded, chip)
    codes = sections(tasks, sync_edges(tasks, overlaps), also=modes)
    for core, code in codes.items():
        set_up(code, chip, modes.get(core, ()))
    return Program(
        name=graph.name,
        chip=chip_json(chip),
        graph=print_graph(source, weights=sum(c.size for c in source.constants.values()) <= MOST_PRINTED),
        symbols=symbols,
        sections=tuple(_section(code, *divmod(core, chip.cores)) for core, code in sorted(codes.items())),
        weights=emitter.weights,
        values={v: at for v, at in storage.locations.items() if v not in graph.constants},
        sizes=dict(sizes),
        spaces=used,
        meta={**_facts(source, mapping), **({"products": emitter.products} if emitter.products else {})},
    )


def _section(code: Code, chip: int, core: int) -> Section:
    return replace(code.section(core), chip=chip)


def _facts(graph: Graph, mapping: Mapping) -> dict[str, Any]:
    """What the simulators and reports want to know beside the code."""
    nodes = weight_nodes(graph)
    weights = sum(int(graph.constants[v].size) for v in {n.inputs[1] for n in nodes})
    return {
        "inputs": list(graph.inputs),
        "outputs": list(graph.outputs),
        "states": [[s.input, s.output] for s in graph.states],
        "fan_in": {n.name: fan_in(graph, n) for n in (*nodes, *_number_layers(graph))},
        "cells_used": mapping.cells_used,
        "cells": mapping.cells,
        "utilization": mapping.utilization,
        "copied_cells": mapping.copied_cells,
        **mapping.facts,
        **_host_facts(graph),
        "weights": weights,
        "cells_gap": (mapping.cells_used - mapping.copied_cells) / weights - 1 if weights else 0.0,
        "model": {k: list(v) if isinstance(v, tuple) else v for k, v in graph.meta.items()},
    }


def _number_layers(graph: Graph) -> list[Node]:
    return [n for n in graph.nodes if n.op == "MVM"]


def _host_facts(graph: Graph) -> dict[str, Any]:
    """Values that only the host holds, operators it runs, and elements they write; nothing where there are none."""
    hosted = [n for n in graph.nodes if n.op == "Host"]
    held = [v for v, kind in graph.types.items() if kind.dtype == HOST]
    if not hosted and not held:
        return {}
    ops = Counter(str(n.attr("operator")) for n in hosted)
    sizes = [graph.types[v].count() for n in hosted for v in n.outputs if v and graph.types[v].dtype != HOST]
    return {"host_values": sorted(held), "host_ops": dict(sorted(ops.items())), "excluded_values": sum(sizes)}


def _fill_input_halos(emitter: Emitter) -> None:
    """Zero points around inputs and states that convolutions read with padding; each step, since memory is reused."""
    for value in (*emitter.graph.inputs, *emitter.graph.state_inputs):
        ops = fill_halo(emitter, value)
        if ops:
            emitter.tasks.append(Task(f"{value}.halo", 0, tuple(ops)))


def _carry_states(emitter: Emitter) -> None:
    """Copy each state's new value over its old one at the end of a step; what lies in a state's place moves first."""
    graph, old = emitter.graph, {s.input for s in emitter.graph.states}
    later: list[tuple[State, Location, Location]] = []
    for state in graph.states:
        source, target = emitter.at(state.output), emitter.at(state.input)
        if source == target:
            continue
        if source.symbol in old:
            kept = replace(target, symbol=f"{state.input}.next")
            emitter.scratch[kept.symbol] = (graph.type(state.input).dtype, emitter.storage.counts[state.input])
            _carry(emitter, state, kept, source)
            source = kept
        later.append((state, target, source))
    for state, target, source in later:
        _carry(emitter, state, target, source)


def _carry(emitter: Emitter, state: State, target: Location, source: Location) -> None:
    axes = axes_of(target.shape, target.strides, source.strides)
    op = vector_op("DMA", axes, [operand_at(target, 0), operand_at(source, 1)])
    core = emitter.cores.get(state.output, 0)
    core = core if core < emitter.chip.cores else 0  # states live on the first chip
    emitter.tasks.append(Task(f"{target.symbol}.carry", core, (op,)))


def _symbols(emitter: Emitter, chip: Chip, sizes: Dict[str, int]) -> tuple[tuple[Symbol, ...], dict[str, int]]:
    """Every piece of memory with its address, and bytes by space: lifetimes come from the tasks that touch it."""
    graph, storage = emitter.graph, emitter.storage
    end = len(emitter.tasks)
    touched: dict[str, list[int]] = {}
    for index, task in enumerate(emitter.tasks):
        for symbol in task.reads | task.writes:
            touched.setdefault(symbol, []).append(index)
    packed = packed_values(graph)
    fresh = [_value_symbol(graph, storage, v, packed) for v in storage.counts if v not in graph.constants]
    fresh += [Symbol(n, "scratch", SPACE, dtype, count, 0) for n, (dtype, count) in emitter.scratch.items()]
    for name, weight in emitter.tables.items():
        ref = emitter.weights[weight]
        kind = element(ref.dtype)
        assert kind is not None, ref.dtype
        dtype = kind.name
        fresh.append(Symbol(name, "weight", SPACE, dtype, int(np.prod(ref.shape, dtype=int)), 0, weight=weight))
    outputs = {storage.locations[v].symbol for v in graph.outputs if v in storage.locations}

    def life(symbol: Symbol) -> tuple[int, int]:
        uses = touched.get(symbol.name, [0])
        if symbol.kind in ("weight", "state"):
            return -1, end
        return (-1 if symbol.kind == "input" else uses[0]), (end if symbol.name in outputs else uses[-1])

    homes = _homes(emitter, fresh)
    spare = spare_bytes(emitter.tasks, {0, *homes.values()}, chip)
    addresses: dict[str, int] = {}
    used: dict[str, int] = {}
    for number in sorted({0, *homes.values()}):
        blocks = [Block(s.name, _bytes(s), *life(s)) for s in fresh if homes[s.name] == number]
        found, top = allocate(blocks, space=SPACE, bound=int(chip.memories[SPACE].size) + spare[number], chip=chip.name)
        addresses |= found
        used[space_of(number)] = top
    placed = (replace(s, space=space_of(homes[s.name]), address=addresses[s.name]) for s in fresh)
    banked, more = bank_symbols(emitter, emitter.banked)
    return (*placed, *banked), used | more


def _homes(emitter: Emitter, symbols: list[Symbol]) -> dict[str, int]:
    """The chip of each symbol: of its first writer; tables lie where they are read, inputs and states on chip 0."""
    homes: dict[str, int] = {}
    for task in emitter.tasks:
        for symbol in sorted(task.writes):
            homes.setdefault(symbol, task.core // emitter.chip.cores)
    for task in emitter.tasks:
        for symbol in sorted(task.reads):
            homes.setdefault(symbol, task.core // emitter.chip.cores)
    first = ("input", "state")
    return {s.name: 0 if s.kind in first else homes.get(s.name, 0) for s in symbols}


def _bytes(symbol: Symbol) -> int:
    kind = element(symbol.dtype)
    assert kind is not None, symbol.dtype
    return kind.bytes(symbol.count)


def _value_symbol(graph: Graph, storage: Storage, value: str, packed: Dict[str, str]) -> Symbol:
    kind = (
        "input"
        if value in graph.inputs
        else "state"
        if value in graph.state_inputs
        else "output"
        if value in graph.outputs
        else "scratch"
    )
    quant = graph.type(value).quant
    initial = quant.zero_point if kind == "state" and quant else 0
    dtype = packed.get(value, graph.type(value).dtype)
    return Symbol(value, kind, SPACE, dtype, storage.counts[value], 0, initial=initial)
