"""Precision transforms: what a plan asks of a weight layer on top of its quantization, one pass each (DESIGN 6).

Every pass takes a layer of the quantized graph and gives the layer with other constants and attributes; together they
have one integer meaning, that of graph/ops/mvm.py.  Scaling what is driven, programmed or summed scales the readout's
step with it, so that codes stay what they are; `finer` is what makes a step smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from insitu.arch.spec import Chip
from insitu.base.errors import Infeasible, InfeasibleError
from insitu.compiler.plan import Precision, QuantPlan
from insitu.compiler.precision_layer import (
    Array,
    Layer,
    below_rows,
    driven_zero,
    moved_zero,
    reach,
    rows_range,
    scaled_codes,
    scaled_sums,
    step_places,
    too_wide,
)
from insitu.compiler.quantize import quantize
from insitu.compiler.quantize_layers import weight_limit
from insitu.compiler.tile import weight_nodes
from insitu.graph.graph import Attr, Graph, Node, const_type
from insitu.graph.types import TensorType
from insitu.numeric.affine import Ints, QuantSpec
from insitu.numeric.readout import WTM_BIAS_UNIT

MOST_COPIES, MOST_ROWS_AXES = 64, 4


def apply_plan(graph: Graph, chip: Chip, *, plan: QuantPlan) -> Graph:
    """The quantized graph of a canonical captured graph with the plan's precision transforms."""
    return run(quantize(graph, chip, plan=plan), chip, plan=plan)


def run(graph: Graph, chip: Chip, *, plan: QuantPlan) -> Graph:
    """A quantized graph with the transforms of every layer's plan.

    ConfigError where the chip cannot do one, InfeasibleError where copies of a layer do not fit an array.
    """
    made: dict[str, Layer] = {}
    for node in weight_nodes(graph):
        wanted = plan.layers[node.name].precision if node.name in plan.layers else Precision()
        layer = _layer(graph, chip, node, wanted)
        if wanted != Precision() or too_wide(layer) or below_rows(layer):
            made[node.name] = transformed(layer)
    if not made:
        return graph
    nodes, constants, types = list[Node](), dict[str, Array](), dict[str, TensorType]()
    for node in graph.nodes:
        nodes.append(made[node.name].node if node.name in made else node)
        for name, array, spec in _constants(made[node.name]) if node.name in made else ():
            constants[name], types[name] = array, replace(const_type(array), quant=spec)
    return graph.with_nodes(nodes, types=types, constants=constants)


def transformed(layer: Layer) -> Layer:
    """A layer after all its transforms, in the one order in which they are applied."""
    for transform in TRANSFORMS:
        layer = transform(layer)
    return _checked(layer)


def _layer(graph: Graph, chip: Chip, node: Node, wanted: Precision) -> Layer:
    source, spec = graph.type(node.inputs[0]).quant, graph.type(node.inputs[1]).quant
    assert source is not None
    assert spec is not None
    weight = graph.constants[node.inputs[1]]
    columns = weight.shape[0 if node.op == "Conv" else 1]

    def table(index: int) -> Ints | None:
        name = node.inputs[index] if index < len(node.inputs) else ""
        return np.broadcast_to(np.asarray(graph.constants[name], np.int64), (columns,)) if name else None

    bias = table(2)
    assert bias is not None
    maker = graph.producer(node.inputs[0])
    low, high = source.lo, source.hi
    if maker is not None and "lo" in maker.attrs and "hi" in maker.attrs:
        low, high = max(low, int(maker.attr("lo"))), min(high, int(maker.attr("hi")))
    return Layer(chip, node, wanted, source, low, high, weight, spec, bias, table(3), table(4), table(5))


def _constants(layer: Layer) -> list[tuple[str, Array, QuantSpec | None]]:
    """(name, array, spec) of what the layer computes with."""
    w, inputs = layer.weight, layer.node.inputs
    small = w.min(initial=0) >= -128 and w.max(initial=0) <= 127
    out: list[tuple[str, Array, QuantSpec | None]] = [
        (inputs[1], w.astype(np.int8 if small else np.int16), layer.spec), (inputs[2], layer.bias, None)
    ]  # fmt: skip
    for index, table in ((3, layer.multiplier), (4, layer.shift), (5, layer.steps)):
        if table is not None:
            out.append((inputs[index], np.ascontiguousarray(table), None))
    return out


