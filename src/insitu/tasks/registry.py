"""The tasks that ship: a model with its data, recordings, card and class names, found by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.errors import DataError
from insitu.base.registry import resolve
from insitu.base.schema import Config, load_config

Array = npt.NDArray[Any]
NAMES = ("kws",)


class Stated(Config):
    """An accuracy that the card states, with its interval and what it was measured on."""

    value: float
    n: int
    interval_95: tuple[float, float]
    of: str


class InputFacts(Config):
    """What one row of the data is: float input = (code - zero_point) * scale."""

    name: str
    shape: tuple[int, ...]
    scale: float
    zero_point: int
    front_end: str


class TaskFile(Config):
    """The form of task.yaml."""

    name: str
    title: str
    model: str
    data: str
    calibration: str
    wav: str
    card: str
    parameters: int
    macs: int
    classes: tuple[str, ...]
    input: InputFacts
    metric: str
    published: str | None
    accuracy_float: dict[str, Stated]


@dataclass(frozen=True)
class Task:
    """A task on disk."""

    folder: Path
    facts: TaskFile

    @property
    def name(self) -> str:
        """What comes after `task:`."""
        return self.facts.name

    @property
    def model(self) -> Path:
        """The ONNX file."""
        return self.folder / self.facts.model

    @property
    def data_file(self) -> Path:
        """The test set."""
        return self.folder / self.facts.data

    @property
    def calibration_file(self) -> Path:
        """Inputs that set the ranges."""
        return self.folder / self.facts.calibration

    @property
    def recordings(self) -> tuple[Path, ...]:
        """The WAV files, sorted."""
        return tuple(sorted((self.folder / self.facts.wav).glob("*.wav")))

    @property
    def card(self) -> str:
        """The card, as Markdown."""
        return (self.folder / self.facts.card).read_text(encoding="utf-8")

    @property
    def note(self) -> str:
        """What limits the meaning of an accuracy on the task's own data."""
        return "synthetic speech"


def tasks() -> dict[str, Task]:
    """Every task by name."""
    found = (load_task(Path(str(files("insitu.tasks"))) / name) for name in NAMES)
    return {task.name: task for task in found}


def load_task(folder: Path) -> Task:
    """The task in a folder; ConfigError where its task.yaml is not sound."""
    return Task(folder, load_config(folder / "task.yaml", TaskFile))


def find_task(name: str) -> Task:
    """The task called `name`, with or without `task:`."""
    return resolve(name.removeprefix("task:"), tasks(), "task")


def named_task(model: str) -> Task | None:
    """The task that a model's name means: `task:NAME`, or a bare name where no such file is."""
    word = model.removeprefix("task:")
    return tasks().get(word) if word != model or not Path(model).exists() else None


def task_models() -> Mapping[str, Callable[[], Path]]:
    """Where each task's model is, for `load_model`."""
    return {name: (lambda task=task: task.model) for name, task in tasks().items()}


def evaluation_data(task: Task) -> dict[str, Array]:
    """The test set as `--data` takes it: `x` float (samples, *shape), `y` labels."""
    stored = _stored(task.data_file)
    return {"x": _real(task, stored["x_q"]), "y": stored["y"].astype(np.int64)}


def calibration_data(task: Task) -> dict[str, Array]:
    """The calibration inputs as `--calib` takes them."""
    return {"x": _real(task, _stored(task.calibration_file)["x_q"])}


def recorded_maps(task: Task) -> Array:
    """Float inputs (recordings, *shape) of the WAV files, through the task's own front end."""
    from insitu.streams.audio import FeatureConfig, features, fit_length, quantize_features, read_wav

    config = FeatureConfig()
    clips: list[Array] = []
    for path in task.recordings:
        audio, rate = read_wav(path)
        if rate != config.rate:
            raise DataError(str(path), f"{rate} samples per second", f"{config.rate}")
        clips.append(fit_length(audio, config.samples))
    values = features(np.stack(clips), config)
    codes = quantize_features(values, scale=task.facts.input.scale, zero_point=task.facts.input.zero_point)
    return _real(task, codes.swapaxes(-1, -2)[..., None])


def recorded_words(task: Task) -> tuple[str, ...]:
    """What is said in each WAV: file names are NN_word.wav."""
    return tuple(path.stem.partition("_")[2] for path in task.recordings)


def data_text(task: Task) -> str:
    """The data in one line, with the accuracies that the card states side by side."""
    count = len(_stored(task.data_file)["y"])
    stated = ", ".join(
        f"{100 * s.value:.1f} % on {kind} speech (n = {s.n:,}: {s.of})" for kind, s in task.facts.accuracy_float.items()
    )
    shape = " x ".join(map(str, task.facts.input.shape))
    return f"{count:,} int8 feature maps of {shape}, {task.note}; float accuracy by the card: {stated}"


def _stored(path: Path) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _real(task: Task, codes: Array) -> Array:
    return ((codes.astype(np.float32) - task.facts.input.zero_point) * np.float32(task.facts.input.scale)).astype(
        np.float32
    )
