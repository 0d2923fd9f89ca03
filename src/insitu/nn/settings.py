"""How each layer of a module lies on its chip: from the plan of its network to the layout of its parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from insitu.arch.spec import Chip
from insitu.compiler.draft import activation_codes, is_weight_layer
from insitu.compiler.plan import LayerPlan, QuantPlan
from insitu.compiler.quantize_layers import effective_weight, out_axis, weight_limit
from insitu.graph.graph import Graph, Node
from insitu.nn.behind import behind_of
from insitu.nn.functional import Codes, Setting
from insitu.nn.phases import Phases
from insitu.nn.physics import plane_shifts
from insitu.numeric.affine import QuantSpec
from insitu.numeric.readout import WTM_BIAS_UNIT, adc_range

Array = npt.NDArray[Any]
FINE = 1e-6  # step of what lies in no array, such as an output that is its bias alone
Source = Callable[..., dict[str, Array] | None]


@dataclass(frozen=True)
class Layout:
    """How a module's parameters lie on its chip.

    `settings` by parameter; `unreached`, layers of the network whose weights are no parameter's as it stands;
    `columns`, for each layer of the network: (parameter, its output for each column, -1 for those of others).
    """

    settings: Mapping[str, Setting]
    unreached: Sequence[str]
    columns: Mapping[str, Sequence[tuple[str, Array]]]


def layout_of(
    graph: Graph, canonical: Graph, signed: Graph, source: Source, chip: Chip, plan: QuantPlan, module: nn.Module,
    *, copies: Mapping[str, int], factors: Mapping[str, Tensor],
) -> Layout:  # fmt: skip
    """The layout of a module whose network is `graph`.

    `canonical` is the network before it was made the chip's, `signed` that with weights by which `source` knows where
    they come from; `copies` says how often the program holds a layer, `factors` those of batch norms, by parameter,
    that the plan was made for.
    """
    found: dict[str, Setting] = {}
    unreached: list[str] = []
    columns: dict[str, list[tuple[str, Array]]] = {}
    marks = {n.name: n for n in signed.nodes}
    for node in graph.nodes:
        if node.op == "Gather" and node.inputs[0] in graph.constants and node.name in marks:
            _table(found, node, source(signed.constants[marks[node.name].inputs[0]]), plan)
        if not is_weight_layer(graph, node) or node.name not in plan.layers:
            continue
        index = (
            _parameters(signed.constants[marks[node.name].inputs[1]], source, module) if node.name in marks else None
        )
        if index is None:
            unreached.append(node.name)
            continue
        for name, places in index.items():
            part = _setting(graph, chip, plan, node, name, places, module, number=len(found))
            behind = behind_of(node, canonical, signed, source, module)
            norm, phases = factors.get(name), _phases(module, name)
            if phases is not None and norm is not None:
                norm = phases.repeated(norm)
            part = replace(part, behind=behind, copies=copies.get(node.name, 1), norm=norm)
            found[name] = part if name not in found else _joined(found[name], part)
            outputs, _ = _place(module, name, places, out_axis(node)).outputs()
            own = outputs if phases is None else np.where(outputs < 0, -1, outputs // phases.count)
            columns.setdefault(node.name, []).append((name, own))
    return Layout({n: _complete(s) if s.shape else s for n, s in found.items()}, unreached, columns)


def _parameters(weights: Array, source: Source, module: nn.Module) -> Mapping[str, Array] | None:
    """Where a layer's weights come from; those of a transposed convolution may have zeros for taps a phase lacks."""
    index = source(weights)
    if index is not None or not (weights == 0).any():
        return index
    index = source(weights, True)
    return index if index and all(_phases(module, name) is not None for name in index) else None


def _phases(module: nn.Module, name: str) -> Phases | None:
    """The phases of a transposed convolution whose weight this is."""
    owner, _, own = name.rpartition(".")
    return Phases.of(module.get_submodule(owner)) if own == "weight" else None


def _place(module: nn.Module, name: str, index: Array, axis: int) -> _Place:
    """Where a node's weights lie in a parameter, or in the form of it that arrays hold."""
    groups, phases = _groups(module, name), _phases(module, name)
    if phases is not None:
        return _Place(phases.held, groups, phases.moved(index), axis)
    return _Place(tuple(module.get_parameter(name).shape), groups, index, axis)


