"""One weight layer while precision transforms rewrite it, and what the transforms share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.arch.spec import Chip
from insitu.base.errors import ConfigError
from insitu.compiler.plan import Precision
from insitu.graph.graph import Attr, Node
from insitu.graph.ops.mvm import block_signs, drive_range
from insitu.numeric.affine import Ints, QuantSpec
from insitu.numeric.readout import WTM_BIAS_UNIT

Array = npt.NDArray[Any]
MOST_SHIFT = 62


@dataclass(frozen=True)
class Layer:
    """One weight layer while passes rewrite it; `low`, `high` are the codes its input can have."""

    chip: Chip
    node: Node
    wanted: Precision
    source: QuantSpec
    low: int
    high: int
    weight: Array
    spec: QuantSpec
    bias: Ints
    multiplier: Ints | None
    shift: Ints | None
    steps: Ints | None  # of its readout, by column: gains (wtm2101), or powers of two that a converter's is finer by

    @property
    def kind(self) -> str:
        """Its readout."""
        return str(self.node.attr("readout"))

    @property
    def blocks(self) -> tuple[int, ...]:
        """Signs of its blocks of rows."""
        return block_signs(self.node)

    @property
    def rows(self) -> int:
        """Rows of one block."""
        w = self.weight
        return w.size // w.shape[0] if self.node.op == "Conv" else w.shape[0]

    @property
    def parts(self) -> tuple[int, ...]:
        """Row boundaries of separate readings."""
        return tuple(int(p) for p in self.node.attr("parts", ())) or (0, self.rows * len(self.blocks))

    @property
    def sums(self) -> Ints:
        """Sum of each column's weights."""
        w = np.asarray(self.weight, np.int64)
        return w.reshape(len(w), -1).sum(axis=1) if self.node.op == "Conv" else w.sum(axis=0)

    def fault(self, field: str, got: str, need: str, *ways: str) -> ConfigError:
        """A transform that this chip cannot do on this layer."""
        return ConfigError(
            f"layer {self.node.name}: precision.{field}".rstrip("."), f"{got} on {self.chip.name}", need, try_=ways
        )

    def having(self, **attrs: Attr) -> Layer:
        """The layer with other attributes."""
        return replace(self, node=replace(self.node, attrs={**self.node.attrs, **attrs}))


def rows_range(layer: Layer) -> tuple[int, int]:
    """The codes that rows can be driven with: in passes, of any width."""
    given = drive_range(layer.node)
    if given is not None:
        return given
    signed, bits = layer.chip.macro.input.signed, max(layer.chip.macro.input.bits, layer.source.bits)
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def too_wide(layer: Layer) -> bool:
    """Whether the input has more bits than the rows take."""
    return layer.source.bits > layer.chip.macro.input.bits


def below_rows(layer: Layer) -> bool:
    """Whether codes of a digital or general converter's layer go below what its rows take."""
    return layer.kind != "wtm2101" and drive_range(layer.node) is None and layer.source.lo < rows_range(layer)[0]


def scaled_sums(layer: Layer, places: int, *, field: str, moved: bool = False) -> Layer:
    """The layer whose column sums have become 2**places times what they were; its codes stay.

    Of digits that are read one by one (`moved`: planes of inputs, slices of weights) every one stays as large as it was
    and counts 2**places times as much.
    """
    if layer.kind == "adc" and moved:
        return scaled_codes(replace(layer, bias=layer.bias << places), places, field=field)
    if layer.kind == "adc":
        return layer.having(adc_s=step_places(layer, int(layer.node.attr("adc_s", 0)) + places, field))
    layer = replace(layer, bias=layer.bias << places)
    if layer.kind == "exact":
        return scaled_codes(layer, places, field=field)
    assert layer.steps is not None
    gain, most = layer.steps << places, (layer.chip.macro.readout.gain or (256, 8192))[1]
    down = int(layer.node.attr("k", 0)) if len(layer.parts) > 2 else 0
    if int(gain.max()) >> down > most:
        got = f"gains up to {int(gain.max()) >> down}"
        raise layer.fault(field, got, f"at most {most}: fewer powers of two, or a plan with smaller gains")
    return replace(layer, steps=gain)


def scaled_codes(layer: Layer, places: int | Ints, *, field: str) -> Layer:
    """The layer whose summed codes before requantization have become 2**places times what they were."""
    assert layer.shift is not None
    assert layer.multiplier is not None
    shift, up = layer.shift + places, np.maximum(-(layer.shift + places), 0)
    multiplier = layer.multiplier << up
    if int(shift.max()) > MOST_SHIFT or int(multiplier.max()) >= 1 << 31:
        raise layer.fault(field, f"shifts up to {int(shift.max())}", f"ratios that {MOST_SHIFT} places hold")
    return replace(layer, multiplier=multiplier, shift=np.maximum(shift, 0))


def step_places(layer: Layer, places: int, field: str) -> int:
    """The places of a converter's step; ConfigError where there are none such."""
    if not 0 <= places <= MOST_SHIFT:
        raise layer.fault(field, f"a step of 2^{places}", f"0 to {MOST_SHIFT} places")
    return places


def moved_zero(layer: Layer, change: int) -> Layer:
    """The layer whose zero is driven with a code that is `change` higher."""
    less = change * layer.sums
    if layer.kind == "exact":
        return replace(layer, bias=layer.bias - less)
    if layer.kind == "adc":
        step = 2.0 ** int(layer.node.attr("adc_s", 0)) / int(layer.node.attr("adc_m", 1))
        return replace(layer, bias=np.rint(layer.bias - less / step).astype(np.int64))
    bias = np.rint((layer.bias - less) / WTM_BIAS_UNIT).astype(np.int64) * WTM_BIAS_UNIT
    return replace(layer, bias=bias)


def driven_zero(layer: Layer) -> int:
    """The code that stands for real 0 on a row."""
    shift, offset = int(layer.node.attr("input_shift", 0)), int(layer.node.attr("input_offset", 0))
    return (layer.source.zero_point << shift) + offset


def reach(layer: Layer, shift: int, offset: int) -> tuple[int, int]:
    """The lowest and highest code before the drivers' bounds, those of negated rows included where there are any."""
    ends = [s * ((q << shift) + offset) for q in (layer.low, layer.high) for s in layer.blocks]
    return min(ends), max(ends)
