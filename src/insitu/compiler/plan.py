"""QuantPlan: every number an algorithm decides about a network, as plain data that the compiler applies."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.errors import ConfigError
from insitu.numeric.affine import QuantSpec

SIGNED = ("", "pn", "shift")


@dataclass(frozen=True)
class Precision:
    """Transforms of one weight layer that compiler/precision.py applies behind quantization; the defaults are none.

    `input_shift`, `weight_shift`: driven codes and cells times 2**k.  `copies`: rows programmed so many times (a power
    of two), summed in the array, or read `apart` and averaged.  `reads`: array reads averaged (0: the chip's own).
    `signed`: "pn" doubles the rows for inputs of both signs, "shift" moves codes up.  `finer`: readout steps divided by
    2**n, one number for all row parts or one for each; `finer_columns`: one for each of equal tiles of a converter's
    columns.  Inputs wider than the drivers, as their QuantSpec has them,
    take more passes whatever stands here.
    """

    input_shift: int = 0
    weight_shift: int = 0
    copies: int = 1
    apart: bool = False
    reads: int = 0
    signed: str = ""
    finer: tuple[int, ...] = ()
    finer_columns: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """ConfigError for a setting that no chip can mean."""
        for name, value, least, most in (
            ("input_shift", self.input_shift, 0, 8), ("weight_shift", self.weight_shift, 0, 8),
            ("copies", self.copies, 1, 64), ("reads", self.reads, 0, 64), *(("finer", n, -16, 16) for n in self.finer),
            *(("finer_columns", n, -16, 16) for n in self.finer_columns),
        ):  # fmt: skip
            if type(value) is not int or not least <= value <= most:
                raise ConfigError(f"precision.{name}", repr(value)[:40], f"an integer from {least} to {most}")
        if self.copies & (self.copies - 1):
            raise ConfigError("precision.copies", str(self.copies), "a power of two, so that an average is a shift")
        if type(self.apart) is not bool:
            raise ConfigError("precision.apart", repr(self.apart)[:40], "true or false")
        if self.signed not in SIGNED:
            raise ConfigError("precision.signed", repr(self.signed)[:40], f"one of {', '.join(filter(None, SIGNED))}")


@dataclass(frozen=True)
class LayerPlan:
    """Choices for one weight layer.

    `weight_scale`: real size of one weight step, per output channel (readouts exact and adc).
    `gain`: G per output channel (wtm2101); the weight step then follows from the activations' scales.
    `bias`: real numbers added to the bias, per output channel (what calibration found missing).
    `bias_rows`: the most bias rows the layer may take (wtm2101; 0: all of them).
    `input_shift`, `input_offset`: driven code = (code << shift) + offset.  `parts`: row boundaries of separate
    readings, joined at G / 2**k.  `adc`: (M, S), code = acc * M / 2**S.  `precision`: what is done on top of that.
    `rounding`: steps from the nearest code to the chosen one, [columns, rows] as `packed` writes them (empty: none).
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
    precision: Precision = Precision()
    rounding: str = ""


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


def packed(steps: npt.NDArray[Any]) -> str:
    """Small integers as text; empty where all are 0."""
    return b64encode(zlib.compress(steps.astype(np.int16).tobytes(), 9)).decode() if steps.any() else ""


def unpacked(text: str, columns: int) -> npt.NDArray[np.int64]:
    """The integers of `packed`, [columns, rows]; ConfigError where the text is not of that many columns."""
    try:
        flat = np.frombuffer(zlib.decompress(b64decode(text, validate=True)), np.int16)
        return flat.reshape(columns, -1).astype(np.int64)
    except (ValueError, zlib.error) as error:
        raise ConfigError("plan: rounding", str(error), f"packed steps of {columns} columns") from None


def plan_to_json(plan: QuantPlan) -> str:
    """The plan as JSON text."""
    return json.dumps(asdict(plan), indent=1, sort_keys=True)


def plan_from_json(text: str) -> QuantPlan:
    """The plan of JSON text; ConfigError where it is not one."""
    try:
        data: dict[str, Any] = json.loads(text)
        values = {v: QuantSpec(**_tuples(s)) for v, s in data["values"].items()}
        layers = {n: _layer(p) for n, p in data["layers"].items()}
        return QuantPlan(values, layers, data.get("notes", {}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError("quantization plan", str(error), "the JSON form that `plan_to_json` writes") from error


def _layer(fields: Mapping[str, Any]) -> LayerPlan:
    rest = {k: v for k, v in fields.items() if k != "precision"}
    return LayerPlan(**_tuples(rest), precision=Precision(**_tuples(fields.get("precision", {}))))


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
