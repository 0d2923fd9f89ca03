"""What was compared, as plain text: a line a chip and quantity, what is missing, and the statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from insitu.validate.compare import Row, report
from insitu.validate.sweeps import sweeps

NAMES = {"tops_per_w": "energy efficiency", "tops": "throughput", "latency_s": "time of a pass or product"}


def table(rows: Sequence[Row]) -> str:
    """Plain text: a line a chip and quantity, then what is missing, then the statistics."""
    lines = [f"{'chip':<32} {'split':<12} {'quantity':<11} {'published':>11} {'modelled':>11} {'factor':>7}"]
    lines += [line for row in rows for line in _lines(row)]
    lines += ["", *missing(rows), *filled_in(rows), "", *closing(rows)]
    return "\n".join(lines)


def missing(rows: Sequence[Row]) -> list[str]:
    """Chips with a figure that cannot be modelled, and the fields that this takes."""
    return [f"{row.entry.name}: not enough data: {'; '.join(row.missing)}" for row in rows if row.missing]


def filled_in(rows: Sequence[Row]) -> list[str]:
    """Chips with fields that came from technology defaults."""
    return [f"{row.entry.name}: filled in: {'; '.join(row.defaults)}" for row in rows if row.defaults]


def closing(rows: Sequence[Row]) -> list[str]:
    """Statistics of each quantity and split, of the sweeps, and of the constants."""
    found = report(rows)["summary"]
    lines = [
        f"{name}, {split}: {_chips(row['chips'])}, median factor {row['median_factor']:.2f}, "
        f"90 % within {row['p90_factor']:.2f}"
        + (f"; beyond 3: {', '.join(row['beyond_3'])}" if row["beyond_3"] else "")
        for name, splits in found["by_quantity"].items()
        for split, row in splits.items()
        if row["chips"]
    ]
    lines += [
        f"sweep of {sweep.chip}, {sweep.quantity}: {len(sweep.errors)} points, "
        f"{len(sweep.factors)} scale factors on {sweep.fitted_on}, median error {100 * sweep.median_error:.1f} %"
        for sweep in sweeps()
    ]
    return [*lines, constants_line(found["constants"])]


def constants_line(found: Mapping[str, object]) -> str:
    """How many constants were fitted on how many chips."""
    energy, time, names = (found[key] for key in ("energy", "time", "names"))
    assert isinstance(energy, dict)
    assert isinstance(time, dict)
    assert isinstance(names, list)
    return (
        f"{energy['fitted']} shared constants of energy fitted on {energy['calibration_rows']} calibration chips, "
        f"{time['fitted']} of time on {time['calibration_rows']}: {', '.join(names)}"
    )


def _chips(count: int) -> str:
    return "1 chip" if count == 1 else f"{count} chips"


def mean(values: Mapping[str, float]) -> float:
    """Geometric mean over operating points."""
    return math.exp(math.fsum(math.log(v) for v in values.values()) / len(values))


def _lines(row: Row) -> list[str]:
    lines: list[str] = []
    for name, figure in row.figures.items():
        given = mean({point: figure.published[point] for point in figure.modelled})
        more = "" if figure.prediction else "  (the published clock: a consistency check)"
        lines.append(
            f"{row.entry.name:<32} {row.entry.split:<12} {name:<11} {given:>11.4g} {mean(figure.modelled):>11.4g} "
            f"{figure.factor:>7.2f}{more}"
        )
    return lines
