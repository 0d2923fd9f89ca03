"""`import insitu` is quick: it brings in nothing but the standard library."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import insitu


def _modules_after(statement: str) -> set[str]:
    after = "print(json.dumps(sorted(set(sys.modules) - before)))"
    code = f"import json, sys; before = set(sys.modules); {statement}; {after}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_import_brings_in_only_the_standard_library() -> None:
    new = {name.partition(".")[0] for name in _modules_after("import insitu")}
    assert new - {"insitu"} <= sys.stdlib_module_names


def test_light_names_stay_light() -> None:
    new = {name.partition(".")[0] for name in _modules_after("import insitu; insitu.InsituError; insitu.Metric")}
    assert new - {"insitu"} <= sys.stdlib_module_names


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = insitu.nothing  # type: ignore[attr-defined]


def test_dir_lists_the_public_names() -> None:
    assert set(insitu.__all__) <= set(dir(insitu))


@pytest.mark.parametrize("name", insitu.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(insitu, name).__name__ == name
