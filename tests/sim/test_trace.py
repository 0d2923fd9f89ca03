import json

import pytest

from insitu.base.errors import OutputError
from insitu.sim.timing import simulate_time
from insitu.sim.trace import utilization, utilization_text, write_trace


@pytest.fixture
def traced(toy):
    section = toy.section(
        "LOOP 2", "MVM 0 1 0", "ENDL", "HALT", descriptors=toy.mvm_operands(3), bindings=[toy.binding("fc")]
    )
    program = toy.program(section)
    return program, simulate_time(program, toy.chip(), trace=True)


def test_a_trace_file_holds_every_span_in_microseconds(traced, tmp_path):
    program, timing = traced
    data = json.loads(write_trace(tmp_path / "t.json", program, timing).read_text())
    spans = [event for event in data["traceEvents"] if event["ph"] == "X"]
    assert len(spans) == len(timing.spans)
    assert [round(e["ts"] * 10**6) for e in spans] == timing.spans["start"].tolist()
    assert [round((e["ts"] + e["dur"]) * 10**6) for e in spans] == timing.spans["end"].tolist()
    assert {e["name"] for e in spans} == {"LOOP control", "MVM fc", "HALT control"}


def test_units_are_named_rows_of_their_chip(traced, tmp_path):
    program, timing = traced
    data = json.loads(write_trace(tmp_path / "t.json", program, timing).read_text())
    rows = {(e["pid"], e["tid"]): e["args"]["name"] for e in data["traceEvents"] if e["name"] == "thread_name"}
    assert sorted(rows.values()) == ["core0.issue", "core0.macro0.array", "core0.vector", "ram"]
    assert all((e["pid"], e["tid"]) in rows for e in data["traceEvents"] if e["ph"] == "X")


def test_a_place_that_cannot_be_written_is_an_error(traced, tmp_path):
    with pytest.raises(OutputError):
        write_trace(tmp_path / "absent" / "t.json", *traced)
    assert list(tmp_path.iterdir()) == []


def test_without_a_trace_there_is_nothing_to_write(traced, toy, tmp_path):
    program, _ = traced
    with pytest.raises(AssertionError, match="trace=True"):
        write_trace(tmp_path / "t.json", program, simulate_time(program, toy.chip()))


def test_utilization_lists_the_busiest_unit_first(traced):
    _, timing = traced
    rows = utilization(timing)
    assert [row.busy for row in rows] == sorted((row.busy for row in rows), reverse=True)
    assert rows[0].busy * 10**12 == pytest.approx(timing.lower_bound_ps)
    assert all(0 <= row.utilization <= 1 for row in rows)
    text = utilization_text(timing)
    assert text.splitlines()[1].split()[0] == rows[0].unit
    assert len(text.splitlines()) == 1 + len(timing.units)
