"""IR drop: what a resistive array really puts out when its wires are not ideal; exact by a sparse nodal solve, or fast.

Cell (i, j) joins row i and column j.  Row i is driven at column 0 by an ideal source, column j is held at 0 V below the
last row; each wire segment between neighbours has a resistance, the one to the source and to the sense node included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.arrays import namespace
from insitu.base.errors import RangeError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Wires:
    """Resistance of one wire segment along a row and along a column, in ohms."""

    row: float
    column: float

    def __post_init__(self) -> None:
        if not (self.row > 0 and self.column > 0):
            raise RangeError(
                "wire resistance", f"{self.row:g}, {self.column:g} Ohm", "above zero; for ideal wires use none"
            )


def transfer(conductance: Floats, wires: Wires) -> Floats:
    """Amperes at the foot of each column per volt on each row, [rows, columns]; exact for the linear network.

    One factorisation of the nodal matrix and one adjoint solve per column: the currents of any later input are
    `voltages @ transfer(...)`.
    """
    from scipy.sparse.linalg import splu

    rows, cols = conductance.shape
    solver = splu(_nodal(conductance, wires))
    feet = np.zeros((2 * rows * cols, cols))
    feet[rows * cols + (rows - 1) * cols + np.arange(cols), np.arange(cols)] = 1.0 / wires.column
    adjoint = np.asarray(solver.solve(feet))  # the matrix is symmetric
    return adjoint.reshape(2, rows, cols, cols)[0, :, 0, :] / wires.row


def solve(conductance: Floats, voltages: Floats, wires: Wires) -> Floats:
    """Column currents [vectors, columns] of row voltages [vectors, rows], by one direct solve; exact."""
    from scipy.sparse.linalg import splu

    rows, cols = conductance.shape
    given = np.atleast_2d(voltages)
    drive = np.zeros((2 * rows * cols, len(given)))
    drive[np.arange(rows) * cols] = given.T / wires.row
    nodes = np.asarray(splu(_nodal(conductance, wires)).solve(drive))
    return nodes.reshape(2, rows, cols, -1)[1, -1].T / wires.column


def approximate(conductance: Any, wires: Wires) -> Any:
    """`transfer` to first order in the wire resistance, in O(rows x columns): fast, and stated to be approximate.

    Each cell sees its row's voltage less the drop of the row's whole current up to it and its column's rise below it,
    at ideal currents for the mean input; both enter as 1 / (1 + drop).  The error, as a share of the largest ideal
    current, is below half the square of the largest total drop plus a quarter of it times the inputs' spread (tests).
    """
    rows, cols = conductance.shape
    xp = namespace(conductance)
    behind = xp.flip(xp.cumsum(xp.flip(conductance, (1,)), 1), (1,))  # current before each cell, per volt
    along = xp.cumsum(behind, 1) * wires.row
    above = xp.cumsum(conductance, 0)
    rise = xp.flip(xp.cumsum(xp.flip(above, (0,)), 0), (0,)) * wires.column
    return conductance / (1.0 + along + rise) if rows and cols else conductance


def _nodal(g: Floats, wires: Wires) -> Any:
    """The symmetric nodal matrix: row nodes first, then column nodes, each counted along its row."""
    from scipy.sparse import coo_matrix, csc_matrix

    rows, cols = g.shape
    index = np.arange(rows * cols).reshape(rows, cols)
    upper, lower = index, index + rows * cols
    edges = [
        (upper.ravel(), lower.ravel(), g.ravel()),
        (upper[:, :-1].ravel(), upper[:, 1:].ravel(), np.full(rows * (cols - 1), 1.0 / wires.row)),
        (lower[:-1].ravel(), lower[1:].ravel(), np.full((rows - 1) * cols, 1.0 / wires.column)),
    ]
    a, b, value = (np.concatenate([edge[i] for edge in edges]) for i in range(3))
    ground = np.zeros(2 * rows * cols)
    ground[upper[:, 0]] = 1.0 / wires.row
    ground[lower[-1]] += 1.0 / wires.column
    size = (len(ground), len(ground))
    entries = np.concatenate([-value, -value, value, value, ground])
    at = (np.concatenate([a, b, a, b, np.arange(len(ground))]), np.concatenate([b, a, a, b, np.arange(len(ground))]))
    return csc_matrix(coo_matrix((entries, at), shape=size))
