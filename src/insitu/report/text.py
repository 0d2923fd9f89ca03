"""Numbers as people read them: percent for fractions, prefixed units, "not known" for what is not known."""

from __future__ import annotations

from insitu.base.metrics import Metric
from insitu.base.units import KINDS, format_quantity
from insitu.report.result import finite

UNKNOWN = "not known"

_COMPONENTS = {
    "adc": "the ADCs", "dac": "the DACs", "array": "the arrays", "leakage": "leakage", "sram": "the SRAM",
    "ram": "the RAM", "vector": "the vector unit", "memory": "the memory", "host": "the host CPU",
    "awake": "all that is awake meanwhile",
    "control": "control", "link": "links", "weights": "loading weights", "dma": "data movement",
}  # fmt: skip
_TITLES = {
    "accuracy_float": "Accuracy, float network", "accuracy_quantized": "Accuracy, quantized network",
    "accuracy_chip_mean": "Accuracy on the chip, mean", "accuracy_chip_std": "Accuracy on the chip, spread",
    "accuracy_chip_min": "Accuracy on the chip, worst instance", "sqnr_db": "Signal to quantization noise",
    "cosine": "Cosine to the float outputs",
    "latency_s": "Time of one inference", "energy_j": "Energy of one inference",
    "energy_floor_j": "Energy with the best converters", "energy_pessimistic_j": "Energy with the worst converters",
    "throughput_per_s": "Inferences per second", "power_w": "Mean power", "area_mm2": "Chip area",
    "peak_tops": "Peak rate", "tops_per_w": "Efficiency", "array_utilization": "Array cells in use",
    "program_bytes": "Program size", "chips": "Chips", "segments": "Loads of the macros",
    "load_s": "Time to load all weights", "exposed_load_s": "Loading that nothing hides",
    "cells_gap": "Cells above the least possible", "latency_gap": "Time above the busiest unit's work",
    "cost_usd": "Cost of a chip", "junction_k": "Temperature of the cells",
    "throughput_gap": "Time between results above the busiest unit's work", "copies": "Copies of layers",
    "copies_gap": "Estimate above the least with any copies", "stage_gap": "Longest stage above an even share",
    "search_gap": "Searched placement above the proven bound",
    "setup_s": "Time to set up, once", "setup_energy_j": "Energy to set up, once",
}  # fmt: skip
_FRACTIONS = (
    "accuracy",
    "array_utilization",
    "cells_gap",
    "latency_gap",
    "throughput_gap",
    "copies_gap",
    "stage_gap",
    "search_gap",
)
_PER_SECOND = ("1/s", "s-1", "/s")


def percent(value: float | None, digits: int = 1) -> str:
    """0.934 as "93.4 %"."""
    return UNKNOWN if finite(value) is None else f"{100.0 * float(value or 0.0):.{digits}f} %"


def quantity(value: float | None, unit: str, *, digits: int = 3) -> str:
    """A value with its unit: "4.21 ms", "31.2 dB", "237 per s"."""
    if finite(value) is None:
        return UNKNOWN
    if unit in ("", "1"):
        return format_quantity(value, "1", digits=digits)
    if unit in _PER_SECOND:
        return f"{format_quantity(value, '1', digits=digits)} per s"
    if unit == "dB":
        return f"{float(value or 0.0):.1f} dB"
    if unit not in KINDS and abs(float(value or 0.0)) >= 1000 and float(value or 0.0).is_integer():
        return f"{value:,.0f} {unit}"
    return format_quantity(value, unit, digits=digits)


def metric_text(name: str, metric: Metric | None) -> str:
    """A metric for people: accuracies and utilisations in percent, everything else with its unit."""
    if metric is None:
        return UNKNOWN
    if metric.unit == "1" and name.startswith(_FRACTIONS):
        return percent(metric.value)
    return quantity(metric.value, metric.unit)


def metric_title(name: str) -> str:
    """What a metric is called in a table."""
    if name.startswith("energy_breakdown."):
        return f"Energy of {component_name(name.removeprefix('energy_breakdown.').removesuffix('_j'))}"
    return _TITLES.get(name, name.replace("_", " "))


def component_name(key: str) -> str:
    """The words for a component of the energy breakdown."""
    return _COMPONENTS.get(key, key.replace("_", " "))


def count(value: float | None) -> str:
    """1234567 as "1.23 M", 12345 as "12,345"; for MACs and parameters."""
    if value is None or finite(value) is None:
        return UNKNOWN
    for bound, name in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= bound:
            return f"{value / bound:.3g} {name}"
    return f"{value:,.0f}"


def time_label(seconds: float) -> str:
    """How long after programming."""
    return "fresh" if seconds == 0 else f"after {format_quantity(seconds, 's')}"


def short_name(name: str, length: int) -> str:
    """A path-like name in at most `length` characters: leading parts shrink to a letter and their digits.

    "/encoder/layers.3/self/matmul" is "e/l3/s/matmul"; what is still too long loses its middle.
    """
    parts = name.strip("/").split("/")
    for i in range(len(parts) - 1):
        if len("/".join(parts)) <= length:
            break
        parts[i] = parts[i][:1] + "".join(c for c in parts[i][1:] if c.isdigit())
    text = "/".join(parts)
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"
