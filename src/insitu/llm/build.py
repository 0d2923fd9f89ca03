"""A language model as integers for a chip: one plan, decided on whole texts, for the text form and the step form.

The step form picks rows of tables by position that the text form holds as constants, and keeps keys and values as
states.  With the text form's scales for both, every integer of a step equals the text's at that token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from insitu.algo import ptq
from insitu.arch.spec import Chip
from insitu.base.errors import InternalError
from insitu.compiler import adapt, canonicalize, fuse
from insitu.compiler.halves import halved
from insitu.compiler.plan import LayerPlan, QuantPlan
from insitu.compiler.quantize import CONSTANT_BITS, quantize
from insitu.frontend.language import Array, LanguageModel
from insitu.frontend.language_graph import CACHE_BITS, HALF, TABLES, Paging, step_graph, text_graph
from insitu.graph.graph import Graph
from insitu.graph.verify import verify
from insitu.llm.smooth import smoothed
from insitu.numeric.affine import QuantSpec


@dataclass(frozen=True)
class Prepared:
    """A model with its plan; graphs of any length follow from them.

    `model` has even channels, `source` is what was read.
    """

    source: LanguageModel
    model: LanguageModel
    chip: Chip
    plan: QuantPlan
    cache_bits: int = CACHE_BITS

    def text(self, tokens: int) -> Graph:
        """The quantized graph of whole texts."""
        graph = text_graph(self.model, tokens, cache_bits=self.cache_bits)
        return _quantized(captured(graph, self.chip), self.chip, self.plan, self.cache_bits)

    def step(self, context: int, paging: Paging | None = None) -> Graph:
        """The quantized graph of one token after at most context - 1 others; with `paging` of one of each lane."""
        graph = captured(step_graph(self.model, context, cache_bits=self.cache_bits, paging=paging), self.chip)
        return _quantized(graph, self.chip, step_plan(self.plan, graph), self.cache_bits)


def prepare(
    model: LanguageModel, chip: Chip, ids: Array, *, even: bool = True, cache_bits: int = CACHE_BITS,
    choices: ptq.Choices | None = None,
) -> Prepared:  # fmt: skip
    """Choose all numbers on calibration texts `ids` (samples, tokens); cached keys and values have `cache_bits`."""
    ready = smoothed(model, ids, centered=cache_bits < CACHE_BITS) if even else model
    graph = captured(text_graph(ready, ids.shape[1], cache_bits=cache_bits), chip)
    choices = replace(choices or ptq.Choices(rounding="nearest"), elementwise=not model.arch.causal)
    plan = ptq.plan(graph, chip, data={"ids": ids[:, None, :].astype(np.int64)}, choices=choices)
    return Prepared(model, ready, chip, plan, cache_bits)


def captured(graph: Graph, chip: Chip) -> Graph:
    """The canonical graph as this chip computes it."""
    return verify(adapt.run(fuse.run(canonicalize.run(graph)), chip))


def _quantized(graph: Graph, chip: Chip, plan: QuantPlan, cache_bits: int) -> Graph:
    known = {v for n in graph.nodes for v in n.outputs} | set(graph.inputs) | set(graph.state_inputs)
    values = {v: s for v, s in plan.values.items() if v in known}
    missing = [
        n.output for n in graph.nodes if n.output and graph.types[n.output].dtype == "f32" and n.output not in values
    ]
    if missing:
        raise InternalError(missing[0], "no scale in the plan of whole texts", "the same values in both forms")
    layers: Mapping[str, LayerPlan] = {n.name: plan.layers[n.name] for n in graph.nodes if n.name in plan.layers}
    found = quantize(graph, chip, plan=QuantPlan(values, layers, plan.notes))
    return verify(halved(found) if cache_bits == HALF else found)


def step_plan(plan: QuantPlan, graph: Graph) -> QuantPlan:
    """The plan for a step: picked rows have the codes of the text form's constants, caches those of what they keep."""
    values = dict(plan.values)
    for node in graph.nodes:
        if node.op == "Gather" and node.inputs[0] in TABLES:
            spec = constant_spec(graph.constants[node.inputs[0]])
            values[node.output] = spec
        elif node.op in ("Reshape", "Transpose", "Gather") and node.inputs[0] in values and node.output not in values:
            values[node.output] = values[node.inputs[0]]
        elif node.op == "Scatter":
            values[node.output] = values[node.inputs[0]] = values[node.inputs[2]]
    return QuantPlan(values, plan.layers, plan.notes)


def constant_spec(table: Array) -> QuantSpec:
    """The codes that quantize.py gives a constant operand."""
    step = (float(np.abs(np.asarray(table, np.float64)).max(initial=0.0)) or 1.0) / ((1 << (CONSTANT_BITS - 1)) - 1)
    return QuantSpec(CONSTANT_BITS, signed=True, scale=(float(step),))
