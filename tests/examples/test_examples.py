"""Every numbered example that needs nothing to download runs and prints something."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("0*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_an_example_runs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 60


def test_the_layer_with_the_wrong_scale_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES[3]), run_name="__main__")
    good, bad = capsys.readouterr().out.strip().splitlines()
    assert good.endswith("None")
    assert bad.endswith("conv3")
