"""`insitu run` of a language model: tokens as they come, then what they cost."""

from __future__ import annotations

import json as json_
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import insitu
from insitu.arch.load import chip_json, load_chip
from insitu.arch.spec import Chip
from insitu.base.errors import InfeasibleError, UsageError
from insitu.base.store import RunFolder, hash_file
from insitu.cli import console
from insitu.cli.inputs import parse_count
from insitu.cli.run import INFEASIBLE, OURS, Request
from insitu.flow.chain import Deployment
from insitu.flow.folder import default_folder, fill_run
from insitu.flow.language import (
    LanguageDeployment,
    LanguageOptions,
    cache_bits_of,
    cache_bytes,
    check_cache,
    deploy_language,
    infeasible_result,
    pair_of,
    result_of,
    scored,
)
from insitu.frontend.hub import parse_repository
from insitu.frontend.language import LanguageModel
from insitu.frontend.load import is_hub_name, load_language_model, local_path
from insitu.llm.generate import Sampling, room_of
from insitu.llm.pages import Pool
from insitu.llm.systems import load_chip_system, system_names
from insitu.llm.tokens import Numbers, Tokenizer, prompt_tokens, read_tokenizer, text_tokens
from insitu.report.result import Result
from insitu.report.summary import same_numbers, summary_lines
from insitu.report.text import percent, quantity

PART = "\ufffd"  # a letter whose bytes are not all there yet


@dataclass(frozen=True)
class Prompt:
    """What is asked of a language model, as typed."""

    text: str = ""
    tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    context: int = 256
    offline: bool = False
    cache_bits: float = 8
    draft: str = ""  # a small model that writes ahead
    draft_chip: str = ""
    more: tuple[str, ...] = ()  # prompts beside `text`
    page_tokens: int = 0  # of a page of a pool of caches; 0: no pages
    pool_pages: int = 0
    lanes: int = 0  # sequences at once; 0: as many as there are prompts

    @property
    def texts(self) -> tuple[str, ...]:
        """All prompts."""
        return (self.text, *self.more)


def run_language(request: Request, prompt: Prompt) -> int:
    """Deploy, speak, score, report; returns the exit code."""
    given = request.inputs
    assert given.chip is not None
    options = LanguageOptions(
        context=prompt.context, tokens=prompt.tokens, physics=request.physics, seed=given.seed,
        sampling=Sampling(prompt.temperature, prompt.top_p, given.seed), max_chips=request.max_chips,
        samples=parse_count("--samples", request.samples), calibrated=request.calibrated,
        cache_bits=cache_bits_of(prompt.cache_bits), page_tokens=prompt.page_tokens, pool_pages=prompt.pool_pages,
        lanes=prompt.lanes or len(prompt.texts),
    )  # fmt: skip
    if prompt.draft and prompt.page_tokens:
        raise UsageError("--draft", "with pages (--page-tokens, several prompts)", "one prompt, its caches its own")
    if prompt.draft and prompt.temperature > 0:
        raise UsageError("--draft", "with --temperature: drawn tokens", "the likeliest tokens: no --temperature")
    if given.chip in system_names():
        need = f"one chip: {load_chip_system(given.chip).chip}"
        raise UsageError(f"--chip {given.chip}", "a system of chips, which takes shapes", need)
    chip = load_chip(given.chip, overrides=given.sets or ())
    check_cache(chip, options.cache_bits)
    place = local_path(given.model, offline=prompt.offline)
    model = load_language_model(given.model)
    if "head.w" not in model.weights:
        raise UsageError(given.model, "an encoder, which has no next token", "a decoder")
    small = _draft(prompt, model) if prompt.draft else None
    tokenizer = read_tokenizer(place, model.arch.vocab)
    prompts = [_prompt(tokenizer, prompt, text, model) for text in prompt.texts]
    ids = prompts[0]
    out = Path(request.out) if request.out else _place(request, prompt, chip, place)
    progress, start = console.Progress(), time.time()
    with RunFolder.create(out) as folder:
        try:
            deployed = deploy_language(
                model, chip, calib=given.calib, options=options, tokenizer=tokenizer, progress=progress
            )
        except InfeasibleError as error:
            return _say(replace(infeasible_result(model, chip, error, options), run_dir=str(out)), request.json, {})
        progress.end()
        speak = _speak_paged if prompt.page_tokens else _speak
        spoken = speak(deployed, prompts, quiet=request.json)
        texts = text_tokens(deployed.tokenizer, Path(given.data), model.arch.vocab) if given.data else []
        scores = scored(deployed, texts, progress=progress) if texts else {}
        pair = _pair(small, prompt, deployed, ids) if small is not None else None
        result = result_of(deployed, prompt=ids, scores=scores, progress=progress)
        progress.end()
        result = replace(result, extra={**result.extra, "language": spoken})
        folder.write_json("speculative.json", pair) if pair else None
        step = Deployment(result, chip, deployed.step_graph, deployed.prepared.plan, deployed.step, deployed.session)
        fill_run(folder, step, host={"started_s": start, "simulated_tokens_per_s": spoken.pop("rate")})
        folder.write_json("tokens.json", spoken)
    return _say(replace(result, run_dir=str(out)), request.json, spoken, pair)


