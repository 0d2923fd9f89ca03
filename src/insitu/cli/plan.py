"""`insitu plan`: which chip or machine should run a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from insitu.base.errors import UsageError
from insitu.base.store import write_text
from insitu.cli import console
from insitu.cost.book import Book
from insitu.llm.shapes import load_shape, shapes
from insitu.plan.bill import money, money_text
from insitu.plan.candidates import candidates
from insitu.plan.decide import decide, decision_text
from insitu.plan.facts import plan_book
from insitu.plan.ladder import ladder, ladder_text
from insitu.plan.network import Network, of_graph, of_shape
from insitu.plan.requirements import TEMPLATE, Requirements, read_requirements

INFEASIBLE = 2


@dataclass(frozen=True)
class Request:
    """A plan as typed."""

    model: str | None
    requirements: str | None
    profile: str | None
    given: Mapping[str, Any]
    systems: tuple[str, ...]
    vs: tuple[str, ...]
    include: str
    ladder: bool
    hybrid: str | None
    init: str | None
    shapes: tuple[str, ...]
    sets: tuple[str, ...]
    json: bool


def run(request: Request) -> int:
    """Template, ladder, hybrid system or plan; returns the exit code."""
    if request.init is not None:
        return _init(request)
    if request.include not in ("sold", "all"):
        raise UsageError(f"--include {request.include}", "unknown", "sold or all")
    book = plan_book(overrides=request.sets)
    if request.model is None and request.hybrid is None and not request.ladder:
        raise UsageError("MODEL", "missing", "a network, --ladder, --hybrid F.yaml or --init F.yaml")
    wanted = read_requirements(request.requirements, request.profile, request.given)
    network = None if request.model is None else _network(request, wanted)
    if request.hybrid is not None:
        from insitu.cli.hybrid import hybrid

        return hybrid(request.hybrid, network, json=request.json)
    return _ladder(request, network, book) if request.ladder else _plan(request, network, wanted, book)


def _init(request: Request) -> int:
    assert request.init is not None
    if not request.init.endswith((".yaml", ".yml")):
        raise UsageError(f"--init {request.init}", "not the name of a YAML file", "a name ending in .yaml")
    write_text(request.init, TEMPLATE)
    if request.json:
        console.put_json({"schema": 1, "written": request.init})
    else:
        console.put(f"Wrote {request.init}; then: insitu plan MODEL --requirements {request.init}")
    return 0


def _network(request: Request, wanted: Requirements) -> Network:
    """A language model's shape, or the graph of anything that `run` takes."""
    model = request.model or ""
    if model.startswith("shape:") or model in shapes():
        name, shape = load_shape(model)
        return of_shape(name, shape, context=wanted.context, weight_bits=wanted.weight_bits)
    from insitu.cli.inputs import ModelInputs, read_graph  # brings the whole compiler, which a shape does not need

    return of_graph(read_graph(ModelInputs(model, None, shapes=list(request.shapes))))


def _plan(request: Request, network: Network | None, wanted: Requirements, book: Book) -> int:
    assert network is not None
    found = candidates(network, wanted, book, systems=request.systems, beside=request.vs)
    decision = decide(found, wanted, include_all=request.include == "all")
    chosen = money(decision.recommendation, found, wanted, book)
    other = money(decision.best_other, found, wanted, book)
    if request.json:
        console.put_json({"model": network.name, **decision.to_json(), "money": [m for m in (chosen, other) if m]})
    else:
        console.put("\n".join([*money_text(chosen), *money_text(other), decision_text(decision, network.name)]))
    return 0 if decision.recommendation is not None else INFEASIBLE


def _ladder(request: Request, network: Network | None, book: Book) -> int:
    rungs = ladder(book)
    if request.json:
        console.put_json({"schema": 1, "ladder": [r.to_json() for r in rungs]})
    else:
        weights = None if network is None else network.weights
        console.put(ladder_text(rungs, weights))
    return 0
