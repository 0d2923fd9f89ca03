"""How much memory a run may take, and what of it a session's blocks need."""

from __future__ import annotations

import os
from pathlib import Path

from insitu.base.errors import UsageError
from insitu.base.units import format_quantity, parse_quantity
from insitu.isa.program import Program
from insitu.runtime.blocks import block_bytes
from insitu.runtime.parallel import threads

SHARE = 0.5  # of the machine's memory, where nothing is said: others work on it too
UNKNOWN = 4 << 30  # bytes of a machine that does not say
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container, v2 and v1
COPIES = 4  # of a block's image and windows that live at once: gathered, as floats, products, totals
WEIGHT_COPIES = 16  # bytes of a weight and slice: ideal and drawn cells in float32, the drawing's temporaries


def parse_memory(given: str | float | None, *, where: str = "memory") -> int | None:
    """Bytes of "2GiB", "800 MB" or a number; None stays None.  UsageError for none at all."""
    if given is None:
        return None
    size = parse_quantity(given, "B", where=where)
    if size < 1:
        raise UsageError(f"{where} {given}", "no memory", "a size such as 2GiB")
    return int(size)


def machine_memory() -> int:
    """Bytes that this process may have: the machine's, or its container's limit where that is less."""
    try:
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError, OSError):
        found = [UNKNOWN]
    for path in LIMITS:
        text = Path(path).read_text().strip() if Path(path).is_file() else ""
        found += [int(text)] if text.isdigit() else []
    return min(found)


def resident() -> int:
    """Bytes of memory this process holds now; 0 where the system does not say."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.is_file() else 0


def weights_need(program: Program, slices: int) -> int:
    """Bytes that the weights of one chip instance take at most, in `slices` cells each."""
    return int(program.meta.get("weights", 0)) * slices * WEIGHT_COPIES


def blocks_need(program: Program, samples: int) -> int:
    """Bytes that a run of `samples` works in at most: a block on every thread."""
    return threads() * COPIES * block_bytes(program, samples)


def room(limit: int | None, need: int) -> int:
    """Bytes left for samples; UsageError where what is given does not hold what a run needs in any case."""
    have = int(SHARE * machine_memory()) if limit is None else limit
    if limit is not None:
        check_room(limit, need, what="its weights and a block of samples")
    return max(have - resident() - need, 0)


def check_room(limit: int | None, need: int, *, what: str) -> None:
    """UsageError where `need` bytes for `what` do not fit beside what is loaded.

    What is given must hold them; where nothing is, the whole machine must.
    """
    have, least = machine_memory() if limit is None else limit, resident() + need
    if have > least:
        return
    got = format_quantity(float(have), "B")
    want = f"{format_quantity(1.1 * least, 'B')} or more: what is loaded, {what}"
    fewer = ["fewer threads (INSITU_THREADS=1)"] if threads() > 1 else []
    ways = [*fewer, "a smaller network"] if limit is None else [*fewer, "a smaller network, or nothing: the default"]
    raise UsageError(f"memory {got}", "too little for this network", want, try_=ways)
