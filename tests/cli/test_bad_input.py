"""Whatever is wrong with what a user gives: exit code 1, one message with where, got and need, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from tests.cli.conftest import CLASSES, ROWS, Done, Insitu, model_proto

Write = Callable[[str, Any], Path]
CHIP = "dcim-28nm"


def left(folder: Path) -> set[str]:
    """What lies in the working folder beside the inputs."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if "in" not in p.relative_to(folder).parts[:1]}


def refused(insitu: Insitu, folder: Path, *arguments: object, mentions: tuple[str, ...] = ()) -> Done:
    """Run plainly and with --json; both end with 1 and say the same."""
    before = left(folder)
    plain = insitu(*arguments)
    assert (plain.code, plain.out) == (1, ""), plain
    as_json = insitu(*arguments, "--json")
    assert as_json.code == 1
    found = as_json.json()
    assert set(found) == {"schema", "error"}
    assert set(found["error"]) == {"code", "where", "got", "need", "try"}
    assert all(found["error"][key] for key in ("code", "where", "got", "need")), found
    assert "Traceback" not in plain.err
    for text in mentions:
        assert text in plain.err, plain.err
    assert left(folder) == before, "something was left behind"
    return as_json


def with_weights(weights: Any) -> Any:
    return model_proto(weights=weights)


def node(op: str, inputs: list[str], outputs: list[str]) -> Any:
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}")


W = numpy_helper.from_array(np.ones((ROWS, CLASSES), np.float32), "w")
UNKNOWN = [node("Frobnicate", ["x"], ["h"]), node("Det", ["h"], ["y"])]
CYCLE = [node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]), node("Gemm", ["b", "w"], ["y"])]
MODELS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "not an ONNX file": ("hello, this is text\n", ("text file",)),
    "random bytes": (bytes(range(256)) * 4, ("not an ONNX model",)),
    "empty": (b"", ("empty",)),
    "truncated": (model_proto().SerializeToString()[:-40], ("model",)),
    "NaN weights": (with_weights(np.full((ROWS, 8), np.nan, np.float32)), ("NaN",)),
    "infinite weights": (with_weights(np.full((ROWS, 8), np.inf, np.float32)), ("inf",)),
    "missing initializer": (model_proto(nodes=[node("Gemm", ["x", "lost"], ["y"])], tensors=[]), ("lost",)),
    "unknown operator": (model_proto(nodes=UNKNOWN), ("Frobnicate (no such operator)", "behind them")),
    "cycle": (model_proto(nodes=CYCLE, tensors=[W]), ("cycle",)),
    "open sizes": (model_proto(dims=("N", "width"), nodes=[node("Relu", ["x"], ["y"])]), ("width", "--shape x=")),
}


@pytest.mark.parametrize("name", MODELS)
def test_models(insitu: Insitu, tmp_path: Path, write: Write, name: str) -> None:
    content, mentions = MODELS[name]
    path = write("bad.onnx", content)
    refused(insitu, tmp_path, "run", path, "--chip", CHIP, mentions=(*mentions, "bad.onnx"))
    refused(insitu, tmp_path, "compile", path, "--chip", CHIP, "-o", "p.insitu", mentions=mentions)


X = np.zeros((6, ROWS), np.float32)
DATA: dict[str, tuple[Any, tuple[str, ...]]] = {
    "wrong shape": ({"x": np.zeros((6, ROWS + 1), np.float32)}, ("6 x 13", f"N x {ROWS}")),
    "one sample without its axis": ({"x": np.zeros(ROWS, np.float32)}, ("shape",)),
    "text": ({"x": np.array(["a", "b"])}, ("type <U1",)),
    "complex": ({"x": X.astype(np.complex64)}, ("complex64",)),
    "pickled objects": ({"x": np.array([{}, []], object)}, ("not a readable .npz",)),
    "NaN": ({"x": np.where(np.arange(6)[:, None] == 4, np.nan, X)}, ("NaN", "row 4")),
    "infinity": ({"x": X + np.inf}, ("infinity",)),
    "beyond float32": ({"x": X.astype(np.float64) + 1e300}, ("float32",)),
    "no x": ({"inputs": X}, ("arrays inputs", "`x`")),
    "no samples": ({"x": X[:0]}, ("0 samples",)),
    "rows that differ": ({"x": X, "y": np.zeros(5, int)}, ("x: 6 rows", "y: 5 rows")),
    "labels beyond the classes": ({"x": X, "y": np.full(6, CLASSES)}, (f"0 to {CLASSES - 1}",)),
    "one-hot labels": ({"x": X, "y": np.eye(CLASSES, dtype=int)[[0] * 6]}, ("one label for each sample",)),
    "labels as text": ({"x": X, "y": np.array(list("abcdef"))}, ("y",)),
    "not an .npz": ("x,y\n1,2\n", ("not an .npz",)),
    "empty": (b"", ("empty",)),
    "broken zip": (b"PK\x03\x04" + b"\0" * 64, ("not a readable .npz",)),
}  # fmt: skip


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("option", ["--data", "--calib"])
def test_data(insitu: Insitu, tmp_path: Path, model: Path, write: Write, name: str, option: str) -> None:
    content, mentions = DATA[name]
    path = write("bad.npz", content)
    refused(insitu, tmp_path, "run", model, "--chip", CHIP, option, path, mentions=("bad.npz", *mentions))


