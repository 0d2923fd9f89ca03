"""Spare: macros that hold no weights, as memory of chips whose arrays serve as either."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from insitu.arch.spec import Chip
from insitu.compiler.commands import Task
from insitu.isa.program import HOME, Binding, chip_of_space

Macro = tuple[int, int]  # core over all chips, macro of it


def spare_bytes(tasks: Sequence[Task], chips: Iterable[int], chip: Chip) -> dict[int, int]:
    """Bytes by which macros without weights can lengthen the ram of each chip; 0 where arrays only compute."""
    return {n: len(_free(tasks, chip, n)) * chip.macro_bytes for n in chips}


def memory_macros(tasks: Sequence[Task], used: Mapping[str, int], chip: Chip) -> dict[int, list[int]]:
    """Core -> macros that must serve as memory so that each chip's ram holds what is used of it; the last ones."""
    found: dict[int, list[int]] = {}
    for space, top in used.items():
        memory, number = chip_of_space(space)
        missing = top - int(chip.memories[memory].size)
        if memory == HOME and missing > 0:
            count = -(-missing // chip.macro_bytes)
            for core, macro in _free(tasks, chip, number)[-count:]:
                found.setdefault(core, []).append(macro)
    return found


def _free(tasks: Sequence[Task], chip: Chip, number: int) -> list[Macro]:
    """Macros of a chip that no binding of a task lies in, in order."""
    if not chip.capabilities.dual_mode:
        return []
    bound = {
        (task.core, tile.macro)
        for task in tasks
        for op in task.ops
        for operand in op.operands
        if isinstance(operand, Binding)
        for tile in operand.tiles
    }
    cores = range(number * chip.cores, (number + 1) * chip.cores)
    return [(core, m) for core in cores for m in range(chip.core.macros) if (core, m) not in bound]
