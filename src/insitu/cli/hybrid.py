"""`insitu plan --hybrid`: device, edge and cloud with links and queues."""

from __future__ import annotations

from insitu.cli import console
from insitu.plan.hybrid import read_hybrid
from insitu.plan.network import Network
from insitu.plan.queues import outcome_text, simulate
from insitu.plan.split import with_splits


def hybrid(file: str, network: Network | None, *, json: bool) -> int:
    """Read, simulate, print; returns the exit code."""
    system = with_splits(read_hybrid(file), network)
    outcome = simulate(system)
    if json:
        console.put_json(outcome.to_json())
    else:
        console.put(outcome_text(outcome))
    return 0
