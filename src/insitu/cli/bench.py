"""`insitu bench`: one benchmark and its bar."""

from __future__ import annotations

from insitu.bench.registry import run_bench
from insitu.cli import console


def run(name: str, *, json: bool) -> int:
    """Run a benchmark; a bar that does not hold is an answer, not an error."""
    result = run_bench(name)
    console.put_json(result.to_json()) if json else console.put("\n".join(result.lines()))
    return 0
