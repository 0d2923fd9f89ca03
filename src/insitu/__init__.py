"""Insitu: takes a real model to a compute-in-memory chip and says what it will compute, how fast and at what energy.

Importing the package imports only the standard library; a public name is resolved when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from insitu.arch.load import load_chip
    from insitu.arch.spec import Chip
    from insitu.base.errors import InfeasibleError, InsituError
    from insitu.base.metrics import Metric
    from insitu.flow import Deployment, deploy
    from insitu.frontend.load import load_model
    from insitu.graph.graph import Graph
    from insitu.isa.program import Program, load_program
    from insitu.runtime.session import Session

__version__ = "0.1.0"

__all__ = [
    "Chip",
    "Deployment",
    "Graph",
    "InfeasibleError",
    "InsituError",
    "Metric",
    "Program",
    "Session",
    "deploy",
    "load_chip",
    "load_model",
    "load_program",
]

_HOMES = {
    "Chip": "insitu.arch.spec",
    "Deployment": "insitu.flow",
    "Graph": "insitu.graph.graph",
    "InfeasibleError": "insitu.base.errors",
    "InsituError": "insitu.base.errors",
    "Metric": "insitu.base.metrics",
    "Program": "insitu.isa.program",
    "Session": "insitu.runtime.session",
    "deploy": "insitu.flow",
    "load_chip": "insitu.arch.load",
    "load_model": "insitu.frontend.load",
    "load_program": "insitu.isa.program",
}


def __getattr__(name: str) -> Any:
    if name == "nn":
        return import_module("insitu.nn")
    if name not in _HOMES:
        raise AttributeError(f"module 'insitu' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
