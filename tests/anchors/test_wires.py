"""Wires: against an independent nodal solve, in the ideal limit, and the approximation within its stated error."""

from __future__ import annotations

import numpy as np
import pytest

from insitu.base.errors import RangeError
from insitu.circuit.wires import Wires, approximate, solve, transfer

RNG = np.random.default_rng(4)


def array(rows: int, cols: int, lo: float = 1e-6, hi: float = 40e-6):
    return RNG.uniform(lo, hi, (rows, cols))


def independent(g, v, wires):
    """Row by row block elimination (a ladder of column states), no sparse matrix and no adjoint: numpy only.

    Unknown node voltages of each row are eliminated against the row above; the state is the column voltages' linear
    relation u = P i + q between column voltages and the currents that flow down.
    """
    rows, cols = g.shape
    eye = np.eye(cols)
    ladder = (np.diag(np.full(cols, 2.0)) - np.diag(np.ones(cols - 1), 1) - np.diag(np.ones(cols - 1), -1)) / wires.row
    ladder[-1, -1] -= 1.0 / wires.row
    admittance, injected = np.zeros((cols, cols)), np.zeros(cols)  # of all rows above, seen from the column nodes
    for i in range(rows):
        diagonal = np.diag(g[i])
        inner = np.linalg.inv(ladder + diagonal)
        source = np.zeros(cols)
        source[0] = v[i] / wires.row
        mine = diagonal - diagonal @ inner @ diagonal
        flow = diagonal @ inner @ source
        if i:  # the rows above come through one wire segment each column
            through = np.linalg.inv(eye + admittance * wires.column)
            admittance, injected = through @ admittance, through @ injected
        admittance, injected = admittance + mine, injected + flow
    return np.linalg.solve(eye + admittance * wires.column, injected)


@pytest.mark.parametrize("size", [96, pytest.param(256, marks=pytest.mark.long)])
def test_a_square_array_equals_an_independent_solve(size: int) -> None:
    g, v, wires = array(size, size), RNG.uniform(0, 0.2, size), Wires(1.0, 1.0)
    other = independent(g, v, wires)
    found = solve(g, v, wires)[0]
    assert np.abs(found - other).max() / other.max() < 1e-9


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (1, 7), (9, 1), (24, 40)])
def test_the_adjoint_equals_the_direct_solve(rows: int, cols: int) -> None:
    g, wires = array(rows, cols), Wires(5.0, 3.0)
    v = RNG.uniform(-0.2, 0.2, (4, rows))
    assert v @ transfer(g, wires) == pytest.approx(solve(g, v, wires), rel=1e-9, abs=1e-18)


def test_one_cell_is_three_resistors() -> None:
    assert transfer(np.array([[1e-3]]), Wires(10.0, 20.0))[0, 0] == pytest.approx(1 / 1030)


def test_short_wires_are_ideal() -> None:
    g = array(64, 48)
    assert transfer(g, Wires(1e-6, 1e-6)) == pytest.approx(g, rel=1e-6)


def test_longer_wires_take_more() -> None:
    g = array(32, 32)
    ones = np.ones(32)
    sums = [(ones @ transfer(g, Wires(r, r))).sum() for r in (0.1, 1.0, 10.0, 100.0)]
    assert (np.diff(sums) < 0).all()
    assert min(sums) > 0


@pytest.mark.parametrize("ohms", [0.05, 0.2, 0.5])
def test_the_approximation_stays_within_its_error(ohms: float) -> None:
    g, wires = array(128, 128), Wires(ohms, ohms)
    drop = float((g.sum(1).max() * 128 + g.sum(0).max() * 128) * ohms)
    ideal, exact, fast = g, transfer(g, wires), approximate(g, wires)
    v = RNG.uniform(0, 0.2, (16, 128))
    full = (v @ ideal).max()
    error = np.abs(v @ fast - v @ exact).max() / full
    assert error < 0.5 * drop**2 + 0.25 * drop
    assert error < np.abs(v @ ideal - v @ exact).max() / full


def test_wires_have_resistance() -> None:
    with pytest.raises(RangeError):
        Wires(0.0, 1.0)
