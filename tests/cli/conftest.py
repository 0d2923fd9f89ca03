"""Small ONNX models and data, and the real command called in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import insitu as insitu_package
from insitu.cli.main import main

ROWS, CLASSES = 12, 5


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Insitu = Callable[..., Done]


@pytest.fixture
def insitu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Insitu:
    """The command in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        monkeypatch.setenv(name, "1")

    def call(*arguments: object) -> Done:
        capfd.readouterr()
        code = main([str(a) for a in arguments])
        out, err = capfd.readouterr()
        return Done(code, out, err)

    return call


def started(*arguments: object, cwd: Path, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """The command as a process of its own."""
    source = str(Path(insitu_package.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": source, "XDG_CACHE_HOME": str(cwd / "cache"), **(environment or {})}
    return subprocess.Popen(
        [sys.executable, "-m", "insitu.cli.main", *map(str, arguments)],
        cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def model_proto(
    *,
    dims: Sequence[int | str] = ("N", ROWS),
    weights: Any = None,
    nodes: Sequence[Any] | None = None,
    tensors: Sequence[Any] | None = None,
) -> onnx.ModelProto:
    """Gemm and Relu and Gemm, or the nodes given."""
    rng = np.random.default_rng(1)
    w1 = rng.standard_normal((ROWS, 8)).astype(np.float32) if weights is None else weights
    w2 = rng.standard_normal((8, CLASSES)).astype(np.float32)
    given = [numpy_helper.from_array(w1, "w1"), numpy_helper.from_array(w2, "w2")] if tensors is None else list(tensors)
    steps = [("Gemm", ["x", "w1"], ["h"]), ("Relu", ["h"], ["r"]), ("Gemm", ["r", "w2"], ["y"])]
    made = [helper.make_node(op, i, o, name=f"{op}_{o[0]}") for op, i, o in steps] if nodes is None else list(nodes)
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, list(dims)),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    graph = helper.make_graph(made, "tiny", ends[:1], ends[1:], given)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small network in a file."""
    path = tmp_path / "in" / "tiny.onnx"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(model_proto().SerializeToString())
    return path


@pytest.fixture
def data(tmp_path: Path, model: Path) -> Path:
    """Labelled samples for it; the labels are the network's own answers, three of them changed."""
    import onnxruntime

    x = np.random.default_rng(2).standard_normal((40, ROWS)).astype(np.float32)
    y = onnxruntime.InferenceSession(model).run(None, {"x": x})[0].argmax(1)
    y[:3] = (y[:3] + 1) % CLASSES
    path = tmp_path / "in" / "data.npz"
    np.savez(path, x=x, y=y)
    return path


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Any], Path]:
    """Write bytes, text, a model or arrays into the folder of inputs."""

    def put(name: str, content: Any) -> Path:
        path = tmp_path / "in" / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, dict):
            np.savez(path, **content)
        elif isinstance(content, onnx.ModelProto):
            path.write_bytes(content.SerializeToString())
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return put
