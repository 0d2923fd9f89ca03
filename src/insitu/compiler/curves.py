"""Curves: whatever computes a number from one number alone becomes one function, and later one look-up table.

A Curve holds an expression of its input (numeric/curves.py).  Neighbours join while they depend on one value and on
single constants, however often that value occurs: the five nodes of a written-out GELU, or x * sigmoid(x), become one
Curve.  What is only scaled, shifted or clipped stays as it is, since weight layers and vector commands do that anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from insitu.graph.graph import Graph, Node
from insitu.graph.rewrite import live
from insitu.numeric.curves import MOST_WORDS, composed

SIMPLE = {"Add": "add", "Sub": "sub", "Mul": "mul"}
FAR = 3e38


@dataclass(frozen=True)
class _Form:
    """What a value is: an expression of `root`; `curved` where a vector command would not do."""

    root: str
    text: str = "x"
    curved: bool = False


def run(graph: Graph) -> Graph:
    """The same network with Curves joined as far as they go."""
    forms: dict[str, _Form] = {}
    for node in graph.nodes:
        form = _form(graph, node, forms)
        if form is not None:
            forms[node.output] = form
    inside = {v for n in graph.nodes if n.output in forms for v in n.inputs if _absorbs(forms, n, v)}
    outside = {v for n in graph.nodes for v in n.inputs if not _absorbs(forms, n, v)} | {*graph.outputs}
    outside |= {s.output for s in graph.states}
    nodes = [_written(node, forms, wanted=node.output in outside or node.output not in inside) for node in graph.nodes]
    return live(graph.with_nodes(nodes))


def _absorbs(forms: Mapping[str, _Form], node: Node, value: str) -> bool:
    """Whether `node` has taken the expression of `value` into its own."""
    mine = forms.get(node.output)
    return mine is not None and mine.curved and value in forms and forms[value].root == mine.root


def _written(node: Node, forms: Mapping[str, _Form], *, wanted: bool) -> Node:
    form = forms.get(node.output)
    if form is None or not form.curved or not wanted:
        return node
    return replace(node, op="Curve", inputs=(form.root,), attrs={"expr": form.text})


def _form(graph: Graph, node: Node, forms: Mapping[str, _Form]) -> _Form | None:
    """The expression of a node's output; none where it does not depend on one value alone."""
    if len(node.outputs) != 1 or graph.types[node.output].dtype != "f32":
        return None
    if node.op == "Curve":
        before = forms.get(node.inputs[0], _Form(node.inputs[0]))
        return _sized(_Form(before.root, composed(str(node.attr("expr")), before.text), curved=True), node)
    if node.op in ("Relu", "Clip"):
        return _clipped(node, forms)
    if node.op not in SIMPLE or node.attrs:
        return None
    return _pair(graph, node, forms)


def _sized(form: _Form, node: Node) -> _Form:
    """The form, or a fresh start where it has become too long."""
    return form if len(form.text.split()) < MOST_WORDS // 4 else _Form(node.inputs[0], str(node.attr("expr", "x")))


def _clipped(node: Node, forms: Mapping[str, _Form]) -> _Form | None:
    """A bound on what has been computed already; one on a bare value stays with what writes that value."""
    before = forms.get(node.inputs[0])
    if before is None or before.text == "x":
        return None
    lo, hi = (0.0, np.inf) if node.op == "Relu" else (node.attr("lo", -np.inf), node.attr("hi", np.inf))
    text = before.text if lo < -FAR else f"max {float(lo)!r} {before.text}"
    return _Form(before.root, text if hi > FAR else f"min {float(hi)!r} {text}", before.curved)


def _pair(graph: Graph, node: Node, forms: Mapping[str, _Form]) -> _Form | None:
    shape, words, roots, curved = graph.types[node.output].shape, list[str](), set[str](), False
    for value in node.inputs[:2]:
        constant = graph.constants.get(value)
        if constant is not None:
            if constant.size != 1 or not np.isfinite(constant).all():
                return None
            words.append(repr(float(constant.reshape(()))))
            continue
        form = forms.get(value, _Form(value))
        if graph.types[value].shape != shape:
            return None
        roots.add(form.root)
        words.append(form.text)
        curved |= form.curved
    if len(roots) != 1 or len(" ".join(words).split()) >= MOST_WORDS // 4:
        return None
    both = not any(v in graph.constants for v in node.inputs[:2])
    return _Form(roots.pop(), f"{SIMPLE[node.op]} {words[0]} {words[1]}", curved or (both and node.op == "Mul"))
