"""A cell as one page of plain text: what is known of it, where from, and what is not known."""

from __future__ import annotations

from collections.abc import Iterator

from insitu.base.units import format_quantity
from insitu.device.cell import CellSpec
from insitu.device.laws import law_of

UNKNOWN = "not known"
REASONS = ("not known", "none", "does not apply", "not counted")  # how a source begins that says why there is no value
# property -> its key among the sources
KEYS = {
    "conductance": "conductance", "read voltage": "read_voltage", "read pulse": "read_pulse", "write": "write",
    "residual error": "programming", "endurance": "endurance", "drift": "drift", "retention": "retention",
    "temperature": "activation", "read noise": "read_sd", "stuck cells": "stuck",
}  # fmt: skip


def describe_cell(cell: CellSpec) -> str:
    """The page that `insitu show CELL` prints, ending in a newline."""
    kept = "keeps its level without power" if cell.nonvolatile else "loses its level without power"
    lines = [f"{cell.name} ({cell.kind}), {kept}", ""]
    lines += [f"{name:<16}{value}" for name, value in cell_rows(cell)]
    lines += ["", "sources (! = assumption)"]
    lines += [f"{'!' if 'assum' in text else ' '} {key}: {text}" for key, text in cell.sources.items()]
    return "\n".join(lines) + "\n"


def cell_rows(cell: CellSpec) -> Iterator[tuple[str, str]]:
    """Every property that a cell can have, and its value, or what its sources say of why there is none."""
    for name, value in _rows(cell):
        said = cell.sources.get(KEYS.get(name, ""), "")
        yield name, said if value == UNKNOWN and said.startswith(REASONS) else value


def _rows(cell: CellSpec) -> Iterator[tuple[str, str]]:
    law = law_of(cell.law) if cell.law else None
    yield "levels", f"{cell.levels + 1} ({cell.bits} bits)"
    yield "area", f"{cell.area_f2:g} F2"
    yield "conductance", _range(cell)
    yield "read voltage", _quantity(cell.read_voltage, "V")
    yield "read pulse", _quantity(cell.read_pulse, "s")
    yield "write", _write(cell)
    yield "residual error", law.source if law else _programming(cell)
    yield "endurance", UNKNOWN if cell.endurance is None else f"{cell.endurance:.3g} writes"
    yield "drift", law.source if law and law.moves else _drift(cell)
    yield "retention", _retention(cell)
    yield (
        "temperature",
        UNKNOWN if cell.activation is None else f"{cell.activation:g} eV (Arrhenius, of drift and retention)",
    )
    yield "read noise", law.source if law and law.noisy else _noise(cell)
    yield "stuck cells", _stuck(cell)


def _range(cell: CellSpec) -> str:
    if cell.conductance is not None:
        off, on = (format_quantity(g, "S") for g in cell.conductance)
        return f"{off} to {on}"
    return UNKNOWN if cell.read_current is None else f"0 to {format_quantity(cell.read_current, 'A')} of read current"


def _quantity(value: float | None, unit: str) -> str:
    return UNKNOWN if value is None else format_quantity(value, unit)


def _write(cell: CellSpec) -> str:
    given = cell.write
    if given is None:
        return UNKNOWN
    pulses = UNKNOWN if given.pulses is None else f"{given.pulses:g}"
    accept = UNKNOWN if given.accept is None else f"{100 * given.accept:g} % of full scale"
    return (
        f"pulses {pulses}, time {_quantity(given.time, 's')}, energy {_quantity(given.energy, 'J')}, accepts {accept}"
    )


def _programming(cell: CellSpec) -> str:
    if cell.programming is None:
        return "none: exact bits" if not cell.analog else UNKNOWN
    terms = " + ".join(f"{c:g} r^{i}" if i else f"{c:g}" for i, c in enumerate(cell.programming.sd))
    return f"sd {terms} of full scale, {100 * cell.programming.refine:g} % left by each refine pass"


def _drift(cell: CellSpec) -> str:
    given = cell.drift
    if given is None:
        return "none: exact bits" if not cell.analog else UNKNOWN
    return f"((t + {given.t0:g} s) / {given.t0:g} s)^-nu, nu {given.nu:g} +- {given.nu_sd:g}"


def _retention(cell: CellSpec) -> str:
    given = cell.retention
    if given is None:
        return UNKNOWN
    leak = "" if given.tau is None else f", time constant {_quantity(given.tau, 's')}"
    return (
        f"{100 * given.per_decade:g} % +- {100 * given.sd:g} % lost per decade after {_quantity(given.t0, 's')}{leak}"
    )


def _noise(cell: CellSpec) -> str:
    parts = [f"{100 * cell.read_sd:g} % of full scale a read"] if cell.read_sd else []
    noise = cell.noise
    if noise is not None:
        named = (
            ("thermal", noise.thermal),
            ("shot", noise.shot),
            ("1/f", noise.flicker > 0),
            ("telegraph", noise.telegraph),
        )
        parts += [f"{name} from first principles" for name, on in named if on]
    return ", ".join(parts) or ("none: exact bits" if not cell.analog else UNKNOWN)


def _stuck(cell: CellSpec) -> str:
    given = cell.stuck
    if given is None:
        return UNKNOWN
    return f"{100 * given.off:g} % off, {100 * given.on:g} % on, {100 * given.open:g} % open"
