"""The benchmarks by name; each is imported when it runs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from insitu.base.registry import resolve
from insitu.bench.result import BenchResult

NAMES = (
    "compile", "cost", "llm-shape", "llm-tokens", "mvm", "mvm-gpu", "mvm-statedep", "network", "sliced", "start",
    "timing", "train", "wires",
)  # fmt: skip
BENCHES: Mapping[str, str] = {
    **{name: f"insitu.bench.{name.replace('-', '_')}" for name in NAMES}, "import": "insitu.bench.imports",
}  # fmt: skip


def run_bench(name: str) -> BenchResult:
    """Run a benchmark: `run()` of its module."""
    module = resolve(name, BENCHES, "benchmark")
    return import_module(module).run()
