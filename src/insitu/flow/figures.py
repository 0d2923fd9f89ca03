"""Figures of a run: metrics with unit and origin, layers, and what the report draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.arch import cost as arch_cost
from insitu.arch.describe import capacity_text
from insitu.arch.spec import Chip
from insitu.arch.thermal import junction
from insitu.base.metrics import Metric
from insitu.cost.book import load_book
from insitu.cost.designs import spread
from insitu.cost.money import chip_cost
from insitu.flow.quality import Closeness, LayerQuality
from insitu.flow.sensitivity import weighed
from insitu.graph.graph import Graph, Node
from insitu.graph.ops.macs import macs
from insitu.isa.container import program_bytes
from insitu.isa.program import HOME, Program, chip_of_space
from insitu.isa.setup import memory_macros, setup_length
from insitu.report.result import AccuracyPoint, LayerResult
from insitu.sim.arms import conditions
from insitu.sim.energy import Energy, energy
from insitu.sim.poly import whole
from insitu.sim.steady import steady_state
from insitu.sim.timing import Timing, simulate_setup, simulate_time
from insitu.sim.trace import utilization

Array = npt.NDArray[Any]
PS = 1e-12


@dataclass(frozen=True)
class Cost:
    """Time, energy and area of a program, as metrics and for the report."""

    timing: Timing
    energy: Energy
    metrics: dict[str, Metric]
    extra: dict[str, Any]


def closeness(near: Closeness, samples: int) -> dict[str, Metric]:
    """SQNR and cosine of all outputs against the float network."""
    note = f"all outputs, {samples} samples, ideal chip against the float network"
    return {
        "sqnr_db": Metric("sqnr_db", near.sqnr_db, "dB", "measured", note),
        "cosine": Metric("cosine", near.cosine, "1", "measured", note),
    }


def accuracies(float_: float | None, quantized: float, samples: int, note: str) -> dict[str, Metric]:
    """Top-1 accuracy before and after quantization; no float one where the network came quantized."""
    tail = f"{samples} samples" + (f", {note}" if note else "")
    origin = "the network came quantized" if float_ is None else f"ONNX Runtime, {tail}"
    return {
        "accuracy_float": Metric("accuracy_float", float_, "1", "measured", origin),
        "accuracy_quantized": Metric("accuracy_quantized", quantized, "1", "measured", f"ideal chip, bit-true, {tail}"),
    }


def chip_accuracy(points: tuple[AccuracyPoint, ...], note: str, *, digital: bool) -> dict[str, Metric]:
    """Mean, spread and worst of the chip instances at the first time point."""
    if not points:
        return {}
    point = points[0]
    text = (
        "the ideal chip: no analog effect is on"
        if digital
        else f"{len(point.values)} chip instances under the chip's physics"
    )
    text += f", {note}" if note else ""
    values = {"mean": point.mean, "std": point.std, "min": point.min}
    return {f"accuracy_chip_{k}": Metric(f"accuracy_chip_{k}", v, "1", "modelled", text) for k, v in values.items()}


def chip_closeness(points: tuple[AccuracyPoint, ...], samples: int) -> dict[str, Metric]:
    """Mean, spread and worst of the chip instances' outputs against the ideal chip's, at the first time point."""
    if not points or not points[0].values:
        return {}
    point = points[0]
    text = f"at most {samples} samples on {len(point.values)} chip instances with physics, against the ideal chip"
    values = {"mean": point.mean, "std": point.std, "min": point.min}
    return {f"sqnr_chip_{k}_db": Metric(f"sqnr_chip_{k}_db", v, "dB", "modelled", text) for k, v in values.items()}


def cost(program: Program, chip: Chip) -> Cost:
    """Run the timing simulator and count energy; derive rates and use of the chip."""
    timing = simulate_time(program, chip, trace=True)
    spent = energy(timing.counts, timing, chip, chips=program.chips)
    latency = timing.latency
    use = program.meta["cells_used"] / program.meta["cells"]
    metrics = {
        "latency_s": Metric(
            "latency_s", latency, "s", "modelled", f"event-driven timing of the program, one inference{_arms(program)}"
        ),
        **_throughput(program, chip, timing),
        **{name: replace(m, note=m.note + _arms(program)) for name, m in spent.metrics().items()},
        **_energy_bounds(spent),
        "area_mm2": _square_millimetres(_times(arch_cost.area(chip), program.chips)),
        "cost_usd": _money(chip, program.chips),
        "peak_tops": _times(arch_cost.peak_tops(chip), program.chips),
        "array_utilization": Metric(
            "array_utilization", use, "1", "modelled", "cells that hold a weight rectangle over all cells"
        ),
        "program_bytes": Metric(
            "program_bytes", float(len(program_bytes(program))), "B", "measured", "the saved program, weights included"
        ),
        **_fit(program, timing),
        **_setup(program, chip),
    }
    extra = _extra(program, chip, timing)
    return Cost(
        timing, spent, metrics, {**extra, "constants": weighed(extra["constants"], program, chip, timing, spent)}
    )


def _arms(program: Program) -> str:
    """What is said of commands that follow data."""
    count = len(conditions(program))
    if not count:
        return ""
    what = "a condition" if count == 1 else f"{count} conditions"
    return f"; of {what} decided by data the arm with more work is taken as run, a block alone always"


def _setup(program: Program, chip: Chip) -> dict[str, Metric]:
    """What setting the cores up takes, once before all inferences; nothing where nothing is set up."""
    if not any(setup_length(section.code) for section in program.sections):
        return {}
    timing = simulate_setup(program, chip)
    spent = energy(timing.counts, timing, chip, chips=program.chips)
    note = "once, before all inferences: calibration, tables and modes of arrays"
    return {
        "setup_s": Metric("setup_s", timing.latency, "s", "modelled", note),
        "setup_energy_j": Metric("setup_energy_j", spent.total.value, "J", spent.total.source, note),
    }


def heat(cost: Cost, program: Program, chip: Chip) -> Metric:
    """Kelvin of the cells at the power that the program takes of each chip."""
    watts = cost.metrics["power_w"].value
    return junction(chip, None if watts is None else watts / program.chips)


def _energy_bounds(spent: Energy) -> dict[str, Metric]:
    """Energy with converters among the best and the worst published ones, where the chip's are not measured."""
    total, adc = spent.total.value, spent.components["adc"]
    if total is None or not adc.value or adc.source == "measured":
        return {}
    note = "converters at the {} fifth of published ones: residual of the ADC survey's regression; energy_j is typical"
    words = (("energy_floor_j", "best"), ("energy_pessimistic_j", "worst"))
    return {
        name: Metric(name, total + (factor - 1.0) * adc.value, "J", spent.total.source, note.format(which))
        for (name, which), factor in zip(words, spread(), strict=True)
    }


