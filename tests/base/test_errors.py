from __future__ import annotations

import pickle

import pytest

from insitu.base import errors
from insitu.base.errors import ConfigError, Infeasible, InfeasibleError, InsituError, InternalError, did_you_mean

CELLS = Infeasible("array cells", 3e6, 1.8e6, "cells", ("conv1", "fc"), ("use two chips", "prune fc"))


def test_message_says_where_got_need_and_try() -> None:
    error = InsituError("chip.yaml:14", "macro.readout.bits = 0", "an integer from 1 to 14", try_=("bits: 8", "exact"))
    assert str(error) == ("chip.yaml:14: macro.readout.bits = 0; needs an integer from 1 to 14. Try: bits: 8; or exact")
    assert error.to_json() == {
        "code": "error",
        "where": "chip.yaml:14",
        "got": "macro.readout.bits = 0",
        "need": "an integer from 1 to 14",
        "try": ["bits: 8", "exact"],
    }


@pytest.mark.parametrize(
    ("name", "code", "exit_code"),
    [
        ("InsituError", "error", 1),
        ("ModelError", "model", 1),
        ("ChipError", "chip", 1),
        ("DataError", "data", 1),
        ("ProgramError", "program", 1),
        ("ConfigError", "config", 1),
        ("OutputError", "output", 1),
        ("RangeError", "range", 1),
        ("UsageError", "usage", 1),
        ("InternalError", "internal", 3),
    ],
)
def test_family(name: str, code: str, exit_code: int) -> None:
    error = getattr(errors, name)("here")
    assert (error.code, error.exit_code, str(error)) == (code, exit_code, "here")
    assert isinstance(error, InsituError)


def test_code_can_be_finer_than_the_class() -> None:
    assert InternalError("here", code="mismatch").to_json()["code"] == "mismatch"
    assert InternalError("here").code == "internal"


def test_several_faults_stay_aligned() -> None:
    faults = [ConfigError("a.yaml:1", "x = 1", "text", try_=["y"]), ConfigError("a.yaml:3", "z", "a number")]
    error = ConfigError.collect(faults)
    assert str(error) == "a.yaml:1: x = 1; needs text. Try: y\na.yaml:3: z; needs a number"
    assert error.to_json()["where"].splitlines() == ["a.yaml:1", "a.yaml:3"]
    assert error.to_json()["try"] == ["y"]
    assert error.faults == tuple(faults)
    assert ConfigError.collect(faults[:1]) is faults[0]


def test_infeasible_carries_every_field() -> None:
    error = InfeasibleError([CELLS])
    assert error.exit_code == 2
    assert error.items[0].to_json() == {
        "resource": "array cells",
        "demand": 3e6,
        "bound": 1.8e6,
        "unit": "cells",
        "filled_by": ["conv1", "fc"],
        "ways_out": ["use two chips", "prune fc"],
    }
    assert error.to_json()["try"] == ["use two chips", "prune fc"]
    assert "needs 3,000,000 cells, has 1,800,000 cells" in str(error)


@pytest.mark.parametrize(
    "error",
    [
        InsituError("a", "b", "c", try_=("d",), code="e"),
        ConfigError.collect([ConfigError("a", "b"), ConfigError("c", "d", try_=("e",))]),
        InfeasibleError([CELLS], where="wtm2101"),
    ],
)
def test_errors_travel_between_processes(error: InsituError) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert back.to_json() == error.to_json()
    assert str(back) == str(error)


def test_did_you_mean() -> None:
    assert did_you_mean("wtm2010", ["isaac", "wtm2101", "puma"]) == ("wtm2101",)
    assert did_you_mean("KB", ["kB", "KiB", "B"])[0] == "kB"
    assert did_you_mean("zzz", ["isaac"]) == ()
