"""What a deployment must meet: a YAML file, a named place, or flags; a template that explains itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from insitu.base.errors import UsageError, did_you_mean
from insitu.base.schema import Config, Seconds, Watts, load_config, load_yaml
from insitu.base.yaml import write_yaml

Positive = Annotated[float, Field(gt=0)]
Prefer = Literal["energy", "price", "latency"]


class Requirements(Config):
    """Bounds; what is left out binds nothing.  `rate` is inferences a second (tokens, for a language model)."""

    rate: Positive = 1.0
    latency: Seconds | None = Field(default=None, gt=0)
    power: Watts | None = Field(default=None, gt=0)
    battery_wh: Positive | None = None
    hours: Positive | None = None
    price_usd: Positive | None = None
    volume: Positive | None = None
    max_chips: Annotated[int, Field(ge=1)] = 64
    context: Annotated[int, Field(ge=0)] = 1024
    weight_bits: Annotated[int, Field(ge=1, le=32)] = 8
    prefer: Prefer = "energy"


TEMPLATE = """\
# What your deployment must meet.  Leave out what binds nothing; units as written (ms, mW, W ...).
# insitu plan MODEL --requirements THIS.yaml
rate: 10            # inferences a second in the mean; tokens a second for a language model
latency: 100 ms     # of one inference
power: 10 mW        # mean, at that rate
battery_wh: 0.2     # watt-hours; with hours: how long one charge lasts
hours: 8
price_usd: 20       # of the chips or the machine, US dollars
volume: 1000000     # chips made over the life of a design
max_chips: 64       # chips or machines that may share one network
context: 1024       # tokens that a language model looks back on
weight_bits: 8      # of a language model's weights
prefer: energy      # energy, price or latency: what decides among those that meet all
"""


@cache
def profiles() -> dict[str, dict[str, Any]]:
    """Requirements of places, by name."""
    text = (files("insitu.plan") / "profiles.yaml").read_text(encoding="utf-8")
    return load_yaml("profiles.yaml", text=text).data


def read_requirements(file: str | None, profile: str | None, given: Mapping[str, Any]) -> Requirements:
    """A place's requirements, those of a file over them, flags over both; every fault is named with its place."""
    data: dict[str, Any] = {}
    if profile is not None:
        if profile not in profiles():
            need = f"one of {', '.join(profiles())}"
            raise UsageError(f"--profile {profile}", "unknown", need, try_=did_you_mean(profile, profiles()))
        data |= profiles()[profile]
    if file is not None:
        if not Path(file).is_file():
            raise UsageError(
                f"--requirements {file}", "no such file", "a YAML file", try_=("insitu plan --init F.yaml",)
            )
        load_config(Path(file), Requirements)
        data |= load_yaml(Path(file)).data
    data |= {key: value for key, value in given.items() if value is not None}
    return load_config("requirements", Requirements, text=write_yaml(data) if data else "rate: 1\n")
