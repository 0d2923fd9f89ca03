"""Memory that malloc keeps after it was freed, given back to the system."""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache
from typing import Any


def give_back() -> None:
    """Return free pages to the system, where the C library can (glibc).

    Large arrays of ever other sizes leave holes that malloc neither fills nor returns: a process that is done with them
    would hold several times what it uses.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@lru_cache(maxsize=1)
def _trim() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
