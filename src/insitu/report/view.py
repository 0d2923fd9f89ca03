"""What the page says first: the verdict in a sentence, five tiles, and what needs attention."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from insitu.report.diagnose import broken_text
from insitu.report.origins import metric_anchor
from insitu.report.result import Result
from insitu.report.text import UNKNOWN, count, metric_text, percent, quantity

CALIBRATION = {
    "file": "inputs given with --calib",
    "data": "a seeded sample of the data, excluded from the accuracy",
    "data-overlap": "a seeded sample of the data, which also counts in the accuracy",
    "random": "seeded random inputs",
    "model": "the scales that the model brought along",
}


@dataclass(frozen=True)
class Words:
    """A piece of a line; with an anchor it is a number that links to its origin."""

    text: str
    anchor: str = ""


Line = tuple[Words, ...]


@dataclass(frozen=True)
class Tile:
    """One answer: a label, a value, lines of details; `tone` is ok, bad, unknown or plain."""

    label: str
    value: str
    details: tuple[Line, ...]
    anchor: str
    source: str
    tone: str = "plain"
    tag: str = ""


def tiles(result: Result) -> list[Tile]:
    """Accuracy on the chip, speed, energy, does it fit, same numbers?"""
    shown = [_quality(result), _speed(result), _energy(result), _fit(result), _numbers(result)]
    return shown if result.fits else [tile for tile in shown if tile.source]


def _quality(result: Result) -> Tile:
    if not any(_known(result, name) for name in ("accuracy_chip_mean", "accuracy_quantized", "sqnr_db")):
        return Tile("Accuracy on the chip", UNKNOWN, _plain("no data with labels was given"), "", "", "unknown")
    if _known(result, "accuracy_chip_mean"):
        name, label = "accuracy_chip_mean", "Accuracy on the chip"
    elif _known(result, "accuracy_quantized"):
        name, label = "accuracy_quantized", "Accuracy, quantized"
    else:
        return _metric_tile(result, "sqnr_db", "Signal kept", _plain("signal to quantization noise, no labels given"))
    return replace(_metric_tile(result, name, label, _accuracy_details(result)), tag=result.data_note)


def _accuracy_details(result: Result) -> tuple[Line, ...]:
    spread: list[Words] = []
    if _known(result, "accuracy_chip_std") and result.accuracy_over:
        chips = f" over {len(result.accuracy_over[0].values)} chips, "
        spread = [
            _number(result, "accuracy_chip_std", "± {}"),
            Words(chips),
            _number(result, "accuracy_chip_min", "worst {}"),
        ]
    names = [name for name in ("float", "quantized") if _known(result, f"accuracy_{name}")]
    stages = [_number(result, f"accuracy_{name}", f"{name} {{}}") for name in names]
    between = [Words(", ")] if len(stages) == 2 else []
    lines = (tuple(spread), (*stages[:1], *between, *stages[1:]))
    return tuple(line for line in lines if line)


def _speed(result: Result) -> Tile:
    known = _known(result, "throughput_per_s")
    return _metric_tile(
        result, "latency_s", "Time per inference", ((_number(result, "throughput_per_s", "{}"),),) if known else ()
    )


def _energy(result: Result) -> Tile:
    shown = (("power_w", "{} mean power"), ("tops_per_w", "{}"))
    details = tuple((_number(result, name, words),) for name, words in shown if _known(result, name))
    return _metric_tile(result, "energy_j", "Energy per inference", details)


def _metric_tile(result: Result, name: str, label: str, details: tuple[Line, ...]) -> Tile:
    tone = "plain" if _known(result, name) else "unknown"
    return Tile(label, _metric(result, name), details, _anchor(result, name), _source(result, name), tone)


def _fit(result: Result) -> Tile:
    if not result.fits:
        return Tile("Does it fit?", "No", _plain(*map(str, result.infeasible[:2])), "infeasible", "", "bad")
    name = "array_utilization"
    details = [(_number(result, name, "{} of the cells"),)] if _known(result, name) else []
    for space in [space for space in result.extra.get("memory", ()) if space.get("size")][:1]:
        used = sum(float(part["bytes"]) for part in space["used"])
        words = f"{quantity(used, 'B')} of {quantity(float(space['size']), 'B')} {space['space']}"
        details.append((Words(words, "figure-memory"),))
    return Tile("Does it fit?", "Yes", tuple(details), _anchor(result, name), _source(result, name), "ok")


def _numbers(result: Result) -> Tile:
    check = result.bit_exact
    if check is None:
        return Tile("Same numbers?", UNKNOWN, _plain("not checked"), "", "", "unknown")
    lines = [f"{check.mismatches:,} of {check.checked_values:,} integers differ"]
    if check.excluded_values:
        lines.append(f"{check.excluded_values:,} on the host not compared")
    answer, tone = ("No", "bad") if check.mismatches else ("Yes", "ok")
    return Tile("Same numbers?", answer, _plain(*lines), "origin-bit-exact", "measured", tone)


def _plain(*lines: str) -> tuple[Line, ...]:
    return tuple((Words(line),) for line in lines)


def _number(result: Result, name: str, words: str) -> Words:
    return Words(words.format(_metric(result, name)), _anchor(result, name))


def _known(result: Result, name: str) -> bool:
    return result.value(name) is not None


def _source(result: Result, name: str) -> str:
    metric = result.metrics.get(name)
    return metric.source if metric and _known(result, name) else ""


def _anchor(result: Result, name: str) -> str:
    return metric_anchor(name) if _known(result, name) else ""


def _metric(result: Result, name: str) -> str:
    return metric_text(name, result.metrics.get(name))


def verdict(result: Result) -> str:
    """The answer in one sentence."""
    name, chip = result.model.name, result.chip
    if not result.fits:
        return f"{name} does not fit {chip}{_short(result)}."
    parts = [f"{name} fits {chip}"]
    if result.bit_exact and result.bit_exact.mismatches == 0:
        parts.append("computes the same integers there as its quantized graph")
    if _known(result, "accuracy_chip_mean"):
        note = f" ({result.data_note})" if result.data_note else ""
        parts.append(f"answers {_metric(result, 'accuracy_chip_mean')} of the samples{note} correctly")
    elif _known(result, "sqnr_db"):
        parts.append(f"keeps {_metric(result, 'sqnr_db')} of the signal")
    if _known(result, "latency_s"):
        cost = f" and {_metric(result, 'energy_j')}" if _known(result, "energy_j") else ""
        parts.append(f"takes {_metric(result, 'latency_s')}{cost} for each")
    return f"{', '.join(parts[:-1])} and {parts[-1]}." if len(parts) > 1 else f"{parts[0]}."


def _short(result: Result) -> str:
    """How much more is asked for than there is."""
    needs = [f"{i.demand / i.bound:.3g} times the {i.resource}" for i in result.infeasible if i.bound]
    if not needs:
        return ""
    return f": it needs {', '.join(needs[:-1])} and {needs[-1]}" if len(needs) > 1 else f": it needs {needs[0]}"


def alerts(result: Result) -> list[str]:
    """What a reader must know before the numbers."""
    found: list[str] = []
    check = result.bit_exact
    if check and check.mismatches:
        first = ", ".join(f"{key} {value}" for key, value in (check.first or {}).items())
        found.append(
            f"{check.mismatches:,} integers differ from the quantized graph's: this is a fault. First: {first}."
        )
    broken = broken_text(result) if result.fits else None
    return [*found, broken] if broken else found


def facts(result: Result) -> list[tuple[str, str]]:
    """How the run was made: name and value."""
    model, extra = result.model, result.extra
    shown: list[tuple[str, Any]] = [
        ("Network", f"{model.name}: {count(model.parameters)} parameters, {count(model.macs)} MACs per inference"),
        ("Chip", extra.get("chip_text") or result.chip),
        ("Data", extra.get("data")),
        ("Calibration", CALIBRATION.get(result.calibration, result.calibration)),
        ("Physics", extra.get("physics")),
        ("Seed", result.seed),
        ("On the arrays", _coverage(result)),
        ("ONNX Runtime", _agreement(result)),
        ("Command", extra.get("command")),
        ("Run folder", result.run_dir),
        ("Versions", extra.get("versions")),
    ]
    return [(name, str(value)) for name, value in shown if value not in (None, "")]


def _coverage(result: Result) -> str | None:
    cover = result.coverage
    if cover is None or cover.array_macs_fraction is None:
        return None
    hosts = ", ".join(f"{n} {op}" for op, n in sorted(cover.host_ops.items()))
    return f"{percent(cover.array_macs_fraction)} of the MACs; on the host: {hosts or 'nothing'}"


def _agreement(result: Result) -> str | None:
    onnx = result.onnx_agreement
    if onnx is None:
        return None
    words = f"{percent(onnx.equal_fraction, 3)} of the values of {onnx.operators} operators are equal"
    return f"{words}, the others at most {onnx.max_difference} apart"
