"""`insitu fit`: a cell from a table of measurements."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from insitu.base.errors import UsageError
from insitu.base.store import write_text
from insitu.cli import console
from insitu.device.cell import load_cell
from insitu.device.fit import cell_yaml, fit_cell, read_csv

SUFFIXES = (".yaml", ".yml")


def run(table: str, *, like: str, name: str | None, out: str | None, json: bool) -> int:
    """Fit, print or write the cell; returns the exit code."""
    if out is not None and not out.endswith(SUFFIXES):
        raise UsageError(f"-o {out}", "not the name of a YAML file", "a name ending in .yaml")
    called = name or re.sub(r"[^a-z0-9]+", "-", Path(table).stem.lower()).strip("-") or "cell"
    fit = fit_cell(read_csv(table), base=load_cell(like), name=called, where=Path(table).name)
    if out is not None:
        write_text(out, cell_yaml(fit))
    if json:
        figures: dict[str, Any] = {key: value for key, value in asdict(fit).items() if key != "cell"}
        cell = fit.cell.model_dump(mode="json", exclude_defaults=True)
        console.put_json({"schema": 1, "cell": cell, "fit": figures, "file": out})
    elif out is None:
        console.put(cell_yaml(fit).rstrip())
    else:
        console.put(f"{fit.text()}{out}: the cell {called}; a chip takes it with --set cell={out}".replace("# ", ""))
    return 0
