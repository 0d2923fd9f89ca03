"""A language model on a chip: chosen numbers, two programs (whole texts, one token), checks, scores, figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.arch.load import load_chip
from insitu.arch.spec import Chip
from insitu.base.errors import InfeasibleError, UsageError
from insitu.base.metrics import Metric
from insitu.circuit.effects import Physics
from insitu.compiler.pipeline import compile_graph
from insitu.flow import check, figures
from insitu.frontend.language import LanguageModel
from insitu.frontend.language_graph import HALF, Paging, text_graph
from insitu.frontend.load import load_language_model, local_path
from insitu.graph.export import float_session
from insitu.graph.graph import Graph
from insitu.graph.ops.macs import macs
from insitu.isa.check import check_program
from insitu.isa.elements import element
from insitu.isa.program import Program
from insitu.llm.build import Prepared, prepare
from insitu.llm.generate import Sampling, Token, fed, generate, generate_batch, room_of
from insitu.llm.pages import Pool, forced_steps, generate_paged
from insitu.llm.samples import affordable_texts, written
from insitu.llm.score import Score, score
from insitu.llm.speculative import speculate
from insitu.llm.tokens import Tokenizer, prompt_tokens, read_tokenizer, text_tokens, windows
from insitu.report.result import BitExact, Coverage, ModelFacts, Result
from insitu.runtime.session import Session

Array = npt.NDArray[Any]
Progress = Callable[[str, int, int], None]
CALIBRATION_TEXTS, TEXT_LENGTH = 16, 128
CHECKED_STEPS = 8
GREEDY = Sampling()


@dataclass(frozen=True)
class LanguageOptions:
    """What a language model is asked for; the defaults are those of `insitu run --prompt`."""

    context: int = 256
    tokens: int = 64
    sampling: Sampling = GREEDY
    physics: str = "ideal"
    instance: int = 0
    seed: int = 0
    max_chips: int = 1
    samples: int | None = None  # texts that are scored
    calibrated: bool = True
    cache_bits: int = 8  # of cached keys and values
    page_tokens: int = 0  # of a page of a pool of caches; 0: each sequence has a cache of its own
    pool_pages: int = 0  # pages of the pool; 0: as many as all lanes can fill
    lanes: int = 1  # sequences at once in a paged program

    def paging(self, context: int) -> Paging | None:
        """How caches are paged, for sequences of up to `context` tokens; none where they are not."""
        if not self.page_tokens:
            return None
        each = -(-context // self.page_tokens)
        return Paging(self.page_tokens, (self.pool_pages or self.lanes * each) + 1, self.lanes)


@dataclass(frozen=True)
class LanguageDeployment:
    """A language model on a chip: programs of both forms, and what is known of them."""

    prepared: Prepared
    tokenizer: Tokenizer
    calibration: str
    options: LanguageOptions
    step: Program
    step_graph: Graph
    session: Session  # of the step program, ideal
    programs: dict[int, tuple[Program, Graph]] = field(default_factory=dict[int, tuple[Program, Graph]])

    @property
    def model(self) -> LanguageModel:
        """The model as it was read."""
        return self.prepared.source

    @property
    def chip(self) -> Chip:
        """The chip it runs on."""
        return self.prepared.chip

    def text(self, tokens: int) -> tuple[Program, Graph]:
        """Program and graph of whole texts of so many tokens."""
        if tokens not in self.programs:
            graph = self.prepared.text(tokens)
            program = compile_graph(graph, self.chip, max_chips=self.options.max_chips)
            check_program(program)
            self.programs[tokens] = program, graph
        return self.programs[tokens]

    def session_of(self, physics: str = "", instance: int = 0) -> Session:
        """A step session on a chip instance."""
        return self._session(self.step, self.step_graph, physics or self.options.physics, instance)

    def _session(self, program: Program, graph: Graph, physics: str, instance: int) -> Session:
        effects = Physics.parse(physics, self.chip, calibrated=self.options.calibrated)
        return Session(program, graph=graph, physics=effects, instance=instance, seed=self.options.seed)

    def generate(
        self, prompt: str | Sequence[int], *, count: int = 0, sampling: Sampling | None = None, physics: str = "",
        instance: int = 0, stop: Sequence[int] | None = None,
    ) -> Iterator[Token]:  # fmt: skip
        """Tokens from the compiled step program, one at a time, up to one of `stop`: by default what ends a text."""
        ids = prompt_tokens(self.tokenizer, prompt, self.model.arch.vocab) if isinstance(prompt, str) else list(prompt)
        session = self.session_of(physics, instance)
        count = count or self.options.tokens
        return generate(session, ids, count=count, sampling=sampling or self.options.sampling,
                        stop=self.model.ends if stop is None else stop)  # fmt: skip

    def generate_paged(
        self, prompts: Sequence[Sequence[int]], *, count: int = 0, sampling: Sampling | None = None,
        physics: str = "", pool: Pool | None = None,
    ) -> Iterator[tuple[int, Token]]:  # fmt: skip
        """(number of a prompt, its next token) of prompts of any lengths in the lanes of a paged program."""
        if not self.options.page_tokens:
            raise UsageError("generate_paged", "a program without pages", "LanguageOptions(page_tokens=16, lanes=2)")
        return generate_paged(self.session_of(physics), prompts, count=count or self.options.tokens, pool=pool,
                              sampling=sampling or self.options.sampling, stop=self.model.ends)  # fmt: skip

    def generate_batch(
        self, prompts: Sequence[Sequence[int]], *, count: int = 0, sampling: Sampling | None = None, physics: str = ""
    ) -> Iterator[list[Token]]:
        """Tokens after several prompts of one length."""
        return generate_batch(
            self.session_of(physics), prompts, count=count or self.options.tokens, sampling=sampling
        )  # fmt: skip

    def logits(self, tokens: int, *, physics: str = "ideal", instance: int = 0) -> Callable[[Array], Array]:
        """Ids (texts, tokens) -> logits of the compiled text program; by steps where that does not fit."""
        if not self.holds(tokens):
            return self._by_steps(self.session_of(physics, instance))
        program, graph = self.text(tokens)
        session = self._session(program, graph, physics, instance)
        name = graph.outputs[0]
        return lambda ids: session.real(name, session.run_codes({"ids": ids[:, None, :]})[name])[:, 0]

    def holds(self, tokens: int) -> bool:
        """Whether whole texts of so many tokens fit the chip."""
        try:
            self.text(tokens)
        except InfeasibleError:
            return False
        return True

    def _by_steps(self, session: Session) -> Callable[[Array], Array]:
        """The same integers, a token of each text at a time."""

        def run(ids: Array) -> Array:
            session.reset()
            return np.stack([fed(session, [int(t) for t in ids[:, at]], at) for at in range(ids.shape[1])], axis=1)

        return run

    def reference(self, tokens: int) -> Callable[[Array], Array]:
        """The float model's logits."""
        graph = text_graph(self.model, tokens)
        run = float_session(graph)
        return lambda ids: run({"ids": ids[:, None, :]})[graph.outputs[0]][:, 0]

    def score(
        self, texts: Sequence[Sequence[int]], *, physics: str = "ideal", instance: int = 0, length: int = TEXT_LENGTH,
        done: Callable[[int, int], None] | None = None,
    ) -> Score:  # fmt: skip
        """Teacher-forced: this chip against the float model."""
        pieces = windows(texts, min(length, self.model.arch.context))
        if not pieces:
            raise UsageError("texts", "none with two tokens", "some text")
        longest = max(len(p) for p in pieces)
        if not self.holds(longest) and longest > room_of(self.session):
            pieces = windows(texts, room_of(self.session))
            longest = max(len(p) for p in pieces)
        chip = self.logits(longest, physics=physics, instance=instance)
        vocab = self.model.arch.vocab
        return score(pieces, longest, self.reference(longest), chip, vocab=vocab, done=done)

    def check(self, tokens: Sequence[int]) -> BitExact:
        """Interpreter against simulator: every value of the steps of a text, with their state; cut where caches end."""
        if self.options.page_tokens:
            return check.compare(self.session, forced_steps(self.step_graph, tokens, len(tokens)))
        room, found = room_of(self.session), list[BitExact]()
        for start in range(0, len(tokens), room):
            ids = np.asarray(tokens[start : start + room], np.int64)
            codes: dict[str, Array] = {"ids": ids[:, None, None], "position": np.arange(len(ids))[:, None]}
            found.append(check.compare(self.session, {n: codes[n] for n in self.session.inputs}))
        first = next((f.first for f in found if f.first is not None), None)
        checked, wrong = sum(f.checked_values for f in found), sum(f.mismatches for f in found)
        return BitExact(checked, wrong, sum(f.excluded_values for f in found), first)


def silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def deploy_language(
    model: str | Path | LanguageModel,
    chip: str | Path | Chip,
    *,
    calib: str | Path | Sequence[Sequence[int]] | None = None,
    options: LanguageOptions | None = None,
    tokenizer: Tokenizer | None = None,
    progress: Progress = silent,
) -> LanguageDeployment:
    """Read, quantize and compile a language model; `calib` holds texts, without it the model writes its own.

    `tokenizer` is the folder's own where `model` is one, or hf:OWNER/NAME.

    Raises InfeasibleError where it does not fit, ModelError for a folder that is no language model.
    """
    options = options or LanguageOptions()
    source = model if isinstance(model, LanguageModel) else load_language_model(model)
    chip = chip if isinstance(chip, Chip) else load_chip(chip)
    if tokenizer is None:
        place = Path("" if isinstance(model, LanguageModel) else local_path(model))
        tokenizer = read_tokenizer(place, source.arch.vocab)
    check_cache(chip, cache_bits_of(options.cache_bits))
    progress("calibrate", 0, 1)
    ids, origin = calibration_texts(source, tokenizer, calib, seed=options.seed)
    prepared = prepare(source, chip, ids, cache_bits=cache_bits_of(options.cache_bits))
    progress("quantize and compile", 0, 1)
    context = min(options.context, source.arch.context)
    graph = prepared.step(context, options.paging(context))
    program = compile_graph(graph, chip, max_chips=options.max_chips)
    check_program(program)
    return LanguageDeployment(
        prepared, tokenizer, origin, options, program, graph, Session(program, graph=graph)
    )  # fmt: skip