# the transforms, in order


def signed_inputs(layer: Layer) -> Layer:
    """Inputs of both signs on rows that take none below 0: rows x and -x with weights w and -w, or codes moved up."""
    wanted = layer.wanted.signed or ("shift" if below_rows(layer) else "")
    if not wanted:
        return layer
    if layer.chip.macro.input.signed:
        raise layer.fault("signed", f"{wanted} for rows that take codes of both signs", "rows driven with codes from 0")
    shift = int(layer.node.attr("input_shift", 0))
    return _doubled(layer, shift) if wanted == "pn" else _lifted(layer, shift)


def _doubled(layer: Layer, shift: int) -> Layer:
    bounds, zero = rows_range(layer), driven_zero(layer)
    layer = moved_zero(layer, -zero).having(
        input_offset=-(layer.source.zero_point << shift), blocks=(1, -1), input_shift=shift, drive=bounds
    )
    return _within(layer, "signed", shift)


def _lifted(layer: Layer, shift: int) -> Layer:
    offset = int(layer.node.attr("input_offset", 0))
    lift = max(-((layer.source.lo << shift) + offset), 0)
    if lift == 0 or layer.low >= 0:
        return layer
    bounds = rows_range(layer)
    layer = moved_zero(layer, lift).having(input_offset=offset + lift, input_shift=shift, drive=bounds)
    return _within(layer, "signed", shift)


def _within(layer: Layer, field: str, shift: int) -> Layer:
    """The layer itself; ConfigError where codes leave the drivers' range on top."""
    top, bounds = reach(layer, shift, int(layer.node.attr("input_offset", 0)))[1], rows_range(layer)
    if top > bounds[1]:
        raise layer.fault(field, f"codes up to {top}", f"codes that rows take, {bounds[0]} to {bounds[1]}")
    return layer


def wide_inputs(layer: Layer) -> Layer:
    """Codes wider than the drivers: digits of the drivers' width in passes of their own, shifted and added."""
    if not too_wide(layer):
        return layer
    if layer.kind == "wtm2101":
        got, need = f"codes of {layer.source.bits} bits", "at most 8: a code of its readout holds one pass"
        raise layer.fault("activation_bits", got, need)
    drivers = layer.chip.macro.input
    whole = drivers.signed and drivers.bits_per_pass == drivers.bits
    step = max(drivers.bits_per_pass - (1 if whole else 0), 1)  # lower digits have no sign, so the sign's bit stays 0
    layer = layer.having(input_bits=layer.source.bits, plane_bits=step, input_signed=drivers.signed)
    return layer if drivers.signed else layer.having(drive=rows_range(layer))


def shifted_inputs(layer: Layer) -> Layer:
    """Driven codes times 2**k, where the drivers' range holds them."""
    more = layer.wanted.input_shift
    if not more:
        return layer
    before, offset = int(layer.node.attr("input_shift", 0)), int(layer.node.attr("input_offset", 0))
    bounds, shift = rows_range(layer), before + more
    low, high = reach(layer, shift, offset << more)
    clipped = reach(layer, before, offset)[0] < bounds[0]  # codes below the rows are cut off already
    if high > bounds[1] or (low < bounds[0] and not clipped):
        raise layer.fault("input_shift", f"codes {low} to {high}", f"codes that rows take, {bounds[0]} to {bounds[1]}")
    layer = layer.having(input_shift=shift, input_offset=offset << more, drive=bounds)
    planes = int(layer.node.attr("plane_bits", 0)) < int(layer.node.attr("input_bits", 0))
    return scaled_sums(layer, more, field="input_shift", moved=planes)