def _throughput(program: Program, chip: Chip, timing: Timing) -> dict[str, Metric]:
    """Inferences a second: one after another, or, for that objective, as the simulator finds them to follow."""
    wanted = program.meta.get("objective") == "throughput"
    steady = steady_state(program, chip, timing) if wanted else None
    if steady is None:
        latency = timing.latency
        note = "one inference after another" + ("; they cannot overlap" if wanted else "")
        value = 1 / latency if latency else None
        return {"throughput_per_s": Metric("throughput_per_s", value, "1/s", "modelled", note)}
    note = f"time between results, {steady.interval_ps * PS:.4g} s, in the steady state of the timing simulator; "
    note += f"{steady.contexts} inferences in memory, {steady.together} at a time taking turns on a core"
    rate = 1 / (steady.interval_ps * PS) if steady.interval_ps else None
    bound = f"time between results over the work of the busiest unit for one, {timing.busiest}, "
    bound += f"{steady.bound_ps * PS:.4g} s, less 1; with one inference at a time it works {_share(timing)} of the time"
    return {
        "throughput_per_s": Metric("throughput_per_s", rate, "1/s", "modelled", note),
        "throughput_gap": Metric("throughput_gap", steady.gap, "1", "modelled", bound),
    }


def _share(timing: Timing) -> str:
    return f"{timing.lower_bound_ps / timing.latency_ps:.1%}" if timing.latency_ps else "none"


def _money(chip: Chip, chips: int) -> Metric:
    """What the silicon costs to make, packaged and tested."""
    area = _square_millimetres(arch_cost.area(chip)).value
    return chip_cost(load_book(), area_mm2=area, node=chip.technology.node, chips=chips)


