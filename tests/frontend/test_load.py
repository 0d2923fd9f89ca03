"""A model by path, by task, or an error that says what was meant."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from insitu.base.errors import ModelError
from insitu.frontend.load import load_model, model_path
from insitu.frontend.onnx import import_model
from insitu.graph.text import same_graph, save_graph
from tests.graph.networks import random_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    proto, _ = random_model(2)
    onnx.save(proto, tmp_path / "net.onnx")
    save_graph(import_model(proto, name="net"), tmp_path / "net.graph")
    return tmp_path


def test_paths_and_tasks_give_the_same_graph(folder: Path) -> None:
    tasks = {"kws": lambda: folder / "net.onnx"}
    graphs = [load_model(folder / name) for name in ("net.onnx", "net.graph")]
    graphs += [load_model(name, tasks=tasks) for name in ("task:kws", "kws")]
    assert all(same_graph(g, graphs[0]) for g in graphs)


def test_a_file_wins_over_a_task(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "kws").write_bytes(b"")
    assert model_path("kws", tasks={"kws": lambda: folder / "net.onnx"}) == Path("kws")


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ("task:kvs", "Try: task:kws"),
        ("kwss", "Try: task:kws"),
        ("task:", "no task has this name"),
        ("nothing-like-it", "Try: task:kws"),
        ("{folder}/nett.onnx", "Try: {folder}/net.onnx"),
        ("{folder}/none/net.onnx", "there is no folder"),
        ("{folder}", "this is a folder"),
        ("hf:org/name", "insitu run hf:org/name"),
        ("", "no file and no task"),
        ("a\0b.onnx", "no such file"),
        ("x" * 5000, "no file and no task"),
    ],
)
def test_unknown_models(spec: str, word: str, folder: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(spec.format(folder=folder), tasks={"kws": lambda: folder / "net.onnx"})
    assert word.format(folder=folder) in str(caught.value)
