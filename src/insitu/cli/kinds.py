"""Options of `insitu run` that a kind of model takes: one that would change nothing is refused, not ignored."""

from __future__ import annotations

from pathlib import Path

import typer

from insitu.base.errors import UsageError

EVERY = frozenset(("model", "chip", "set_", "seed", "max_chips", "out", "json"))
SPOKEN = frozenset(("prompt", "tokens", "temperature", "top_p", "context", "offline", "draft_chip", "pool_pages"))
SHAPED = frozenset(
    ("batch", "prompt_tokens", "weight_bits", "cache", "requests", "prompts_on", "draft", "page_tokens", "tensor")
)
LANGUAGE = (
    EVERY | SPOKEN | {"cache", "draft", "page_tokens", "batch", "data", "calib", "physics", "samples", "calibration"}
)
SHAPE = EVERY | SHAPED | {"tokens", "context", "vs"}
KINDS = {"a shape": SHAPE, "a language model": LANGUAGE}


def cache_width(text: str) -> float:
    """Bits of cached keys and values, of "fp16", "int4" or a number; in shapes 16 bits and fp16 are one."""
    words = text.strip().lower()
    digits = "16" if words in ("fp16", "f16") else words.removeprefix("int")
    try:
        bits = float(digits)
    except ValueError:
        bits = 0.0
    if not 1 <= bits <= 16 or words == "int16":
        raise UsageError(
            f"--kv {text}", "no type of cached keys and values", "fp16, int8, int4, int2, or bits, 1 to 16"
        )
    return bits


def given(context: typer.Context, name: str) -> bool:
    """Whether the user typed this option."""
    source = context.get_parameter_source(name)
    return source is not None and source.name not in ("DEFAULT", "DEFAULT_MAP")


def refuse_idle(context: typer.Context, model: str, kind: str) -> None:
    """Raises UsageError for a typed option that a model of this kind has no use for; other kinds are networks.

    What is not there is of no kind: the reader of networks says so.
    """
    taken = KINDS.get(kind)
    if taken is None and not model.startswith("task:") and not Path(model).exists():
        return
    for option in context.command.params:
        name = str(option.name)
        idle = name in SPOKEN | SHAPED if taken is None else name not in taken
        if idle and given(context, name):
            users = [k for k, names in KINDS.items() if name in names and k != kind]
            users += ["a network"] if name not in SPOKEN | SHAPED else []
            others = " or ".join(user.removeprefix("a ") for user in users)
            raise UsageError(option.opts[0], f"{model} is {kind}, no {others}", " or ".join(users))
