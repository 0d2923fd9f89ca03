"""What a run's error owes to each constant of the physics: the same chip and draws, that constant larger.

Two chip instances run a few samples as they are, and once more for every constant of the effects that are on: a
quarter larger, or, where a published law stands for the constants, without the effect.  Of a large network one instance
runs, as it is and without each effect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.arch import cost as arch_cost
from insitu.arch.spec import Chip
from insitu.circuit.effects import Physics
from insitu.circuit.spec import Calibration
from insitu.flow.physics import Course, course, still
from insitu.graph.ops.macs import macs
from insitu.report.result import AccuracyPoint
from insitu.runtime.session import Session

Array = npt.NDArray[Any]
MOST_WORK = 2e10  # products of slices and planes: about twenty seconds of a core
INSTANCES, SAMPLES, FEW = 2, 32, 4
NO_ERROR = 300.0  # dB, beyond what float64 resolves
STEP = 1.25  # a constant is this much larger: less would drown in the rounding of codes
MOST_CELLS = 3e7  # weights times runs; a larger network is run without each effect only, a far larger one not at all
CONSTANTS: Mapping[str, tuple[str, ...]] = {
    "programming_noise": ("cell.programming.sd", "cell.programming.floor"),
    "stuck_cells": ("cell.stuck.off", "cell.stuck.on", "cell.stuck.open"),
    "drift": ("cell.drift.nu", "cell.drift.nu_sd"),
    "retention": ("cell.retention.per_decade", "cell.retention.sd"),
    "temperature": ("cell.activation",),
    "column_gain": ("physics.column_gain.bank_sd", "physics.column_gain.sd", "physics.column_gain.refine"),
    "column_offset": (
        "physics.column_offset.sd", "physics.column_offset.refine", "physics.column_offset.compensated",
    ),
    "ir_drop": ("physics.wires.row", "physics.wires.column"),
    "dac_nonlinearity": ("physics.dac.bow", "physics.dac.row_sd"),
    "read_noise": ("cell.read_sd",),
    "thermal_noise": (),
    "shot_noise": (),
    "flicker_noise": ("cell.noise.flicker",),
    "telegraph_noise": ("cell.noise.telegraph.amplitude", "cell.noise.telegraph.share"),
    "adc_noise": ("physics.adc_noise.sd",),
    "adc_offset": ("physics.adc.offset",),
    "adc_gain": ("physics.adc.gain",),
    "adc_inl": ("physics.adc.inl", "physics.adc.dnl"),
}  # fmt: skip
BY_LAW = ("programming_noise", "drift", "read_noise")  # effects that a cell's published law may stand for
UNITS = {"row": "Ohm", "column": "Ohm", "activation": "eV"}


@dataclass(frozen=True)
class Trial:
    """A program with the inputs that its error is measured on."""

    session: Session  # of the ideal chip
    codes: Mapping[str, Array]
    chip: Chip
    seed: int
    work: float = 0.0  # products of one sample, of all slices and input planes

    def take(self, samples: float) -> Trial:
        """The same with fewer samples."""
        return replace(self, codes={name: array[: max(1, int(samples))] for name, array in self.codes.items()})

    @property
    def samples(self) -> int:
        """How many samples run."""
        return len(next(iter(self.codes.values())))

    @property
    def weights(self) -> int:
        """Weights that arrays hold."""
        return int(self.session.program.meta.get("weights", 0))

    @cached_property
    def ideal(self) -> dict[str, Array]:
        """What the ideal chip puts out."""
        return self._outputs(self.session)

    def sqnr_db(self, effects: Physics, *, instance: int = 0) -> float:
        """Outputs against their error, in dB; NO_ERROR where nothing differs."""
        error = self.error(effects, instance=instance)
        return -20.0 * math.log10(error) if error else NO_ERROR

    def mean_error(self, effects: Physics, chip: Chip | None = None, *, instances: int = INSTANCES) -> float:
        """The error of a few instances together."""
        errors = [self.error(effects, chip, instance=i) for i in range(instances)]
        return math.sqrt(math.fsum(e * e for e in errors) / len(errors))

    def error(self, effects: Physics, chip: Chip | None = None, *, instance: int = 0) -> float:
        """Root mean square of the outputs' error over that of the outputs."""
        other = Session(
            self.session.program, physics=effects, instance=instance, seed=self.seed, graph=self.session.graph,
            chip=chip or self.chip, backend=self.session.backend,
        )  # fmt: skip
        seen = self._outputs(other)
        shares = [_mean_square(seen[n] - r) / (_mean_square(r) or 1.0) for n, r in self.ideal.items()]
        return math.sqrt(math.fsum(shares) / len(shares))

    def _outputs(self, session: Session) -> dict[str, Array]:
        streamed = bool(session.graph.states) and bool(session.graph.meta.get("frames"))
        found = session.stream(self.codes) if streamed else session.run_codes(self.codes)
        return {n: np.asarray(session.real(n, c), np.float64) for n, c in found.items()}


def trial_of(session: Session, inputs: Mapping[str, Array], chip: Chip, *, seed: int) -> Trial:
    """The first samples of a run's inputs on a session of the ideal chip."""
    graph, macro = session.graph, chip.macro
    work = float(sum(macs(graph, node) for node in graph.nodes)) * macro.passes * macro.weights.slices
    codes = session.codes({name: array[:SAMPLES] for name, array in inputs.items()})
    return Trial(session, codes, chip, seed, work)


