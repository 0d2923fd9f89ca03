"""The shipped keyword task: its size, balance, front end, and the accuracies that its card states."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml

from insitu.streams.audio import FeatureConfig, features, quantize_features, read_wav

FOLDER = Path(str(files("insitu.tasks.kws")))
ALLOWED = {"Conv", "Relu", "Add", "GlobalAveragePool", "Flatten", "Gemm"}


@pytest.fixture(scope="module")
def task():
    return yaml.safe_load((FOLDER / "task.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def data():
    return dict(np.load(FOLDER / "test.npz"))


@pytest.fixture(scope="module")
def answer(task):
    """Classes the float network gives int8 maps."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(FOLDER / task["model"], options)

    def answers(maps):
        x = (maps.astype(np.float32) - task["input"]["zero_point"]) * np.float32(task["input"]["scale"])
        return session.run(None, {task["input"]["name"]: x})[0].argmax(axis=1)

    return answers


def maps_of(audio, task):
    """int8 maps of 16 kHz clips, by the front end that made the test set."""
    values = features(audio, FeatureConfig())
    codes = quantize_features(values, scale=task["input"]["scale"], zero_point=task["input"]["zero_point"])
    return codes.swapaxes(-1, -2)[..., None]


def wavs():
    paths = sorted((FOLDER / "wav").glob("*.wav"))
    return paths, [read_wav(path) for path in paths]


def test_folder_is_under_a_megabyte():
    shipped = [path for path in FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in shipped) < 1_000_000


def test_labels_are_balanced(data, task):
    assert len(data["y"]) >= 1_000
    assert data["x_q"].shape == (len(data["y"]), *task["input"]["shape"])
    assert data["x_q"].dtype == np.int8
    counts = np.bincount(data["y"], minlength=12)
    assert counts.min() == counts.max()


def test_task_file_and_data_agree(data, task):
    calibration = np.load(FOLDER / task["calibration"])
    assert list(data["classes"]) == list(calibration["classes"]) == task["classes"]
    assert data["scale"] == calibration["scale"] == np.float32(task["input"]["scale"])
    assert data["zero_point"] == calibration["zero_point"] == task["input"]["zero_point"]
    assert calibration["x_q"].shape[1:] == data["x_q"].shape[1:]


def test_model_uses_plain_operators(task):
    model = onnx.load(FOLDER / task["model"])
    assert {node.op_type for node in model.graph.node} <= ALLOWED
    assert [value.name for value in model.graph.input] == [task["input"]["name"]]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer) == task["parameters"]


def test_stated_accuracy_on_synthetic_speech(data, task, answer):
    stated = task["accuracy_float"]["synthetic"]
    accuracy = (answer(data["x_q"]) == data["y"]).mean()
    assert stated["n"] == len(data["y"])
    assert accuracy == pytest.approx(stated["value"], abs=0.001)
    assert 0.90 <= accuracy <= 0.97


def test_wavs_are_one_second_and_give_the_stored_maps(data, task):
    paths, clips = wavs()
    assert [path.stem[3:] for path in paths] == task["classes"][:10]
    assert {(audio.shape, rate) for audio, rate in clips} == {((16_000,), 16_000)}
    maps = maps_of(np.stack([audio for audio, _ in clips]), task)
    np.testing.assert_array_equal(maps, data["wav_x_q"])


def test_wavs_are_mostly_answered_right(task, answer):
    _, clips = wavs()
    right = answer(maps_of(np.stack([audio for audio, _ in clips]), task)) == np.arange(10)
    assert right.sum() >= 8


def test_card_says_synthetic_and_states_both_accuracies(task):
    card = (FOLDER / "card.md").read_text(encoding="utf-8")
    for kind in ("synthetic", "real"):
        stated = task["accuracy_float"][kind]
        assert any(f"{100 * stated['value']:.1f} %" in line and str(stated["n"]) in line for line in card.splitlines())
    assert "synthetic" in card


def test_stated_accuracy_on_real_speech(task, answer, shared_data):
    real = np.load(shared_data / "speech_commands" / "audio16k.npz")
    assert list(real["classes"]) == task["classes"]
    stated = task["accuracy_float"]["real"]
    accuracy = (answer(maps_of(real["audio"], task)) == real["y"]).mean()
    assert len(real["y"]) == stated["n"]
    assert accuracy == pytest.approx(stated["value"], abs=0.001)