def shifted_weights(layer: Layer) -> Layer:
    """Cells times 2**k, where their range holds them."""
    more = layer.wanted.weight_shift
    if not more:
        return layer
    limit = layer.chip.array.cell_range[1] if layer.kind == "wtm2101" else weight_limit(layer.chip)
    weight = np.asarray(layer.weight, np.int64) << more
    peak = int(np.abs(weight).max(initial=0))
    if peak > limit:
        raise layer.fault("weight_shift", f"weights up to {peak}", f"at most {limit}, what a cell holds")
    spec = replace(layer.spec, scale=tuple(s / 2**more for s in layer.spec.scale))
    slices = int(layer.node.attr("slice_bits", 0)) < int(layer.node.attr("weight_bits", 0))
    return scaled_sums(replace(layer, weight=weight, spec=spec), more, field="weight_shift", moved=slices)


def copied_rows(layer: Layer) -> Layer:
    """Rows programmed n times: summed by the column, or read apart and averaged as digital codes."""
    count = layer.wanted.copies
    if count == 1:
        return _split_blocks(layer)
    places, signs = count.bit_length() - 1, layer.blocks * count
    if layer.kind == "exact" or not layer.wanted.apart:
        layer = layer.having(blocks=signs)
        if layer.kind != "exact":
            _fits_one_array(layer)
        return scaled_sums(layer, places, field="copies")
    layer = _split_blocks(layer)
    each, bounds, finer = len(layer.blocks) * layer.rows, layer.parts, tuple(layer.node.attr("finer", ()))
    parts = (0, *(i * each + end for i in range(count) for end in bounds[1:]))
    k = int(layer.node.attr("k", 0)) if len(bounds) > 2 else 0
    layer = layer.having(blocks=signs, parts=parts, finer=finer * count)
    if layer.kind == "adc":
        return scaled_codes(replace(layer, bias=layer.bias << places), places, field="copies")
    assert layer.steps is not None
    return replace(layer, steps=layer.steps << places).having(k=k + places, apart=count)


def _fits_one_array(layer: Layer) -> None:
    """InfeasibleError where copies whose column sums one reading adds up do not lie on one array."""
    need, bound = layer.rows * len(layer.blocks), layer.chip.array.rows
    if need > bound or len(tuple(layer.node.attr("parts", ()))) > 2:
        ways = ("copies read apart (apart: true), each on an array of its own", "fewer copies")
        item = Infeasible(f"rows of {layer.node.name} in one reading", need, bound, "rows", (layer.node.name,), ways)
        raise InfeasibleError([item], layer.chip.name)


def _split_blocks(layer: Layer) -> Layer:
    """Doubled rows that outgrow an array are read in parts, where the readout makes that a difference."""
    need = layer.rows * len(layer.blocks)
    if layer.kind == "exact" or len(layer.blocks) == 1 or (need <= layer.chip.array.rows and len(layer.parts) <= 2):
        return layer
    given = tuple(int(p) for p in layer.node.attr("parts", ()))
    inner = given if len(given) > 2 else (0, layer.rows)
    parts = (0, *(i * layer.rows + end for i in range(len(layer.blocks)) for end in inner[1:]))
    return layer.having(parts=parts)


def averaged_reads(layer: Layer) -> Layer:
    """Array reads averaged before the readout rounds: no other ideal code, less noise, more time and energy."""
    if not layer.wanted.reads:
        return layer
    if layer.kind == "exact":
        raise layer.fault("reads", "reads of a digital sum", "an analog readout: digital sums have no noise")
    return layer.having(reads=layer.wanted.reads)


def finer_steps(layer: Layer) -> Layer:
    """Readout steps divided by powers of two, for all rows or row part by row part; codes are added in the finest."""
    wanted = layer.wanted.finer
    if not any(wanted):
        return layer
    count = len(layer.parts) - 1
    if layer.kind == "exact":
        raise layer.fault("finer", "a digital sum", "a converter, whose range it sets")
    if len(wanted) not in (1, count):
        raise layer.fault("finer", f"{len(wanted)} numbers", f"one, or one for each of its {count} row parts")
    each = wanted * count if len(wanted) == 1 else wanted
    return _finer_adc(layer, each) if layer.kind == "adc" else _finer_gains(layer, each)