def test_data_file_that_is_not_there(insitu: Insitu, tmp_path: Path, model: Path, data: Path) -> None:
    refused(
        insitu,
        tmp_path,
        "run",
        model,
        "--chip",
        CHIP,
        "--data",
        "in/dada.npz",
        mentions=("no such file", "Try: in/data.npz"),
    )


def test_truncated_data(insitu: Insitu, tmp_path: Path, model: Path, data: Path) -> None:
    data.write_bytes(data.read_bytes()[:-200])
    refused(insitu, tmp_path, "run", model, "--chip", CHIP, "--data", data, mentions=("not a readable .npz",))


@pytest.mark.parametrize(
    ("chip", "mentions"),
    [
        ("wtm2100", ("unknown", "Try: wtm2101")),
        ("WTM2101", ("Try: wtm2101",)),
        ("in/none.yaml", ("no such file",)),
        ("in/tiny.onnx", ("a .yaml file",)),
    ],
)
def test_unknown_chip(insitu: Insitu, tmp_path: Path, model: Path, chip: str, mentions: tuple[str, ...]) -> None:
    refused(insitu, tmp_path, "run", model, "--chip", chip, mentions=mentions)


CHIPS = {
    "typo in a key": (
        "extends: wtm2101\nmacro:\n  readuot:\n    bits: 8\n",
        ("chip.yaml:3", "readuot", "Try: readout"),
    ),
    "duplicate key": ("extends: wtm2101\nname: a\nname: b\n", ("chip.yaml:3", "name")),
    "wrong type": ("extends: wtm2101\narray:\n  rows: many\n", ("chip.yaml:3", "array.rows = many", "an integer")),
    "unit that does not fit": ("extends: wtm2101\nmacro:\n  t_read: 5 W\n", ("chip.yaml:3", "a quantity in s")),
    "contradiction": ("extends: wtm2101\narray:\n  bits_per_cell: 99\n", ("chip.yaml:3",)),
    "not YAML": ("a: [1, 2\nb: }", ("chip.yaml",)),
    "empty": ("", ("chip.yaml",)),
    "not UTF-8": (b"name: \xff\xfe\n", ("chip.yaml",)),
    "a tag": ("!!python/object/apply:os.system ['touch owned']\n", ("chip.yaml",)),
    "extends itself": ("extends: chip.yaml\n", ("chip.yaml",)),
}


@pytest.mark.parametrize("name", CHIPS)
def test_chip_files(insitu: Insitu, tmp_path: Path, model: Path, write: Write, name: str) -> None:
    content, mentions = CHIPS[name]
    path = write("chip.yaml", content)
    refused(insitu, tmp_path, "run", model, "--chip", path, mentions=mentions)
    refused(insitu, tmp_path, "check", path, mentions=mentions)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("arguments", "mentions"),
    [
        (("--set", "macro.readout.bitz=6"), ("bitz",)),
        (("--set", "macro"), ("macro",)),
        (("--shape", "x"), ("NAME=SIZES",)),
        (("--shape", "z=1,3"), ("--shape z", "no input has this name")),
        (("--shape", "x=1,T"), ("numbers",)),
        (("--time", "0s,-1h"), ("--time", "0 s or later")),
        (("--time", ""), ("--time",)),
        (("--time", "soon"), ("soon",)),
        (("--physics", "fulll"), ("Try: full",)),
        (("--physics", "adc_inl"), ("no such effect",)),
        (("--objective", "throughputs"), ("Try: throughput",)),
        (("--search", "-1"), ("--search",)),
        (("--max-chips", "0"), ("--max-chips",)),
        (("--samples", "few"), ("--samples few",)),
        (("--check", "-1"), ("--check -1",)),
        (("--seed", "x"), ("--seed",)),
        (("--instances", "0"), ("--instances",)),
        (("--vs", "gpu"), ("machine 'gpu'",)),
        (("--chpi", "x"), ("Try: --chip",)),
        (("--plan", "in/none.json"), ("no such file",)),
    ],
)
def test_options(
    insitu: Insitu, tmp_path: Path, model: Path, arguments: tuple[str, ...], mentions: tuple[str, ...]
) -> None:
    refused(insitu, tmp_path, "run", model, "--chip", CHIP, *arguments, mentions=mentions)


