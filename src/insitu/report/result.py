"""Result: everything one run learned, as plain data; its JSON form is the contract of `insitu run --json`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from insitu.base.errors import Infeasible
from insitu.base.metrics import Metric

SCHEMA = 1
TEN = 10  # constants that a result lists, those that weigh most


@dataclass(frozen=True)
class ModelFacts:
    """What the network is, before any chip."""

    name: str
    parameters: int | None
    macs: int | None


@dataclass(frozen=True)
class BitExact:
    """Interpreter against functional simulator; `first` names the first mismatch (layer, index, both integers)."""

    checked_values: int
    mismatches: int
    excluded_values: int = 0
    first: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class OnnxAgreement:
    """Operators on identical integer inputs against ONNX Runtime, which rounds in float.

    `equal_fraction` leaves out results exactly between two codes, `tie_fraction` of all; with them it is
    `equal_fraction_all`.  `max_difference` is over all.
    """

    equal_fraction: float
    max_difference: int
    operators: int
    tie_fraction: float = 0.0
    equal_fraction_all: float = 1.0


@dataclass(frozen=True)
class Coverage:
    """What share of the MACs the arrays do, and which operators (type -> count) stay on the host."""

    array_macs_fraction: float | None
    host_ops: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True)
class AccuracyPoint:
    """Accuracy `time_s` seconds after programming, one value per chip instance (fractions; without labels, SQNR in dB).

    `note` says why a time shows what an earlier one does: nothing moves, or how it moves is not known.
    """

    time_s: float
    values: tuple[float, ...]
    note: str = ""

    @property
    def mean(self) -> float | None:
        return math.fsum(self.values) / len(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """Standard deviation between instances (n - 1); not known for a single one."""
        if self.mean is None or len(self.values) < 2:
            return None
        return math.sqrt(math.fsum((v - self.mean) ** 2 for v in self.values) / (len(self.values) - 1))

    @property
    def min(self) -> float | None:
        return min(self.values, default=None)

    def to_json(self) -> dict[str, Any]:
        shown = {"time_s": self.time_s, "mean": self.mean, "std": self.std, "min": self.min}
        counted = {**shown, "instances": len(self.values)}
        return {**counted, "note": self.note} if self.note else counted


@dataclass(frozen=True)
class LayerResult:
    """One layer in execution order; `sqnr_db` is cumulative, `sqnr_local_db` with the quantized reference input.

    `range_ratio`, what its output codes can express over what the float layer puts out, is for `diagnose`.
    """

    name: str
    op: str
    unit: str = ""
    sqnr_db: float | None = None
    sqnr_local_db: float | None = None
    cosine: float | None = None
    macs: int | None = None
    latency_s: float | None = None
    energy_j: float | None = None
    readout: str | None = None
    range_ratio: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "range_ratio"}


@dataclass(frozen=True)
class Result:
    """What a run learned.  `extra` holds what only the report shows; its keys are listed in docs/design/report.md.

    `data_note` says what the samples are where that limits what an accuracy means ("synthetic voices"); it stands
    beside every accuracy shown.
    """

    model: ModelFacts
    chip: str
    seed: int
    calibration: str
    fits: bool = True
    bit_exact: BitExact | None = None
    onnx_agreement: OnnxAgreement | None = None
    coverage: Coverage | None = None
    metrics: Mapping[str, Metric] = field(default_factory=dict[str, Metric])
    accuracy_over: tuple[AccuracyPoint, ...] = ()
    sqnr_over: tuple[AccuracyPoint, ...] = ()  # without labels: outputs against the ideal chip's, in dB
    layers: tuple[LayerResult, ...] = ()
    infeasible: tuple[Infeasible, ...] = ()
    run_dir: str | None = None
    data_note: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def value(self, name: str) -> float | None:
        """The value of a metric; None where there is no such metric, or it is not known."""
        metric = self.metrics.get(name)
        return finite(metric.value) if metric else None

    def to_json(self) -> dict[str, Any]:
        """The one object of `insitu run --json`: finite numbers, null for not known."""
        shown = {
            "schema": SCHEMA,
            "model": vars(self.model),
            "chip": self.chip,
            "fits": self.fits,
            "seed": self.seed,
            "calibration": self.calibration,
            "bit_exact": vars(self.bit_exact) if self.bit_exact else None,
            "onnx_agreement": vars(self.onnx_agreement) if self.onnx_agreement else None,
            "coverage": vars(self.coverage) if self.coverage else None,
            "metrics": {name: metric.to_json() for name, metric in self.metrics.items()},
            "accuracy_over": [point.to_json() for point in self.accuracy_over],
            "sqnr_over": [point.to_json() for point in self.sqnr_over],
            "layers": [layer.to_json() for layer in self.layers],
            "constants": [c for c in self.extra.get("constants", ()) if any(c.get("elasticity", {}).values())][:TEN],
            "run_dir": self.run_dir,
        }
        if "baselines" in self.extra:
            shown["baselines"] = self.extra["baselines"]
        if not self.fits:
            shown["infeasible"] = [item.to_json() for item in self.infeasible]
        return plain(shown)


def finite(value: Any) -> float | None:
    """The number, or None for what is not known: None, NaN, infinity."""
    return float(value) if value is not None and math.isfinite(value) else None


def plain(value: Any) -> Any:
    """Nested data a JSON writer takes: NumPy scalars become Python's, NaN and infinity become None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in cast(Sequence[Any], value)]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
