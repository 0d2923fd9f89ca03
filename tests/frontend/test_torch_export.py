"""PyTorch at the door: a module, an exported program and its file give the network that torch computes."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import insitu
from insitu.base.errors import DataError, ModelError
from insitu.flow.chain import capture
from insitu.frontend.load import load_model
from insitu.frontend.torch_export import EXPRESSION
from insitu.graph.export import float_session

torch: Any = pytest.importorskip("torch", reason="extra torch")
pytest.importorskip("onnxscript", reason="extra torch")
pytestmark = pytest.mark.slow  # torch takes seconds to load its exporter


def small() -> Any:
    torch.manual_seed(3)
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    ).eval()  # fmt: skip


class TwoInputs(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = torch.nn.Linear(6, 4), torch.nn.Linear(3, 4)

    def forward(self, a: Any, b: Any) -> Any:
        return torch.relu(self.left(a)) + self.right(b)


def samples(*shape: int) -> Any:
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def test_a_module_gives_what_torch_computes() -> None:
    module, x = small(), samples(5, 3, 8, 8)
    graph = capture(module, sources=({"x": x},))
    (name,) = graph.inputs
    (out,) = float_session(graph)({name: x[:, None]}).values()
    np.testing.assert_allclose(out[:, 0], module(torch.from_numpy(x)).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_deploy_takes_a_module_and_leaves_it_in_training() -> None:
    module, x = small(), samples(40, 3, 8, 8)
    module.train()
    found = insitu.deploy(module, "dcim-28nm", data={"x": x})
    assert module.training
    assert found.result.bit_exact.mismatches == 0
    assert found.metrics["sqnr_db"].value > 25


def test_inputs_by_the_names_of_forward() -> None:
    graph = capture(TwoInputs().eval(), sources=({"b": samples(4, 3), "a": samples(4, 6)},))
    assert graph.inputs == ("a", "b")
    with pytest.raises(DataError, match="arrays called a, b"):
        capture(TwoInputs(), sources=({"c": samples(4, 3)},))


def test_a_module_without_data_or_that_cannot_be_exported() -> None:
    with pytest.raises(ModelError, match="without data"):
        capture(small())

    class Odd(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x if x.sum() > 0 else -x

    with pytest.raises(ModelError, match=r"torch\.export fails"):
        capture(Odd(), sources=({"x": samples(2, 3)},))


def saved(folder: Path) -> Path:
    path = folder / "net.pt2"
    program = torch.export.export(small(), (torch.zeros(1, 3, 8, 8),))
    torch.export.save(program, path)
    return path


def test_a_file_gives_the_same_graph_as_its_module(tmp_path: Path) -> None:
    graph = load_model(saved(tmp_path))
    x = samples(1, 3, 8, 8)
    (out,) = float_session(graph)({graph.inputs[0]: x[:, None]}).values()
    np.testing.assert_allclose(out[:, 0], small()(torch.from_numpy(x)).detach().numpy(), rtol=1e-4, atol=1e-5)


class Bomb:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("exploded"),))


def altered(path: Path, part: str, data: bytes) -> Path:
    """The file with one part replaced."""
    out = path.with_name("altered.pt2")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as target:
        for info in source.infolist():
            target.writestr(info.filename, data if info.filename.endswith(part) else source.read(info))
    return out


@pytest.mark.parametrize("part", ["sample_inputs/model.pt", "weights/weight_0"])
def test_nothing_in_a_file_is_executed(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path)
    buffer = io.BytesIO()
    torch.save((Bomb(),), buffer)
    hostile = altered(path, part, buffer.getvalue())
    if part.startswith("weights"):
        with zipfile.ZipFile(path) as source:
            config = source.read(next(n for n in source.namelist() if n.endswith("model_weights_config.json")))
        text = config.replace(b'"use_pickle": false', b'"use_pickle": true').replace(
            b'"use_pickle":false', b'"use_pickle":true'
        )
        hostile = altered(hostile.rename(tmp_path / "again.pt2"), "model_weights_config.json", text)
    with pytest.raises(ModelError):
        load_model(hostile)
    assert not Path("exploded").exists()


def test_broken_files(tmp_path: Path) -> None:
    path = saved(tmp_path)
    for data in (b"", b"nothing", path.read_bytes()[:-200], pickle.dumps(Bomb())):
        broken = tmp_path / "broken.pt2"
        broken.write_bytes(data)
        with pytest.raises(ModelError):
            load_model(broken)
    assert not Path("exploded").exists()


def test_size_expressions_hold_no_code() -> None:
    assert EXPRESSION.fullmatch("Add(Mul(Integer(2), Symbol('s77', positive=True, integer=True)), Integer(-1))")
    assert EXPRESSION.fullmatch("2*s0 + 1")
    for text in ("__import__('os')", "Symbol.__class__", "().__class__", "lambda: 0", "Symbol('a.b')", "exec(1)"):
        assert not EXPRESSION.fullmatch(text)


class Projected(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(8, 12, proj_size=6, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.lstm(x)[0]


class Random(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(8, 4)

    def forward(self, x: Any) -> Any:
        return torch.nn.functional.dropout(self.layer(x), 0.5, training=True)


def test_a_network_that_torch_writes_wrongly_is_refused() -> None:
    """Its exporter takes the size of a projection for that of the state."""
    with pytest.raises(ModelError, match="instead of proj_size, a Linear"):
        capture(Projected().eval(), sources=({"x": samples(4, 5, 8)},))


def test_a_module_that_computes_something_else_each_time_is_refused() -> None:
    with pytest.raises(ModelError, match="same numbers each time"):
        capture(Random().eval(), sources=({"x": samples(4, 8)},))


class Several(torch.nn.Module):
    """Outputs that are one value, and a forward that wants two samples."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)

    def forward(self, x: Any) -> Any:
        if x.shape[0] == 1:
            raise ValueError("two samples")
        y = self.a(x)
        return y, y, self.b(y)


def test_what_cannot_be_compared_is_no_fault() -> None:
    assert len(capture(Several().eval(), sources=({"x": samples(4, 8)},)).outputs) == 3
