"""A layer on resistive arrays, from model to output codes, against a nodal solution and integer arithmetic written out.

Nothing of the project's physics, slicing, readout or requantization is used for the expected values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from insitu.arch.load import load_chip
from insitu.circuit.effects import Physics
from insitu.runtime.session import Session
from tests.cost.test_points import mlp
from tests.flow.line import build

OFF, ON, ROW, COLUMN = 1e-6, 4e-5, 20.0, 30.0
CELL = "cell={name: c, kind: reram, bits: 8, nonvolatile: true, area_f2: 50}"


def column_sums(level: Any, full: int, x: Any) -> Any:
    """Sums [vectors, columns] in steps of a level, of cells `level` [rows, columns] and inputs x [vectors, rows]."""
    g = OFF + level * (ON - OFF) / full
    n, m = g.shape
    place, entries, drive = list[tuple[int, int]](), list[float](), np.zeros((2 * n * m, len(x)))

    def edge(a: int, b: int | None, value: float) -> None:
        ends = [(a, a, value)] if b is None else [(a, a, value), (b, b, value), (a, b, -value), (b, a, -value)]
        for p, q, v in ends:
            place.append((p, q))
            entries.append(v)

    for i in range(n):
        for j in range(m):
            top, bottom = 2 * (i * m + j), 2 * (i * m + j) + 1
            edge(top, bottom, g[i, j])
            edge(top, None if j == 0 else top - 2, 1 / ROW)
            edge(bottom, None if i == n - 1 else bottom + 2 * m, 1 / COLUMN)
            if j == 0:
                drive[top] = x[:, i] / ROW
    matrix = sp.csc_matrix((entries, tuple(zip(*place, strict=True))))
    feet = splu(matrix).solve(drive)[1::2].reshape(n, m, -1)[-1] / COLUMN
    return ((feet - OFF * x.sum(axis=1)) / (ON - OFF) * full).T


def legs(w: Any, encoding: str, at: int, bits: int, slices: int) -> Any:
    """Function x -> column sums of one slice, its pair or its reference column taken off."""
    full = (1 << bits) - 1
    if encoding == "differential_pair":
        plus, minus = ((np.maximum(v, 0) >> at & full).astype(float) for v in (w, -w))
        return lambda x: column_sums(plus, full, x) - column_sums(minus, full, x)
    middle = 1 << (bits * slices - 1)
    cells = np.hstack([w + middle, np.full((len(w), 1), middle)]) >> at & full
    return lambda x: (s := column_sums(cells.astype(float), full, x))[:, :-1] - s[:, -1:]


@pytest.mark.parametrize(
    ("encoding", "slices", "cell_bits", "pass_bits", "shape", "adc_bits"),
    [
        ("differential_pair", 4, 2, 1, (30, 11), 8),
        ("differential_pair", 2, 4, 2, (25, 9), 6),
        ("offset_column", 4, 2, 1, (30, 11), 8),
        ("offset_column", 4, 2, 1, (30, 11), 5),  # sums that fill the converter: rounded and clipped
        ("offset_column", 1, 8, 4, (20, 7), 7),
    ],
)
def test_wires_slices_planes_and_converters_to_the_last_code(
    encoding: str, slices: int, cell_bits: int, pass_bits: int, shape: tuple[int, int], adc_bits: int
) -> None:
    width = slices * cell_bits
    low, high = (1 - (1 << width), (1 << width) - 1)
    if encoding == "offset_column":
        low, high = -(1 << (width - 1)), (1 << (width - 1)) - 1
    chip = load_chip(
        "parametric-reram-adc8",
        overrides=[
            f"macro.weights.encoding={encoding}", f"macro.weights.slices={slices}", f"array.bits_per_cell={cell_bits}",
            f"array.cell_range=[{low}, {high}]", "macro.weights.slice_shift=0", f"macro.readout.bits={adc_bits}",
            f"macro.input.bits_per_pass={pass_bits}", CELL,
            f"cell.conductance=[{OFF}, {ON}]",
            f"physics.wires.row={ROW} Ohm", f"physics.wires.column={COLUMN} Ohm", "physics.wires.exact=true",
        ],
    )  # fmt: skip
    quantized, program = build(mlp(*shape), chip)
    x = np.random.default_rng(9).integers(-128, 128, (5, shape[0]))
    session = Session(program, physics=Physics(("ir_drop",)))
    (found,) = session.run_codes({"x": x.astype(np.int8)[:, None, :]}).values()

    (node,), known = quantized.nodes, {name.split(".")[-1]: v for name, v in quantized.constants.items()}
    w, step = known["weight"].astype(np.int64), node.attrs["adc_m"] / 2.0 ** int(str(node.attrs["adc_s"]))
    total = np.zeros((5, shape[1]))
    for at in range(0, width, cell_bits):
        read = legs(w, encoding, at, cell_bits, slices)
        for plane in range(0, 8, pass_bits):
            digits = x >> plane if plane + pass_bits >= 8 else x >> plane & ((1 << pass_bits) - 1)
            code = np.clip(np.round(read(digits.astype(float)) * step), -(1 << adc_bits - 1), (1 << adc_bits - 1) - 1)
            total += code * 2.0 ** (at + plane)
    exact = (total + known["bias"]) * known["multiplier"] / 2.0 ** known["shift"]
    assert np.array_equal(found.reshape(total.shape), np.clip(np.round(exact), -128, 127))
    (ideal,) = Session(program).run_codes({"x": x.astype(np.int8)[:, None, :]}).values()
    assert (ideal != found).any()
