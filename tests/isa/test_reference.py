"""The reference page says what the table says."""

from __future__ import annotations

from pathlib import Path

from insitu.isa import program
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


DESIGN = (
    "WLOAD", "WBIND", "WMODE", "WVERIFY", "MVM", "MMA", "GEMV", "input planes", "ADC range", "calibration id",
    "active rows", "CAL", "REQ", "DQ", "QDYN", "CVT", "V1", "V2", "RED", "SOFTMAX", "LUTLD", "DMA", "pad",
    "multicast",
    "accumulate", "all-reduce", "GATHER", "SCATTER", "SIG", "AWAIT", "BAR", "LOOP", "ENDL", "SETD", "PRED", "CALL",
    "HALT",
)  # fmt: skip
NOT_SERVED = set[str]()


def test_every_item_of_the_design_names_what_serves_it() -> None:
    known = " | ".join(c.item for c in table().coverage)
    assert [item for item in DESIGN if item not in known] == []
    assert {c.item for c in table().coverage if not c.by} == NOT_SERVED
    for row in table().coverage:
        for name in row.by:
            record, _, field = name.partition(".")
            found = record in table().instructions if not field else field in getattr(program, record).__annotations__
            assert found, f"{row.item}: {name}"


def test_every_instruction_serves_an_item_of_the_design_or_is_named_beside_it() -> None:
    served = {name for row in table().coverage for name in row.by}
    assert set(table().instructions) - served == {"HOST"}  # what no chip does
