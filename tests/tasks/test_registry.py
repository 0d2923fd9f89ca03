"""Tasks by name, their data as a run takes it, and what is answered to their recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from insitu.base.errors import ConfigError, UsageError
from insitu.frontend.load import load_model, model_path
from insitu.tasks import registry


def test_kws_is_there() -> None:
    task = registry.find_task("task:kws")
    assert task == registry.find_task("kws")
    assert task.model.is_file()
    assert len(task.recordings) == 10
    assert registry.recorded_words(task) == task.facts.classes[:10]
    assert "synthetic" in task.card


def test_names() -> None:
    with pytest.raises(UsageError, match="Try: kws"):
        registry.find_task("kwz")
    models = registry.task_models()
    assert model_path("task:kws", tasks=models) == model_path("kws", tasks=models) == registry.find_task("kws").model
    assert load_model("kws", tasks=models).inputs == ("features",)


def test_data() -> None:
    task = registry.find_task("kws")
    data, calibration = registry.evaluation_data(task), registry.calibration_data(task)
    assert data["x"].dtype == np.float32
    assert data["x"].shape == (len(data["y"]), *task.facts.input.shape)
    assert data["y"].dtype == np.int64
    assert calibration["x"].shape[1:] == data["x"].shape[1:]
    assert (data["x"] / task.facts.input.scale == np.rint(data["x"] / task.facts.input.scale)).all()


def test_recordings_give_the_stored_maps() -> None:
    task = registry.find_task("kws")
    stored = np.load(task.data_file)["wav_x_q"].astype(np.float32) * np.float32(task.facts.input.scale)
    np.testing.assert_array_equal(registry.recorded_maps(task), stored)


def test_the_data_line_states_both_accuracies() -> None:
    text = registry.data_text(registry.find_task("kws"))
    for word in ("synthetic speech (n = ", "real speech (n = ", "by the card"):
        assert word in text


def test_a_task_file_is_checked(tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text("name: x\ntitel: y\n")
    with pytest.raises(ConfigError, match=r"task\.yaml:2: titel: unknown key"):
        registry.load_task(tmp_path)


def test_names_in_deploy() -> None:
    task = registry.find_task("kws")
    assert registry.named_task("task:kws") == registry.named_task("kws") == task
    assert registry.named_task("kws.onnx") is None
    assert registry.named_task("task:kwz") is None
