"""A cell from a CSV, and the guide that says how."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest

from insitu.base.errors import ConfigError
from insitu.device.cell import CellSpec, load_cell
from insitu.device.fit import cell_yaml, fit_cell

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "own-cell.md"
BASE = load_cell("reram-1t1r-2b")


def measured(sd, *, nu: float = 0.0, n: int = 4000) -> str:
    rng = np.random.default_rng(1)
    lines = ["target,measured,time,cell"]
    for cell in range(n):
        target = float(rng.choice(np.linspace(4, 40, 10)))
        level = max(target + 40 * sd(target / 40) * rng.standard_normal(), 0.01)
        lines += [f"{target},{level * t**-nu},{t},{cell}" for t in ((1, 100) if nu else (1,))]
    return "\n".join(lines)


def test_it_finds_what_was_put_in() -> None:
    fit = fit_cell(measured(lambda r: 0.01 + 0.03 * r, nu=0.05), base=BASE, name="mine")
    c = [*(fit.cell.programming.sd if fit.cell.programming else ()), 0, 0]
    for r in (0.1, 0.5, 1.0):
        assert sum(k * r**i for i, k in enumerate(c)) == pytest.approx(0.01 + 0.03 * r, rel=0.1)
    assert fit.cell.drift is not None
    assert fit.cell.drift.nu == pytest.approx(0.05, rel=0.01)
    assert fit.r2 > 0.9
    assert fit.drift_samples == 4000


def test_a_flat_spread_takes_one_coefficient() -> None:
    fit = fit_cell(measured(lambda r: 0.02), base=BASE, name="mine")
    assert fit.cell.programming is not None
    assert fit.cell.programming.sd[0] == pytest.approx(0.02, rel=0.1)
    assert fit.cell.drift is None
    assert "no drift data" in fit.text()


def test_the_file_reads_back_as_the_cell() -> None:
    from insitu.base.schema import load_config

    fit = fit_cell(measured(lambda r: 0.02, nu=0.03), base=BASE, name="mine")
    assert load_config("mine", CellSpec, text=cell_yaml(fit)) == fit.cell


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "target"),
        ("target,measured\n1,x\n", ":2"),
        ("target,measured\n1,2\n", "at least 30"),
        ("", "target"),
    ],
)
def test_bad_tables_say_where(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        fit_cell(text, base=BASE, name="mine", where="m.csv")
    assert message in str(error.value)


def test_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, str(GUIDE), "exec"), {})
    assert "drift" in printed.getvalue().splitlines()[-1]
