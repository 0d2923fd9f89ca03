"""`insitu simulate`: a program on samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.arch.load import chip_from_json
from insitu.base.errors import DataError
from insitu.base.store import write_npz
from insitu.circuit.effects import Physics
from insitu.cli import console
from insitu.cli.programs import blamed, load_checked, session_of
from insitu.flow import figures
from insitu.flow.data import Samples, load_samples, read_npz
from insitu.flow.dump import dump_layers
from insitu.flow.physics import parse_times, still
from insitu.flow.quality import Closeness, accuracy
from insitu.graph.graph import Graph
from insitu.isa.program import Program
from insitu.numeric.affine import dequantize
from insitu.report.result import AccuracyPoint
from insitu.report.text import metric_text, percent, quantity
from insitu.runtime.session import Session
from insitu.sim.backends import check_backend
from insitu.sim.trace import write_trace

Array = npt.NDArray[Any]
Codes = dict[str, Array]


@dataclass(frozen=True)
class Request:
    """A simulation as typed."""

    program: str
    data: str
    outputs: str | None = None
    trace: str | None = None
    dump: str | None = None
    steps: bool = False
    physics: str = "ideal"
    instances: int = 1
    times: str = "0s"
    seed: int = 0
    backend: str = "cpu"
    json: bool = False


def run(request: Request) -> int:
    """Simulate, write what was asked for, print the summary; returns the exit code."""
    times = parse_times(request.times, where="--time")
    check_backend(request.backend, where="--backend")
    program, graph = load_checked(request.program)
    chip = chip_from_json(program.chip)
    effects = Physics.parse(request.physics, chip)
    sizes = _sizes(program, graph, request.data) if program.sizes else {}
    samples = load_samples(request.data, graph.bind(sizes))
    with blamed(program, request.program):
        cost = figures.cost(program.bind(sizes), chip)
        heat = figures.heat(cost, program, chip)
        effects = replace(effects, temperature=heat.value)
        sessions = [
            session_of(
                program,
                graph,
                physics=effects.after(t),
                instance=i,
                seed=request.seed,
                sizes=sizes,
                backend=request.backend,
            )
            for t in times
            for i in range(request.instances)
        ]
        found = _simulated(sessions, samples, steps=request.steps)
    if request.outputs is not None:
        write_npz(request.outputs, _arrays(sessions[0], found, times=len(times)))
    if request.dump is not None:
        stream = request.steps or bool(sessions[0].graph.meta.get("frames"))
        dump_layers(sessions[0].graph, sessions[0].codes(samples.inputs), request.dump, stream=stream)
    if request.trace is not None:
        write_trace(request.trace, program.bind(sizes), cost.timing)
    metrics = cost.metrics | {"junction_k": heat}
    facts = _facts(request, sessions[0], samples, found, times) | {"metrics": metrics}
    if len(times) > 1 and (why := still(effects, chip)):
        facts["note"] = why
    console.put_json({"schema": 1, **facts}) if request.json else console.put(_text(request, facts))
    return 0


def _sizes(program: Program, graph: Graph, data: str) -> dict[str, int]:
    """The sizes bound at run time, from the arrays of the data file."""
    arrays, sizes = read_npz(data), dict[str, int]()
    for name in graph.inputs:
        array = arrays.get(name, arrays.get("x") if len(graph.inputs) == 1 else None)
        shape = graph.type(name).shape
        for size, got in zip(reversed(shape), reversed(array.shape[1:] if array is not None else ()), strict=False):
            if isinstance(size, str) and sizes.setdefault(size, got) != got:
                raise DataError(data, f"{size} = {got} and {sizes[size]}", "one size of that name")
    missing = [name for name in program.sizes if name not in sizes]
    if missing:
        raise DataError(data, f"nothing says how large {', '.join(missing)} is", "arrays of the inputs' shapes")
    return sizes


def _simulated(sessions: list[Session], samples: Samples, *, steps: bool) -> list[Codes]:
    """Output codes of every instance."""
    codes, progress = sessions[0].codes(samples.inputs), console.Progress()
    steps = steps or bool(sessions[0].graph.meta.get("frames"))  # such a network takes frame after frame
    if sessions[0].graph.states and not steps:
        console.note("This program has states; its samples run as first steps. --steps makes them one stream.")
    found: list[Codes] = []
    for index, session in enumerate(sessions):
        found.append(session.stream(codes) if steps else session.run_codes(codes))
        progress("simulate", index + 1, len(sessions))
    progress.end()
    return found


def _arrays(session: Session, found: list[Codes], *, times: int = 1) -> Codes:
    """Each output dequantized under its name and its integers under NAME__int.

    Several instances stack as a first axis, several times as one before it.
    """
    arrays: Codes = {}
    for name in session.outputs:
        codes = [_without_batch(values[name]) for values in found]
        whole = codes[0] if len(codes) == 1 else np.stack(codes)
        if times > 1:
            whole = whole.reshape(times, *([len(codes) // times] if len(codes) > times else []), *codes[0].shape)
        arrays[name] = dequantize(whole, session.spec(name)).astype(np.float32)
        arrays[f"{name}__int"] = whole
    return arrays


def _without_batch(values: Array) -> Array:
    """(samples, 1, ...) as (samples, ...): the samples are the batch."""
    return values.reshape(len(values), *values.shape[2:]) if values.ndim > 1 and values.shape[1] == 1 else values


def _facts(
    request: Request, session: Session, samples: Samples, found: list[Codes], times: tuple[float, ...]
) -> dict[str, Any]:
    arrays = _arrays(session, found, times=len(times))
    shapes = {name: list(array.shape) for name, array in arrays.items() if not name.endswith("__int")}
    return {
        "model": session.program.name,
        "chip": str(session.program.chip.get("name", "")),
        "samples": len(samples),
        "instances": request.instances,
        "physics": request.physics,
        "seed": request.seed,
        "backend": request.backend,
        "outputs": shapes,
        "times_s": list(times),
        **_quality(session, samples, found, times),
        "outputs_file": request.outputs,
        "trace_file": request.trace,
        "dump_folder": request.dump,
    }


def _quality(session: Session, samples: Samples, found: list[Codes], times: tuple[float, ...]) -> dict[str, Any]:
    """Against `y`: top-1 accuracy for labels, SQNR for reals of the first output's shape.

    One value per instance, the instances of one time after those of another.
    """
    name, y = session.outputs[0], samples.y
    if y is None:
        return {}
    if np.issubdtype(y.dtype, np.integer):
        right = [accuracy(values[name], y.reshape(len(y))) for values in found]
        each = len(found) // len(times)
        points = [AccuracyPoint(t, tuple(right[i * each : (i + 1) * each])) for i, t in enumerate(times)]
        return {"accuracy": right, "accuracy_over": [point.to_json() for point in points]}
    if y.size != found[0][name].size:
        return {}
    return {"sqnr_db": [_sqnr(y, dequantize(values[name], session.spec(name))) for values in found]}


def _sqnr(y: Array, values: Array) -> float | None:
    near = Closeness()
    near.add(y, values)
    return near.sqnr_db


def _text(request: Request, facts: Mapping[str, Any]) -> str:
    chips = f" on {request.instances} chips" if request.instances > 1 else ""
    chips += f" at {request.times}" if len(facts["times_s"]) > 1 else ""
    lines = [f"{facts['model']} on {facts['chip']}: {facts['samples']:,} samples{chips}, physics {request.physics}"]
    for word, values, shown in (
        ("Accuracy", facts.get("accuracy"), percent),
        ("SQNR", facts.get("sqnr_db"), _decibels),
    ):
        lines += [f"{word:<14}{', '.join(shown(v) for v in values)}"] if values else []
    lines += [f"Over time     {facts['note']}"] if "note" in facts else []
    metrics = facts["metrics"]
    lines.append(f"Speed         {metric_text('latency_s', metrics.get('latency_s'))} per inference (modelled)")
    lines.append(f"Energy        {metric_text('energy_j', metrics.get('energy_j'))} per inference")
    for word, path in (("Outputs", request.outputs), ("Trace", request.trace), ("Layers", request.dump)):
        lines += [f"{word:<14}{path}"] if path is not None else []
    return "\n".join(lines)


def _decibels(value: float | None) -> str:
    return quantity(value, "dB")
