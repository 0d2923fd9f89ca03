"""`insitu doctor`: what is installed, what is missing, and whether a small network computes right."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import insitu
from insitu.base.errors import InternalError
from insitu.cli import console
from insitu.cli.environment import cache_folder
from insitu.runtime.parallel import threads

CORE = ("numpy", "scipy", "numba", "onnx", "onnxruntime", "pydantic", "pyyaml", "typer", "jinja2", "safetensors")
EXTRAS = {
    "torch": ("torch",), "hf": ("transformers", "tokenizers"), "solver": ("ortools",), "search": ("optuna",),
    "media": ("soundfile", "PIL"), "cluster": ("joblib", "ray", "psycopg"),
    "gpu": ("torch", "triton"),
    "studio": ("starlette", "uvicorn", "plotly"), "trace": ("perfetto",),
}  # fmt: skip


def run(*, json: bool) -> int:
    """Look, test and report; returns the exit code."""
    facts: dict[str, Any] = {**_machine(), "core": {n: _version(n) for n in CORE}, "extras": _extras(), **_folders()}
    whole = all(facts["core"].values())
    test = facts["self_test"] = self_test() if whole else None
    wrong = bool(test and test["mismatches"])
    good = whole and not wrong and bool(facts["writable"]["working folder"])
    console.put_json({"schema": 1, "good": good, **facts}) if json else console.put(_text(facts, good=good))
    return InternalError.exit_code if wrong else 0 if good else 1


def _version(name: str) -> str | None:
    """The installed version of a package; none where it is missing."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _machine() -> dict[str, Any]:
    return {
        "insitu": insitu.__version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "threads": threads(),
    }


def _extras() -> dict[str, bool]:
    """Which extras are there; nothing is imported."""
    return {name: all(find_spec(module) is not None for module in modules) for name, modules in EXTRAS.items()}


def _folders() -> dict[str, Any]:
    folders = {"cache": cache_folder(), "working folder": Path.cwd()}
    return {
        "folders": {n: str(p) for n, p in folders.items()},
        "writable": {n: _writable(p) for n, p in folders.items()},
    }


def _writable(folder: Path) -> bool:
    """Whether a file can be made there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
        return True
    except OSError:
        return False


def self_test() -> dict[str, Any]:
    """One layer and a Relu on the digital chip: values checked, values that differ, seconds."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    from insitu.flow.chain import deploy
    from insitu.frontend.onnx import import_model

    start = time.monotonic()
    weights = np.random.default_rng(0).standard_normal((16, 24)).astype(np.float32)
    nodes = [helper.make_node("Gemm", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", size]) for n, size in (("x", 16), ("y", 24))]
    graph = helper.make_graph(nodes, "test", ends[:1], ends[1:], [onnx.numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    exact = deploy(import_model(model, name="self-test"), "dcim-28nm").result.bit_exact
    checked, bad = (exact.checked_values, exact.mismatches) if exact is not None else (0, 1)
    return {"checked_values": checked, "mismatches": bad, "seconds": round(time.monotonic() - start, 1)}


def _text(facts: dict[str, Any], *, good: bool) -> str:
    test = facts["self_test"]
    lines = [
        f"insitu        {facts['insitu']} on Python {facts['python']}, {facts['platform']}",
        f"cores         {facts['cores']}, {facts['threads']} threads in use (OMP_NUM_THREADS sets them)",
        f"packages      {', '.join(f'{n} {v}' if v else f'{n} MISSING' for n, v in facts['core'].items())}",
    ]
    for name, there in facts["extras"].items():
        state = "installed" if there else f'not installed; pip install "insitu[{name}]"'
        lines.append(f"extra         {name}: {state}")
    for name, path in facts["folders"].items():
        state = "can be written" if facts["writable"][name] else "CANNOT BE WRITTEN"
        lines.append(f"folder        {name}: {path}, {state}")
    if test is None:
        lines.append('self-test     not run; pip install "insitu" brings what is missing')
    else:
        outcome = f"{test['mismatches']} of {test['checked_values']:,} values differ"
        lines.append(f"self-test     one layer on dcim-28nm: {outcome}, {test['seconds']} s")
    lines.append("all is well" if good else "something is wrong: see above")
    return "\n".join(lines)
