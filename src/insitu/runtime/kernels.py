"""A short wait that stays on its core: waking a core that sleeps takes longer than many a block of work."""

# pyright: basic, reportMissingImports=false
# numba infers the types of its kernels from the arrays they are called with.

from __future__ import annotations

from typing import Any

import numba as nb
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


def _load(typing_context, array):
    """Element 0 of a one-dimensional int64 array, read from memory each time."""

    def generate(context, builder, signature, args):
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, args[0]).data
        return builder.load_atomic(data, "monotonic", 8)

    return types.int64(types.Array(types.int64, 1, "C")), generate


_now: Any = intrinsic(_load)


@nb.njit(cache=True, nogil=True)
def wait_for_change(word, seen, looks):
    """Look at word[0] until it is not `seen`, at most `looks` times."""
    for _ in range(looks):
        if _now(word) != seen:
            return
