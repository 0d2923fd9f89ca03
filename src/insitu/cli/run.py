"""`insitu run` and `insitu demo`: the whole line and a run folder."""

from __future__ import annotations

import json as json_
import shlex
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import insitu
from insitu.arch.load import chip_json
from insitu.base.store import RunFolder
from insitu.circuit.effects import Physics
from insitu.cli import console
from insitu.cli.inputs import Loaded, ModelInputs, captured_only, load, parse_count
from insitu.compiler.plan import plan_to_json
from insitu.cost.machines import System, load_system
from insitu.flow.baselines import beside
from insitu.flow.chain import Deployment, Options, deploy
from insitu.flow.folder import default_folder, fill_run, printable, versions_text
from insitu.flow.optimize import TARGET
from insitu.flow.physics import parse_times
from insitu.report.summary import same_numbers, summary_lines
from insitu.runtime.memory import parse_memory
from insitu.runtime.objective import objective_of
from insitu.sim.backends import check_backend
from insitu.tasks.registry import data_text

OURS = 3
INFEASIBLE = 2


@dataclass(frozen=True)
class Request:
    """A run as typed."""

    inputs: ModelInputs
    samples: str = "all"
    physics: str = "full"
    instances: int = 8
    times: str = "0s"
    max_chips: int = 1
    objective: str = "latency"
    search: float = 0.0
    optimize: str = ""
    target: float = TARGET
    observer: str = "mse"
    rounding: str = "second-order"
    ranges: str = "codes"
    check: str | None = None
    memory: str | None = None
    backend: str = "cpu"
    vs: tuple[str, ...] = ()
    calibrated: bool = True
    out: str | None = None
    json: bool = False


def run(request: Request) -> int:
    """Deploy, write the run folder, print the summary; returns the exit code."""
    start = time.time()
    check_backend(request.backend, where="--backend")
    options = _options(request)
    systems = tuple(load_system(name) for name in request.vs)
    loaded = load(request.inputs)
    assert loaded.chip is not None, "the command line demands one"
    captured_only(loaded.graph, request.inputs.model)
    options = replace(options, note=loaded.note)
    Physics.parse(options.physics, loaded.chip, calibrated=options.calibrated)
    place = Path(request.out) if request.out is not None else _default_place(loaded, options, systems)
    progress = console.Progress()
    try:
        with RunFolder.create(place) as folder:
            deployment = _beside(_deployed(request, loaded, options, progress), systems)
            audio = loaded.task.recordings if deployment.result.extra.get("answers") and loaded.task else ()
            progress("write the report", 0, 1)
            fill_run(folder, deployment, audio=audio, host=_host(request, start))
    finally:
        progress.end()
    return _say(replace(deployment, result=replace(deployment.result, run_dir=str(place))), request.json)


def _options(request: Request) -> Options:
    times = parse_times(request.times, where="--time")
    check: Any = None if request.check is None else parse_count("--check", request.check) or "all"
    return Options(
        physics=request.physics,
        instances=request.instances,
        seed=request.inputs.seed,
        samples=parse_count("--samples", request.samples),
        check=check,
        calibrated=request.calibrated,
        time=times,
        max_chips=request.max_chips,
        objective=objective_of(request.objective),
        search=request.search,
        optimize=request.optimize,
        target=request.target,
        observer=request.observer,
        rounding=request.rounding,
        ranges=request.ranges,
        memory=parse_memory(request.memory, where="--memory"),
        backend=request.backend,
    )


def _beside(deployment: Deployment, systems: tuple[System, ...]) -> Deployment:
    """The deployment with the same network on conventional machines beside it."""
    if not systems:
        return deployment
    result = deployment.result
    extra = {**result.extra, "baselines": beside(result, deployment.captured, systems)}
    return replace(deployment, result=replace(result, extra=extra))


def _default_place(loaded: Loaded, options: Options, systems: tuple[System, ...] = ()) -> Path:
    """The folder that these inputs, options and this version name."""
    assert loaded.chip is not None
    parts = [
        insitu.__version__,
        json_.dumps(chip_json(loaded.chip), sort_keys=True),
        repr(options),
        *loaded.fingerprint(),
    ]
    parts.append(plan_to_json(loaded.plan) if loaded.plan is not None else "")
    parts += [repr(systems)] if systems else []
    parts += [options.backend] if options.backend != "cpu" else []
    return default_folder(loaded.name, loaded.chip.name, parts)