def _draft(prompt: Prompt, large: LanguageModel) -> LanguageModel:
    """The small model of a pair: a decoder with the large one's vocabulary."""
    local_path(prompt.draft, offline=prompt.offline)
    small = load_language_model(prompt.draft)
    if small.arch.vocab != large.arch.vocab or "head.w" not in small.weights:
        got = f"a model of {small.arch.vocab:,} words" if "head.w" in small.weights else "an encoder"
        raise UsageError(
            f"--draft {prompt.draft}", got, f"a decoder of {large.arch.vocab:,} words, as {large.name} has"
        )
    return small


def _pair(small: LanguageModel, prompt: Prompt, large: LanguageDeployment, ids: Sequence[int]) -> dict[str, Any]:
    """The pair's tokens and rates; the small model runs on its own chip where one is named."""
    chip = load_chip(prompt.draft_chip) if prompt.draft_chip else large.chip
    return pair_of(large, deploy_language(small, chip, options=large.options), ids, count=large.options.tokens)


def _prompt(tokenizer: Tokenizer, prompt: Prompt, text: str, model: LanguageModel) -> list[int]:
    """The prompt's tokens; without one, the token that begins a text."""
    ids = prompt_tokens(tokenizer, text, model.arch.vocab) if text else [model.begin]
    room = min(prompt.context, model.arch.context)
    if not 0 < len(ids) < room:
        more = f"--context {1 << len(ids).bit_length()}" if room < model.arch.context else "a shorter prompt"
        need = f"1 to {room - 1:,}, what caches of {room:,} hold less one"
        raise UsageError("--prompt", f"{len(ids):,} tokens", need, try_=[more])
    return ids


def _place(request: Request, prompt: Prompt, chip: Chip, folder: Path) -> Path:
    files = sorted(p for p in folder.iterdir() if p.is_file()) if folder.is_dir() else [folder]
    parts = [
        insitu.__version__,
        json_.dumps(chip_json(chip), sort_keys=True),
        repr(prompt),
        repr(replace(request, out=None, json=False)),
    ]
    name = parse_repository(request.inputs.model).short if is_hub_name(request.inputs.model) else folder.stem
    return default_folder(name, chip.name, [*parts, *(hash_file(p) for p in files)])


def _speak(deployed: LanguageDeployment, prompts: Sequence[Sequence[int]], *, quiet: bool) -> dict[str, Any]:
    """Generate after one prompt, shown as it grows; the rate is the simulator's own."""
    [ids] = prompts
    said, shown = deployed.tokenizer.text, ""
    start, tokens = time.perf_counter(), list[int]()
    for token in chain([None], deployed.generate(ids)):
        tokens += [] if token is None else [token.id]
        grown = said([*ids, *tokens])
        if not quiet and not grown.endswith(PART):
            console.stream(grown[len(shown) :])
            shown = grown
    spent = time.perf_counter() - start
    if not quiet:
        console.put("")
    numbered = isinstance(deployed.tokenizer, Numbers)
    text = None if numbered else said([*ids, *tokens])
    return {"prompt": list(ids), "tokens": tokens, "text": text, "rate": round((len(ids) + len(tokens)) / spent, 1)}


