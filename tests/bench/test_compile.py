"""The compile bar: its JSON, and that it holds on a network that is compiled once here."""

from __future__ import annotations

import pytest

from insitu.base.errors import UsageError
from insitu.bench import compile as bench
from insitu.bench.registry import BENCHES, run_bench
from insitu.bench.result import BenchResult, Case


def test_a_result_holds_where_all_its_cases_do() -> None:
    good, bad = Case("a", 1.0, "s", 20.0, 20.0, (1.0,), 2.0), Case("b", 3.0, "MiB", most=2.0)
    assert BenchResult("x", (good,), "2 s").holds
    result = BenchResult("x", (good, bad), "2 s")
    assert not result.holds
    assert result.to_json() == {
        "name": "x",
        "cases": [
            {
                "case": "a",
                "value": 1.0,
                "unit": "s",
                "baseline": 20.0,
                "ratio": 20.0,
                "runs": [1.0],
                "least": None,
                "most": 2.0,
                "holds": True,
            },
            {
                "case": "b",
                "value": 3.0,
                "unit": "MiB",
                "baseline": None,
                "ratio": None,
                "runs": [],
                "least": None,
                "most": 2.0,
                "holds": False,
            },
        ],
        "bar": "2 s",
        "holds": False,
    }
    assert "above" in result.lines()[2]


def test_a_rate_holds_from_its_bar_up() -> None:
    slow = Case("rate", 1.0, "1/s", least=2.0)
    assert not slow.holds
    assert Case("rate", 2.0, "1/s", least=2.0).holds
    assert "below" in BenchResult("x", (slow,), "2 a second").lines()[1]


def test_an_unknown_benchmark_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="compile"):
        run_bench("compil")
    assert {"compile", "cost", "mvm"} <= set(BENCHES)


@pytest.mark.long
def test_resnet18_compiles_within_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "RUNS", 1)
    values = {case.case: case.value for case in run_bench("compile").cases}
    assert values["CPU time"] < 3 * bench.MOST_SECONDS  # tests share their cores
    assert values["peak memory"] < bench.MOST_MEMORY
    assert values["code and tables"] < bench.MOST_CODE
    assert values["commands"] < bench.MOST_COMMANDS