@pytest.mark.parametrize(
    ("arguments", "mentions"),
    [
        (("rn", "x"), ("no command 'rn'", "Try: run")),
        (("run",), ("MODEL",)),
        (("run", "a.onnx"), ("--chip",)),
        (("run", "kwss", "--chip", CHIP), ("Try: task:kws",)),
        (("run", "task:kwz", "--chip", CHIP), ("Try: task:kws",)),
        (("run", "shape:llama-3-71b", "--chip", CHIP), ("llama-3-70b",)),
        (("run", ".", "--chip", CHIP), ("folder",)),
        (("run", "a\0b", "--chip", CHIP), ()),
        (("compile", "task:kws", "--chip", CHIP, "-o", "a.graph"), ("--stop-after",)),
        (("compile", "task:kws", "-o", "a.insitu"), ("--chip",)),
        (("compile", "task:kws", "--chip", CHIP, "--stop-after", "place", "-o", "a.graph"), ("placed",)),
        (("show", "wtm2100"), ("Try: wtm2101",)),
        (("show", "in"), ("not a run folder",)),
        (("check", "notes.txt"), (".yaml",)),
        (("verify", "none.insitu"), ("none.insitu",)),
        (("chips", "--copy", "wtm2101", "in/tiny.onnx"), (".yaml",)),
        (("chips", "--copy", "wtm", "my.yaml"), ("Try: wtm2101",)),
    ],
)
def test_words(
    insitu: Insitu, tmp_path: Path, model: Path, arguments: tuple[str, ...], mentions: tuple[str, ...]
) -> None:
    refused(insitu, tmp_path, *arguments, mentions=mentions)


def test_plans(insitu: Insitu, tmp_path: Path, model: Path, write: Write) -> None:
    assert insitu("run", model, "--chip", "wtm2101", "--out", "in/run", "--check", 1).code == 0
    text = (tmp_path / "in" / "run" / "plan.json").read_text()

    def changed(**fields: Any) -> str:
        plan = json.loads(text)
        name = next(iter(plan["layers"]))
        plan["layers"][name] = {**plan["layers"][name], **fields}
        return json.dumps(plan)

    lost = json.loads(text)
    del lost["values"]["y"]
    for content, mention in (
        ("", "JSON"),
        ("[]", "plan.json"),
        (json.dumps(lost), "nothing for y"),
        (changed(gain=[256, 256]), "plan.json"),
        (changed(input_shift=10**12), "input_shift"),
        (changed(input_shift="x"), "input_shift"),
        (changed(k=1.5), "k = 1.5"),
        (changed(surprise=1), "surprise"),
    ):
        path = write("plan.json", content)
        refused(insitu, tmp_path, "run", model, "--chip", "wtm2101", "--plan", path, mentions=("plan.json", mention))
    path = write("plan.json", text)
    refused(insitu, tmp_path, "run", model, "--chip", CHIP, "--plan", path, mentions=("plan.json",))


# places to write


def test_a_folder_that_holds_something_else(insitu: Insitu, tmp_path: Path, model: Path, write: Write) -> None:
    write("mine/letter.txt", "dear reader") if (tmp_path / "in" / "mine").mkdir(parents=True) else None
    folder = tmp_path / "in" / "mine"
    (folder / "letter.txt").write_text("dear reader")
    refused(insitu, tmp_path, "run", model, "--chip", CHIP, "--out", folder, mentions=("letter.txt", "--out"))
    assert [p.name for p in folder.iterdir()] == ["letter.txt"]


