"""QuantPlan: every number an algorithm decides about a network, as plain data that the compiler applies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from insitu.base.errors import ConfigError
from insitu.numeric.affine import QuantSpec


@dataclass(frozen=True)
class LayerPlan:
    """Choices for one weight layer.

    `weight_scale`: real size of one weight step, per output channel (readouts exact and adc).
    `gain`: G per output channel (wtm2101); the weight step then follows from the activations' scales.
    `bias`: real numbers added to the bias, per output channel (what calibration found missing).
    `bias_rows`: the most bias rows the layer may take (wtm2101; 0: all of them).
    `input_shift`, `input_offset`: driven code = (code << shift) + offset.  `parts`: row boundaries of separate
    readings, joined at G / 2**k.  `adc`: (M, S), code = acc * M / 2**S.
    """

    weight_scale: tuple[float, ...] = ()
    gain: tuple[int, ...] = ()
    input_shift: int = 0
    input_offset: int = 0
    parts: tuple[int, ...] = ()
    k: int = 0
    adc: tuple[int, int] = (1, 0)
    bias: tuple[float, ...] = ()
    bias_rows: int = 0


@dataclass(frozen=True)
class QuantPlan:
    """What each value's codes stand for, and each weight layer's choices, by name."""

    values: Mapping[str, QuantSpec]
    layers: Mapping[str, LayerPlan]
    notes: Mapping[str, str] = field(default_factory=dict[str, str])

    def with_output_scale(self, value: str, factor: float) -> QuantPlan:
        """The plan with one value's scale multiplied by `factor` (to try what a wrong scale does)."""
        spec = self.values[value]
        scaled = replace(spec, scale=tuple(s * factor for s in spec.scale))
        return replace(self, values={**self.values, value: scaled})


def plan_to_json(plan: QuantPlan) -> str:
    """The plan as JSON text."""
    return json.dumps(asdict(plan), indent=1, sort_keys=True)


def plan_from_json(text: str) -> QuantPlan:
    """The plan of JSON text; ConfigError where it is not one."""
    try:
        data: dict[str, Any] = json.loads(text)
        values = {v: QuantSpec(**_tuples(s)) for v, s in data["values"].items()}
        layers = {n: LayerPlan(**_tuples(p)) for n, p in data["layers"].items()}
        return QuantPlan(values, layers, data.get("notes", {}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError("quantization plan", str(error), "the JSON form that `plan_to_json` writes") from error


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
