"""`insitu claims`: the ledger of the field's standing claims."""

from __future__ import annotations

from insitu.base.errors import UsageError
from insitu.base.store import write_text
from insitu.cli import console
from insitu.plan.claims import anchors, ledger, ledger_json, ledger_text
from insitu.plan.claims_page import page
from insitu.plan.facts import plan_book


def run(sets: tuple[str, ...], out: str | None, *, json: bool) -> int:
    """Evaluate, print, and write the page where one is asked for; returns the exit code."""
    if out is not None and not out.endswith(".html"):
        raise UsageError(f"--out {out}", "not the name of a page", "a name ending in .html")
    book = plan_book(overrides=sets)
    findings, figures = ledger(book), anchors(book)
    if out is not None:
        write_text(out, page(findings, figures, book))
    if json:
        console.put_json(ledger_json(findings, figures))
    else:
        console.put(ledger_text(findings, figures))
    return 0
