"""A conventional machine beside a chip: the same shape at batch 1 and at the batch that gives the most tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from math import ceil
from typing import Any

from insitu.base.yaml import parse_yaml
from insitu.cost.machines import Machine, load_system
from insitu.llm.fit import DEVICE_CLASSES
from insitu.llm.roofline import Serving, prefill, step, total
from insitu.llm.shapes import Shape
from insitu.llm.software import habits

SOFTWARE = "compiled"
MOST = 64  # devices tried


@cache
def fitted() -> dict[str, Any]:
    """Factors and the share of power, as shipped."""
    text = (files("insitu.llm") / "factors.yaml").read_text("utf-8")
    return parse_yaml(text, label="factors.yaml").data


def factor_of(machine: Machine) -> float:
    """The factor of a machine's class with serving software; the pooled one of GPUs where it has none."""
    kind = DEVICE_CLASSES.get(machine.kind, machine.kind)
    known = fitted()["factors"]
    return known.get(f"{kind} x server", known.get(f"{kind} x portable", known["gpu x server"]))


@dataclass(frozen=True)
class Beside:
    """One point of a machine: devices, sequences, rates per second, joules a token, seconds by part."""

    machine: str
    devices: int
    batch: int
    tokens_per_s: float
    tokens_per_s_per_sequence: float
    ttft_s: float
    energy_per_token_j: float | None
    seconds: dict[str, float]


def points(
    shape: Shape, name: str, *, keys: float, prompt: float, weight_bits: float = 16, cache_bits: float = 16
) -> list[Beside]:
    """Batch 1 and the best batch on the fewest devices (a power of two) that hold the shape; none where none do."""
    system = load_system(name)
    machine = system.machine
    serving = Serving(shape, machine, habits().classes[SOFTWARE], 1, "tensor", weight_bits,
                      weight_bits if weight_bits == 8 else 16, cache_bits)  # fmt: skip
    size = machine.memory.size
    if not size:
        return []
    need = (serving.weight_bytes + serving.sequence_bytes * keys) / (size * serving.software.margin)
    count = max(system.count, 1 << max(0, ceil(need) - 1).bit_length())
    if count > MOST:
        return []
    serving = replace(serving, count=count)
    most = max(serving.batch_that_fits(keys), 1)
    return [_point(serving, keys, prompt, batch) for batch in dict.fromkeys((1, most))]


def prefill_seconds(shape: Shape, name: str, tokens: float, devices: int) -> float:
    """Seconds of a prompt of 16-bit weights on so many devices."""
    machine = load_system(name).machine
    serving = Serving(shape, machine, habits().classes[SOFTWARE], devices, "tensor")
    return prefill(serving, tokens=tokens) / factor_of(machine)


def _point(serving: Serving, keys: float, prompt: float, batch: int) -> Beside:
    factor = factor_of(serving.machine)
    parts = {k: v / factor for k, v in step(serving, tokens=1, batch=batch, keys=keys).items()}
    spent = total(parts)
    watts = serving.machine.power.max
    joules = None if watts is None else watts * fitted()["power_share"] * serving.count * spent / batch
    first = prefill(serving, tokens=prompt) / factor
    return Beside(
        serving.machine.name, serving.count, batch, batch / spent, 1 / spent, first, joules, parts
    )  # fmt: skip
