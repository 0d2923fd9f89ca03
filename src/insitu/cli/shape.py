"""`insitu run shape:NAME`: closed-form figures of a language model of any size."""

from __future__ import annotations

from pathlib import Path

from insitu.arch.load import load_chip
from insitu.base.store import RunFolder
from insitu.cli import console
from insitu.cli.run import INFEASIBLE, Request
from insitu.flow.shape import ShapeOptions, ShapeRun, run_shape, shares
from insitu.llm.shapes import load_shape
from insitu.report.summary import summary_lines
from insitu.report.text import count, percent, quantity


def run(request: Request, options: ShapeOptions) -> int:
    """Compute, write where a folder is named, print; returns the exit code."""
    given = request.inputs
    assert given.chip is not None
    name, shape = load_shape(given.model)
    chip = load_chip(given.chip, overrides=given.sets or ())
    found = run_shape(name, shape, chip, options)
    if request.out is not None:
        with RunFolder.create(Path(request.out)) as folder:
            folder.write_json("result.json", found.to_json())
            folder.write_text("summary.txt", "\n".join(lines(found)) + "\n")
    if request.json:
        console.put_json(found.to_json())
    else:
        console.put("\n".join(lines(found)))
    return 0 if found.result.fits else INFEASIBLE


def lines(found: ShapeRun) -> list[str]:
    """At most twelve lines."""
    result = found.result
    if not result.fits:
        return summary_lines(result)
    value = {n: m.value or 0.0 for n, m in result.metrics.items()}
    model = result.model
    parts = [
        f"{model.name} on {value['chips']:,.0f} x {result.chip}: {count(model.parameters)} parameters, "
        f"{count(model.macs)} MACs a token with weights; no weights, closed form",
        f"Tokens        {quantity(value['tokens_per_s'], 'tokens/s')}, "
        f"{quantity(value['energy_per_token_j'], 'J')} each, "
        f"the first after {quantity(value['ttft_s'], 's')} (modelled)",
        f"Memory        weights {quantity(value['weight_bytes'], 'B')}, "
        f"caches {quantity(value['kv_cache_bytes'], 'B')} of {quantity(value['kv_cache_room_bytes'], 'B')}",
    ]
    if value["streamed_bytes_per_token"]:
        parts.append(f"Streamed      {quantity(value['streamed_bytes_per_token'], 'B')} of weights a token at "
                     f"{quantity(value['stream_bandwidth'], 'B/s')}")  # fmt: skip
    for label, kind in (("Time goes", found.seconds), ("Energy goes", found.joules)):
        shown = ", ".join(f"{n} {percent(s, digits=0)}" for n, s in shares(dict(kind)))
        parts.append(f"{label:14}{shown}")
    for point in found.beside:
        energy = "" if point.energy_per_token_j is None else f", {quantity(point.energy_per_token_j, 'J')} each"
        parts.append(f"Beside        {point.devices} x {point.machine}, batch {point.batch}: "
                     f"{quantity(point.tokens_per_s, 'tokens/s')}{energy}")  # fmt: skip
    if found.served is not None:
        first, between = found.served["ttft_s"], found.served["tpot_s"]
        if first and between:
            parts.append(f"Serving       {found.served['requests']} requests, prompts on {found.served['prompts_on']}: "
                         f"{quantity(found.served['tokens_per_s'], 'tokens/s')}; first token p50 "
                         f"{quantity(first['p50'], 's')}, p99 {quantity(first['p99'], 's')}; "
                         f"each p50 {quantity(between['p50'], 's')}")  # fmt: skip
    if found.pair is not None:
        parts.append(f"Pair          {quantity(found.pair['tokens_per_s'], 'tokens/s')} with {found.pair['ahead']:.0f} drafted, "
                     f"{percent(found.pair['accepted'], digits=0)} of them kept (assumed): {found.pair['speedup']:.2f}x")  # fmt: skip
    best = max(found.curves["batch"], key=lambda r: r["tokens_per_s"])
    parts.append(f"Best batch    {best['batch']:.0f}: {quantity(best['tokens_per_s'], 'tokens/s')}, "
                 f"{quantity(best['energy_per_token_j'], 'J')} each")  # fmt: skip
    return parts