def cache_bits_of(bits: float) -> int:
    """Widths that a compiled cache may have."""
    if bits not in (2, 3, 4, 5, 6, 7, 8, HALF):
        need = "int2 to int8, or fp16: products of attention take codes of 8 bits, for sums have 32"
        raise UsageError("--kv", f"{bits:g} bits in a compiled program", need)
    return int(bits)


def check_cache(chip: Chip, bits: int) -> None:
    """Raises UsageError where a chip is to keep fp16 numbers, and computes with codes only."""
    if bits == HALF and not chip.capabilities.floats:
        ways = ["--kv int8", "--chip dcim-28nm-fp16", "--set capabilities.floats=true --set core.vector.format=fp16"]
        raise UsageError("--kv fp16", f"{chip.name}, whose vector units compute with codes only",
                         "a chip with capability floats", try_=ways)  # fmt: skip


def calibration_texts(
    model: LanguageModel, tokenizer: Tokenizer, calib: str | Path | Sequence[Sequence[int]] | None, *, seed: int
) -> tuple[Array, str]:
    """Texts of one length (samples, tokens), and where they are from: "file", or "model" where it wrote them itself."""
    if calib is None:
        count = affordable_texts(model.arch.vocab, texts=CALIBRATION_TEXTS, length=TEXT_LENGTH)
        return written(model, seed=seed, texts=count, length=TEXT_LENGTH), "model"
    texts = text_tokens(tokenizer, Path(calib), model.arch.vocab) if isinstance(calib, str | Path) else calib
    pieces = windows(texts, min(TEXT_LENGTH, model.arch.context))
    longest = max((len(p) for p in pieces), default=0)
    full = [p for p in pieces if len(p) == longest]
    if longest < 2:
        raise UsageError("calibration texts", "none with two tokens", "some text")
    chosen = np.random.default_rng(seed).permutation(len(full))
    chosen = chosen[: affordable_texts(model.arch.vocab, texts=CALIBRATION_TEXTS, length=longest)]
    return np.asarray([full[i] for i in sorted(chosen)], np.int64), "file"