def _times(metric: Metric, chips: int) -> Metric:
    """A figure of one chip for all of them."""
    if chips == 1 or metric.value is None:
        return metric
    return Metric(metric.name, chips * metric.value, metric.unit, metric.source, f"{chips} chips, each: {metric.note}")


def _fit(program: Program, timing: Timing) -> dict[str, Metric]:
    """Chips and loads a network takes, and how far cells and time are from what no compiler can beat."""
    facts, bound = program.meta, timing.lower_bound_ps
    weights = facts.get("weights", 0)
    rows: list[tuple[str, float, str, str]] = [
        ("chips", program.chips, "1", f"at least {facts.get('chips_at_least', 1)}, by cells")
    ]
    if "segments" in facts:
        rows.append(("segments", facts["segments"], "1", "groups of layers whose weights take turns in the macros"))
        rows.append(("load_s", facts["load_s"], "s", "to load all weights once, at the bandwidth of their store"))
        rows.append(("exposed_load_s", facts["exposed_load_s"], "s", "of it, what compute cannot hide"))
    elif weights:
        note = f"cells taken over the {weights:,} weights that have to be held, copies left out, less 1; 0 is least"
        rows.append(("cells_gap", (facts["cells_used"] - facts.get("copied_cells", 0)) / weights - 1, "1", note))
    if bound:
        note = f"over the work of the busiest unit, {timing.busiest}, {bound * PS:.4g} s, less 1; "
        note += "no order of these commands beats 0"
        rows.append(("latency_gap", timing.latency_ps / bound - 1, "1", note))
    rows += _placement(facts)
    return {name: Metric(name, float(value), unit, "modelled", note) for name, value, unit, note in rows}


def _placement(facts: Mapping[str, Any]) -> list[tuple[str, float, str, str]]:
    """Copies of layers, and how far the placement is from what no placement can beat, by the compiler's estimate."""
    rows: list[tuple[str, float, str, str]] = []
    copies = sum(n - 1 for n in facts.get("replicas", {}).values())
    if copies:
        rows.append(("copies", copies, "1", f"of {len(facts['replicas'])} layers, beside the first of each"))
    for gap, bound, what in (
        ("latency_gap", "layers_bound_s", "of the layers, one after the other, over the least with any copies"),
        ("stage_gap", "stage_bound_s", "of the longest stage over an even share of the work"),
        ("search_gap", "search_bound_s", "that was searched for over the solver's proven bound"),
    ):
        if gap in facts:
            note = f"estimated time {what}, {facts[bound]:.4g} s, less 1"
            rows.append(({"latency_gap": "copies_gap"}.get(gap, gap), float(facts[gap]), "1", note))
    return rows


def _square_millimetres(area: Metric) -> Metric:
    value = area.value * 1e6 if area.value is not None and area.unit == "m2" else area.value
    return Metric("area_mm2", value, "mm2", area.source, area.note)


def array_share(graph: Graph) -> float | None:
    """Share of the weight layers' MACs that arrays do; the rest are the host's (weights that no array holds)."""
    on_array = sum(macs(graph, n) for n in graph.nodes if weighted(graph, n))
    total = on_array + sum(macs(graph, n) for n in graph.nodes if n.op == "Host")
    return on_array / total if total else None


def weighted(graph: Graph, node: Node) -> bool:
    """Whether a node multiplies by constant weights in arrays."""
    return node.op in ("Conv", "MatMul", "MVM") and node.inputs[1] in graph.constants


def layers(graph: Graph, near: Mapping[str, LayerQuality], cost: Cost) -> tuple[LayerResult, ...]:
    """One row per node, in execution order."""
    rows: list[LayerResult] = []
    for node in graph.nodes:
        quality, span = near.get(node.name), cost.timing.layers.get(node.name)
        own = cost.energy.layers.get(node.name)
        held = weighted(graph, node)
        rows.append(
            LayerResult(
                name=node.name,
                op=node.op,
                unit="array" if held else "host" if node.op == "Host" else "vector" if span else "memory",
                sqnr_db=quality.sqnr_db if quality else None,
                sqnr_local_db=quality.sqnr_local_db if quality else None,
                cosine=quality.cosine if quality else None,
                macs=macs(graph, node),
                latency_s=(span.end_ps - span.start_ps) * PS if span else None,
                energy_j=own,
                readout=str(node.attr("readout")) if held else None,
                range_ratio=quality.range_ratio if quality else None,
            )
        )
    return tuple(rows)


