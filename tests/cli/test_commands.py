"""The line in steps: compile, simulate, verify, show, and what lists and checks."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from insitu.isa.container import load_program, save_program
from insitu.isa.program import weight_ref
from insitu.report.result import BitExact
from tests.cli.conftest import CLASSES, ROWS, Insitu

CHIP = "dcim-28nm"
STATEFUL = """graph acc level=quantized
  input x : i8[1, 4] quant(8, signed, scale=0.5)
  state s : i8[1, 4] quant(8, signed, scale=0.5) from n
  n : i8[1, 4] quant(8, signed, scale=0.5) = Add(x, s) {{scale_a=1, scale_b=1, {post}, lo=-128, hi=127}}
  y : i8[1, 4] quant(8, signed, scale=0.5) = Requantize(n) {{{post}, lo=0, hi=127}}
  output y
end
""".format(post='multiplier=1, shift=0, rounding="half_even"')


def good(insitu: Insitu, *arguments: object) -> str:
    done = insitu(*arguments)
    assert done.code == 0, done.err
    return done.out


@pytest.fixture
def program(insitu: Insitu, model: Path, data: Path) -> Path:
    good(insitu, "compile", model, "--chip", CHIP, "--calib", data, "-o", "in/p.insitu")
    return model.parent / "p.insitu"


@pytest.mark.parametrize("chip", [CHIP, "wtm2101"])
def test_the_line_in_steps_gives_the_same_program(
    insitu: Insitu, tmp_path: Path, model: Path, data: Path, chip: str
) -> None:
    given = ("--chip", chip, "--calib", data)
    good(insitu, "compile", model, *given, "-o", "whole.insitu")
    good(insitu, "compile", model, "--stop-after", "captured", "-o", "1.graph")
    good(insitu, "compile", "1.graph", *given, "--stop-after", "quantized", "-o", "2.graph")
    good(insitu, "compile", "2.graph", "--chip", chip, "-o", "steps.insitu")
    one, two = load_program("whole.insitu"), load_program("steps.insitu")
    assert one.sections == two.sections
    assert one.weights == two.weights
    good(insitu, "compile", "2.graph", "--chip", chip, "--stop-after", "placed", "-o", "3.graph")
    assert "core 0 macro 0" in (tmp_path / "3.graph").read_text()
    good(insitu, "check", "3.graph")
    assert insitu("compile", "3.graph", "--chip", chip, "-o", "x.insitu").code == 1


def test_a_graph_goes_only_to_the_kind_of_chip_it_was_quantized_for(insitu: Insitu, model: Path) -> None:
    good(insitu, "compile", model, "--chip", CHIP, "--stop-after", "quantized", "-o", "q.graph")
    done = insitu("compile", "q.graph", "--chip", "wtm2101", "-o", "p.insitu")
    assert done.code == 1
    assert "readout" in done.err


def test_compile_json(insitu: Insitu, model: Path) -> None:
    found = json.loads(good(insitu, "compile", model, "--chip", CHIP, "-o", "p.insitu", "--json"))
    assert (found["model"], found["chip"], found["stage"], found["calibration"]) == ("tiny", CHIP, "program", "random")
    assert found["program_bytes"] == Path("p.insitu").stat().st_size


def test_compile_takes_the_choices_that_run_takes(insitu: Insitu, model: Path, data: Path) -> None:
    given = (model, "--chip", CHIP, "--calib", data, "--stop-after", "quantized")
    for name, choice in (("usual", ()), ("near", ("--rounding", "nearest")), ("wide", ("--observer", "minmax"))):
        good(insitu, "compile", *given, *choice, "-o", f"{name}.graph")
    usual, near, wide = (Path(f"{n}.graph").read_text() for n in ("usual", "near", "wide"))
    assert near != usual
    assert wide != usual
    done = insitu("compile", *given, "--observer", "largest", "-o", "x.graph")
    assert done.code == 1
    assert "minmax" in done.err


def test_simulate(insitu: Insitu, tmp_path: Path, program: Path, data: Path) -> None:
    found = json.loads(
        good(insitu, "simulate", program, "--data", data, "--outputs", "y.npz", "--trace", "t.json", "--json")
    )
    assert found["samples"] == 40
    assert found["accuracy"][0] >= 0.8
    assert found["metrics"]["latency_s"]["value"] > 0
    with np.load(tmp_path / "y.npz") as outputs:
        assert sorted(outputs.files) == ["y", "y__int"]
        assert outputs["y"].shape == (40, CLASSES)
        assert outputs["y__int"].dtype.kind == "i"
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert "Accuracy" in good(insitu, "simulate", program, "--data", data)


def test_simulate_gives_the_same_bytes(insitu: Insitu, tmp_path: Path, program: Path, data: Path) -> None:
    for name in ("a.npz", "b.npz"):
        good(insitu, "simulate", program, "--data", data, "--outputs", name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_simulate_on_tensors(insitu: Insitu, tmp_path: Path, program: Path, data: Path) -> None:
    torch: Any = pytest.importorskip("torch", reason="extra gpu")
    for backend in ("cpu", "torch"):
        given = ("--data", data, "--outputs", f"{backend}.npz", "--backend", backend, "--json")
        assert json.loads(good(insitu, "simulate", program, *given))["backend"] == backend
    assert np.array_equal(*(np.load(tmp_path / f"{b}.npz")["y__int"] for b in ("cpu", "torch")))
    if not torch.cuda.is_available():
        done = insitu("simulate", program, "--data", data, "--backend", "cuda", "--json")
        assert (done.code, done.json()["error"]["where"]) == (1, "--backend cuda")


def test_simulate_with_physics(insitu: Insitu, tmp_path: Path, model: Path, data: Path) -> None:
    good(insitu, "compile", model, "--chip", "wtm2101", "--calib", data, "-o", "p.insitu")
    good(insitu, "simulate", "p.insitu", "--data", data, "--physics", "full", "--instances", 3, "--outputs", "y.npz")
    with np.load(tmp_path / "y.npz") as outputs:
        assert outputs["y__int"].shape == (3, 40, CLASSES)
        assert (outputs["y__int"][0] != outputs["y__int"][1]).any()
    good(insitu, "simulate", "p.insitu", "--data", data, "--time", "1h")
    assert insitu("simulate", "p.insitu", "--data", data, "--time", "soon").code == 1


def test_simulate_takes_codes_and_targets(insitu: Insitu, program: Path, data: Path, write: Any) -> None:
    from insitu.runtime.session import Session

    session = Session(load_program(program))
    x = np.load(data)["x"]
    codes = session.codes(x)["x"].reshape(40, ROWS).astype(np.int8)
    y = session.run(x)["y"].reshape(40, CLASSES)
    same = write("codes.npz", {"x": codes, "y": y + np.float32(0.01)})
    found = json.loads(good(insitu, "simulate", program, "--data", same, "--json"))
    assert found["sqnr_db"][0] > 30
    assert insitu("simulate", program, "--data", write("far.npz", {"x": codes.astype(int) + 500})).code == 1


def test_steps_carry_states(insitu: Insitu, tmp_path: Path, write: Any) -> None:
    graph = write("acc.graph", STATEFUL)
    x = write("x.npz", {"x": np.ones((5, 4), np.float32)})
    good(insitu, "compile", graph, "--chip", CHIP, "-o", "p.insitu")
    good(insitu, "simulate", "p.insitu", "--data", x, "--steps", "--outputs", "stream.npz")
    good(insitu, "simulate", "p.insitu", "--data", x, "--outputs", "first.npz")
    assert np.load("stream.npz")["y"][:, 0].tolist() == [1, 2, 3, 4, 5]
    assert np.load("first.npz")["y"][:, 0].tolist() == [1] * 5
    good(insitu, "verify", "p.insitu")
    program = load_program("p.insitu")
    section = program.sections[0]
    lost = replace(section, code=tuple(c for c in section.code if c.op != "DMA"))  # the state is never carried
    save_program(replace(program, sections=(lost,)), "lost.insitu")
    assert insitu("verify", "lost.insitu").code == 1


def test_verify(insitu: Insitu, program: Path) -> None:
    found = json.loads(good(insitu, "verify", program, "--json"))
    assert found["bit_exact"]["checked_values"] >= 100_000
    assert found["bit_exact"]["mismatches"] == 0


def test_verify_tells_an_altered_program_from_a_fault_of_ours(
    insitu: Insitu, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = load_program(program)
    name = next(b.weight for s in given.sections for b in s.bindings)
    weights = given.weight(name).copy()
    weights.reshape(-1)[3] ^= 1
    altered = program.with_name("altered.insitu")
    save_program(replace(given, weights={**given.weights, name: weight_ref(weights)}), altered)
    done = insitu("verify", altered, "--json")
    assert done.code == 1
    assert done.json()["error"]["code"] == "mismatch"

    from insitu.cli import verify

    monkeypatch.setattr(verify, "compare", lambda *_, **__: BitExact(100_000, 7, 0, {"layer": "h"}))
    ours = insitu("verify", program, "--json")
    assert ours.code == 3
    assert "7 of 100,000" in ours.json()["error"]["got"]


def test_an_altered_program_that_contradicts_itself_is_refused(insitu: Insitu, program: Path) -> None:
    given = load_program(program)
    for changed in (
        replace(given, graph=given.graph.replace("level=quantized", "level=captured")),
        replace(given, meta={}),
        replace(given, values={}),
        replace(given, chip={}),
        replace(given, graph="nonsense"),
    ):
        bad = program.with_name("bad.insitu")
        save_program(changed, bad)
        for command in ("verify", "show"):
            done = insitu(command, bad, "--json")
            assert done.code == 1 or (command == "show" and changed.chip == {}), (done.code, done.out)


def test_show(insitu: Insitu, tmp_path: Path, model: Path, program: Path) -> None:
    assert "1,835,008 weights" in good(insitu, "show", "wtm2101")
    assert json.loads(good(insitu, "show", "schema", "chip"))["$schema"]
    assert good(insitu, "show", "isa").startswith("# The instruction set")
    assert "MVM" in good(insitu, "show", program)
    assert "MVM d" in good(insitu, "show", program, "--asm")
    assert good(insitu, "show", model).startswith("graph tiny level=captured")
    assert "synthetic" in good(insitu, "show", "task:kws")
    for thing in (("wtm2101",), ("schema", "chip"), ("isa",), (program,), (model,), ("kws",)):
        assert json.loads(good(insitu, "show", *thing, "--json"))["schema"] == 1


def test_chips_and_check(insitu: Insitu, tmp_path: Path) -> None:
    assert "wtm2101" in good(insitu, "chips")
    assert {c["name"] for c in json.loads(good(insitu, "chips", "--json"))["chips"]} >= {CHIP, "wtm2101"}
    good(insitu, "chips", "--copy", "wtm2101", "my.yaml")
    assert "a sound chip" in good(insitu, "check", "my.yaml")
    (tmp_path / "my.yaml").write_text("mine")
    assert insitu("chips", "--copy", "wtm2101", "my.yaml").code == 1
    assert (tmp_path / "my.yaml").read_text() == "mine"


def test_tasks(insitu: Insitu) -> None:
    assert good(insitu, "tasks").startswith("task:kws")
    assert json.loads(good(insitu, "tasks", "--json"))["tasks"][0]["name"] == "kws"


def test_doctor(insitu: Insitu) -> None:
    found = json.loads(good(insitu, "doctor", "--json"))
    assert found["good"] is True
    assert found["self_test"]["mismatches"] == 0
    assert 'pip install "insitu[' in good(insitu, "doctor") or all(found["extras"].values())


def test_a_package_that_is_missing(insitu: Insitu, monkeypatch: pytest.MonkeyPatch) -> None:
    from insitu.cli import doctor

    monkeypatch.setattr(doctor, "CORE", ("numpy", "no-such-package"))
    found = insitu("doctor", "--json")
    assert found.code == 1
    assert found.json()["core"]["no-such-package"] is None
    assert "no-such-package MISSING" in insitu("doctor").out

    def absent(*, json: bool) -> int:
        raise ModuleNotFoundError("No module named 'numba'", name="numba")

    monkeypatch.setattr(doctor, "run", absent)
    done = insitu("doctor")
    assert (done.code, done.err) == (
        1,
        "package numba: not installed; needs every package of the core. Try: insitu doctor\n",
    )


def test_help_and_version(insitu: Insitu) -> None:
    assert "Commands:" in good(insitu)
    assert good(insitu, "--help") == good(insitu)
    assert "--chip" in good(insitu, "run", "-h")
    assert good(insitu, "--version").startswith("insitu ")


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from insitu.cli.main import main; main(['run', '--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert not loaded & {"numpy", "onnx", "numba", "yaml", "rich", "torch"}


def test_the_reference_page_is_current(repository: Path) -> None:
    from insitu.cli.reference import reference_page

    page = (repository / "docs" / "reference" / "cli.md").read_text()
    assert page == reference_page(), "run `python -m insitu.cli.reference docs/reference/cli.md`"
    assert not [line for line in page.splitlines() if line.startswith("| `") and line.endswith("|  |")], (
        "help is missing"
    )
