"""A network cut by layer between two systems: what each part takes, what crosses, and the best cut."""

from __future__ import annotations

from dataclasses import replace

from insitu.arch.load import load_chip, presets
from insitu.base.errors import UsageError
from insitu.cost.designs import designs
from insitu.cost.layers import stack
from insitu.cost.machines import load_system
from insitu.cost.points import cost
from insitu.cost.roofline import spend
from insitu.plan.hybrid import Class, Hybrid, Split, Step
from insitu.plan.network import Network


def with_splits(system: Hybrid, network: Network | None) -> Hybrid:
    """The system with every class that splits a network given its steps."""
    if any(c.split is not None for c in system.classes) and network is None:
        raise UsageError("--hybrid", "a class that splits a network", "the network: insitu plan MODEL --hybrid F.yaml")
    return system.model_copy(update={"classes": tuple(_stepped(c, system, network) for c in system.classes)})


def _stepped(kind: Class, system: Hybrid, network: Network | None) -> Class:
    if kind.split is None or network is None:
        return kind
    return kind.model_copy(update={"split": None, "steps": tuple(steps_of(kind.split, system, network))})


def steps_of(split: Split, system: Hybrid, network: Network) -> list[Step]:
    """Steps at the cut that is asked for, or else at the one with the least time without waiting."""
    count = len(network.works)
    if split.cut is not None and split.cut > count:
        raise UsageError("split.cut", f"{split.cut}", f"at most {count}, the operators of {network.name}")
    cuts = range(count + 1) if split.cut is None else (split.cut,)
    choices = [_at(split, network, cut) for cut in cuts]
    return min(choices, key=lambda steps: _alone(steps, system))


def _at(split: Split, network: Network, cut: int) -> list[Step]:
    """The first `cut` operators here; a byte for each value that the rest begins with; the answer back."""
    count = len(network.works)
    first, rest = seconds(split.first, network, 0, cut), seconds(split.rest, network, cut, count)
    here = [Step(at=split.first_at, time=first)] if cut else []
    if cut == count:
        return here
    crossing = network.works[cut].inputs
    there = [Step(at=split.link, bytes=int(crossing)), Step(at=split.rest_at, time=rest)]
    return [*here, *there, Step(at=split.link, bytes=split.result_bytes)]


def _alone(steps: list[Step], system: Hybrid) -> float:
    """Seconds of a request that never waits."""
    total = 0.0
    for step in steps:
        link = system.links.get(step.at)
        total += step.time or 0.0
        total += 0.0 if link is None else link.latency + (step.bytes or 0) / link.bandwidth
    return total


def seconds(system: str, network: Network, begin: int, end: int) -> float:
    """Seconds of operators begin..end on a chip (closed form of its weight layers) or a machine (roofline)."""
    works = network.works[begin:end]
    if not works:
        return 0.0
    if system not in presets():
        spent = spend(works, load_system(system), weight_bits=network.weight_bits)
        if spent.latency is None:
            raise UsageError(f"split: {system}", "no bandwidth is known", "a machine that says how fast its memory is")
        return spent.latency
    names = {work.name for work in works}
    layers = [layer for layer, _ in network.layers if layer.name in names]
    if not layers:
        return 0.0
    found = cost(stack(replace(layer) for layer in layers), designs([load_chip(system)]))
    return float(found.latency[:, 0].sum())
