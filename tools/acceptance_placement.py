"""Placement figures of one network on one chip, as one JSON object: copies, gaps, time and rate for each objective.

    python tools/acceptance_placement.py resnet20 dcim-28nm --search 10    a name of acceptance_data.py, or a file

slower: time of the latency program over that without copies, less 1; at most 0.  faster: inferences a second of the
throughput program over those of the latency program one after another.  search_s: seconds of a searched placement.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from acceptance_data import prepare

from insitu.algo import ptq
from insitu.arch.load import load_chip
from insitu.compiler.partition import allot
from insitu.compiler.quantize import quantize
from insitu.flow.chain import capture
from insitu.flow.check import compare
from insitu.isa.check import check_program
from insitu.runtime.objective import best_program
from insitu.runtime.session import Session
from insitu.sim.steady import steady_state
from insitu.sim.timing import simulate_time

GAPS = ("latency_gap", "stage_gap", "cells_gap", "utilization", "search_gap")


def figures(program: Any, graph: Any, chip: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    check_program(program)
    timing = simulate_time(program, chip)
    steady = steady_state(program, chip, timing)
    session = Session(program, graph=graph)
    return {
        "latency_s": timing.latency,
        "interval_s": timing.latency if steady is None else steady.interval_ps * 1e-12,
        "mismatches": compare(session, session.codes(inputs)).mismatches,
        "copies": sum(n - 1 for n in program.meta.get("replicas", {}).values()),
        **{name: program.meta[name] for name in GAPS if name in program.meta},
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("chip")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--search", type=float, default=0.0)
    given = parser.parse_args()
    model = given.model if given.model.exists() else prepare(str(given.model))[0]
    chip, captured = load_chip(given.chip, overrides=given.set), capture(model)
    rng = np.random.default_rng(0)
    data = {n: rng.standard_normal((2, *captured.type(n).sizes()), dtype=np.float32) for n in captured.inputs}
    graph = quantize(captured, chip, plan=ptq.plan(captured, chip, data=data))
    one = {n: a[:1] for n, a in data.items()}
    found: dict[str, Any] = {
        goal: figures(best_program(graph, chip, objective=goal), graph, chip, one)
        for goal in ("cells", "latency", "throughput")
    }
    found["slower"] = found["latency"]["latency_s"] / found["cells"]["latency_s"] - 1
    found["faster"] = found["latency"]["latency_s"] / found["throughput"]["interval_s"]
    if given.search:
        start = time.monotonic()
        facts = allot(graph, chip, search=given.search)[1].facts
        found["search_s"] = time.monotonic() - start
        found["search_gap"] = facts.get("search_gap")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