def _speak_paged(deployed: LanguageDeployment, prompts: Sequence[Sequence[int]], *, quiet: bool) -> dict[str, Any]:
    """Generate after all prompts at once, shown at the end, and what of the pool of pages they took."""
    pool, start = Pool.of(deployed.step_graph), time.perf_counter()
    found: list[list[int]] = [[] for _ in prompts]
    for number, token in deployed.generate_paged(prompts, pool=pool):
        found[number].append(token.id)
    spent = time.perf_counter() - start
    numbered, said = isinstance(deployed.tokenizer, Numbers), deployed.tokenizer.text
    texts = [None if numbered else said([*ids, *more]) for ids, more in zip(prompts, found, strict=True)]
    if not quiet:
        shown = [said([*ids, *more]) for ids, more in zip(prompts, found, strict=True)]
        console.put("\n\n".join(shown))
    total = cache_bytes(deployed.step)
    pages = {
        "page_tokens": pool.page, "pool_pages": pool.count - 1, "lanes": len(pool.tables), "pool_bytes": total,
        "peak_pages": pool.peak, "peak_tokens": pool.peak_tokens, "peak_bytes": total * pool.peak // pool.count,
        "whole_caches_bytes": total * len(prompts) * room_of(deployed.session) // (pool.count * pool.page),
    }  # fmt: skip
    read = sum(len(ids) + len(more) for ids, more in zip(prompts, found, strict=True))
    return {"prompt": list(prompts[0]), "tokens": found[0], "text": texts[0], "rate": round(read / spent, 1),
            "prompts": [list(ids) for ids in prompts], "sequences": found, "texts": texts, "pages": pages}  # fmt: skip


def _pages_line(pages: dict[str, int]) -> str:
    filled = pages["peak_tokens"] / max(1, pages["peak_pages"] * pages["page_tokens"])
    return (
        f"Pages         at most {pages['peak_pages']} of {pages['pool_pages']} in use, "
        f"{quantity(pages['peak_bytes'], 'B')} of {quantity(pages['pool_bytes'], 'B')}, {percent(filled)} filled; "
        f"a cache for each prompt would take {quantity(pages['whole_caches_bytes'], 'B')}"
    )


def _language_lines(result: Result) -> list[str]:
    """Tokens a second, energy per token, and how near the float model it is."""
    value = result.value
    rate, energy, first = (value(n) for n in ("tokens_per_s", "energy_per_token_j", "ttft_s"))
    shown = [quantity(v, unit) for v, unit in ((rate, "tokens/s"), (energy, "J"), (first, "s")) if v is not None]
    caches = result.metrics["kv_cache_bytes"]
    held = f"caches of {quantity(caches.value or 0, 'B')}: {caches.note}"
    lines = [
        f"Tokens        {shown[0]}, {shown[1]} each, the first after {shown[2]} (modelled)",
        f"Memory        {held}",
    ]
    for name, who in (("quantized", "ideal chip"), ("chip", "chip under physics")):
        perplexity = value(f"perplexity_{name}")
        if perplexity is not None:
            agreement, far, base = (
                value(n) for n in (f"top1_agreement_{name}", f"kl_divergence_{name}", "perplexity_float")
            )
            more = f"{perplexity:.4g} (float {base:.4g}), top-1 as float {percent(agreement)}, KL {far:.4f}"
            lines.append(f"Perplexity    {who} {more}")
    return lines


def _attention_lines(result: Result) -> list[str]:
    """Where keys and values are written into arrays, and what both ways take."""
    parts: list[str] = []
    for name, found in result.extra.get("attention", {}).items():
        if found["products"]:
            lanes, arrays = (
                f"{quantity(found[way]['seconds'], 's')}, {quantity(found[way]['joules'], 'J')}"
                for way in ("vector_unit", "arrays")
            )
            known = "" if not any(r["arrays"] for r in found["rows"]) else f", all in arrays {arrays}"
            parts.append(f"{name} {found['in_arrays']} of {found['products']} in arrays (all on lanes {lanes}{known})")
    return [f"Attention     {'; '.join(parts)}"] if parts else []


def _pair_line(pair: dict[str, Any]) -> str:
    same = "the same tokens" if pair["same_tokens"] else "other tokens"
    return (
        f"Pair          {pair['draft']} on {pair['draft_chip']} drafts {pair['ahead']} at a time, "
        f"{percent(pair['accepted'])} kept: {same}, {quantity(pair['tokens_per_s'], 'tokens/s')}, "
        f"{pair['speedup']:.2f}x (modelled)"
    )


def _say(result: Result, as_json: bool, spoken: dict[str, Any], pair: dict[str, Any] | None = None) -> int:
    if as_json:
        shown = {"attention": result.extra.get("attention"), "generated": spoken or None, "speculative": pair}
        console.put_json({**result.to_json(), **shown})
    else:
        lines, more = summary_lines(result), [_pair_line(pair)] if pair else []
        more = [*_attention_lines(result), *more]
        more += [_pages_line(spoken["pages"])] if "pages" in spoken else []
        console.put("\n".join([*lines[:2], *_language_lines(result), *more, *lines[2:]] if result.fits else lines))
    if not result.fits:
        return INFEASIBLE
    if result.bit_exact is not None and result.bit_exact.mismatches:
        console.note(f"A fault of ours: {same_numbers(result)}")
        return OURS
    return 0
