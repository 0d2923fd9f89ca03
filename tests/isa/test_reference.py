"""The reference page says what the table says."""

from __future__ import annotations

from pathlib import Path

from insitu.isa.reference import reference_page
from insitu.isa.table import table


def test_the_page_is_current(repository: Path) -> None:
    page = (repository / "docs" / "reference" / "isa.md").read_text()
    assert page == reference_page(), "run `python -m insitu.isa.reference docs/reference/isa.md`"


def test_the_page_names_every_instruction_and_constraint() -> None:
    page = reference_page()
    for row in table().instructions.values():
        assert f"### {row.mnemonic}\n" in page
    for rule, text in table().constraints.items():
        assert f"| {rule} | {text} |" in page