def result_of(
    deployed: LanguageDeployment, *, prompt: Sequence[int], scores: Mapping[str, Score] | None = None,
    progress: Progress = silent,
) -> Result:  # fmt: skip
    """Everything known of the run, in the form of `insitu run --json`."""
    step, graph, chip = deployed.step, deployed.step_graph, deployed.chip
    progress("check bit by bit", 0, 1)
    wanted = check.samples_needed(graph)
    tokens = [*prompt, *(int(t) for t in np.random.default_rng(0).integers(0, deployed.model.arch.vocab, wanted))]
    exact = deployed.check(tokens[: max(wanted, min(len(prompt), CHECKED_STEPS))])
    cost = figures.cost(step, chip)
    metrics = {**cost.metrics, **_rates(deployed, cost, len(prompt)), **_scores(scores or {})}
    steps = sum(macs(graph, n) for n in graph.nodes)
    facts = ModelFacts(deployed.model.name, deployed.model.parameters, steps)
    extra = {**cost.extra, "attention": _attention(deployed, len(prompt))}
    return Result(
        model=facts, chip=chip.name, seed=deployed.options.seed, calibration=deployed.calibration, bit_exact=exact,
        coverage=Coverage(figures.array_share(graph), step.meta.get("host_ops", {})), metrics=metrics,
        layers=figures.layers(graph, {}, cost), extra=extra,
    )  # fmt: skip


def _attention(deployed: LanguageDeployment, prompt: int) -> dict[str, Any]:
    """Where products of attention go in a step and in the prompt as one text, with both figures of all of them."""
    programs = {"step": deployed.step}
    programs |= {"prompt": deployed.text(prompt)[0]} if deployed.holds(prompt) else {}
    found: dict[str, Any] = {}
    for name, program in programs.items():
        rows: list[dict[str, Any]] = program.meta.get("products", [])
        inside = [r for r in rows if r["where"] == "arrays"]
        found[name] = {
            "products": len(rows), "in_arrays": len(inside),
            "uses": max((r["uses"] for r in rows), default=0.0), "rows": rows,
            **{way: {unit: sum(r[way][unit] for r in rows if r[way]) for unit in ("seconds", "joules")}
               for way in ("vector_unit", "arrays")},
        }  # fmt: skip
    return found


def _rates(deployed: LanguageDeployment, cost: figures.Cost, prompt: int) -> dict[str, Metric]:
    room, lanes, options = room_of(deployed.session), deployed.options.lanes, deployed.options
    spent, paged = cost.metrics["energy_j"].value, bool(options.page_tokens)
    note = f"one token after the other, attention over a cache of {room} tokens"
    note += f", {lanes} sequences at once" if lanes > 1 else ""
    rate = lanes / cost.timing.latency if cost.timing.latency else None
    whole, timed = deployed.holds(prompt), prompt * cost.timing.latency
    if whole:
        timed = figures.cost(deployed.text(prompt)[0], deployed.chip).timing.latency
    bits = deployed.prepared.cache_bits
    form = "fp16" if bits == HALF else f"{bits}-bit"
    where = f"{room} tokens"
    if paged:
        paging = options.paging(room)
        assert paging is not None
        where = f"a pool of {paging.count - 1} pages of {paging.tokens} tokens, and one that is nobody's"
    return {
        "tokens_per_s": Metric("tokens_per_s", rate, "1/s", "modelled", note),
        "energy_per_token_j": Metric(
            "energy_per_token_j", None if spent is None else spent / lanes, "J", "modelled", note
        ),
        "ttft_s": Metric(
            "ttft_s",
            timed,
            "s",
            "modelled",
            f"a prompt of {prompt} tokens {'as one text' if whole else 'token by token'}",
        ),
        "kv_cache_bytes": Metric(
            "kv_cache_bytes",
            float(cache_bytes(deployed.step)),
            "B",
            "measured",
            f"{form} keys and values, {where}",
        ),
    }


