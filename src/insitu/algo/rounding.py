"""Weights rounded against each other: what one rounding does to the outputs, the weights after it make up for.

Second-order rounding in one pass over the rows (Frantar et al., GPTQ, arXiv 2210.17323; the update is that of optimal
brain surgery, Hassibi and Stork, NIPS 1992), on the inputs the layer really gets in a replay.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
DAMPING = 0.01  # of the mean power of a row, added to all: directions that samples hardly show stay as they are
MOST_VECTORS = 4096
BLOCK = 64  # rows whose rounding errors go to all later ones as one product
MOST_WORK = 2e9  # multiplications of one layer, about a second; larger ones keep their nearest codes


def second_order(v: Floats, x: Floats, *, lo: int, hi: int) -> Ints:
    """Codes [columns, rows] of real numbers v in steps, for inputs x [vectors, rows] of the rows."""
    power = x.T @ x / len(x)
    diagonal = np.diag(power)
    power = power + np.eye(len(power)) * max(DAMPING * float(diagonal.mean()), 1e-12)
    order = np.argsort(-diagonal, kind="stable")
    power = power[np.ix_(order, order)]
    factor = np.linalg.cholesky(np.linalg.inv(power)).T  # upper: row r says how later rows answer to row r
    left, codes = v[:, order].copy(), np.empty(v.shape, np.int64)
    for start in range(0, v.shape[1], BLOCK):
        end = min(start + BLOCK, v.shape[1])
        missing = np.empty((len(v), end - start))
        for row in range(start, end):
            codes[:, row] = np.clip(np.rint(left[:, row]), lo, hi)
            own = missing[:, row - start] = (left[:, row] - codes[:, row]) / factor[row, row]
            left[:, row + 1 : end] -= own[:, None] * factor[row, row + 1 : end]
        left[:, end:] -= missing @ factor[start:end, end:]
    back = np.empty_like(codes)
    back[:, order] = codes
    return back


def looked_at(v: Floats, groups: int, vectors: int) -> Ints:
    """Which of so many vectors weights v [columns, rows] are rounded for; none where that is too much work."""
    if vectors < 8 or v.shape[1] ** 2 * (len(v) + groups * v.shape[1]) > MOST_WORK:
        return np.zeros(0, np.int64)
    return np.arange(0, vectors, max(1, vectors // MOST_VECTORS))


def rounded(v: Floats, nearest: Ints, x: npt.NDArray[Any], *, lo: int, hi: int) -> Ints:
    """Codes [columns, rows] for inputs [vectors, groups, rows]: second-order where that errs less on inputs left out.

    Every fourth vector is left out of the fit.
    """
    groups = x.shape[1]
    each, found = len(v) // groups, nearest.copy()
    at = looked_at(v, groups, len(x))
    if not at.size:
        return found
    x = x[at].astype(np.float64)
    for group in range(groups):
        own, rows = slice(group * each, (group + 1) * each), x[:, group]
        test = np.arange(len(rows)) % 4 == 0
        tried = second_order(v[own], rows[~test], lo=lo, hi=hi)
        errors = [float((((c - v[own]) @ rows[test].T) ** 2).sum()) for c in (nearest[own], tried)]
        if errors[1] < errors[0]:
            found[own] = tried
    return found
