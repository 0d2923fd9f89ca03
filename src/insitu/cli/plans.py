"""Quantization plans from files: whole, sound, and made for this network and chip."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from insitu.arch.spec import Chip
from insitu.base.errors import ConfigError, InfeasibleError, InternalError
from insitu.cli.programs import BROKEN
from insitu.compiler import adapt
from insitu.compiler.pipeline import compile_graph
from insitu.compiler.plan import LayerPlan, QuantPlan, plan_from_json
from insitu.compiler.precision import apply_plan
from insitu.compiler.tile import weight_nodes
from insitu.graph.graph import Graph
from insitu.graph.verify import verify
from insitu.isa.check import check_program

LARGEST = 1 << 31
MOST_SHIFT = 62
MOST_DIMS = 8
TRY = ("the plan.json of a run folder of this network and chip",)


def read_plan(file: str, graph: Graph) -> QuantPlan:
    """The plan of a file, with an entry for every value of the graph; ConfigError where it is none."""
    where = f"--plan {file}"
    try:
        text = Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not text"
        raise ConfigError(where, reason.lower(), "a plan.json, as a run folder holds it") from None
    try:
        plan = plan_from_json(text)
    except ConfigError as error:
        raise ConfigError(where, error.got, error.need, try_=TRY) from None
    if missing := _missing(plan, graph):
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise ConfigError(where, f"nothing for {shown}", f"an entry for every value of {graph.name}", try_=TRY)
    for fault in _faults(plan):
        raise ConfigError(where, fault, "whole numbers in range", try_=TRY)
    return plan


def _missing(plan: QuantPlan, graph: Graph) -> list[str]:
    values = [*graph.inputs, *graph.state_inputs, *(n.output for n in graph.nodes)]
    layers = [n.name for n in weight_nodes(graph)]
    return [*(v for v in values if v not in plan.values), *(n for n in layers if n not in plan.layers)]


def _faults(plan: QuantPlan) -> Iterator[str]:
    """Numbers that cannot be computed with."""
    for name, spec in plan.values.items():
        if spec.axis is not None and (type(spec.axis) is not int or not -MOST_DIMS <= spec.axis < MOST_DIMS):
            yield f"value {name}: axis = {spec.axis!r}"
    for name, layer in plan.layers.items():
        for key, number in _whole(layer):
            most = MOST_SHIFT if key in ("input_shift", "k") else LARGEST
            least = 0 if key in ("input_shift", "k", "parts") else -LARGEST
            if type(number) is not int or not least <= number <= most:
                yield f"layer {name}: {key} = {number!r:.40}"


def _whole(layer: LayerPlan) -> Iterator[tuple[str, Any]]:
    """Every number of a layer's plan that must be whole."""
    for key in ("input_shift", "input_offset", "k"):
        yield key, getattr(layer, key)
    for key in ("gain", "parts", "adc"):
        many = getattr(layer, key)
        yield from ((key, number) for number in (many if isinstance(many, tuple) else (many,)))


def try_plan(file: str, plan: QuantPlan, graph: Graph, chip: Chip) -> None:
    """Compile with the plan once, so that numbers that do not belong to the network are the plan's fault, not ours."""
    try:
        check_program(compile_graph(verify(apply_plan(adapt.run(graph, chip), chip, plan=plan)), chip))
    except InfeasibleError:
        return  # an answer that the command itself gives
    except (InternalError, *BROKEN) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        need = f"a plan made for {graph.name} on {chip.name}"
        raise ConfigError(f"--plan {file}", f"it does not fit ({reason})", need, try_=TRY) from None