def _finer_adc(layer: Layer, each: tuple[int, ...]) -> Layer:
    least, most = min(each), max(each)
    places = int(layer.node.attr("adc_s", 0)) - least
    multiplier = int(layer.node.attr("adc_m", 1)) << max(-places, 0)
    if multiplier >= 1 << 31:
        raise layer.fault("finer", f"a step 2^{least} times finer", "a multiplier below 2^31")
    bias = layer.bias << most if most >= 0 else np.rint(layer.bias / 2.0**-most).astype(np.int64)
    layer = replace(layer, bias=bias).having(adc_s=step_places(layer, max(places, 0), "finer"), adc_m=multiplier)
    if most > least:
        layer = layer.having(finer=tuple(up - least for up in each))
    return scaled_codes(layer, most, field="finer")


def column_ranges(layer: Layer) -> Layer:
    """A converter's range for each of n equal tiles of the columns; a tile is a read of its own."""
    wanted = layer.wanted.finer_columns
    if not any(wanted):
        return layer
    columns = len(layer.bias)
    if layer.kind != "adc":
        raise layer.fault("finer_columns", f"a readout of kind {layer.kind}", "a converter, whose range it sets")
    if len(wanted) > columns:
        raise layer.fault("finer_columns", f"{len(wanted)} tiles of {columns} columns", "at most one for each column")
    least, whole = min(wanted), layer.bias
    layer = _finer_adc(layer, (least,) * (len(layer.parts) - 1)) if least else layer
    small, more = divmod(columns, len(wanted))
    up = np.repeat(np.array(wanted, np.int64) - least, [small + (i < more) for i in range(len(wanted))])
    if int(layer.node.attr("adc_m", 1)) << max(int(up.max()) - int(layer.node.attr("adc_s", 0)), 0) >= 1 << 31:
        raise layer.fault("finer_columns", f"a step 2^{max(wanted)} times finer", "a multiplier below 2^31")
    node = replace(layer.node, inputs=(*layer.node.inputs[:5], f"{layer.node.name}.steps"))
    bias = np.where(up + least >= 0, whole << np.maximum(up + least, 0), np.rint(whole * 2.0 ** (up + least)))
    return scaled_codes(replace(layer, node=node, steps=up, bias=bias.astype(np.int64)), up, field="finer_columns")


def _finer_gains(layer: Layer, each: tuple[int, ...]) -> Layer:
    if len(each) == 1:
        got = "one reading, whose gain is tied to its output's scale"
        raise layer.fault("finer", got, "a layer read in row parts, or copies apart")
    assert layer.steps is not None
    least, k = min(each), int(layer.node.attr("k", 0))
    bounds = layer.chip.macro.readout.gain or (256, 8192)
    lowest, highest = int(layer.steps.min()) >> (k + max(each)), int(layer.steps.max()) >> (k + least)
    if lowest < bounds[0] or highest > bounds[1] or k + least < 0:
        raise layer.fault("finer", f"gains of {lowest} to {highest}", f"{bounds[0]} to {bounds[1]}")
    layer = layer.having(k=k + least)
    return layer.having(finer=tuple(up - least for up in each)) if max(each) > least else layer


Transform = Callable[[Layer], Layer]
TRANSFORMS: tuple[Transform, ...] = (
    wide_inputs, signed_inputs, shifted_inputs, shifted_weights, copied_rows, averaged_reads, finer_steps,
    column_ranges,
)  # fmt: skip


def _checked(layer: Layer) -> Layer:
    """The layer itself; ConfigError for numbers that no longer fit what holds them."""
    node, most = layer.node, 1 << 31
    if node.op == "Conv" and len(layer.blocks) > 1 and layer.weight.ndim - 1 >= MOST_ROWS_AXES:
        need = "a kernel of at most two axes: the rows of a command have four"
        raise layer.fault("copies", f"blocks of rows under a kernel of {layer.weight.ndim - 2} axes", need)
    if layer.kind == "wtm2101":
        most = layer.chip.macro.bias_rows * layer.chip.array.cell_range[1] * WTM_BIAS_UNIT + 1
    peak = int(np.abs(layer.bias).max(initial=0))
    if peak >= most:
        raise layer.fault("", f"a bias of {peak:,}", f"at most {most - 1:,}")
    attrs: Mapping[str, Attr] = {k: v for k, v in node.attrs.items() if not (k == "finer" and v == ())}
    return replace(layer, node=replace(node, attrs=attrs))
