"""What people name a model by -> Graph: a path, a task, or an error that says what was meant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from insitu.base.errors import ModelError, did_you_mean
from insitu.frontend.checkpoint import is_checkpoint
from insitu.frontend.hub import PREFIX as HUB
from insitu.frontend.hub import hub_folder, parse_repository
from insitu.frontend.inputs import Shapes
from insitu.frontend.language import LanguageModel
from insitu.frontend.onnx import import_onnx
from insitu.frontend.wtm2101 import Reading
from insitu.graph.graph import Graph
from insitu.graph.text import load_graph

TaskModels = Mapping[str, Callable[[], Path]]  # task name -> where its model is (known to a layer above this one)
SUFFIXES = (".onnx", ".graph", ".pt2")


def load_model(
    spec: str | Path, *, shapes: Shapes | None = None, tasks: TaskModels | None = None, reading: Reading | None = None
) -> Graph:
    """The graph of a model: an .onnx, .graph or .pt2 file, `task:NAME`, or a bare task name.

    An ONNX file of the WTM2101 dialect gives a quantized graph; `reading` says how it is read.

    Raises ModelError with close names where nothing is called so.
    """
    path = model_path(spec, tasks=tasks)
    if path.suffix.lower() == ".graph":
        return load_graph(path)
    if path.suffix.lower() == ".pt2":
        from insitu.frontend.torch_export import import_pt2

        return import_pt2(path, shapes=shapes)
    return import_onnx(path, shapes=shapes, reading=reading)


def load_language_model(spec: str | Path) -> LanguageModel:
    """The language model of a folder (config.json and safetensors, or llama2.c's), a llama2.c .bin file, or hf:NAME."""
    path = local_path(spec)
    if is_hub_name(spec):
        from insitu.frontend.huggingface import read_language_model

        return replace(read_language_model(path), name=parse_repository(str(spec)).short)
    if _is_folder(path):
        from insitu.frontend.huggingface import read_language_model

        return read_language_model(path)
    if _is_file(path) and path.suffix.lower() == ".bin":
        from insitu.frontend.llama2c import read_llama2c_file

        return read_llama2c_file(path)
    need = "a folder with config.json and safetensors, or a llama2.c .bin file"
    raise ModelError(str(spec), "no language model", need)


def is_language_model(spec: str | Path) -> bool:
    """Whether a path looks like a language model's; names of the hub are taken for one."""
    path = Path(spec)
    if is_hub_name(spec):
        return True
    return (_is_folder(path) and is_checkpoint(path)) or (_is_file(path) and path.suffix.lower() == ".bin")


def is_hub_name(spec: str | Path) -> bool:
    """Whether this is hf:OWNER/NAME."""
    return isinstance(spec, str) and spec.startswith(HUB)


def local_path(spec: str | Path, *, offline: bool = False) -> Path:
    """Where a language model lies; hf:OWNER/NAME is looked up, and fetched unless `offline`."""
    return hub_folder(str(spec), offline=offline) if is_hub_name(spec) else Path(spec)


def model_path(spec: str | Path, *, tasks: TaskModels | None = None) -> Path:
    """The file that `spec` names; existing files win over task names."""
    text, known = str(spec), dict(tasks or {})
    path = Path(text or "model")
    if text and _is_file(path):
        return path
    if text and _is_folder(path):
        raise ModelError(text, "this is a folder", "a model file", try_=_models_in(path))
    word = text.removeprefix("task:")
    if word in known:
        return known[word]()
    raise _unknown(text or "MODEL", path, known)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for the file system, or holding a NUL
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _models_in(folder: Path) -> tuple[str, ...]:
    return tuple(str(p) for p in sorted(folder.iterdir()) if p.suffix in SUFFIXES)[:3]


def _unknown(text: str, path: Path, tasks: TaskModels) -> ModelError:
    """Neither a file nor a task: what comes close to it."""
    need = "an .onnx, .graph or .pt2 file, or a task"
    if text.startswith("task:") or (path.suffix == "" and "/" not in text):
        close = tuple(f"task:{name}" for name in did_you_mean(text.removeprefix("task:"), tasks))
        got = "no file and no task has this name" if not text.startswith("task:") else "no task has this name"
        return ModelError(text, got, need, try_=close or tuple(f"task:{name}" for name in sorted(tasks)[:3]))
    for scheme in ("hf:", "shape:"):
        if text.startswith(scheme):
            return ModelError(text, f"models named {scheme} have no one graph", need, try_=(f"insitu run {text}",))
    folder = path.parent
    names = [p.name for p in folder.iterdir()] if _is_folder(folder) else []
    close = tuple(str(folder / name) for name in did_you_mean(path.name, names))
    got = "there is no such file" if _is_folder(folder) else f"there is no folder {str(folder)!r}"
    return ModelError(text, got, need, try_=close)
