"""inputOpti.front_scale: the layer before is read at a lower gain, so that its codes come doubled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from insitu.base.errors import ModelError
from insitu.frontend.wtm2101_options import ArrayOptions, LayerOptions
from insitu.graph.graph import Node

ARRAYS = frozenset(("Gemm", "MatMul", "Conv", "ConvTranspose", "Tdnn"))
BETWEEN = frozenset(("Scale", "Relu"))  # of a layer itself
Options = Mapping[str, LayerOptions]


def with_fronts(
    nodes: Sequence[Node], readers: Mapping[str, Sequence[Node]], outputs: Sequence[str], options: Options
) -> Options:
    """The options with each front_scale taken over by the layer that makes the input.

    ModelError where that is no array layer, or where others read its codes and would find them doubled.
    """
    asked = {name: front for name, layer in options.items() if (front := layer.array().front)}
    if not asked:
        return options
    producers = {v: n for n in nodes for v in n.outputs}
    changed = dict(options)
    for node in (n for n in nodes if n.name in asked):
        place = f"options: layer {node.name!r}"
        if node.op not in ARRAYS:
            raise ModelError(place, f"front_scale of {node.op}", f"one of {', '.join(sorted(ARRAYS))}",
                             code="unsupported_option")  # fmt: skip
        source, path = _source(node, producers)
        if source is None:
            got = "front_scale, but no array layer with its Scale and Relu alone comes right before"
            raise ModelError(place, got, "one to be read at a lower gain; or front_scale 0", code="unsupported_option")
        others = [r.name for v in path for r in readers.get(v, ()) if r.op not in BETWEEN or v == path[0]]
        odd = [name for name in others if asked.get(name, 0) != asked[node.name]]
        if odd or set(path) & set(outputs):
            got = f"front_scale, but {odd[0] if odd else 'the network itself'!r} reads the codes of {source.name!r} too"
            raise ModelError(place, got, "the same front_scale for all its readers", code="unsupported_option")
        changed[source.name] = _lowered(changed.get(source.name, LayerOptions(source.name)), asked[node.name])
    return changed


def _source(node: Node, producers: Mapping[str, Node]) -> tuple[Node | None, list[str]]:
    """The array layer whose codes a node reads, and the values on the way, the last one first."""
    value, path = node.inputs[0], list[str]()
    while True:
        path.append(value)
        maker = producers.get(value)
        if maker is None or (maker.op not in BETWEEN and maker.op not in ARRAYS):
            return None, path
        if maker.op in ARRAYS:
            return maker, path
        value = maker.inputs[0]


def _lowered(layer: LayerOptions, places: int) -> LayerOptions:
    """Options of a layer whose outputs come larger by 2**places; its own magnify may say so already."""
    arrays = layer.arrays or (ArrayOptions(),)
    return replace(layer, arrays=tuple(replace(a, magnify=max(a.magnify, places)) for a in arrays))
