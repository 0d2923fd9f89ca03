"""Systems of chips for language models: which chip, how many on a card, how many cards, what joins and powers them.

A system is data: a preset chip with some values changed, cards and their links, each value with its source or the word
"assumed".  `insitu run shape:NAME --chip SYSTEM` takes one.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import Field

from insitu.arch.load import load_chip
from insitu.arch.spec import Chip, Links
from insitu.base.errors import ChipError, did_you_mean
from insitu.base.schema import Config, Watts, load_config
from insitu.llm.on_chips import Cards

FOLDER = "systems"


class Card(Config):
    """Chips on one card, which the chip's own links join, and what the card takes beside them."""

    chips: int = Field(1, ge=1)
    power: Watts = Field(default=0.0, ge=0)


class ChipSystem(Config):
    """Cards of chips; `between` joins cards, `cards` is how many there are."""

    name: str = ""
    title: str
    scale: str
    chip: str
    set: list[str] = Field(default_factory=list[str])
    card: Card = Card(chips=1)
    cards: int = Field(1, ge=1)
    between: Links = Links()
    power: Watts = Field(default=0.0, ge=0, description="of the host and what all cards share")
    sources: dict[str, str]

    @property
    def chips(self) -> int:
        """Chips of the whole system."""
        return self.card.chips * self.cards

    @property
    def layout(self) -> Cards:
        """How its chips stand together, for the closed forms."""
        between = self.between
        return Cards(self.card.chips, between.bandwidth, between.latency, self.card.power, self.power)

    def described(self, overrides: list[str]) -> Chip:
        """The chip with the system's values, and the user's."""
        return load_chip(self.chip, overrides=[*self.set, *overrides])


def system_names() -> tuple[str, ...]:
    """Systems that ship with the package."""
    found = (files("insitu.llm") / FOLDER).iterdir()
    return tuple(sorted(f.name.removesuffix(".yaml") for f in found if f.name.endswith(".yaml")))


def load_chip_system(name: str) -> ChipSystem:
    """A system by its name."""
    if name not in system_names():
        close = did_you_mean(name, system_names())
        raise ChipError(name, "no system has this name", f"one of {', '.join(system_names())}", try_=close)
    found = load_config(Path(f"{name}.yaml"), ChipSystem, text=_text(name),
                        extends_resolver=lambda base: (_text(base), f"{base}.yaml"))  # fmt: skip
    return found.model_copy(update={"name": name})


def _text(name: str) -> str:
    return (files("insitu.llm") / FOLDER / f"{name}.yaml").read_text("utf-8")


def assumed(system: ChipSystem) -> tuple[str, ...]:
    """Values that nobody has published."""
    return tuple(name for name, text in system.sources.items() if "assumed" in text)


def to_json(system: ChipSystem) -> dict[str, Any]:
    """What a report says of a system."""
    return {"name": system.name, "title": system.title, "scale": system.scale, "chip": system.chip, "set": system.set,
            "chips": system.chips, "cards": system.cards, "assumed": list(assumed(system)),
            "sources": system.sources}  # fmt: skip
