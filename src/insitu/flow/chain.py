"""deploy: a model on a chip, with its data, to numbers that can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from insitu.algo import ptq
from insitu.algo.expected import expected_codes, expected_inputs
from insitu.algo.needs import needed
from insitu.arch.load import load_chip
from insitu.arch.spec import Chip
from insitu.base.errors import ConfigError, InfeasibleError, ModelError, UsageError
from insitu.base.heap import give_back
from insitu.base.metrics import Metric
from insitu.circuit.effects import Physics
from insitu.compiler import adapt, canonicalize, fuse, given
from insitu.compiler.plan import QuantPlan
from insitu.compiler.precision import apply_plan
from insitu.flow import check, figures, modules, quality
from insitu.flow import data as data_
from insitu.flow import physics as physics_
from insitu.flow.advice import advice
from insitu.flow.agreement import agreement
from insitu.flow.blocks import Feed, feed_of, float_rows, real_outputs
from insitu.flow.optimize import TARGET, Searched, searched
from insitu.flow.owed import Trial, closeness_course, owed, trial_of
from insitu.flow.precision import PrecisionFile, Wanted, read_precision, requested
from insitu.flow.rows import coded
from insitu.flow.sensitivity import by_weight
from insitu.flow.trial import Tuner, played, recompiled
from insitu.frontend.inputs import Shapes
from insitu.frontend.load import load_model
from insitu.frontend.wtm2101 import Reading
from insitu.graph.export import float_session
from insitu.graph.graph import Graph
from insitu.graph.ops.macs import macs
from insitu.graph.verify import verify
from insitu.isa.check import check_program
from insitu.isa.program import Program
from insitu.report.result import AccuracyPoint, Coverage, LayerResult, ModelFacts, Result
from insitu.runtime.memory import check_room, parse_memory
from insitu.runtime.objective import best_program, objective_of
from insitu.runtime.session import Session
from insitu.sim.backends import check_backend
from insitu.tasks.registry import calibration_data, evaluation_data, named_task, task_models

Array = npt.NDArray[Any]
Source = str | Path | Mapping[str, Array]
FEW = 4  # samples whose operators are compared with ONNX Runtime's
Progress = Callable[[str, int, int], None]  # stage, done, total


@dataclass(frozen=True)
class Options:
    """What a deployment is asked for; the defaults are those of `insitu run`."""

    physics: str = "full"
    instances: int = 8
    seed: int = 0
    samples: int | None = None
    check: int | Literal["all"] | None = None  # samples compared bit by bit; None: as many as make 10**5 values
    calibrated: bool = True
    time: physics_.Times = "0s"  # seconds after programming, one or several, or texts such as "0s,1h"
    max_chips: int = 1
    objective: str = "latency"  # latency, throughput or cells
    search: float = 0.0  # seconds a solver looks for better places
    optimize: str = ""  # accuracy: a precision plan is searched for under this run's physics
    target: float = TARGET  # share of the gap to an ideal chip that the plan is to close; 1: the best there is
    observer: str = "mse"  # how ranges are chosen: mse, minmax, percentile or entropy
    rounding: str = "second-order"  # of weights: each makes up for those before it, or nearest
    ranges: str = "codes"  # of weights: by what codes err, or cells too
    note: str = ""  # what the samples are, where that limits what an accuracy means
    backend: str = field(default="cpu", repr=False)  # what computes array products: cpu, torch or cuda
    memory: str | float | None = field(default=None, repr=False)  # most the run may take: "2GiB", bytes; no result's


@dataclass(frozen=True)
class Deployment:
    """A model on a chip: its Program, the graphs it came from, and everything measured on the way."""

    result: Result
    chip: Chip
    captured: Graph
    plan: QuantPlan | None = None
    program: Program | None = None
    session: Session | None = None
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """Every figure by name, with unit and origin."""
        return self.result.metrics

    def run(self, x: Mapping[str, Array] | Array) -> dict[str, Array]:
        """Outputs of the ideal chip for inputs (samples, *shape)."""
        if self.session is None:
            raise InfeasibleError(self.result.infeasible, self.chip.name)
        return self.session.run(x)

    def report(self, folder: str | Path) -> Path:
        """Write report.html and everything beside it into a run folder; returns the report's path."""
        from insitu.flow.folder import write_run

        return write_run(self, folder) / "report.html"


def silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def capture(
    model: str | Path | Graph | Any,
    *,
    shapes: Shapes | None = None,
    tasks: Any = None,
    reading: Reading | None = None,
    sources: Sequence[Source | None] = (),
) -> Graph:
    """The canonical captured graph of a model, verified; a model that came quantized stays as it is.

    A PyTorch module is exported with the first samples of `sources` as its example.  Inputs of a vendor network are
    bytes; those with negative codes in `sources` are signed ones.
    """
    if isinstance(model, Graph):
        graph = model
    elif not isinstance(model, str | Path):
        graph = modules.captured(model, sources, shapes=shapes)
    else:
        graph = load_model(model, shapes=shapes, tasks=tasks, reading=reading)
        signed, large = data_.code_ranges(graph, sources) if graph.meta.get("dialect") else ((), ())
        if signed or large:
            given = reading or Reading()
            reading = replace(given, signed_inputs=(*given.signed_inputs, *signed), unsigned_inputs=large)
            graph = load_model(model, shapes=shapes, tasks=tasks, reading=reading)
    if graph.level != "captured":
        return verify(graph)
    return verify(fuse.run(canonicalize.run(graph)))


def build(
    graph: Graph,
    chip: Chip,
    *,
    calibration: Mapping[str, Array],
    seed: int = 0,
    plan: QuantPlan | None = None,
    precision: PrecisionFile | None = None,
    max_chips: int = 1,
    objective: str = "latency",
    search: float = 0.0,
    choices: ptq.Choices | None = None,
) -> tuple[QuantPlan | None, Graph, Program]:
    """Plan, quantized graph and checked Program of a captured graph.  InfeasibleError where it does not fit.

    `precision` adds transforms of layers to the plan.  A graph that came quantized has no plan.
    """
    if graph.level == "quantized":
        no_transforms(graph, precision)
        check_readouts(graph, chip)
        expected = played(chip, expected_codes, graph, calibration)
        program = best_program(graph, chip, expected=expected, max_chips=max_chips, objective=objective, search=search)
        check_program(program)
        return None, graph, program
    graph = verify(adapt.run(given.run(graph, chip), chip))
    plan = plan or ptq.plan(graph, chip, data=calibration, seed=seed, choices=choices)
    plan = plan if precision is None else requested(plan, graph, chip, wanted=precision)
    quantized = verify(apply_plan(graph, chip, plan=plan))
    expected = played(chip, expected_inputs, graph, quantized, calibration)
    program = best_program(quantized, chip, expected=expected, max_chips=max_chips, objective=objective, search=search)
    check_program(program)
    return plan, quantized, program


def no_transforms(graph: Graph, precision: PrecisionFile | None) -> None:
    """ConfigError for transforms of a network that came quantized: its integers are fixed."""
    if precision is not None:
        need = "a float model, or for a vendor's network its own side file (--plan F.protobuf)"
        raise ConfigError("precision", f"{graph.name} came quantized", need)


def check_readouts(graph: Graph, chip: Chip) -> None:
    """A quantized graph was made for one kind of readout; ModelError where the chip has another."""
    kind = chip.macro.readout.kind
    wrong = [n for n in graph.nodes if n.op in ("Conv", "MatMul") and n.attr("readout", kind) != kind]
    if wrong:
        got = f"quantized for a readout of kind {wrong[0].attr('readout')}"
        need = f"one quantized for {chip.name}, whose readout is {kind}"
        raise ModelError(f"{graph.name}: {wrong[0].name}", got, need, try_=("compile the model itself",))


