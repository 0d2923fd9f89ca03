"""`insitu validate`: modelled against published silicon, those that ship or a chip of the user's."""

from __future__ import annotations

from insitu.arch.load import load_chip
from insitu.base.errors import UsageError
from insitu.base.store import write_text
from insitu.cli import console
from insitu.validate import language
from insitu.validate.compare import compare, report
from insitu.validate.page import html
from insitu.validate.table import table
from insitu.validate.unseen import read_published


def run_language(path: str, *, json: bool) -> int:
    """Hold the language-model rows of a file against the model; returns the exit code."""
    rows, compared = language.compare(path)
    if json:
        console.put_json(language.report(rows, compared))
    else:
        console.put(language.table(rows, compared))
    return 0


def run(chip: str | None, published: str | None, out: str | None, *, json: bool) -> int:
    """Compare, print, and write the page where one is asked for; returns the exit code."""
    if chip is not None and published is None:
        raise UsageError(f"--chip {chip}", "no published figures to hold it against", "--published F.yaml beside it")
    if out is not None and not out.endswith(".html"):
        raise UsageError(f"--out {out}", "not the name of a page", "a name ending in .html")
    rows = compare()
    if published is not None:
        rows = (
            *compare(read_published(published), chip=load_chip(chip) if chip else None),
            *rows,
        )
    if out is not None:
        write_text(out, html(rows))
    if json:
        console.put_json(report(rows))
    else:
        console.put(table(rows))
    return 0