def closeness_course(
    trial: Trial, effects: Physics, *, times: Sequence[float], instances: int,
    done: Callable[[int, int], None] = lambda n, of: None,
) -> Course:  # fmt: skip
    """Outputs of instances against the ideal chip's, in dB, at each time; of an ideal chip only why nothing moves."""
    if effects.ideal:
        why = still(effects, trial.chip)
        return Course(tuple(AccuracyPoint(time, (), why) for time in times[1:]))
    each = trial.work * len(times) * (2 if effects.calibration(trial.chip) != Calibration() else 1)
    if each > MOST_WORK:
        return Course(())
    fitting = min(MOST_CELLS / max(trial.weights, 1), MOST_WORK / (FEW * max(each, 1.0)))
    instances = max(1, min(instances, int(fitting)))
    trial, scored = trial.take(min(SAMPLES, MOST_WORK / max(each * instances, 1.0))), 0

    def score(physics: Physics, instance: int) -> float:
        nonlocal scored
        scored += 1
        done(scored, max(scored, instances))
        return trial.sqnr_db(physics, instance=instance)

    return course(score, effects, trial.chip, times=times, instances=instances)


def owed(trial: Trial, effects: Physics) -> list[dict[str, Any]]:
    """Rows of constants with `elasticity.error`: percent that the error grows for one percent of the constant.

    Empty for ideal physics, for an error of nothing, and for networks that a few runs would take minutes for.
    """
    weights = trial.weights
    parts = [(effect, paths(effect, trial.chip)) for effect in effects.effects]
    runs = INSTANCES * (1 + sum(max(1, len(found)) for _, found in parts))
    if effects.ideal or weights * INSTANCES * (1 + len(parts)) > 10 * MOST_CELLS:
        return []
    whole = weights * runs > MOST_CELLS or FEW * trial.work * runs > MOST_WORK
    instances = 1 if whole else INSTANCES  # cells of a large network take longer to draw than a sample takes to run
    work = trial.work * (instances * (1 + len(parts)) if whole else runs)
    if work > MOST_WORK:
        return []
    trial = trial.take(min(SAMPLES, MOST_WORK / max(work, 1.0)))
    base = trial.mean_error(effects, instances=instances)
    if not base:
        return []
    rows: list[dict[str, Any]] = []
    for effect, found in parts:
        if whole or not found:
            without = replace(effects, effects=tuple(e for e in effects.effects if e != effect))
            error = trial.mean_error(without, instances=instances)
            rows.append(_effect_row(trial.chip, effect, 1.0 - (error / base) ** 2))
            continue
        for path in found:
            larger = trial.mean_error(effects, scaled(trial.chip, path.split("."), STEP))
            rows.append(_row(trial.chip, path, math.log(larger / base) / math.log(STEP) if larger else 0.0))
    return rows


def paths(effect: str, chip: Chip) -> tuple[str, ...]:
    """The constants of an effect that this chip has and that are not zero; none where a law stands for them."""
    if chip.cell.law is not None and effect in BY_LAW and not (effect == "read_noise" and not chip.cell.noisy_law):
        return ()
    return tuple(path for path in CONSTANTS[effect] if _known(value_at(chip, path)))


def _known(value: Any) -> bool:
    return bool(any(value)) if isinstance(value, tuple) else bool(value)


def value_at(chip: Chip, path: str) -> Any:
    """The value at a dotted path of a chip; None where a part on the way is absent."""
    return reduce(lambda node, key: getattr(node, key, None), path.split("."), chip)


def scaled(node: Any, keys: Sequence[str], factor: float) -> Any:
    """A copy with the number, or every number, at the path multiplied; not validated again."""
    old = getattr(node, keys[0])
    if len(keys) > 1:
        new = scaled(old, keys[1:], factor)
    else:
        new = tuple(v * factor for v in old) if isinstance(old, tuple) else old * factor
    return node.model_copy(update={keys[0]: new})


def _row(chip: Chip, path: str, elasticity: float) -> dict[str, Any]:
    kind, source = origin(chip, path)
    value = value_at(chip, path)
    shown = ", ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else value
    unit = UNITS.get(path.rsplit(".", 1)[-1], "1")
    return _weighed({"name": path, "value": shown, "unit": unit, "source": source, "kind": kind}, elasticity)


def _effect_row(chip: Chip, effect: str, share: float) -> dict[str, Any]:
    """An effect as a whole: the share of the squared error that goes with it, as if it had one constant."""
    key = "cell.law" if chip.cell.law is not None and effect in BY_LAW else (*CONSTANTS[effect], "cell.noise")[0]
    kind, source = origin(chip, key)
    value = chip.cell.law if key == "cell.law" else None
    name = f"{key} ({effect.replace('_', ' ')})"
    return _weighed({"name": name, "value": value, "unit": "", "source": source, "kind": kind}, share)


def origin(chip: Chip, path: str) -> tuple[str, str]:
    """Kind and source of a constant; those of a cell stand with the cell unless the chip's file has its own."""
    kind, source = arch_cost.origin_of(chip, path)
    keys = path.split(".")
    known = [chip.cell.sources.get(".".join(keys[1:n])) for n in range(len(keys), 1, -1)] if keys[0] == "cell" else []
    text = next((t for t in known if t), None)
    if text is None or any(chip.sources.get(".".join(keys[:n])) for n in range(len(keys), 1, -1)):
        return kind, source
    return ("assumed" if "assum" in text else "modelled" if "derived" in text else "measured"), text


def _weighed(row: dict[str, Any], elasticity: float) -> dict[str, Any]:
    words = {"weighs": f"{100 * elasticity:+.0f} % of the error"} if abs(elasticity) >= 0.005 else {}
    return {**row, "elasticity": {"energy_j": 0.0, "latency_s": 0.0, "error": round(elasticity, 4)}, **words}


def _mean_square(values: Array) -> float:
    return float((values * values).mean()) if values.size else 0.0
