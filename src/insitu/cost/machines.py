"""Conventional machines as data: rates by precision, memory levels, power states, price and node."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from insitu.base.errors import ConfigError, UsageError, did_you_mean
from insitu.base.schema import Bytes, BytesPerSecond, Config, Metres, Seconds, Watts, load_config, load_yaml
from insitu.base.units import parse_quantity
from insitu.base.yaml import write_yaml

Kind = Literal[
    "cpu", "sbc", "mcu", "mcu_npu", "gpu", "soc", "edge_module", "phone_soc", "laptop_soc", "fpga", "tpu", "sram_asic",
    "wafer_asic", "pim",
]  # fmt: skip
Precision = Literal["fp32", "fp16", "bf16", "fp8", "fp4", "int8", "int4"]
Availability = Literal["sold", "announced", "published", "parametric"]
Positive = Annotated[float, Field(gt=0)]
BYTES: Mapping[str, float] = {
    "fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "fp8": 1.0, "fp4": 0.5, "int8": 1.0, "int4": 0.5,
}  # fmt: skip


class Level(Config):
    """One memory, nearest the arithmetic first; `pj_per_bit` is what a bit costs on its way from there."""

    name: str
    kind: str
    size: Bytes | None = None
    bandwidth: BytesPerSecond | None = None
    pj_per_bit: Positive | None = None


class Power(Config):
    """Watts of the whole machine: idle; awake with nothing but its clocks running; at its limit."""

    idle: Watts | None = None
    active: Watts | None = None
    max: Watts | None = None


class Efficiency(Config):
    """Shares of the peaks that real kernels reach, and the seconds a layer takes beside its work."""

    compute: Annotated[float, Field(gt=0, le=1)] | None = None
    bandwidth: Annotated[float, Field(gt=0, le=1)] | None = None
    overhead: Seconds | None = None


class Price(Config):
    """What one costs; nothing is filled where no source was found."""

    value: Positive | None = None
    currency: str = "USD"
    date: str | None = None
    what: str = ""


class Origin(Config):
    """Where facts come from; `verified` says whether the source was opened when they were written down."""

    url: str
    what: str
    verified: bool


class Machine(Config):
    """A machine that runs networks the conventional way.  `rates` are operations a second, dense, a MAC being two.

    `assumptions` names values that no source gives (path -> why).
    """

    name: str
    title: str
    kind: Kind
    availability: Availability = "sold"
    node: Metres | None = None
    process: str = ""
    die_mm2: Positive | None = None
    rates: dict[Precision, Positive] = {}
    memories: tuple[Level, ...] = Field(min_length=1)
    efficiency: Efficiency = Efficiency()
    power: Power = Power()
    link: BytesPerSecond | None = None
    price: Price = Price()
    aliases: tuple[str, ...] = ()
    note: str = ""
    assumptions: dict[str, str] = {}
    sources: tuple[Origin, ...] = ()

    @property
    def memory(self) -> Level:
        """The memory farthest from the arithmetic, which holds what the others cannot."""
        return self.memories[-1]

    def rate(self, *formats: Precision) -> float | None:
        """The rate of the first of these formats that is known."""
        return next((self.rates[p] for p in formats if p in self.rates), None)

    def precision(self, bits: int = 8) -> Precision:
        """The fastest format that holds numbers of `bits`; float formats of fewer bits hold fewer integers."""
        wide: dict[Precision, int] = {"int4": 4, "fp4": 3, "fp8": 4, "int8": 8, "bf16": 8, "fp16": 11, "fp32": 24}
        fit: list[Precision] = [p for p in self.rates if wide[p] >= bits]
        if not fit:
            known = f"rates of {', '.join(self.rates)}" if self.rates else "no rate that is known"
            raise UsageError(f"machine {self.name}", known, f"the rate of a format of {bits} bits")
        return max(fit, key=lambda p: (self.rates[p], -BYTES[p]))


@dataclass(frozen=True)
class System:
    """`count` machines of a kind that share the work."""

    machine: Machine
    count: int = 1

    @property
    def name(self) -> str:
        return self.machine.name if self.count == 1 else f"{self.count}x{self.machine.name}"

    @property
    def title(self) -> str:
        return self.machine.title if self.count == 1 else f"{self.count} x {self.machine.title}"


@cache
def machine_names() -> tuple[str, ...]:
    """The names of the machines that ship."""
    return tuple(sorted(_all()))


@cache
def _shipped(name: str, overrides: tuple[str, ...]) -> Machine:
    return _machine(f"machine {name}", _all()[name], overrides)


def load_machine(name_or_path: str | Path, *, overrides: Sequence[str] = ()) -> Machine:
    """The machine of that name, alias or YAML file; `overrides` are "dotted.path=value".

    An unknown name raises UsageError, a broken file ConfigError.
    """
    name = str(name_or_path)
    known = _named(name)
    if known is not None:
        return _shipped(known, tuple(overrides))
    if Path(name).suffix not in (".yaml", ".yml"):
        near = did_you_mean(name, [*machine_names(), *_aliases()])
        raise UsageError(
            f"machine {name!r}", "unknown", f"one of {', '.join(machine_names())}, or a YAML file", try_=near
        )
    if not Path(name).is_file():
        raise UsageError(f"machine {name!r}", "no such file", "a YAML file or the name of a machine")
    own = load_config(Path(name), Machine, overrides=overrides)  # names every fault with its line
    return _machine(name, own.model_dump(mode="json", exclude_unset=True, exclude_none=True), ())


def load_system(spec: str, *, overrides: Sequence[str] = ()) -> System:
    """`h100`, or `8xh100` for eight of them."""
    match = re.fullmatch(r"(\d{1,6})\s*[xX]\s*(.+)", spec)
    if match is None or _named(spec) is not None:
        return System(load_machine(spec, overrides=overrides))
    if int(match[1]) < 1:
        raise UsageError(f"system {spec!r}", "no machine", "a count of at least 1, such as 8xh100")
    return System(load_machine(match[2], overrides=overrides), int(match[1]))


def _machine(label: str, data: Mapping[str, Any], overrides: Sequence[str]) -> Machine:
    """The machine of plain data, what its kind has in common filled in after `overrides`."""
    given = load_config(label, Machine, text=write_yaml(dict(data)), overrides=overrides)
    plain = given.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    filled = _filled(plain, _defaults()["kinds"], _defaults()["memories"])
    return _sound(load_config(label, Machine, text=write_yaml(filled)))


def _named(name: str) -> str | None:
    word = name.replace("_", "-").lower()
    return word if word in _all() else _aliases().get(word)


@cache
def _all() -> dict[str, dict[str, Any]]:
    """Every machine that ships, as its file has it."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted((files("insitu.cost") / "machines").iterdir(), key=lambda f: f.name):
        if file.name.endswith(".yaml"):
            data = load_yaml(file.name, text=file.read_text(encoding="utf-8")).data
            found[data["name"]] = data
    return found


