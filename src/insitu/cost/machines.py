"""Conventional machines as data: rates, memories, power and price of CPUs, GPUs and others, each figure with a source."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from pydantic import Field

from insitu.base.errors import ConfigError, did_you_mean
from insitu.base.schema import Config, load_config, validate
from insitu.base.yaml import parse_yaml


class Memory(Config):
    """One level: bytes it holds, bytes per second it gives; the first is the largest."""

    name: str
    size: float | None = Field(None, gt=0)
    bandwidth: float | None = Field(None, gt=0)


class Price(Config):
    """Dollars, of which kind, of which date."""

    usd: float = Field(gt=0)
    kind: str | None = None
    date: str | None = None


class Source(Config):
    """Where a figure is from; `verified`: whether that was opened when it was noted."""

    url: str
    what: str = ""
    verified: bool = False


class Machine(Config):
    """One device.  Rates in operations per second (a multiply-add is two), dense; SI units elsewhere, area in mm2."""

    name: str
    title: str = ""
    kind: str
    node: str | None = None
    rates: dict[str, float] = {}
    memories: list[Memory] = []
    link: float | None = Field(None, gt=0)
    power: float | None = Field(None, gt=0)
    area: float | None = Field(None, gt=0)
    price: Price | None = None
    note: str = ""
    sources: list[Source] = []

    @property
    def memory(self) -> Memory:
        """The largest memory, where weights lie."""
        return self.memories[0] if self.memories else Memory(name="none", size=None, bandwidth=None)

    def rate(self, *kinds: str) -> float | None:
        """The rate of the first precision that is known."""
        return next((self.rates[k] for k in kinds if k in self.rates), None)


@cache
def machine_names() -> tuple[str, ...]:
    """Machines that ship with the package."""
    folder = files("insitu.cost") / "machines"
    return tuple(sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")))


@cache
def load_machine(name: str) -> Machine:
    """A machine by name, or from a YAML file; underscores count as hyphens."""
    path = Path(name)
    if name.endswith((".yaml", ".yml")) and path.is_file():
        return load_config(path, Machine)
    word = name.replace("_", "-").lower()
    if word not in machine_names():
        close = did_you_mean(word, machine_names())
        raise ConfigError(name, "no machine has this name", "a machine or a YAML file of one", try_=close)
    text = (files("insitu.cost") / "machines" / f"{word}.yaml").read_text("utf-8")
    return validate(parse_yaml(text, label=f"{word}.yaml"), Machine)