def test_a_file_where_the_folder_should_be(insitu: Insitu, tmp_path: Path, model: Path) -> None:
    refused(insitu, tmp_path, "run", model, "--chip", CHIP, "--out", model, mentions=("not a folder",))
    refused(insitu, tmp_path, "run", model, "--chip", CHIP, "--out", model / "run", mentions=("tiny.onnx",))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(insitu: Insitu, tmp_path: Path, model: Path) -> None:
    closed = tmp_path / "in" / "closed"
    closed.mkdir(mode=0o500)
    refused(insitu, tmp_path, "run", model, "--chip", CHIP, "--out", closed / "run", mentions=("permission denied",))


def test_a_place_in_proc(insitu: Insitu, tmp_path: Path, model: Path) -> None:
    if not Path("/proc/self").exists():
        pytest.skip("no /proc here")
    refused(insitu, tmp_path, "run", model, "--chip", CHIP, "--out", "/proc/self/run")
    refused(insitu, tmp_path, "compile", model, "--chip", CHIP, "-o", "/proc/self/p.insitu")


def test_a_full_disk(insitu: Insitu, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Space ends in the middle of the run folder: the message says so and the folder is gone."""
    from insitu.base import store

    write_all, written = store._write_all, []

    def small_disk(descriptor: int, data: bytes) -> None:
        written.append(len(data))
        if sum(written) > 5_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_all(descriptor, data)

    monkeypatch.setattr(store, "_write_all", small_disk)
    for arguments in (
        ("run", model, "--chip", CHIP, "--check", "2"),
        ("compile", model, "--chip", CHIP, "-o", "p.insitu"),
    ):
        written.clear()
        done = insitu(*arguments, "--json")
        assert done.code == 1
        assert done.json()["error"]["code"] == "output"
        assert "no space left" in done.json()["error"]["got"]
        assert left(tmp_path) - {"insitu-runs"} == set()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_device(insitu: Insitu, tmp_path: Path, model: Path) -> None:
    refused(insitu, tmp_path, "compile", model, "--chip", CHIP, "-o", "/dev/full", mentions=("no space left",))


# files that were altered


def test_altered_programs(insitu: Insitu, tmp_path: Path, model: Path) -> None:
    assert insitu("compile", model, "--chip", CHIP, "-o", "in/p.insitu").code == 0
    data = (tmp_path / "in" / "p.insitu").read_bytes()
    bad = tmp_path / "in" / "bad.insitu"
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    for content in (data[:-7], bytes(changed), b"", b"\x80\x04cos\nsystem\n", data + b"x"):
        bad.write_bytes(content)
        for command in ("verify", "check", "show"):
            refused(insitu, tmp_path, command, bad, mentions=("bad.insitu",))
        refused(insitu, tmp_path, "simulate", bad, "--data", "in/none.npz", mentions=("bad.insitu",))


def test_altered_graphs(insitu: Insitu, tmp_path: Path, model: Path) -> None:
    assert insitu("compile", model, "--stop-after", "captured", "-o", "in/g.graph").code == 0
    text = (tmp_path / "in" / "g.graph").read_text()
    bad = tmp_path / "in" / "bad.graph"
    for content in (
        text[: len(text) // 2],
        text.replace("MatMul", "System"),
        "",
        '__import__("os").system("touch owned")\n',
        "\0\1",
    ):
        bad.write_text(content)
        for arguments in (("check", bad), ("show", bad), ("compile", bad, "--chip", CHIP, "-o", "p.insitu")):
            refused(insitu, tmp_path, *arguments, mentions=("bad.graph",))
    assert not (tmp_path / "owned").exists()


# our own faults


def test_a_fault_of_ours(insitu: Insitu, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from insitu.cli import run

    def broken(*_: object, **__: object) -> None:
        raise KeyError("[red]inside[/red]")

    monkeypatch.setattr(run, "deploy", broken)
    done = insitu("run", model, "--chip", CHIP)
    assert (done.code, done.out) == (3, "")
    assert "Traceback" not in done.err
    assert "[red]inside[/red]" in done.err
    notes = list((tmp_path / "cache").rglob("insitu-crash-*.txt"))
    assert len(notes) == 1
    assert "Traceback" in notes[0].read_text()
    assert str(notes[0]) in done.err
    assert not (tmp_path / "insitu-runs").exists()
    as_json = insitu("run", model, "--chip", CHIP, "--json")
    assert as_json.code == 3
    assert as_json.json()["error"]["code"] == "internal"
    monkeypatch.setenv("INSITU_DEBUG", "1")
    assert "Traceback" in insitu("run", model, "--chip", CHIP).err


def test_error_objects_are_one_json_object(insitu: Insitu) -> None:
    out = insitu("run", "--json").out
    assert json.loads(out)["error"]["code"] == "usage"
