"""A cell from a user's measurements: a CSV of target, measured level and, if known, seconds after programming."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.errors import ConfigError
from insitu.device.cell import CellSpec, Drift, Programming

Floats = npt.NDArray[np.float64]
NEEDED = ("target", "measured")
LEAST, MOST_TERMS, AT_LEVEL = 30, 5, 8


@dataclass(frozen=True)
class CellFit:
    """A fitted cell and how good it is: r2 of the spread over levels, and what it leaves unexplained."""

    cell: CellSpec
    samples: int
    levels: int
    r2: float
    rms_residual: float
    bias: float
    drift_samples: int

    def text(self) -> str:
        """What a person wants to know of the fit, as comment lines."""
        lines = [
            f"{self.samples} measurements of {self.levels} levels",
            f"spread: r2 {self.r2:.3f}, residual {self.rms_residual:.2e} of full scale",
            f"mean error {self.bias:+.2e} of full scale (not modelled)",
            f"drift from {self.drift_samples} cells measured more than once" if self.drift_samples else "no drift data",
        ]
        return "".join(f"# {line}\n" for line in lines)


def fit_cell(text: str, *, base: CellSpec, name: str, where: str = "csv") -> CellFit:
    """A cell like `base` with the programming error, and drift if there is any, that the measurements show.

    Columns: target and measured in the same unit; optional time (seconds, the earliest is the programmed level) and
    cell (an identifier, so that a cell's later readings are known to be its own).
    """
    rows = _read(text, where)
    full = float(np.max(np.abs(rows["target"])))
    first = rows["time"] <= rows["time"].min()
    target, error = rows["target"][first] / full, (rows["measured"] - rows["target"])[first] / full
    levels, spreads, counts = _spreads(target, error, where)
    coefficients, r2, residual = _polynomial(levels, spreads, counts)
    exponents, t0 = _exponents(rows)
    update: dict[str, Any] = {
        "name": name,
        "programming": Programming(sd=tuple(float(f"{c:.6g}") for c in coefficients)),
        "drift": _drift(exponents, t0),
        "law": None,
        "sources": {
            **base.sources,
            "programming": f"measured: fitted to {where}",
            "drift": f"measured: fitted to {where}",
        },
    }
    cell = base.model_copy(update=update)
    return CellFit(cell, int(first.sum()), len(levels), r2, residual, float(error.mean()), len(exponents))


def cell_yaml(fit: CellFit) -> str:
    """The cell as a file for the library or for a chip, its goodness of fit on top."""
    from insitu.base.schema import dump_yaml

    return fit.text() + dump_yaml(fit.cell)


def read_csv(path: str | Path) -> str:
    """A measurement file as text."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(str(path), "cannot be read", "a CSV with columns target, measured[, time, cell]") from None


def _read(text: str, where: str) -> dict[str, Floats]:
    table = csv.DictReader(io.StringIO(text))
    names = [name.strip() for name in table.fieldnames or ()]
    absent = [name for name in NEEDED if name not in names]
    if absent:
        raise ConfigError(where, f"columns {', '.join(names) or 'none'}", f"a column called {absent[0]}")
    rows: dict[str, list[float]] = {name: [] for name in ("target", "measured", "time", "cell")}
    for line, record in enumerate(table, start=2):
        clean = {(key or "").strip(): (value or "").strip() for key, value in record.items() if isinstance(value, str)}
        for name in rows:
            try:
                rows[name].append(float(clean[name]) if name in names else (0.0 if name == "time" else float(line)))
            except ValueError:
                raise ConfigError(f"{where}:{line}: {name}", repr(clean.get(name)), "a number") from None
    if len(rows["target"]) < LEAST or not any(rows["target"]):
        raise ConfigError(where, f"{len(rows['target'])} measurements", f"at least {LEAST}, of levels above zero")
    return {name: np.array(values) for name, values in rows.items()}


def _spreads(target: Floats, error: Floats, where: str) -> tuple[Floats, Floats, Floats]:
    """Standard deviation at each level; levels that are all different are gathered in groups of neighbours."""
    levels, place = np.unique(target, return_inverse=True)
    if len(target) / len(levels) < AT_LEVEL:
        order = np.argsort(target)
        groups = np.array_split(order, max(3, len(target) // (2 * AT_LEVEL)))
    else:
        groups = [np.flatnonzero(place == i) for i in range(len(levels))]
    groups = [g for g in groups if len(g) > 2]
    if len(groups) < 2:
        raise ConfigError(where, f"{len(groups)} levels", "at least two levels, each measured on several cells")
    middles = np.array([target[g].mean() for g in groups])
    return middles, np.array([error[g].std(ddof=1) for g in groups]), np.array([len(g) for g in groups], float)


def _polynomial(levels: Floats, spreads: Floats, counts: Floats) -> tuple[Floats, float, float]:
    """Coefficients, r2 and residual of the polynomial that the Bayesian criterion prefers."""
    best: tuple[float, Floats, Floats] | None = None
    for terms in range(1, min(MOST_TERMS, len(levels) - 1 or 1) + 1):
        powers = levels[:, None] ** np.arange(terms)
        weight = np.sqrt(counts)[:, None]
        found: Floats = np.asarray(np.linalg.lstsq(powers * weight, spreads * weight[:, 0], rcond=None)[0], np.float64)
        left = spreads - powers @ found
        score = len(levels) * np.log(np.average(left**2, weights=counts) + 1e-30) + terms * np.log(len(levels))
        if best is None or score < best[0]:
            best = (float(score), found, left)
    assert best is not None
    _, found, left = best
    around = np.average((spreads - np.average(spreads, weights=counts)) ** 2, weights=counts)
    unexplained = np.average(left**2, weights=counts)
    r2 = 1.0 - unexplained / around if around > 0 else 1.0
    return found, float(max(r2, 0.0)), float(np.sqrt(unexplained))


def _exponents(rows: dict[str, Floats]) -> tuple[Floats, float]:
    """Drift exponent of every cell with readings at several times, and the first of those times."""
    exponents: list[float] = []
    start = max(float(rows["time"].min()), 1e-9)
    for cell in np.unique(rows["cell"]):
        mine = (rows["cell"] == cell) & (rows["measured"] > 0)
        times = np.maximum(rows["time"][mine], start)
        if len(np.unique(times)) > 1:
            exponents.append(-float(np.polyfit(np.log(times), np.log(rows["measured"][mine]), 1)[0]))
    return np.array(exponents), start


def _drift(exponents: Floats, t0: float) -> Drift | None:
    if not len(exponents):
        return None
    sd = float(exponents.std(ddof=1)) if len(exponents) > 1 else 0.0
    return Drift(nu=max(float(f"{exponents.mean():.6g}"), 0.0), nu_sd=float(f"{sd:.6g}"), t0=t0)