def deploy(
    model: str | Path | Graph | Any,
    chip: str | Path | Chip,
    *,
    data: Source | None = None,
    calib: Source | None = None,
    physics: str = "full",
    instances: int = 8,
    time: physics_.Times = "0s",
    seed: int = 0,
    max_chips: int = 1,
    objective: str = "latency",
    search: float = 0.0,
    memory: str | float | None = None,
    backend: str = "cpu",
    options: Options | None = None,
    plan: QuantPlan | None = None,
    precision: Wanted | PrecisionFile | None = None,
    shapes: Shapes | None = None,
    reading: Reading | None = None,
    progress: Progress = silent,
    name: str = "",
) -> Deployment:
    """Quantize, map, compile, check and simulate a model on a chip.

    `model` is a file, a graph, or (extra `torch`) an nn.Module or an exported program; a module is exported with the
    first samples of `data` or `calib`.
    A network in the WTM2101 dialect came quantized (`reading` says how it is read) and is taken as it is.
    `precision` asks for transforms of layers, {pattern: {transform: value}} or a YAML file of them
    (docs/design/quantization.md).  `memory` ("2GiB") is the most that the process may take: samples then run in blocks,
    with the same results.  `backend` computes array products (cpu, torch or cuda).  A task ("task:kws") brings its own
    data.  A network that does not fit comes back as a Deployment whose result says so; broken input raises InsituError.
    """
    options = options or Options(
        physics=physics,
        instances=instances,
        time=time,
        seed=seed,
        max_chips=max_chips,
        objective=objective,
        search=search,
        memory=memory,
        backend=backend,
    )
    check_backend(options.backend)
    times, memory = physics_.parse_times(options.time), parse_memory(options.memory)
    objective_of(options.objective, where="objective")
    task = named_task(model) if isinstance(model, str) else None
    if task is not None:
        options = options if data is not None else replace(options, note=options.note or task.note)
        data, calib = data or evaluation_data(task), calib or calibration_data(task)
        model, name = task.model, name or task.name
    chip = chip if isinstance(chip, Chip) else load_chip(chip)
    transforms = read_precision(precision) if isinstance(precision, str | Path | Mapping) else precision
    effects = Physics.parse(options.physics, chip, calibrated=options.calibrated)
    choices = ptq.Choices(options.observer, options.rounding, ranges=options.ranges, effects=effects.after(times[-1]))
    if (trained := modules.converted(model, chip)) is not None:
        name = name or type(model).__name__
        model, plan = trained[0], plan or trained[1]
    captured = capture(model, shapes=shapes, tasks=task_models(), reading=reading, sources=(data, calib))
    if open_sizes := captured.symbols():
        known = "deploy(graph.bind({...}), ...), or compile_graph with sizes and a Session that binds them"
        raise ModelError(captured.name, f"sizes {', '.join(open_sizes)} are open", "numbers for a run", try_=[known])
    brought, captured = given.brings(captured), given.run(captured, chip)
    prepared = data_.prepare(captured, data=data, calib=calib, samples=options.samples, seed=options.seed)
    if captured.level == "quantized" or given.given(captured):
        prepared = replace(prepared, source="model")
    facts = ModelFacts(name or captured.name, parameters(captured), sum(macs(captured, n) for n in captured.nodes))
    if plan is None and captured.level == "captured":
        need = needed(captured, chip, prepared.calibration)
        check_room(memory, need, what="its weights and the calibration samples that go together")
    found = _optimized(captured, chip, prepared, options, choices, progress)
    if found is not None:
        transforms, chip, choices = found.precision, found.chip(chip), found.choices(choices)
    progress("quantize and compile", 0, 1)
    try:
        plan, quantized, program = build(
            captured, chip, calibration=prepared.calibration, seed=options.seed, plan=plan, precision=transforms,
            max_chips=options.max_chips, objective=options.objective, search=options.search,
            choices=choices,
        )  # fmt: skip
    except InfeasibleError as error:
        result = Result(
            facts,
            chip.name,
            options.seed,
            prepared.source,
            fits=False,
            infeasible=tuple(error.items),
            data_note=options.note,
        )
        return Deployment(result, chip, captured)
    progress("quantize and compile", 1, 1)
    give_back()
    session = Session(program, graph=quantized, backend=options.backend)
    scales = given.origin(captured, had=brought)
    samples = prepared.calibration if prepared.evaluation is None else prepared.evaluation.inputs
    feed = feed_of(session, samples, slices=chip.macro.weights.slices, memory=memory)
    made = _Measured(captured, chip, session, prepared, options, effects, times, progress, feed, scales)
    result = made.result(facts)
    if found is not None:
        result = replace(result, extra={**result.extra, **found.extra()})
    return Deployment(result, chip, captured, plan, program, session)


