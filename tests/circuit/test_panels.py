"""Products with packed weights: what they are, and that nothing around a vector changes its bytes."""

from __future__ import annotations

import numpy as np
import pytest

from insitu.circuit.panels import packed, packed_variances

SHAPES = [(1, 1, 1), (2, 7, 16), (5, 33, 17), (13, 129, 40), (100, 64, 10)]


@pytest.mark.parametrize(("vectors", "rows", "columns"), SHAPES)
def test_a_product_is_the_sum_in_the_order_of_rows(vectors: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(rows)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((vectors, rows), (rows, columns)))
    found = x @ packed(w)
    assert np.allclose(found, x.astype(np.float64) @ w, atol=1e-5 * rows)
    assert np.array_equal(packed(w).dense, w)
    whole = rng.integers(-128, 128, x.shape).astype(np.float32), np.rint(100 * w)
    assert np.array_equal(whole[0] @ packed(whole[1]), whole[0] @ whole[1])  # integers are exact


@pytest.mark.parametrize(("vectors", "rows", "columns"), SHAPES)
def test_bytes_do_not_depend_on_other_vectors_or_on_the_layout(vectors: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(columns)
    x = rng.standard_normal((vectors, rows)).astype(np.float32)
    w = rng.random((rows, columns)).astype(np.float32)
    for times in (lambda v: v @ packed(w), packed_variances(w).under):
        found = times(x)
        assert np.array_equal(times(np.asfortranarray(x)), found)
        for cut in range(1, min(vectors, 9)):
            assert np.array_equal(times(x[cut:]), found[cut:])
            assert np.array_equal(times(x[:cut]), found[:cut])


@pytest.mark.parametrize(("vectors", "rows", "columns"), SHAPES)
def test_sums_of_squares_are_as_right_as_twelve_bits(vectors: int, rows: int, columns: int) -> None:
    """Of many rows to a ten thousandth on the whole: roundings of single rows average out."""
    rng = np.random.default_rng(rows)
    x = rng.integers(-128, 128, (vectors, rows)).astype(np.float32)
    w = rng.gamma(1.0, size=(rows, columns)).astype(np.float32)
    wanted = x.astype(np.float64) ** 2 @ w
    error = packed_variances(w).under(x) - wanted
    assert (np.abs(error) <= 2e-3 * wanted.max() / np.sqrt(rows)).all()
    if rows >= 64:
        assert np.sqrt(np.mean((error / wanted) ** 2)) <= 1e-4


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 16), (33, 17), (128, 40)])
def test_variances_unpack_to_what_they_were_rounded_to(rows: int, columns: int) -> None:
    w = np.random.default_rng(rows).gamma(1.0, size=(rows, columns)).astype(np.float32)
    again = packed_variances(w).dense(rows)
    assert again.shape == w.shape
    assert (np.abs(again - w) <= w.max(axis=0) / 8000).all()
    assert np.allclose(packed_variances(again).dense(rows), again, rtol=1e-6)


def test_the_largest_sums_of_squares_do_not_overflow() -> None:
    """All inputs and all variances at their largest, over more rows than add up within int32."""
    x, w = np.full((7, 1000), -128.0, np.float32), np.full((1000, 3), 5.0, np.float32)
    assert np.allclose(packed_variances(w).under(x), 128.0**2 * 5.0 * 1000, rtol=1e-6)
    nothing = packed_variances(np.zeros((9, 2), np.float32))
    assert not nothing.under(np.ones((3, 9), np.float32)).any()
    assert not packed_variances(w).under(np.zeros((2, 1000), np.float32)).any()
