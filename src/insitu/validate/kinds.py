"""Kinds of chip and their cells by the words of papers: "ReRAM", "eFlash", "digital SRAM", "10T1C charge-domain"."""

from __future__ import annotations

import re
from collections.abc import Mapping

# kind -> cells, the first whose words the entry's `cell` text has
CELLS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "sram_analog": (
        (r"charge|capaci|\bMOM\b|C-?2C|\d+T\d*C\b", "sram-8t1c-charge"),
        (r"(?<!\d)([8-9]|1\d|2\d)T", "sram-8t-current"),
        (r"6T", "sram-6t-current"),
    ),
    "sram_digital": ((r"", "sram-6t-digital"),),
    "edram_gain_cell": ((r"(?<!\d)1T-?1C", "dram-1t1c"), (r"", "gain-cell-3t")),
    "reram": ((r"", "reram-1t1r-2b"),),
    "pcm": ((r"", "pcm-hermes"),),
    "nor_flash": ((r"", "nor-flash-8b"),),
    "sonos": ((r"", "sonos-40nm"),),
    "mram": ((r"resistance.sum", "mram-series"), (r"", "mram-stt")),
    "fefet": ((r"", "fefet-28nm"),),
    "nand": ((r"", "nand-3d"),),
}
# words of a kind's name -> kind, the first that matches
_NAMES = (
    (r"near.?memory|northpole|npu|gpu", None),
    (r"digital|dcim|dimc", "sram_digital"),
    (r"sram.*(analog|charge|current|mixed)|(analog|charge|current|mixed).*sram", "sram_analog"),
    (r"gain.?cell|edram|\bdram\b", "edram_gain_cell"),
    (r"re-?ram|rram|memristor|oxram", "reram"),
    (r"\bpc-?(m|ram)\b|phase.?change", "pcm"),
    (r"mram|\bmtj\b", "mram"),
    (r"sonos", "sonos"),
    (r"fe-?fet|fe-?ram|ferro", "fefet"),
    (r"nand", "nand"),
    (r"flash|\bnor\b", "nor_flash"),
)
MULTILEVEL = {"reram": 2, "pcm": 8, "nor_flash": 8, "sonos": 8, "nand": 4}  # bits a cell, where the text says nothing
PAIRED = (*MULTILEVEL, "mram", "fefet")  # kinds whose cells have no sign
CONVERTERS = (
    ("sar", r"sar|successive"),
    ("flash", r"flash"),
    ("ramp", r"ramp|slope|single.?slope"),
    ("cco", r"cco|vco|oscill"),
)


def kind_of(given: str, cell: str, adc_bits: float | None) -> str | None:
    """The kind that a name and what is said of the cell mean; None where they do not say enough.

    `sram` alone is digital where no converter is (0 bits) or the cell's text has adders, else analog where it has one.
    """
    name = re.sub(r"[\s_]+", " ", given.lower()).strip()
    key = name.replace(" ", "_").replace("-", "_")
    if key in CELLS:
        return key
    for words, kind in _NAMES:
        if re.search(words, name):
            return kind
    if "sram" not in name:
        return None
    if adc_bits == 0 or re.search(r"digital|adder|booth|full.?adder|logic", cell, re.IGNORECASE):
        return "sram_digital"
    analog = adc_bits is not None or re.search(r"charge|current|analog|capaci|\d+T\d*C\b", cell, re.IGNORECASE)
    return "sram_analog" if analog else None


def cell_of(kind: str | None, text: str) -> str | None:
    """The library's cell for a kind of chip and what is said of its cell; None where neither says enough."""
    return next((cell for words, cell in CELLS.get(kind or "", ()) if re.search(words, text, re.IGNORECASE)), None)


def bits_per_cell(kind: str | None, text: str) -> int:
    """Bits that a cell holds: by its text ("2 b", "SLC"), else what its kind usually holds."""
    if kind not in MULTILEVEL:
        return 1
    if said := re.search(r"(\d+)[ -]?b(?:its?)?\b", text, re.IGNORECASE):
        return max(1, int(said[1]))
    return 1 if re.search(r"\bSLC\b|single.?level|\bbinary\b", text, re.IGNORECASE) else MULTILEVEL[kind]


def converter_of(text: str) -> str | None:
    """The model's kind of converter that a text names."""
    return next((kind for kind, words in CONVERTERS if re.search(words, text, re.IGNORECASE)), None)