def _optimized(
    captured: Graph, chip: Chip, prepared: data_.Prepared, options: Options, choices: ptq.Choices, progress: Progress
) -> Searched | None:
    """A searched precision plan, where one is asked for; ConfigError for anything but accuracy."""
    if not options.optimize:
        if options.target != TARGET:
            raise UsageError("target", f"{options.target:g}", "a plan to search for: --optimize accuracy")
        return None
    if options.optimize != "accuracy":
        raise ConfigError("optimize", options.optimize, "accuracy")
    if captured.level == "quantized":
        raise ConfigError("optimize", f"{captured.name} came quantized", "a float model")
    once = partial(
        build, max_chips=options.max_chips, objective="cells"
    )  # cells drawn for other positions are no others
    return searched(
        captured, chip, once, calibration=prepared.calibration, seed=options.seed, progress=progress,
        choices=choices, target=options.target,
    )  # fmt: skip


def parameters(graph: Graph) -> int:
    """Elements of all weights, as imported."""
    known = graph.meta.get("parameters")
    return int(known) if isinstance(known, int | float) else sum(int(a.size) for a in graph.constants.values())


@dataclass(frozen=True)
class _Measured:
    """The second half of a deployment: run, check, compare, cost."""

    captured: Graph
    chip: Chip
    session: Session
    prepared: data_.Prepared
    options: Options
    effects: Physics
    times: tuple[float, ...]
    progress: Progress
    feed: Feed
    scales: Mapping[str, Any] | None = None  # where the scales of a model that came quantized went

    def result(self, facts: ModelFacts) -> Result:
        """Everything known of the run."""
        exact = self._bit_exact()
        metrics, scores = self._accuracy()
        cost = figures.cost(self.session.program, self.chip)
        heat = figures.heat(cost, self.session.program, self.chip)
        self = replace(self, effects=replace(self.effects, temperature=heat.value))
        metrics["junction_k"] = heat
        trial = trial_of(self.session, self.feed.inputs, self.chip, seed=self.options.seed)
        course, near = self._physics(scores), self._without_labels(trial)
        over = course.points
        metrics |= figures.chip_accuracy(over, self.options.note, digital=self.effects.ideal)
        metrics |= figures.chip_closeness(near.points, trial.samples)
        metrics |= cost.metrics
        layers = self._layers(cost)
        agreed = agreement(self.captured, self.session.graph, self._codes())
        return Result(
            model=facts,
            chip=self.chip.name,
            seed=self.options.seed,
            calibration=self.prepared.source,
            bit_exact=exact,
            onnx_agreement=agreed,
            coverage=Coverage(figures.array_share(self.session.graph), self.session.program.meta.get("host_ops", {})),
            metrics=metrics,
            accuracy_over=over,
            sqnr_over=near.points,
            layers=layers,
            data_note=self.options.note,
            extra=cost.extra
            | {"constants": by_weight([*cost.extra["constants"], *owed(trial, self.effects.after(self.times[0]))])}
            | ({"scales": dict(self.scales)} if self.scales else {})
            | {"uncalibrated": course.extra(), "sqnr_uncalibrated": near.extra(), "physics": self._described()}
            | self._confusion(scores)
            | advice(
                self.session.graph,
                self.chip,
                self.effects.after(self.times[0]),
                metrics,
                plan=not self.options.optimize and self.captured.level != "quantized",
            ),
        )

    def _bit_exact(self) -> Any:
        """Interpreter against simulator on real samples, then on random ones until 10**5 values are compared."""
        graph, every = self.session.graph, len(self.feed)
        need = check.samples_needed(graph, least=every if self.options.check == "all" else self.options.check or 1)
        inputs = self.feed.inputs
        if every < need:
            more = data_.random_inputs(self.captured, need - every, seed=self.options.seed)
            inputs = {n: np.concatenate([np.asarray(inputs[n], np.float32), more[n]]) for n in inputs}
        elif need < every:
            inputs = {n: a[:need] for n, a in inputs.items()}
        codes = coded(inputs, self.session.code, unit=self.feed.unit, room=0)
        return check.compare(self.session, codes, done=lambda n: self.progress("check bit by bit", n, need))

    def _codes(self) -> dict[str, Array]:
        """A few samples as input codes."""
        return self.session.codes({n: a[:FEW] for n, a in self.feed.inputs.items()})

    def _accuracy(self) -> tuple[dict[str, Metric], Array | None]:
        """Float against ideal chip over all samples; SQNR over all outputs; with labels the ideal chip's scores."""
        total, labels, near = len(self.feed), self._labels(), quality.Closeness()
        reference = (
            None
            if self.captured.level == "quantized"
            else float_session(self.captured, block=float_rows(self.session.graph))
        )
        first, found, wanted = self.session.outputs[0], list[Array](), list[Array]()
        for rows, outputs in self.feed.outputs(
            self.session, done=lambda n: self.progress("run on the ideal chip", n, total)
        ):
            found += [outputs[first]] if labels is not None else []
            for unit in self.feed.units(rows) if reference is not None else ():
                assert reference is not None
                floats = reference({n: np.asarray(a[unit], np.float32) for n, a in self.feed.inputs.items()})
                real = real_outputs(self.session, outputs, slice(unit.start - rows.start, unit.stop - rows.start))
                for name, values in real.items():
                    near.add(floats[name], values)
                wanted += [floats[first]] if labels is not None else []
        metrics = {} if reference is None else figures.closeness(near, total)
        if labels is None:
            return metrics, None
        scores = np.concatenate(found)
        right = quality.accuracy(np.concatenate(wanted), labels) if wanted else None
        return metrics | figures.accuracies(right, quality.accuracy(scores, labels), total, self.options.note), scores

    def _labels(self) -> Array | None:
        samples = self.prepared.evaluation
        if samples is None or samples.y is None or not np.issubdtype(samples.y.dtype, np.integer):
            return None
        return samples.y.reshape(len(samples))

    def _described(self) -> str:
        return physics_.describe(self.effects, self.chip, full=self.options.physics.strip() == "full")

    def _physics(self, ideal: Array | None) -> physics_.Course:
        """Accuracy of each chip instance at each time, with and without the chip's own procedures."""
        labels = self._labels()
        if labels is None or ideal is None:
            return physics_.Course(())
        first = self.session.outputs[0]
        if self.effects.ideal:
            value, why = quality.accuracy(ideal, labels), physics_.still(self.effects, self.chip)
            points = [AccuracyPoint(t, (value,), why if i else "") for i, t in enumerate(self.times)]
            return physics_.Course(tuple(points))
        done = 0

        def score(effects: Physics, instance: int) -> float:
            nonlocal done
            chip = self._instance(effects, instance)
            right = [quality.hits(found[first], labels[rows]) for rows, found in self.feed.outputs(chip)]
            done += 1
            self.progress("run with physics", done, max(done, self.options.instances))
            return sum(right) / len(labels)

        return physics_.course(score, self.effects, self.chip, times=self.times, instances=self.options.instances)

    def _instance(self, effects: Physics, instance: int) -> Session:
        """A session on one chip, after a trial where the chip's calibration has one."""
        if not effects.calibration(self.chip).last_layer or self.captured.level == "quantized":
            return physics_.instance_session(self.session, effects, instance=instance, seed=self.options.seed)
        asked, data = self.options, self.prepared.calibration
        how: dict[str, Any] = {"max_chips": asked.max_chips, "objective": asked.objective, "search": asked.search}
        tuner = Tuner(self.captured, data, lambda graph: recompiled(self.captured, graph, self.chip, data, **how))
        return tuner.session(self.session, effects, instance=instance, seed=asked.seed)

    def _without_labels(self, trial: Trial) -> physics_.Course:
        """Without labels: how close the outputs of each chip instance come to the ideal chip's, at each time."""
        if self._labels() is not None:
            return physics_.Course(())
        return closeness_course(
            trial, self.effects, times=self.times, instances=self.options.instances,
            done=lambda n, of: self.progress("run with physics", n, of),
        )  # fmt: skip

    def _layers(self, cost: figures.Cost) -> tuple[LayerResult, ...]:
        count = len(self.session.graph.nodes)
        near: Mapping[str, quality.LayerQuality] = {}
        if self.captured.level != "quantized":
            near = quality.layer_quality(
                self.captured, self.session, self.feed.inputs, done=lambda n: self.progress("compare layers", n, count)
            )
        return figures.layers(self.session.graph, near, cost)

    def _confusion(self, scores: Array | None) -> dict[str, Any]:
        labels = self._labels()
        return {} if labels is None or scores is None else figures.confusion(scores, labels)
