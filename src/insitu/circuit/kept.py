"""Draws that were made lately.

One chip instance is read at several times, with the chip's procedures and without, and effect by effect.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

MOST = 64 << 20  # bytes

_kept: OrderedDict[Hashable, npt.NDArray[np.float64]] = OrderedDict()
_lock = Lock()
_held = 0  # bytes


def kept(key: Hashable, draw: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
    """What `draw` gives, read only; the key says all that it depends on.  The oldest go where room is short."""
    global _held  # one store for a process
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    made = np.asarray(draw(), np.float64)
    made.setflags(write=False)
    if made.nbytes > MOST // 4:
        return made
    with _lock:
        if key not in _kept:
            _kept[key] = made
            _held += made.nbytes
        while _held > MOST:
            _held -= _kept.popitem(last=False)[1].nbytes
    return made