@cache
def _aliases() -> dict[str, str]:
    return {alias: name for name, data in _all().items() for alias in data.get("aliases", ())}


@cache
def _defaults() -> dict[str, Any]:
    """What holds for a kind of machine or memory where the machine's own facts say nothing."""
    text = (files("insitu.cost") / "kinds.yaml").read_text(encoding="utf-8")
    return load_yaml("kinds.yaml", text=text).data


def _filled(data: dict[str, Any], kinds: Mapping[str, Any], memories: Mapping[str, Any]) -> dict[str, Any]:
    """The machine with its kind's shares and its memories' energies where it has none of its own; each is named."""
    kind, notes = kinds[data["kind"]], dict(data.get("assumptions", {}))
    efficiency = dict(data.get("efficiency", {}))
    for key in ("compute", "bandwidth", "overhead"):
        if key not in efficiency:
            efficiency[key] = kind[key]
            notes.setdefault(f"efficiency.{key}", kind["source"])
    power = dict(data.get("power", {}))
    if "max" in power:
        top = parse_quantity(power["max"], "W", where="power.max")
        for key in ("idle", "active"):
            if key not in power:
                power[key] = top * kind[key]
                notes.setdefault(f"power.{key}", f"{kind[key]:g} of power.max; {kind['power_source']}")
    levels: list[dict[str, Any]] = []
    for level in data["memories"]:
        own = memories.get(level["kind"])
        if own and "pj_per_bit" not in level:
            level = {**level, "pj_per_bit": own["pj_per_bit"]}
            notes.setdefault(f"memories.{level['name']}.pj_per_bit", own["source"])
        levels.append(level)
    return {**data, "efficiency": efficiency, "power": power, "memories": levels, "assumptions": notes}


def _sound(machine: Machine) -> Machine:
    """The machine; ConfigError where its power states contradict each other."""
    states = [w for w in (machine.power.idle, machine.power.active, machine.power.max) if w is not None]
    if states != sorted(states):
        raise ConfigError(f"machine {machine.name}: power", "states that do not rise", "idle <= active <= max")
    return machine
