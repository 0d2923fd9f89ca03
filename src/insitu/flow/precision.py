"""Precision transforms as a person asks for them: patterns of layer names, in YAML or a mapping, put onto a plan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from insitu.arch.spec import Chip
from insitu.base.errors import ConfigError, did_you_mean
from insitu.base.schema import Config, load_config
from insitu.compiler.draft import MOVES, is_weight_layer
from insitu.compiler.plan import LayerPlan, QuantPlan
from insitu.compiler.tile import weight_nodes
from insitu.graph.graph import Graph, Node
from insitu.numeric.affine import QuantSpec

Wanted = str | Path | Mapping[str, Mapping[str, Any]]


class Transforms(Config):
    """What to do with the layers of one pattern; what is left out stays as it is."""

    input_shift: int | None = Field(default=None, ge=0, le=8, description="driven codes times 2**k")
    weight_shift: int | None = Field(default=None, ge=0, le=8, description="cells times 2**k")
    copies: Literal[1, 2, 4, 8, 16, 32, 64] | None = Field(default=None, description="times the rows are programmed")
    apart: bool | None = Field(default=None, description="copies are read one by one, and their codes averaged")
    reads: int | None = Field(default=None, ge=1, le=64, description="array reads averaged for one output")
    signed: Literal["pn", "shift"] | None = Field(default=None, description="how rows from 0 take negative inputs")
    finer: int | tuple[int, ...] | None = Field(default=None, description="readout steps over 2**n, by row part")
    finer_columns: tuple[int, ...] | None = Field(
        default=None, min_length=1, max_length=256, description="readout steps over 2**n, by equal tiles of the columns"
    )
    activation_bits: int | None = Field(default=None, ge=2, le=16, description="width of the layer's input codes")


class PrecisionFile(Config):
    """Transforms by pattern of layer names (`*` and `?` as in file names); later patterns win."""

    layers: dict[str, Transforms]


def read_precision(wanted: Wanted) -> PrecisionFile:
    """The transforms of a YAML file or of a mapping {pattern: {transform: value}}."""
    if isinstance(wanted, str | Path):
        if not Path(wanted).is_file():
            raise ConfigError(f"--precision {wanted}", "no such file", "a YAML file of transforms by layer")
        return load_config(Path(wanted), PrecisionFile)
    text = json.dumps({"layers": {name: dict(fields) for name, fields in wanted.items()}}, default=list)
    return load_config("precision", PrecisionFile, text=text)


def requested(plan: QuantPlan, graph: Graph, chip: Chip, *, wanted: PrecisionFile) -> QuantPlan:
    """The plan with the transforms of every pattern; ConfigError for a pattern that no weight layer matches."""
    nodes = {n.name: n for n in weight_nodes(graph)}
    for pattern, transforms in wanted.layers.items():
        matched = [node for name, node in nodes.items() if fnmatchcase(name, pattern)]
        if not matched:
            need = f"a pattern that matches a weight layer: {', '.join(list(nodes)[:8])}"
            raise ConfigError(f"precision.layers.{pattern}", "no layer", need, try_=did_you_mean(pattern, nodes))
        for node in matched:
            plan = _with(plan, graph, chip, node, transforms)
    return plan


def _with(plan: QuantPlan, graph: Graph, chip: Chip, node: Node, transforms: Transforms) -> QuantPlan:
    given = transforms.model_dump(exclude_none=True)
    bits = given.pop("activation_bits", None)
    if "finer" in given:
        given["finer"] = (given["finer"],) if isinstance(given["finer"], int) else tuple(given["finer"])
    if "finer_columns" in given:
        given["finer_columns"] = tuple(given["finer_columns"])
    layer = plan.layers[node.name]
    if given.keys() & {"signed", "apart"}:  # the rows that copies were to fill are taken otherwise
        given.setdefault("copies", 1)
    layer = replace(layer, precision=replace(layer.precision, **given))
    plan = replace(plan, layers={**plan.layers, node.name: layer})
    return plan if bits is None else rewidened(plan, graph, chip, node, bits=int(bits))


# activations of another width


def rewidened(plan: QuantPlan, graph: Graph, chip: Chip, node: Node, *, bits: int) -> QuantPlan:
    """The plan in which a layer's input, and what moves the same codes, has `bits` bits over the same range."""
    value = node.inputs[0]
    group = sorted(same_codes(graph, value))
    up = bits - plan.values[value].bits
    if up == 0:
        return plan
    for name in group:
        maker = graph.producer(name)
        if maker is not None and (maker.op == "Softmax" or (_tied(chip) and is_weight_layer(graph, maker))):
            got = f"{name!r}, whose {plan.values[name].bits} bits {maker.op} {maker.name!r} gives on {chip.name}"
            raise ConfigError(f"layer {node.name}: precision.activation_bits", got, "an input of another width")
    values = {**plan.values, **{name: _width(plan.values[name], up) for name in group}}
    if values[value].zero_point >= 1 << 15:
        got = f"{bits}-bit codes from 0 with zero at {values[value].zero_point:,}"
        need = "a zero below 32,768, which fills what surrounds a map: fewer bits"
        raise ConfigError(f"layer {node.name}: precision.activation_bits", got, need)
    layers = {**plan.layers}
    for reader in weight_nodes(graph):
        if reader.inputs[0] in group and _tied(chip):
            layers[reader.name] = _with_gain(layers[reader.name], chip, reader, up)
    return replace(plan, values=values, layers=layers)


def _tied(chip: Chip) -> bool:
    """Whether the readout makes codes of its own width, at a gain that ties the weights' step to its input's."""
    return chip.macro.readout.kind == "wtm2101"


def _with_gain(layer: LayerPlan, chip: Chip, node: Node, up: int) -> LayerPlan:
    """The layer's gains for input codes 2**up as fine, so that its cells stay as they are."""
    low, high = chip.macro.readout.gain or (256, 8192)
    gain = tuple(g << up if up > 0 else g >> -up for g in layer.gain)
    if min(gain) < low or max(gain) > high:
        got = f"gains of {min(gain)} to {max(gain)}"
        raise ConfigError(f"layer {node.name}: precision.activation_bits", got, f"{low} to {high} on {chip.name}")
    offset = layer.input_offset << up if up > 0 else layer.input_offset >> -up
    return replace(layer, gain=gain, input_offset=offset)


def same_codes(graph: Graph, value: str) -> set[str]:
    """Values that hold the same codes as one: around operators that only move them, and from step to step."""
    links = [(n.inputs[0], n.output) for n in graph.nodes if n.op in MOVES]
    links += [(s.input, s.output) for s in graph.states]
    group, size = {value}, 0
    while len(group) > size:
        size = len(group)
        group |= {end for pair in links if group & {*pair} for end in pair}
    return group


def _width(spec: QuantSpec, up: int) -> QuantSpec:
    factor = 2.0**up
    zero = round(spec.zero_point * factor)
    return replace(spec, bits=spec.bits + up, scale=tuple(s / factor for s in spec.scale), zero_point=zero)
