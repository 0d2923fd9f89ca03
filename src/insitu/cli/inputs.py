"""What a command line names -> chip, captured graph, data: read and checked before anything long starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from insitu.arch.load import load_chip
from insitu.arch.spec import Chip
from insitu.base.errors import ConfigError, DataError, ModelError, UsageError
from insitu.base.store import hash_file
from insitu.cli.plans import read_plan, try_plan
from insitu.compiler.plan import QuantPlan
from insitu.flow.chain import capture, no_transforms
from insitu.flow.data import shapes_of_data
from insitu.flow.precision import PrecisionFile, read_precision
from insitu.frontend.load import model_path
from insitu.frontend.wtm2101 import Reading
from insitu.frontend.wtm2101_options import read_options
from insitu.graph.graph import Graph
from insitu.graph.merge import merge
from insitu.graph.text import print_graph
from insitu.tasks.registry import Task, calibration_data, evaluation_data, task_models, tasks

SIDE_FILES = (".protobuf", ".pbtxt", ".prototxt", ".textproto")
Shapes = dict[str, tuple[int | str, ...]]  # the commands give numbers only


@dataclass(frozen=True)
class ModelInputs:
    """The options that `run` and `compile` share, as typed."""

    model: str
    chip: str | None
    data: str | None = None
    calib: str | None = None
    sets: list[str] | None = None
    shapes: list[str] | None = None
    plan: str | None = None
    precision: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Loaded:
    """What ModelInputs name; `data` and `calib` are files, or the arrays of a task."""

    name: str
    graph: Graph
    chip: Chip | None
    data: str | Mapping[str, Any] | None
    calib: str | Mapping[str, Any] | None
    plan: QuantPlan | None
    task: Task | None
    precision: PrecisionFile | None = None

    @property
    def note(self) -> str:
        """What limits an accuracy on these data."""
        return self.task.note if self.task is not None and not isinstance(self.data, str) else ""

    def fingerprint(self) -> list[str]:
        """Texts that change when any input does."""
        texts = [print_graph(self.graph, weights=False), *(_content(s) for s in (self.data, self.calib))]
        return texts if self.precision is None else [*texts, repr(self.precision)]


def load(given: ModelInputs) -> Loaded:
    """Chip, graph, plan and data of a command line."""
    for text in given.sets or ():
        if not text.partition("=")[0].strip() or "=" not in text:
            raise UsageError(f"--set {text}", "not PATH=VALUE", "such as --set macro.readout.bits=6")
    chip = load_chip(given.chip, overrides=given.sets or ()) if given.chip is not None else None
    for option, file in (("--data", given.data), ("--calib", given.calib)):
        if file is not None and not Path(file).is_file():
            raise DataError(f"{option} {file}", "no such file", "an .npz file", try_=_near(file))
    task, graph = _model(given)
    data: Any = given.data or (evaluation_data(task) if task is not None else None)
    calib: Any = given.calib or (calibration_data(task) if task is not None else None)
    plan = read_plan(given.plan, graph) if given.plan is not None and not _is_side_file(given.plan) else None
    if given.plan is not None and plan is not None and chip is not None and graph.level == "captured":
        try_plan(given.plan, plan, graph, chip)
    precision = read_precision(given.precision) if given.precision is not None else None
    if graph.level == "quantized":
        no_transforms(graph, precision)
    return Loaded(graph.name, graph, chip, data, calib, plan, task, precision)


def read_graph(given: ModelInputs) -> Graph:
    """The captured graph alone: no chip, no data read."""
    return _model(given)[1]


def _model(given: ModelInputs) -> tuple[Task | None, Graph]:
    if "," in given.model and not Path(given.model).exists():
        return None, _several(given)
    path = model_path(given.model, tasks=task_models())
    task = next((t for t in tasks().values() if t.model == path), None)
    shapes = parse_shapes(given.shapes or ())
    if given.data is not None and path.suffix.lower() not in (".graph", ".pt2"):
        shapes = {**shapes_of_data(path, given.data, given=shapes), **shapes}
    if shapes and path.suffix.lower() == ".graph":
        raise UsageError("--shape", "the sizes of a .graph file are fixed", "an .onnx file")
    reading = Reading(read_options(given.plan)) if given.plan is not None and _is_side_file(given.plan) else None
    graph = capture(path, shapes=shapes, reading=reading, sources=(given.data, given.calib))
    if reading is not None and not graph.meta.get("dialect"):
        got = "an optimisation file of the WTM2101 toolchain"
        raise ConfigError(f"--plan {given.plan}", got, "a plan.json: the model is not in that dialect")
    if graph.symbols():
        got = f"the sizes {', '.join(graph.symbols())} left open"
        raise ModelError(given.model, got, "a number for each", try_=("Session(program, sizes={...}) from Python",))
    return task, graph if task is None else replace(graph, name=task.name)


def _several(given: ModelInputs) -> Graph:
    """Networks named one after the other, with commas between them, that share the chip."""
    if given.shapes:
        raise UsageError("--shape", "not for several networks at once", "files whose sizes are fixed")
    paths = [model_path(spec.strip(), tasks=task_models()) for spec in given.model.split(",")]
    options = read_options(given.plan) if given.plan is not None and _is_side_file(given.plan) else {}
    reading = Reading(options, partial=True)
    graphs = [capture(path, reading=reading, sources=(given.data, given.calib)) for path in paths]
    unknown = set(options) - {n.name for g in graphs for n in g.nodes}
    if unknown:
        raise ConfigError(f"--plan {given.plan}", f"layers {', '.join(sorted(unknown))}", "layers of these networks")
    return merge(graphs)


def _is_side_file(path: str) -> bool:
    """Whether --plan names an optimisation file of the vendor's toolchain, by its suffix."""
    return Path(path).suffix.lower() in SIDE_FILES


