"""The vectorised streams give the numbers of insitu.base.random, and those are normal and independent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from insitu.base.kernels import RUN, fill_normals, standard_normals
from insitu.base.random import effect_key, normal, philox, read_normals

PLACE = {"time": 5, "macro": 7, "instance": 3}
STREAM = (5, 7, 3, 42, effect_key("read_noise"))  # time, macro, instance, seed, effect


def filled(blocks: int, first: int) -> tuple[Any, Any]:
    words, normals = np.empty((4, blocks), np.uint32), np.empty((4, blocks), np.float32)
    fill_normals(words, normals, blocks, first, *STREAM)
    return words, normals


@pytest.mark.parametrize("first", [0, 1, 1000, (1 << 32) - 3])
def test_words_are_those_of_the_generator(first: int) -> None:
    words, _ = filled(17, first)
    at = first + np.arange(17, dtype=np.uint64)
    counter = np.stack(
        [at & 0xFFFFFFFF, np.full(17, 5, np.uint64), np.full(17, 7, np.uint64), (at >> np.uint64(32)) | (3 << 16)]
    )
    np.testing.assert_array_equal(words, philox(counter.astype(np.uint32), (42, effect_key("read_noise"))))


def test_normals_are_those_of_the_reference() -> None:
    _, normals = filled(20_000, 0)
    wanted = normal(42, "read_noise", 80_000, **PLACE).reshape(-1, 4).T
    assert np.abs(normals - wanted).max() < 1e-6


def test_extreme_words() -> None:
    """The largest and smallest uniforms: the tail at 6.7 standard deviations, and radii next to zero."""
    from insitu.base.kernels import to_normals

    words = np.array([0, 1, 2, (1 << 31) - 1, 1 << 31, 3037000499, (1 << 32) - 2, (1 << 32) - 1], np.uint32)
    radii, turns = (np.ascontiguousarray(w.reshape(-1)) for w in np.meshgrid(words, words))
    cosines, sines = np.empty(64, np.float32), np.empty(64, np.float32)
    to_normals(radii, turns, cosines, sines)
    u, turn = (radii + 0.5) * 2.0**-32, (turns + 0.5) * 2.0**-32
    radius = np.sqrt(-2.0 * np.log(u))
    assert np.abs(cosines - radius * np.cos(2 * np.pi * turn)).max() < 3e-6
    assert np.abs(sines - radius * np.sin(2 * np.pi * turn)).max() < 3e-6
    assert radius.max() > 6.7


def test_moments_and_distribution() -> None:
    _, normals = filled(250_000, 0)
    flat = normals.reshape(-1).astype(np.float64)
    n = flat.size
    assert abs(flat.mean()) < 4 / np.sqrt(n)
    assert abs(flat.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs((flat**3).mean()) < 4 * np.sqrt(15 / n)
    assert abs((flat**4).mean() - 3) < 4 * np.sqrt(96 / n)
    assert stats.kstest(flat[:200_000], "norm").pvalue > 1e-3


@pytest.mark.parametrize("columns", [1, 3, 10, 16, 63, 64, 65, 200])
def test_reads_do_not_depend_on_how_they_are_cut(columns: int) -> None:
    whole = read_normals(42, "read_noise", 300, columns, **PLACE)
    for first, count in ((0, 1), (7, 100), (255, 45), (299, 1)):
        part = read_normals(42, "read_noise", count, columns, first=first, **PLACE)
        np.testing.assert_array_equal(part, whole[first : first + count])


@pytest.mark.parametrize("columns", [3, 64, 500])
def test_reads_are_independent_across_vectors_and_columns(columns: int) -> None:
    z = read_normals(1, "read_noise", 120_000 // columns, columns)
    assert np.unique(z).size == z.size
    bound = 4.5 / np.sqrt(z.size)
    for a, b in ((z[1:], z[:-1]), (z[:, 1:], z[:, :-1]), (z[4:], z[:-4])):
        assert abs((a * b).mean()) < bound * np.sqrt(z.size / a.size)


def test_other_places_are_other_streams() -> None:
    base = read_normals(1, "read_noise", 400, 50)
    others = (
        read_normals(2, "read_noise", 400, 50), read_normals(1, "adc_noise", 400, 50),
        *(read_normals(1, "read_noise", 400, 50, **{key: 1}) for key in PLACE),
    )  # fmt: skip
    for other in others:
        assert abs((base * other).mean()) < 4.5 / np.sqrt(base.size)


@pytest.mark.parametrize("count", [1, 7, 2048, 5000])
def test_a_flat_array_of_normals(count: int) -> None:
    """The same whatever is asked behind it, other than another key's, and normal."""
    out, longer, other = (np.full(n, np.nan, np.float32) for n in (count, count + 4 * RUN, count))
    standard_normals(out, 3, 5)
    standard_normals(longer, 3, 5)
    standard_normals(other, 3, 6)
    whole = count // (4 * RUN) * 4 * RUN
    assert np.array_equal(out[:whole], longer[:whole])
    assert np.isfinite(out).all()
    assert not np.array_equal(out, other)
    if count > 1000:
        assert stats.kstest(out, "norm").pvalue > 1e-3
        assert abs(float(np.corrcoef(out, other)[0, 1])) < 5.0 / np.sqrt(count)