def cache_bytes(program: Program) -> int:
    """Bytes of memory that a step program's states take."""
    kinds = ((element(s.dtype), s.count) for s in program.symbols if s.kind == "state")
    return sum(kind.bytes(count) for kind, count in kinds if kind)


def _scores(scores: Mapping[str, Score]) -> dict[str, Metric]:
    """Scores of "quantized" (the ideal chip) and "chip" (under physics)."""
    out: dict[str, Metric] = {}
    for name, found in scores.items():
        note = f"{found.tokens} tokens, teacher-forced"
        out["perplexity_float"] = Metric("perplexity_float", found.perplexity_float, "1", "measured", note)
        kind = "modelled" if name == "chip" else "measured"
        for word, value in (("perplexity", found.perplexity), ("top1_agreement", found.agreement),
                            ("kl_divergence", found.divergence)):  # fmt: skip
            out[f"{word}_{name}"] = Metric(f"{word}_{name}", value, "1", kind, note)
    return out


def scored(
    deployed: LanguageDeployment, texts: Sequence[Sequence[int]], *, progress: Progress = silent
) -> dict[str, Score]:
    """The ideal chip, and one chip instance under the physics asked for."""
    texts = texts[: deployed.options.samples] if deployed.options.samples else texts
    found = {"quantized": deployed.score(texts, done=lambda n, t: progress("score on the ideal chip", n, t))}
    physics = deployed.options.physics
    if physics != "ideal" and not Physics.parse(physics, deployed.chip, calibrated=True).ideal:
        instance = deployed.options.instance
        found["chip"] = deployed.score(
            texts, physics=physics, instance=instance, done=lambda n, t: progress("score with physics", n, t)
        )
    return found


def pair_of(
    large: LanguageDeployment, small: LanguageDeployment, prompt: Sequence[int], *, count: int, ahead: int = 4
) -> dict[str, Any]:
    """A small model drafts for the large one under its own chip's physics, and what that gives in time.

    Checking takes a step of the large model and, for each token more, what a text of that length takes longer than one
    of a single token; the small model takes a step for each token.
    """
    if large.model.arch.vocab != small.model.arch.vocab:
        got = f"a vocabulary of {small.model.arch.vocab:,}"
        raise UsageError("--draft", got, f"{large.model.arch.vocab:,} words, as the large model has")
    checks, drafts = large.session_of("ideal"), small.session_of(instance=small.options.instance)
    found = speculate(checks, drafts, prompt, count=count, ahead=ahead, stop=large.model.ends)
    alone = tuple(t.id for t in large.generate(prompt, count=count, sampling=GREEDY, physics="ideal"))
    step, draft = (figures.cost(d.step, d.chip).timing.latency for d in (large, small))
    longer, single = (figures.cost(large.text(n)[0], large.chip).timing.latency for n in (ahead + 1, 1))
    spent = found.rounds * (step + longer - single) + found.drafted * draft
    rate = len(found.tokens) / spent if spent else None
    return {
        "draft": small.model.name, "draft_chip": small.chip.name, "ahead": ahead, "rounds": found.rounds,
        "drafted": found.drafted, "kept": found.kept, "accepted": found.accepted, "tokens_per_round": found.per_round,
        "same_tokens": found.tokens == alone, "tokens_per_s": rate, "alone_tokens_per_s": 1 / step if step else None,
        "speedup": None if rate is None else rate * step,
    }  # fmt: skip


def infeasible_result(model: LanguageModel, chip: Chip, error: InfeasibleError, options: LanguageOptions) -> Result:
    """A model that does not fit, as a result."""
    facts = ModelFacts(model.name, model.parameters, None)
    return Result(facts, chip.name, options.seed, "model", fits=False, infeasible=tuple(error.items))
