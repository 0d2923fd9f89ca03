"""InsituError and its family: every message says where, what it got, what it needs and what to try."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any, ClassVar


class InsituError(Exception):
    """A fault the user can act on.

    `where`, `got` and `need` are short phrases in the user's words; `try_` holds ways out, best first.
    Reads as "where: got; needs need. Try: a; or b".
    """

    code: str = "error"
    exit_code: ClassVar[int] = 1

    def __init__(
        self, where: str, got: str = "", need: str = "", *, try_: Sequence[str] = (), code: str | None = None
    ) -> None:
        super().__init__(where, got, need)  # args are what pickle calls us with again; the rest is in __dict__
        self.where = where
        self.got = got
        self.need = need
        self.try_ = tuple(try_)
        if code is not None:
            self.code = code

    def to_json(self) -> dict[str, Any]:
        """The error object of `--json`: code, where, got, need, try."""
        return {"code": self.code, "where": self.where, "got": self.got, "need": self.need, "try": list(self.try_)}

    def __str__(self) -> str:
        text = self.where
        if self.got:
            text += f": {self.got}"
        if self.need:
            text += f"; needs {self.need}"
        if self.try_:
            text += f"{'' if text.endswith(('.', '?', '!')) else '.'} Try: {'; or '.join(self.try_)}"
        return text


class ModelError(InsituError):
    """A network that is broken or not supported."""

    code = "model"


class ChipError(InsituError):
    """A chip that is unknown or contradicts itself."""

    code = "chip"


class DataError(InsituError):
    """Samples of the wrong shape, type or content."""

    code = "data"


class ProgramError(InsituError):
    """A Program that is truncated, altered or breaks a rule of the instruction set."""

    code = "program"


class ConfigError(InsituError):
    """A configuration that does not match its schema; may hold the several faults of one file."""

    code = "config"

    def __init__(
        self, where: str, got: str = "", need: str = "", *, try_: Sequence[str] = (), code: str | None = None
    ) -> None:
        super().__init__(where, got, need, try_=try_, code=code)
        self.faults: tuple[InsituError, ...] = (self,)

    @classmethod
    def collect(cls, faults: Sequence[InsituError]) -> ConfigError:
        """One error for several faults; where, got and need then hold one line per fault, in the same order."""
        assert faults, "collect needs at least one fault"
        if len(faults) == 1 and isinstance(faults[0], cls):
            return faults[0]
        ways_out = dict.fromkeys(way for fault in faults for way in fault.try_)
        error = cls(
            "\n".join(fault.where for fault in faults),
            "\n".join(fault.got for fault in faults),
            "\n".join(fault.need for fault in faults),
            try_=tuple(ways_out),
        )
        error.faults = tuple(faults)
        return error

    def __str__(self) -> str:
        if len(self.faults) == 1:
            return super().__str__()
        return "\n".join(str(fault) for fault in self.faults)


class OutputError(InsituError):
    """A file or folder that cannot be written."""

    code = "output"


class RangeError(InsituError):
    """A value outside the range a function or model holds for."""

    code = "range"


class UsageError(InsituError):
    """A command line or call that asks for something that does not exist."""

    code = "usage"


class InternalError(InsituError):
    """A fault of ours."""

    code = "internal"
    exit_code = 3


@dataclass(frozen=True)
class Infeasible:
    """One resource that is asked for more than there is: an answer, not a crash."""

    resource: str
    demand: float
    bound: float
    unit: str
    filled_by: tuple[str, ...]
    ways_out: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "filled_by": list(self.filled_by), "ways_out": list(self.ways_out)}

    def __str__(self) -> str:
        return f"{self.resource}: needs {self.demand:,.10g} {self.unit}, has {self.bound:,.10g} {self.unit}"


class InfeasibleError(InsituError):
    """The network does not fit; `items` says what is short, what fills it and what would make it fit."""

    code = "infeasible"
    exit_code = 2

    def __init__(self, items: Sequence[Infeasible], where: str = "chip") -> None:
        ways_out = dict.fromkeys(way for item in items for way in item.ways_out)
        super().__init__(where, "does not fit", "; ".join(str(item) for item in items), try_=tuple(ways_out))
        self.args = (tuple(items), where)
        self.items = tuple(items)

    def __str__(self) -> str:
        lines = [f"{self.where}: does not fit"]
        for item in self.items:
            lines.append(f"  {item}")
            if item.filled_by:
                lines.append(f"    filled by: {', '.join(item.filled_by)}")
            lines.extend(f"    way out: {way}" for way in item.ways_out)
        return "\n".join(lines)


def did_you_mean(word: str, known: Iterable[str]) -> tuple[str, ...]:
    """At most three known words close to `word`, closest first; letter case does not count."""
    by_lower = {name.lower(): name for name in sorted(known, reverse=True)}
    return tuple(by_lower[match] for match in get_close_matches(word.lower(), sorted(by_lower), n=3, cutoff=0.6))