def _table(found: dict[str, Setting], node: Node, index: Mapping[str, Array] | None, plan: QuantPlan) -> None:
    """The codes of rows picked from a table."""
    spec = plan.values.get(node.output)
    if spec is None or index is None:
        return
    one = torch.ones(1)
    for name in index:
        found.setdefault(name, Setting(name, len(found), (), None, Codes.of(spec), one, -1, 1, one, one))


@dataclass(frozen=True)
class _Place:
    """Where a node's weights lie in a parameter: the flat index of each, -1 for those of other parameters."""

    shape: tuple[int, ...]
    groups: int
    index: Array
    axis: int  # of the node's columns

    @property
    def columns(self) -> Array:
        """The flat indices, [columns, rows]."""
        return np.moveaxis(self.index, self.axis, 0).reshape(self.index.shape[self.axis], -1)

    @property
    def transposed(self) -> bool:
        """Whether inputs stand before outputs in the parameter: the weights of a column have several first indices."""
        known = [row[row >= 0] // int(np.prod(self.shape[1:])) for row in self.columns]
        return any(len(np.unique(first)) > 1 for first in known)

    def outputs(self) -> tuple[Array, int]:
        """(output of the parameter for each column, -1 for those of other parameters; outputs in all)."""
        first = self.columns.max(axis=1)
        at = np.unravel_index(np.maximum(first, 0), self.shape)
        if not self.transposed:
            return np.where(first < 0, -1, at[0]), self.shape[0]
        group = at[0] // (self.shape[0] // self.groups)
        return np.where(first < 0, -1, at[1] + group * self.shape[1]), self.shape[1] * self.groups


def _setting(
    graph: Graph, chip: Chip, plan: QuantPlan, node: Node, name: str, index: Array, module: nn.Module, *, number: int
) -> Setting:  # fmt: skip
    """One parameter as one node has it; NaN where the node has nothing of it."""
    layer, spec, out = plan.layers[node.name], plan.values[node.inputs[0]], plan.values.get(node.output)
    place = _place(module, name, index, out_axis(node))
    index = place.index
    outputs, width = place.outputs()
    steps, unit, read, drive = _steps(chip, layer, node, spec, out, index.shape)
    bounds = activation_codes(node, out) if out is not None else {}
    whole = out is not None and np.array_equal(outputs, np.arange(width))
    wtm, known = chip.macro.readout.kind == "wtm2101", outputs >= 0

    def each(values: Array) -> Tensor:
        made = np.full(width, np.nan)
        made[outputs[known]] = np.broadcast_to(values, outputs.shape)[known]
        return torch.tensor(made, dtype=torch.float32)

    step = np.full(int(np.prod(place.shape)), np.nan)
    step[index[index >= 0]] = steps[index >= 0]
    if _phases(module, name) is not None:  # taps that a phase lacks are cells of its column
        columns = step.reshape(width, -1)
        step = np.where(np.isnan(columns), np.fmax.reduce(columns, axis=1, keepdims=True), columns).reshape(-1)
    x = Codes.of(spec)
    y = Codes.of(out, lo=int(bounds["lo"]), hi=int(bounds["hi"])) if whole and out is not None else None  # type: ignore[arg-type]
    if y is not None and y.axis is not None and _phases(module, name) is not None:
        y = None  # channels count outputs there, columns their phases
    if y is not None and wtm and len(layer.parts) <= 2:  # parts are joined half to even
        y = replace(y, quarters=True)
    if len(place.shape) != graph.constants[node.inputs[1]].ndim:  # another operator's work, such as a 3-D convolution's
        x, y = replace(x, axis=None, scales=None), y and y.along(1 - len(place.shape))
    lo, hi = chip.array.cell_range if wtm else (-weight_limit(chip), weight_limit(chip))
    made = torch.tensor(step.reshape(place.shape), dtype=torch.float32)
    return Setting(
        name, number, place.shape, x, y, made, lo, hi, each(unit), each(read),
        source=float(spec.zero_point) * drive + layer.input_offset, drive=drive, parts=tuple(layer.parts),
        finer=layer.k if wtm and len(layer.parts) > 2 else 0,
        shift=each(np.asarray(layer.bias)) if layer.bias else None, bias_unit=WTM_BIAS_UNIT if wtm else 0,
        bias_most=(layer.bias_rows or chip.macro.bias_rows) * hi if wtm else math.inf,
        groups=place.groups, transposed=place.transposed,
        rows_times=1 if layer.precision.apart else layer.precision.copies,
        octaves=chip.capabilities.scales == "power_of_two", converter=_converter(chip, layer),
    )  # fmt: skip


def _converter(chip: Chip, layer: LayerPlan) -> tuple[int, int] | None:
    """The codes of a converter that makes a layer's outputs in one conversion each."""
    conversions = max(1, len(layer.parts) - 1) * len(plane_shifts(chip)) * len(chip.slice_bits)
    readout = chip.macro.readout
    if readout.kind != "adc" or conversions > 1:
        return None
    return adc_range(readout.bits, signed=bool(readout.signed))


def _steps(
    chip: Chip, layer: LayerPlan, node: Node, spec: QuantSpec, out: QuantSpec | None, shape: tuple[int, ...]
) -> tuple[Array, Array, Array, float]:
    """(size of each weight's code, of a column-sum step, column-sum steps of a code, driven codes of an input code)."""
    columns, axis = shape[out_axis(node)], out_axis(node)
    ratio, sx = effective_weight(np.ones(shape), spec, node)
    drive = 1.0
    if chip.macro.readout.kind == "wtm2101":
        assert out is not None
        read = np.broadcast_to(np.asarray(layer.gain, np.float64), (columns,))
        drive = 2.0**layer.input_shift
        sw = np.broadcast_to(np.asarray(out.scale), (columns,)) / (read * sx / drive)
    else:
        sw = np.broadcast_to(np.asarray(layer.weight_scale), (columns,))
        adc = chip.macro.readout.kind == "adc"
        read = np.full(columns, 2.0 ** layer.adc[1] / layer.adc[0] if adc else 1.0)
    along = np.expand_dims(sw, [i for i in range(len(shape)) if i != axis])
    return along / ratio, sx / drive * sw, read, drive


def _groups(module: nn.Module, name: str) -> int:
    return int(getattr(module.get_submodule(name.rpartition(".")[0]), "groups", 1))


def _joined(first: Setting, other: Setting) -> Setting:
    """One parameter that several nodes have, as the one with the widest inputs has it.

    What that one has nothing of comes from the other.
    """
    if first.x is not None and other.x is not None and other.x.scale > first.x.scale:
        first, other = replace(other, number=first.number), first
    parts = {n: _filled(getattr(first, n), getattr(other, n)) for n in ("step", "unit", "read")}
    shift = first.shift if first.shift is None or other.shift is None else _filled(first.shift, other.shift)
    wider = first.y is not None and other.y is not None and other.y.scale > first.y.scale
    alike = first.behind is not None and first.behind.same(other.behind)
    return replace(
        first, shift=shift, y=other.y if wider else first.y, behind=first.behind if alike else None,
        copies=min(first.copies, other.copies), **parts,
    )  # fmt: skip


def _filled(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(torch.isnan(a), b, a)


def _complete(setting: Setting) -> Setting:
    """Without what no node has, which neither rounds nor errs; weight steps in their smallest form."""
    missing = np.flatnonzero(torch.isnan(setting.unit).numpy())
    runs = np.split(missing, np.flatnonzero(np.diff(missing) > 1) + 1) if len(missing) else []
    absent = tuple((int(run[0]), int(run[-1]) + 1) for run in runs)
    most = {"step": FINE, "unit": FINE, "read": 1.0}
    parts = {n: torch.nan_to_num(getattr(setting, n), nan=value) for n, value in most.items()}
    shift = None if setting.shift is None else torch.nan_to_num(setting.shift, nan=0.0)
    return replace(setting, shift=shift, absent=absent, **{**parts, "step": _smallest(parts["step"])})


def _smallest(step: Tensor) -> Tensor:
    """The same numbers with axes of equal ones reduced to one."""
    for axis in range(step.ndim):
        one = step.narrow(axis, 0, 1)
        if step.shape[axis] > 1 and bool((step == one).all()):
            step = one
    return step.contiguous()
