"""Setup: what a core needs once before runs, and tables that take turns in its vector unit during them.

Macros without weights become memory where ram is too small; columns are calibrated; tables that fit stay in the vector
unit.  Of more tables than places, those that are looked up most keep a place each and the others share the last one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from insitu.arch.spec import Chip
from insitu.compiler.commands import Code
from insitu.isa.program import Binding, Command, Vector
from insitu.isa.setup import COLUMNS, COLUMNS_AGAIN, DRIFT, LOOKED_UP, OFFSETS


def set_up(code: Code, chip: Chip, memory_macros: Sequence[int]) -> None:
    """Put the setup of a core before its code, and loads of tables that take turns into it."""
    loaded = {int(c.args[0]) for c in code.commands if c.op == "WLOAD"}
    modes = [Command("WMODE", (macro, 1)) for macro in memory_macros]
    corrections = [
        Command("CAL", (number, procedure))
        for binding, number in code.bindings.items()
        for procedure in procedures(chip, binding)
        if number not in loaded
    ]
    kept = _load_tables(code, chip.core.vector.luts)
    code.commands[:0] = [*modes, *corrections, *kept]


def procedures(chip: Chip, binding: Binding) -> list[int]:
    """How the columns of a binding are calibrated: by the chip's own procedures, where they are converted."""
    own, analog = chip.calibration, binding.readout.kind != "exact" and bool(binding.tiles)
    known = {
        OFFSETS: own.column_offset, DRIFT: own.drift_compensation,
        COLUMNS: own.column_gain and bool(binding.expected), COLUMNS_AGAIN: own.column_drift and bool(binding.expected),
    }  # fmt: skip
    return [procedure for procedure, wanted in known.items() if wanted and analog]


def _load_tables(code: Code, places: int) -> list[Command]:
    """Loads before runs; those of other tables are put into the code.  Without places, tables are always there."""
    vectors = list(code.vectors)
    users = [vectors[int(c.args[2])] for c in code.commands if c.op in LOOKED_UP]
    if not users or not places:
        return []
    settings: dict[str, Vector] = {}
    for vector in users:
        settings.setdefault(vector.lut, vector)
    keep = places if len(settings) <= places else places - 1
    kept = [lut for lut, _ in Counter(v.lut for v in users).most_common(keep)]
    if len(settings) > places:
        code.commands = list(_taking_turns(code.commands, vectors, set(kept), places - 1))
    return [Command("LUTLD", (code.vectors[settings[lut]], place)) for place, lut in enumerate(kept)]


def _taking_turns(
    commands: Sequence[Command], vectors: Sequence[Vector], kept: set[str], place: int
) -> Iterator[Command]:
    """The code with a load before each use of a table that is not there; outside the loops and blocks around it."""
    held = ""
    group: list[Command] = []
    depth = 0
    for command in commands:
        depth += (command.op in ("LOOP", "PRED")) - (command.op in ("ENDL", "ENDP"))
        group.append(command)
        if depth:
            continue
        for part in _one_table_each(group, vectors, kept):
            wanted = next((t for c in part if (t := _table(c, vectors)) and t not in kept), "")
            if wanted and wanted != held:
                held = wanted
                yield Command("LUTLD", (next(int(c.args[2]) for c in part if _table(c, vectors) == wanted), place))
            yield from part
        group = []


def _one_table_each(group: list[Command], vectors: Sequence[Vector], kept: set[str]) -> Iterator[list[Command]]:
    """A block under conditions, cut where it goes on to another table; anything else as it is."""
    wanted = {t for c in group if (t := _table(c, vectors)) and t not in kept}
    if len(wanted) < 2:
        yield group
        return
    asked = sum(1 for _ in _leading(group))
    now, inside = "", list[Command]()
    for item in _items(group[asked : len(group) - asked]):
        table = next((t for c in item if (t := _table(c, vectors)) and t not in kept), "")
        if table and now and table != now:
            yield [*group[:asked], *inside, *group[len(group) - asked :]]
            inside = []
        now = table or now
        inside += item
    yield [*group[:asked], *inside, *group[len(group) - asked :]]


def _leading(group: Sequence[Command]) -> Iterator[Command]:
    for command in group:
        if command.op != "PRED":
            return
        yield command


def _items(commands: Sequence[Command]) -> Iterator[list[Command]]:
    """Commands with the loops and blocks around them."""
    item, depth = list[Command](), 0
    for command in commands:
        depth += (command.op in ("LOOP", "PRED")) - (command.op in ("ENDL", "ENDP"))
        item.append(command)
        if not depth:
            yield item
            item = []


def _table(command: Command, vectors: Sequence[Vector]) -> str:
    return vectors[int(command.args[2])].lut if command.op in LOOKED_UP else ""
