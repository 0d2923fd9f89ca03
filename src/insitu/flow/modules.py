"""PyTorch modules at the door of the line: exported with the first samples of the data they are to be run on."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.arch.spec import Chip
from insitu.base.errors import DataError, ModelError, UsageError
from insitu.compiler.plan import QuantPlan
from insitu.flow.data import read_npz
from insitu.frontend.inputs import Shapes
from insitu.frontend.torch_export import import_torch, is_torch_model
from insitu.graph.graph import Graph

Source = str | Path | Mapping[str, npt.NDArray[Any]]


def captured(model: object, sources: Sequence[Source | None], *, shapes: Shapes | None = None) -> Graph:
    """The graph of a module or an exported program; ModelError for anything else."""
    if not is_torch_model(model):
        got = f"a {type(model).__name__}"
        raise ModelError("model", got, "a path, a task, a Graph, an nn.Module or an ExportedProgram")
    if not hasattr(model, "forward"):  # an exported program knows its inputs
        return import_torch(model, shapes=shapes)
    return import_torch(model, _example(model, sources), shapes=shapes)


def converted(model: Any, chip: Chip) -> tuple[Graph, QuantPlan] | None:
    """Network and plan of a module of `insitu.nn.convert` with its present weights; none for anything else.

    UsageError where it was converted for another chip: its numbers are that chip's.
    """
    if "insitu" not in getattr(model, "__dict__", {}) or not is_torch_model(model):
        return None
    from insitu.nn.conversion import Conversion

    conversion = model.__dict__["insitu"]
    if not isinstance(conversion, Conversion):
        return None
    if conversion.chip != chip:
        need = "the chip that it was converted for"
        raise UsageError(type(model).__name__, f"converted for {conversion.chip.name}, deployed on {chip.name}", need)
    graph = conversion.canonical(model)
    if conversion.plan is None:
        raise UsageError(type(model).__name__, "no plan yet", "a module that has seen a batch, or Config(data=...)")
    return graph, conversion.now(model)


def _example(module: Any, sources: Sequence[Source | None]) -> list[npt.NDArray[Any]]:
    """The first samples of the first source given, in the order of the module's arguments."""
    given = next((s for s in sources if s is not None), None)
    if given is None:
        way = "deploy(module, chip, data={'x': samples})"
        raise ModelError(type(module).__name__, "a module without data", "samples to export it with", try_=[way])
    arrays = read_npz(given) if isinstance(given, str | Path) else {k: np.asarray(v) for k, v in given.items()}
    names = [p.name for p in inspect.signature(module.forward).parameters.values() if p.kind != p.VAR_KEYWORD]
    wanted = [n for n in names if n in arrays]
    if not wanted and "x" in arrays:
        wanted = ["x"]
    if not wanted or any(arrays[n].ndim == 0 or len(arrays[n]) == 0 for n in wanted):
        need = f"arrays called {', '.join(names)}, or x, with at least one sample"
        raise DataError("data", f"arrays {', '.join(sorted(arrays)) or 'none'}", need)
    return [arrays[n][:2] for n in wanted]
