"""What serving software adds to the bare arithmetic of a language model, by class (software.yaml)."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Literal

from pydantic import Field

from insitu.base.schema import Config, validate
from insitu.base.yaml import parse_yaml


class Software(Config):
    """One class of software; the fields are explained in software.yaml."""

    fit: str
    words: list[str]
    launches: int = Field(ge=0)
    launch: float = Field(ge=0)
    dequantize: float = Field(ge=0)
    reuse: bool
    split: Literal["tensor", "pipeline"]
    reserve: bool
    cap: int = Field(ge=1)
    margin: float = Field(gt=0, le=1)


class Habit(Config):
    """What some versions do otherwise."""

    words: list[str]
    reuse: bool


class Habits(Config):
    """The file."""

    classes: dict[str, Software]
    exceptions: list[Habit]
    thread_bandwidth: float
    small_thread_bandwidth: float
    small_kinds: list[str]
    all_reduce: float
    sources: dict[str, str]


@cache
def habits() -> Habits:
    """All classes."""
    text = (files("insitu.llm") / "software.yaml").read_text("utf-8")
    return validate(parse_yaml(text, label="software.yaml"), Habits)


def software_of(name: str) -> tuple[str, Software]:
    """(class, its habits) of a piece of software; unknown ones count as serving software."""
    low = name.lower()
    found = next((k for k, c in habits().classes.items() if any(w.lower() in low for w in c.words)), "serving")
    kind = habits().classes[found]
    for item in habits().exceptions:
        if any(w.lower() in low for w in item.words):
            kind = kind.model_copy(update={"reuse": item.reuse})
    return found, kind


def threads_of(name: str) -> int | None:
    """Processor threads that a name speaks of; None where it does not run on a processor's cores."""
    found = re.search(r"(\d+)\s*threads?", name)
    if found:
        return int(found.group(1))
    return 8 if re.search(r"\bcpu\b", name, re.IGNORECASE) else None