def parse_shapes(texts: Sequence[str]) -> Shapes:
    """`name=1,1,64,64` for each input."""
    shapes: Shapes = {}
    for text in texts:
        name, equals, sizes = text.rpartition("=")
        words = [word.strip() for word in sizes.split(",")]
        if not equals or not name or not all(words):
            raise UsageError(f"--shape {text}", "not NAME=SIZES", "such as --shape input=1,1,64,64")
        if not all(word.lstrip("-").isdecimal() for word in words):
            raise UsageError(f"--shape {text}", f"the sizes {sizes}", "numbers: sizes by name are bound when compiled")
        if name in shapes:
            raise UsageError(f"--shape {text}", f"{name} is given twice", "one shape for each input")
        shapes[name] = tuple(int(word) for word in words)
    return shapes


def parse_count(option: str, text: str) -> int | None:
    """A number of samples; None for "all"."""
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"{option} {text}", "not a number of samples", "a whole number of at least 1, or all")
    return int(text)


def captured_only(graph: Graph, model: str) -> None:
    """Refuse a graph that we have quantized before: accuracy is measured against the float network."""
    if graph.level != "captured" and not graph.meta.get("dialect"):
        way = f"insitu compile {model} --chip CHIP -o P.insitu, then insitu simulate"
        raise ModelError(model, f"a graph at level {graph.level}", "a float model to compare with", try_=(way,))


def _near(file: str) -> tuple[str, ...]:
    from insitu.base.errors import did_you_mean

    folder = Path(file).parent
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    return tuple(str(folder / name) for name in did_you_mean(Path(file).name, names))


def _content(source: str | Mapping[str, Any] | None) -> str:
    """What a file or the arrays of a task hold, as a hash."""
    if source is None:
        return ""
    if isinstance(source, str):
        try:
            return hash_file(source)
        except OSError as error:
            raise DataError(source, (error.strerror or "unreadable").lower(), "an .npz file that can be read") from None
    digest = sha256()
    for name in sorted(source):
        digest.update(f"{name} {source[name].dtype.str} {source[name].shape}\n".encode() + source[name].tobytes())
    return digest.hexdigest()
