"""Names to things, with did-you-mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from insitu.base.errors import InsituError, UsageError, did_you_mean

T = TypeVar("T")


def resolve(name: str, known: Mapping[str, T], kind: str, *, error: type[InsituError] = UsageError) -> T:
    """The thing called `name`; `kind` says in a message what the names are names of."""
    if name in known:
        return known[name]
    raise error(f"{kind} {name!r}", "unknown", f"one of {', '.join(sorted(known))}", try_=did_you_mean(name, known))
