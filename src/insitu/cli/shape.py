"""`insitu run shape:NAME`: closed-form figures of a language model of any size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from insitu.arch.load import load_chip
from insitu.arch.spec import Chip
from insitu.base.errors import ChipError, did_you_mean
from insitu.base.metrics import Metric
from insitu.base.store import RunFolder
from insitu.cli import console
from insitu.cli.run import INFEASIBLE, Request
from insitu.flow.shape import ShapeOptions, ShapeRun, run_shape, shares
from insitu.llm.images import draw, image_shapes, load_image_shape
from insitu.llm.shapes import load_shape
from insitu.llm.systems import assumed, load_chip_system, system_names
from insitu.report.result import Coverage, ModelFacts, Result
from insitu.report.summary import summary_lines
from insitu.report.text import count, percent, quantity


def run(request: Request, options: ShapeOptions) -> int:
    """Compute, write where a folder is named, print; returns the exit code."""
    given = request.inputs
    assert given.chip is not None
    if given.model.removeprefix("shape:") in image_shapes():
        return draw_image(request, options)
    name, shape = load_shape(given.model)
    if given.chip in system_names():
        system = load_chip_system(given.chip)
        chip, options = system.described(list(given.sets or ())), replace(options, system=system)
    else:
        chip = _chip(given.chip, given.sets or ())
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


def _chip(name: str, sets: Sequence[str]) -> Chip:
    """A chip; where none is called so, systems that are called nearly so are named too."""
    try:
        return load_chip(name, overrides=sets)
    except ChipError:
        close = did_you_mean(name, system_names())
        if not close:
            raise
        raise ChipError(
            name, "no chip and no system has this name", "a preset, a system or a file", try_=close
        ) from None


def draw_image(request: Request, options: ShapeOptions) -> int:
    """An image generator: what one image takes, beside a machine."""
    given = request.inputs
    assert given.chip is not None
    shape, chip = load_image_shape(given.model), load_chip(given.chip, overrides=given.sets or ())
    found = draw(shape, chip, beside=options.beside[0], weight_bits=options.weight_bits)
    steps = f"{shape.steps} steps of {shape.passes} passes"
    rows = [
        ("latency_s", found.seconds, "s", f"one image, {steps}, closed form"), ("energy_j", found.joules, "J", steps),
        ("chips", float(found.chips), "1", "hold all weights"),
        ("macs_per_image", float(shape.macs_per_image), "1", steps),
    ]  # fmt: skip
    metrics = {n: Metric(n, v, unit, "modelled", note) for n, v, unit, note in rows}
    facts = ModelFacts(shape.name, shape.parameters, shape.macs_per_pass)
    result = Result(facts, chip.name, 0, "random", coverage=Coverage(1.0), metrics=metrics)
    beside = {"machine": options.beside[0], "latency_s": found.beside_seconds, "energy_j": found.beside_joules}
    if request.json:
        console.put_json({**result.to_json(), "seconds_per_image": found.parts, "beside": [beside]})
        return 0
    shown = ", ".join(f"{n} {percent(s, digits=0)}" for n, s in shares(found.parts))
    put = [
        f"{shape.name} on {found.chips} x {chip.name}: {count(shape.parameters)} parameters, "
        f"{count(shape.macs_per_pass)} MACs a pass, {steps}",
        f"Image         {quantity(found.seconds, 's')}, {quantity(found.joules, 'J')} (modelled)",
        f"Time goes     {shown}",
        f"Beside        {options.beside[0]} at best: {quantity(found.beside_seconds, 's')}, "
        f"{quantity(found.beside_joules, 'J')}",
    ]
    console.put("\n".join(put))
    return 0


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
    halves = {name: found.attention[name] for name in ("decode", "prefill") if name in found.attention}
    inside = [
        f"{part} of {name}" for name, half in halves.items() for part, c in half.items() if c["where"] == "arrays"
    ]
    if inside:
        parts.append(f"Attention     in arrays without weights: {', '.join(inside)}")
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
        pair = found.pair
        parts.append(
            f"Pair          {quantity(pair['tokens_per_s'], 'tokens/s')} with {pair['ahead']:.0f} drafted, "
            f"{percent(pair['accepted'], digits=0)} of them kept (assumed): {pair['speedup']:.2f}x"
        )
    if found.system is not None:
        held = f"{value['cards']:,.0f} of {found.system.cards} cards"
        parts.append(f"System        {found.system.title}; {held}; assumed: {', '.join(assumed(found.system))}")
    if len(found.splits) > 1:
        best = max(found.splits, key=lambda r: r["tokens_per_s_per_sequence"])
        parts.append(f"Split         {value['chips_per_layer']:.3g} chips a layer; one sequence is fastest with "
                     f"{best['chips_per_layer']:.0f}: {quantity(best['tokens_per_s_per_sequence'], 'tokens/s')}, "
                     f"links {percent(best['links_share'], digits=0)}")  # fmt: skip
    fitting = [r for r in found.curves["batch"] if r["cache_fits"]] or found.curves["batch"][:1]
    best = max(fitting, key=lambda r: r["tokens_per_s"])
    parts.append(f"Best batch    {best['batch']:.0f}: {quantity(best['tokens_per_s'], 'tokens/s')}, "
                 f"{quantity(best['energy_per_token_j'], 'J')} each")  # fmt: skip
    return parts
