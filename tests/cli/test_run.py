"""`insitu run`: the contract of its JSON, its folder and its summary."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.cli.conftest import CLASSES, ROWS, Insitu, model_proto, started
from tests.flow.qdq import qdq_model

CHIPS = ("dcim-28nm", "wtm2101", "parametric-reram-adc8")
FIRST = {
    "schema", "model", "chip", "fits", "seed", "calibration", "bit_exact", "onnx_agreement", "coverage", "metrics",
    "accuracy_over", "sqnr_over", "layers", "constants", "run_dir",
}  # fmt: skip
FILES = {
    "audio", "host.json", "insitu-run.json", "plan.json", "program.insitu", "quantized.graph", "report.html",
    "result.json", "summary.txt", "trace.json",
}  # fmt: skip


@pytest.mark.parametrize("chip", CHIPS)
def test_json(insitu: Insitu, model: Path, data: Path, chip: str) -> None:
    done = insitu("run", model, "--chip", chip, "--data", data, "--instances", 2, "--check", 4, "--json")
    assert done.code == 0, done.err
    result = done.json()
    assert set(result) == FIRST
    assert result["model"] == {"name": "tiny", "parameters": ROWS * 8 + 8 * CLASSES, "macs": ROWS * 8 + 8 * CLASSES}
    assert (result["chip"], result["fits"], result["seed"]) == (chip, True, 0)
    assert result["calibration"] == "data-overlap"
    assert result["bit_exact"]["mismatches"] == 0
    assert result["bit_exact"]["checked_values"] >= 100_000
    assert result["metrics"]["accuracy_float"] == {**result["metrics"]["accuracy_float"], "value": 37 / 40, "unit": "1"}
    for name in ("sqnr_db", "cosine", "latency_s", "throughput_per_s", "energy_j", "power_w", "array_utilization"):
        assert result["metrics"][name]["value"] > 0, name
    assert [layer["name"] for layer in result["layers"]]
    assert (Path(result["run_dir"]) / "report.html").is_file()
    constants = result["constants"]
    assert 0 < len(constants) <= 10
    weights = [max(map(abs, c["elasticity"].values())) for c in constants]
    assert weights == sorted(weights, reverse=True)
    assert all(c["source"] for c in constants)
    energies = [c["elasticity"]["energy_j"] for c in constants if c["unit"] in ("J", "W")]
    assert 0.9 < sum(energies) <= 1.001  # every joule comes from a constant


def test_a_quantized_model_needs_no_data(insitu: Insitu, tmp_path: Path) -> None:
    proto, _ = qdq_model(1)
    onnx.save(proto, tmp_path / "net.onnx")
    done = insitu("run", tmp_path / "net.onnx", "--chip", "dcim-28nm", "--json")
    assert done.code == 0, done.err
    result = done.json()
    assert result["calibration"] == "model"
    assert result["bit_exact"]["mismatches"] == 0
    assert {"equal_fraction", "max_difference", "operators"} <= set(result["onnx_agreement"])
    assert result["onnx_agreement"]["equal_fraction"] >= 0.9999
    assert result["onnx_agreement"]["max_difference"] <= 1


def test_summary_and_folder(insitu: Insitu, tmp_path: Path, model: Path, data: Path) -> None:
    done = insitu("run", model, "--chip", "wtm2101", "--data", data)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert len(lines) <= 12
    assert lines[0].startswith("tiny on wtm2101")
    assert "\x1b" not in done.out + done.err
    folder = tmp_path / lines[-1].split()[-1].removesuffix("/report.html")
    assert folder.parent.name == "insitu-runs"
    assert folder.name.startswith("tiny-wtm2101-")
    assert {p.name for p in folder.iterdir()} == FILES - {"audio"}
    assert json.loads((folder / "result.json").read_text())["run_dir"] is None
    assert insitu("show", folder.relative_to(tmp_path)).out.splitlines() == lines
    again = insitu("run", model, "--chip", "wtm2101", "--data", data)
    assert again.out == done.out


def test_the_folder_names_its_inputs(insitu: Insitu, model: Path, data: Path, write: Any) -> None:
    def place(*more: object, file: Path = data) -> str:
        done = insitu("run", model, "--chip", "dcim-28nm", "--data", file, "--check", 1, "--json", *more)
        assert done.code == 0, done.err
        return str(done.json()["run_dir"])

    first = place()
    other = write("other.npz", {**np.load(data), "x": np.load(data)["x"] * 2})
    places = [place("--seed", 1), place("--set", "chip.clock=100 MHz"), place(file=other), place("--physics", "ideal")]
    assert len({first, *places}) == 5
    assert place() == first


def test_out(insitu: Insitu, tmp_path: Path, model: Path) -> None:
    for _ in range(2):  # a run folder is replaced
        done = insitu("run", model, "--chip", "dcim-28nm", "--out", "deep/er", "--json")
        assert done.code == 0, done.err
    assert done.json()["run_dir"] == "deep/er"
    assert done.json()["calibration"] == "random"
    assert "accuracy_float" not in done.json()["metrics"]
    assert {p.name for p in (tmp_path / "deep" / "er").iterdir()} == FILES - {"audio"}
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["er"]


def test_infeasible(insitu: Insitu, write: Any) -> None:
    big = np.ones((200, 150), np.float32)
    nodes = [helper.make_node("Gemm", ["x", "w"], ["y"], name="huge")]
    path = write("big.onnx", model_proto(dims=("N", 200), nodes=nodes, tensors=[numpy_helper.from_array(big, "w")]))
    small = ("--chip", "wtm2101", "--set", "array.rows=96", "--set", "array.cols=64")
    done = insitu("run", path, *small, "--json")
    assert done.code == 2, done.err
    result = done.json()
    assert set(result) == FIRST | {"infeasible"}
    assert result["fits"] is False
    for item in result["infeasible"]:
        assert set(item) == {"resource", "demand", "bound", "unit", "filled_by", "ways_out"}
        assert item["demand"] > item["bound"]
        assert item["filled_by"]
        assert item["ways_out"]
    assert (Path(result["run_dir"]) / "report.html").is_file()
    text = insitu("run", path, *small)
    assert text.code == 2
    assert "Does not fit" in text.out
    compiled = insitu("compile", path, *small, "-o", "p.insitu", "--json")
    assert (compiled.code, compiled.json()["fits"]) == (2, False)
    assert not Path("p.insitu").exists()


def test_several_inputs(insitu: Insitu, write: Any) -> None:
    ends = [helper.make_tensor_value_info(name, 1, ["N", size]) for name, size in (("a", 6), ("b", 6), ("y", 3))]
    nodes = [helper.make_node("Add", ["a", "b"], ["s"]), helper.make_node("MatMul", ["s", "w"], ["y"])]
    weights = numpy_helper.from_array(np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32), "w")
    graph = helper.make_graph(nodes, "two", ends[:2], ends[2:], [weights])
    path = write("two.onnx", helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10))
    rng = np.random.default_rng(1)
    rows = {name: rng.standard_normal((30, 6)) for name in "ab"} | {"y": rng.integers(0, 3, 30)}
    done = insitu("run", path, "--chip", "dcim-28nm", "--data", write("two.npz", rows), "--json")
    assert done.code == 0, done.err
    assert done.json()["metrics"]["accuracy_quantized"]["value"] > 0
    missing = insitu("run", path, "--chip", "dcim-28nm", "--data", write("one.npz", {"x": rows["a"]}))
    assert missing.code == 1
    assert "one array per input: a, b. Try: numpy.savez('data.npz', a=a, b=b, y=y)" in missing.err


def test_samples_and_calibration(insitu: Insitu, model: Path, data: Path, write: Any) -> None:
    rng = np.random.default_rng(5)
    many = {"x": rng.standard_normal((300, ROWS)).astype(np.float32), "y": rng.integers(0, CLASSES, 300)}
    path = write("many.npz", many)
    base = ("run", model, "--chip", "dcim-28nm", "--check", 1, "--json", "--data", path)
    result = insitu(*base).json()
    assert result["calibration"] == "data"
    assert "172 samples" in result["metrics"]["accuracy_float"]["note"]
    few = insitu(*base, "--samples", 10, "--calib", data).json()
    assert few["calibration"] == "file"
    assert "10 samples" in few["metrics"]["accuracy_float"]["note"]


def test_integers_are_cast_to_float(insitu: Insitu, model: Path, write: Any) -> None:
    x = np.random.default_rng(6).integers(-90, 90, (20, ROWS))
    one, two = (
        insitu("run", model, "--chip", "dcim-28nm", "--data", write("a.npz", {"x": x.astype(kind)}), "--json").json()
        for kind in (np.int8, np.float64)
    )
    assert one["metrics"] == two["metrics"]


def test_open_sizes_come_from_shape_or_data(insitu: Insitu, write: Any) -> None:
    w = numpy_helper.from_array(np.ones((4, 1, 3, 3), np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")]
    path = write("open.onnx", model_proto(dims=("N", 1, "h", "w"), nodes=nodes, tensors=[w]))
    base = ("run", path, "--chip", "dcim-28nm", "--json")
    assert insitu(*base).code == 1
    given = insitu(*base, "--shape", "x=1,1,8,8")
    assert given.code == 0, given.err
    rows = write("rows.npz", {"x": np.random.default_rng(0).standard_normal((9, 1, 8, 8))})
    found = insitu(*base, "--data", rows)
    assert found.code == 0, found.err
    assert found.json()["model"] == given.json()["model"]


def test_a_plan_gives_the_same_program(insitu: Insitu, tmp_path: Path, model: Path, data: Path) -> None:
    assert insitu("run", model, "--chip", "wtm2101", "--data", data, "--out", "a").code == 0
    done = insitu("run", model, "--chip", "wtm2101", "--data", data, "--plan", "a/plan.json", "--out", "b")
    assert done.code == 0, done.err
    assert (tmp_path / "a" / "program.insitu").read_bytes() == (tmp_path / "b" / "program.insitu").read_bytes()


@pytest.mark.slow
def test_a_wrong_scale_in_a_plan_is_found(insitu: Insitu, tmp_path: Path) -> None:
    base = ("run", "task:kws", "--chip", "wtm2101", "--instances", 1, "--samples", 64)
    assert insitu(*base, "--out", "good").code == 0
    plan = json.loads((tmp_path / "good" / "plan.json").read_text())
    plan["values"]["logits"]["scale"] = [64 * s for s in plan["values"]["logits"]["scale"]]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    done = insitu(*base, "--plan", "plan.json", "--out", "bad")
    assert done.code == 0, done.err
    assert "Look here     Layer fc" in done.out


def test_names_are_not_markup(insitu: Insitu, write: Any) -> None:
    path = write("[red]x[bold]\x1b[31m.onnx", model_proto())
    done = insitu("run", path, "--chip", "dcim-28nm")
    assert done.code == 0, done.err
    assert "\x1b" not in done.out + done.err
    plain = insitu("run", "[red]nope[/red]", "--chip", "dcim-28nm")
    assert "[red]nope[/red]" in plain.err


@pytest.mark.slow
def test_bytes_do_not_depend_on_threads_or_folder(tmp_path: Path, data: Path, model: Path) -> None:
    runs: list[dict[str, bytes]] = []
    for threads in ("1", "2"):
        out = tmp_path / threads / "run"
        arguments = ("run", model, "--chip", "wtm2101", "--data", data, "--out", out, "--seed", "7")
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
        process = started(*arguments, cwd=tmp_path, environment=dict.fromkeys(names, threads))
        assert process.communicate()[1] is not None
        assert process.returncode == 0
        runs.append({p.name: p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != "host.json"})
    assert runs[0] == runs[1]
    assert not any(str(tmp_path).encode() in content for content in runs[0].values())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    process = started("demo", "--json", "--out", "run", cwd=tmp_path)
    assert process.stderr is not None
    for line in process.stderr:
        if "check bit by bit" in line:
            break
    process.send_signal(number)
    start = time.monotonic()
    out, err = process.communicate()
    assert process.returncode == 130
    assert time.monotonic() - start < 10
    assert json.loads(out)["error"]["code"] == "interrupted"
    assert "Traceback" not in err
    assert [p.name for p in tmp_path.iterdir() if p.name != "cache"] == []


@pytest.mark.slow
def test_demo(insitu: Insitu, tmp_path: Path) -> None:
    done = insitu("demo", "--out", "run")
    assert done.code == 0, done.err
    assert "synthetic" in done.out
    folder = tmp_path / "run"
    assert {p.name for p in folder.iterdir()} == FILES
    assert len(list((folder / "audio").glob("*.wav"))) == 10
    page = (folder / "report.html").read_text()
    assert page.count("data:audio/wav;base64,") == 10
    assert len(page.encode()) < 500_000
    assert "on synthetic speech" in page
    assert "on real speech" in page
    assert "Votes of the chips" in page
    assert os.sep + "tmp" not in page


def test_beside_conventional_machines(insitu: Insitu, model: Path, data: Path, tmp_path: Path) -> None:
    where = ("--samples", 4, "--instances", 1, "--check", 1, "--out", tmp_path / "run")
    done = insitu("run", model, "--chip", "dcim-28nm", "--data", data, "--vs", "h100", "--vs", "pi5", *where, "--json")
    assert done.code == 0, done.err
    rows = done.json()["baselines"]
    assert [row["name"] for row in rows] == ["dcim-28nm", "nvidia-h100-80g-sxm", "raspberry-pi-5"]
    for row in rows:
        assert row["latency_s"] > 0
        parts = row["moving_j"] + row["arithmetic_j"] + row["rest_j"]
        assert row["energy_j"] == pytest.approx(parts)
        assert sum(row["bytes_moved"].values()) > 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "The memory wall" in page
    assert "Raspberry Pi 5" in page
    assert len(page) < 500_000


def test_an_unknown_machine_is_refused_first(insitu: Insitu, model: Path) -> None:
    done = insitu("run", model, "--chip", "dcim-28nm", "--vs", "h1000", "--json")
    assert done.code == 1
    assert "h100" in " ".join(done.json()["error"]["try"])