def _deployed(request: Request, loaded: Loaded, options: Options, progress: console.Progress) -> Deployment:
    assert loaded.chip is not None
    deployment = deploy(
        loaded.graph, loaded.chip, data=loaded.data, calib=loaded.calib, options=options, plan=loaded.plan,
        precision=loaded.precision, progress=progress, name=loaded.name,
    )  # fmt: skip
    extra: dict[str, Any] = {**deployment.result.extra, "command": command_text(request), "versions": versions_text()}
    extra |= _data_facts(request, loaded) | _answers(deployment, loaded, options, progress)
    if loaded.task is not None and "confusion" in extra:
        extra["confusion"] = {**extra["confusion"], "labels": list(loaded.task.facts.classes)}
    return replace(deployment, result=replace(deployment.result, extra=extra))


def _data_facts(request: Request, loaded: Loaded) -> dict[str, Any]:
    if request.inputs.data is not None:
        return {"data": printable(Path(request.inputs.data).name)}
    return {} if loaded.task is None else {"data": data_text(loaded.task)}


def _answers(deployment: Deployment, loaded: Loaded, options: Options, progress: console.Progress) -> dict[str, Any]:
    """What the float network and the chips answer to a task's recordings."""
    if loaded.task is None or deployment.session is None or not loaded.task.recordings:
        return {}
    from insitu.tasks.evaluate import answers

    progress("answer the recordings", 0, 1)
    effects = Physics.parse(options.physics, deployment.chip, calibrated=options.calibrated)
    over, heat = deployment.result.accuracy_over, deployment.result.value("junction_k")
    effects = replace(effects, time=over[0].time_s if over else 0.0, temperature=heat)
    rows = answers(
        loaded.task,
        deployment.captured,
        deployment.session,
        effects=effects,
        instances=options.instances,
        seed=options.seed,
    )
    return {"answers": rows}


def command_text(request: Request) -> str:
    """The command that makes the same run, with file names but no folders."""
    given, plain = request.inputs, Request(request.inputs)
    words = ["insitu", "run", _short(given.model), "--chip", _short(given.chip or "")]
    for option, value in (
        ("--data", given.data),
        ("--calib", given.calib),
        ("--plan", given.plan),
        ("--precision", given.precision),
    ):
        words += [option, _short(value)] if value is not None else []
    for option, values in (("--set", given.sets), ("--shape", given.shapes)):
        for value in values or ():
            words += [option, value]
    for name in (
        "samples",
        "physics",
        "instances",
        "max_chips",
        "objective",
        "search",
        "optimize",
        "target",
        "observer",
        "rounding",
        "ranges",
        "check",
        "memory",
        "backend",
    ):
        value = getattr(request, name)
        words += [f"--{name.replace('_', '-')}", str(value)] if value != getattr(plain, name) else []
    for name in request.vs:
        words += ["--vs", _short(name)]
    words += ["--time", request.times] if request.times != plain.times else []
    words += [] if request.calibrated else ["--no-calibration"]
    return shlex.join([*words, "--seed", str(given.seed)])


def _short(path: str) -> str:
    return printable(Path(path).name if Path(path).suffix else path)


def _host(request: Request, start: float) -> dict[str, Any]:
    """What may differ between equal runs."""
    from insitu.runtime.parallel import threads

    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start)),
        "seconds": round(time.time() - start, 3),
        "threads": threads(),
        "model": printable(request.inputs.model),
        "data": None if request.inputs.data is None else printable(request.inputs.data),
    }


def _say(deployment: Deployment, as_json: bool) -> int:
    result = deployment.result
    if as_json:
        console.put_json(result.to_json())
    else:
        console.put("\n".join(summary_lines(result)))
    if not result.fits:
        return INFEASIBLE
    if result.bit_exact is not None and result.bit_exact.mismatches:
        console.note(f"A fault of ours: {same_numbers(result)}")
        return OURS
    return 0
