"""The benchmarks by name; each is imported when it runs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from insitu.base.registry import resolve
from insitu.bench.result import BenchResult

BENCHES: Mapping[str, str] = {"compile": "insitu.bench.compile", "cost": "insitu.bench.cost"}


def run_bench(name: str) -> BenchResult:
    """Run a benchmark: `run()` of its module."""
    module = resolve(name, BENCHES, "benchmark")
    return import_module(module).run()