def confusion(scores: Array, labels: Array, *, most: int = 20) -> dict[str, Any]:
    """Counts of true against answered classes on the ideal chip; left out for many classes."""
    answers = scores.reshape(len(scores), -1)
    classes = answers.shape[1]
    if classes > most or labels.min(initial=0) < 0 or labels.max(initial=0) >= classes:
        return {}
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, answers.argmax(axis=1)), 1)
    return {
        "confusion": {
            "labels": [str(i) for i in range(classes)],
            "counts": counts.tolist(),
            "over": f"{len(labels)} samples on the ideal chip",
        }
    }


def _extra(program: Program, chip: Chip, timing: Timing) -> dict[str, Any]:
    """Rectangles, use of units, timeline, memory and constants for the report."""
    per_core = chip.core.macros
    plan = [
        {
            "macro": (s.chip * chip.cores + s.core) * per_core + t.macro,
            "label": b.label,
            "x": t.x,
            "y": t.y,
            "w": t.cols,
            "h": t.rows,
        }
        for s in program.sections
        for b in s.bindings
        for t in b.tiles
    ]
    borders = [chip.array.rows * i for i in range(1, chip.macro.arrays)]
    macros = {
        "columns": chip.array.cols,
        "rows": chip.weight_rows,
        "count": chip.macros * program.chips,
        "borders": borders,
        "reserved_columns": chip.macro.reserved_columns,
    }
    memory = [
        {
            "space": name,
            "size": space_bytes(program, chip, name),
            "used": [{"label": "values and tables", "bytes": used}],
        }
        for name, used in program.spaces.items()
    ]
    return {
        "floorplan": plan,
        "macros": macros,
        "utilization": [{"unit": u.unit, "busy": u.utilization} for u in utilization(timing)],
        "timeline": _timeline(program, timing),
        "moved": _moved(timing),
        "memory": memory,
        "constants": constants(chip),
        "chip_text": capacity_text(chip),
    }


def space_bytes(program: Program, chip: Chip, space: str) -> int:
    """Bytes that a memory space has, macros that serve as memory included."""
    memory, number = chip_of_space(space)
    macros = sum(len(memory_macros(s)) for s in program.sections if s.chip == number) if memory == HOME else 0
    return int(chip.memories[memory].size) + macros * chip.macro_bytes


def _moved(timing: Timing) -> dict[str, int]:
    """Bytes that leave or enter each memory, and the links between chips, in one inference."""
    total = timing.counts.total
    moved = {
        "ram": whole(total["ram_read_bytes"]) + whole(total["ram_write_bytes"]),
        "store": whole(total["store_read_bytes"]),
        "banks": whole(total["bank_read_bytes"]),
        "links": whole(total["link_bytes"]),
    }
    return {name: count for name, count in moved.items() if count or name == "ram"}


def _timeline(program: Program, timing: Timing) -> list[dict[str, Any]]:
    """Busy spans of arrays and other units; the figure coarsens them."""
    from insitu.sim.counts import labels

    names = [labels(s) for s in program.sections]
    spans: Any = timing.spans
    return [
        {
            "unit": timing.units[int(s["resource"])],
            "label": names[int(s["section"])][int(s["command"])],
            "start_s": int(s["start"]) * PS,
            "end_s": int(s["end"]) * PS,
        }
        for s in spans
    ]


def constants(chip: Chip) -> list[dict[str, Any]]:
    """The chip's constants that carry the results, with their sources."""
    rows = [
        {"name": name, "value": m.value, "unit": m.unit, "source": m.note, "kind": m.source}
        for name, m in {
            **arch_cost.event_energy(chip),
            "leakage": arch_cost.leakage(chip),
            "host idle": arch_cost.host_idle(chip),
            "awake": arch_cost.awake(chip),
        }.items()
        if m.value
    ]
    rows.append(
        {
            "name": "t_read",
            "value": chip.macro.t_read,
            "unit": "s",
            "source": arch_cost.source_of(chip, "macro.t_read"),
            "kind": "assumed",
        }
    )
    return rows
