"""`--memory`: samples in blocks give the same bytes, what is too little is said, large files stay files."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import insitu
from insitu.arch.load import load_chip
from insitu.base.errors import UsageError
from insitu.bench.networks import Network
from insitu.flow import blocks, rows
from insitu.flow.blocks import Feed, feed_of
from insitu.flow.chain import Options, build, capture
from insitu.flow.data import load_samples, prepare
from insitu.frontend.onnx import import_model
from insitu.runtime.memory import machine_memory, parse_memory, resident
from insitu.runtime.session import Session

SAMPLES = 300


def small_network(size: int = 8) -> Any:
    """Two convolutions and a classifier."""
    net = Network("small", (1, 4, size, size))
    return net.model(net.dense(net.average(net.conv(net.conv("x", 8, 3), 8, 3)), 10))


@pytest.fixture(scope="module")
def line() -> dict[str, Any]:
    graph = capture(import_model(small_network()))
    rng = np.random.default_rng(3)
    shape = graph.type(graph.inputs[0]).sizes()
    x = rng.standard_normal((SAMPLES, *shape)).astype(np.float32)
    return {"graph": graph, "x": x, "y": rng.integers(0, graph.type(graph.outputs[0]).sizes()[-1], SAMPLES)}


@pytest.mark.parametrize("labels", [True, pytest.param(False, marks=pytest.mark.long)])
def test_blocks_change_no_byte(line: dict[str, Any], monkeypatch: pytest.MonkeyPatch, labels: bool) -> None:
    data = {"x": line["x"], "y": line["y"]} if labels else {"x": line["x"]}
    options = Options(instances=1, seed=5)
    whole = insitu.deploy(line["graph"], "parametric-reram-adc8", data=data, options=options)
    taken: list[tuple[int, int]] = []

    def least(*args: Any, **options: Any) -> Feed:
        feed = feed_of(*args, **options)
        taken.append((len(feed), feed.unit))
        return replace(feed, rows=feed.unit)

    monkeypatch.setattr("insitu.flow.chain.feed_of", least)
    monkeypatch.setattr(blocks, "room", lambda limit, need: 0)  # codes are not kept either
    small = insitu.deploy(line["graph"], "parametric-reram-adc8", data=data, options=options)
    assert [unit < samples for samples, unit in taken] == [True]
    assert small.result.to_json() == whole.result.to_json()


def test_what_is_held_follows_what_is_given(line: dict[str, Any]) -> None:
    _, quantized, program = build(line["graph"], load_chip("dcim-28nm"), calibration={"x": line["x"][:32]})
    session = Session(program, graph=quantized)
    inputs = {line["graph"].inputs[0]: np.concatenate([line["x"]] * 20)}
    rooms = (0, 200_000, 1 << 30)
    feeds = [_feed(session, inputs, room) for room in rooms]
    assert [type(next(iter(f.codes.values()))) is np.ndarray for f in feeds] == [False, False, True]
    assert feeds[0].rows == feeds[0].unit < feeds[2].rows
    assert feeds[2].rows >= 20 * SAMPLES  # one block
    assert all(f.rows % f.unit == 0 for f in feeds)


def _feed(session: Session, inputs: dict[str, Any], room: int) -> Feed:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "room", lambda limit, need: room)
        return feed_of(session, inputs, slices=1, memory=None)


def test_too_little_says_how_much_is_needed(line: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("insitu.flow.chain.build", lambda *args, **options: pytest.fail("quantized before it was said"))
    with pytest.raises(UsageError) as caught:
        insitu.deploy(line["graph"], "dcim-28nm", data={"x": line["x"]}, memory="1MiB")
    assert "1 MiB" in str(caught.value)
    assert "or more" in str(caught.value)
    with pytest.raises(UsageError):
        parse_memory("0")
    assert parse_memory("2GiB") == 2 << 30
    assert 0 < resident() < machine_memory()


def test_a_large_file_stays_a_file(line: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "KEEP_ABOVE", 1000)
    codes = (line["x"] * 40).astype(np.int16)
    for name, x in (("x", line["x"]), ("x", codes)):
        np.savez(tmp_path / "data.npz", **{name: x}, y=line["y"])
        read = load_samples(tmp_path / "data.npz", line["graph"])
        held: Any = read.inputs[line["graph"].inputs[0]]
        assert isinstance(held, rows.Rows)
        assert np.array_equal(held[7:19], x[7:19].astype(np.float32))
        part: Any = read.take(np.array([3, 299, 12])).inputs[line["graph"].inputs[0]]
        assert isinstance(part, rows.Rows)
        assert np.array_equal(part[:], x[[3, 299, 12]].astype(np.float32))
        assert part[:].dtype == np.float32
    made = [
        prepare(line["graph"], data=source, calib=None, samples=100, seed=1)
        for source in (tmp_path / "data.npz", {"x": codes, "y": line["y"]})
    ]
    for one, other in zip(*(m.calibration.values() for m in made), strict=True):
        assert np.array_equal(one, other)
    first, second = (m.evaluation for m in made)
    assert first is not None
    assert second is not None
    assert np.array_equal(np.asarray(next(iter(first.inputs.values()))), next(iter(second.inputs.values())))


CHILD = """
import sys
from pathlib import Path
import insitu
import insitu.flow.chain as chain
from insitu.frontend.onnx import import_model
from tests.flow.test_memory import small_network

graph = chain.capture(import_model(small_network(64)))
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here, quantization too
insitu.deploy(graph, "dcim-28nm", data=sys.argv[1], memory=sys.argv[2])
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(int(peak.split()[1]) / 1024)
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a peak since a moment")
def test_the_peak_stays_under_what_is_given(tmp_path: Path) -> None:
    """230 MB of samples beside a process that holds some 250 MiB, within 500 MiB, quantization included."""
    x = np.random.default_rng(0).standard_normal((3500, 4, 64, 64), np.float32)
    np.savez(tmp_path / "data.npz", x=x)
    command = [sys.executable, "-c", CHILD, str(tmp_path / "data.npz"), "500MiB"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert 100 < float(done.stdout) <= 500
