from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.base.errors import RangeError
from insitu.base.random import bits, effect_key, normal, normal_at, philox, uniform, uniform_at

SEEDS = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers(counter: tuple[int, ...], key: tuple[int, int], words: tuple[int, ...]) -> None:
    """The philox4x32-10 vectors that the authors publish with Random123."""
    assert philox(np.array(counter, np.uint32), key).tolist() == list(words)


def _philox_by_hand(counter: list[int], key: list[int]) -> list[int]:
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


@given(st.lists(SEEDS, min_size=4, max_size=4), st.lists(SEEDS, min_size=2, max_size=2))
def test_equals_the_definition_in_plain_integers(counter: list[int], key: list[int]) -> None:
    assert philox(np.array(counter, np.uint32), (key[0], key[1])).tolist() == _philox_by_hand(counter, key)


def test_stream_layout_is_the_documented_one() -> None:
    seed, instance, macro, time, element = 5, 3, 7, 11, 2**34 + 6  # block 2**32 + 1, word 2
    counter = [1, time, macro, instance << 16 | 1]
    word = _philox_by_hand(counter, [seed, effect_key("read")])[2]
    drawn = uniform_at(seed, "read", [element], instance=instance, macro=macro, time=time)
    assert drawn.tolist() == [(word + 0.5) / 2**32]
    assert bits(seed, "read", (1, time, macro, instance << 16 | 1))[2] == word


@given(SEEDS, st.integers(0, 2**40), st.integers(1, 300), st.integers(0, 299), st.sampled_from([uniform, normal]))
def test_any_slice_can_be_drawn_alone(seed: int, offset: int, count: int, start: int, draw: object) -> None:
    whole = draw(seed, "e", (count,), offset=offset)  # type: ignore[operator]
    start = min(start, count - 1)
    part = draw(seed, "e", (count - start,), offset=offset + start)  # type: ignore[operator]
    assert np.array_equal(whole[start:], part)
    at = uniform_at if draw is uniform else normal_at
    assert np.array_equal(at(seed, "e", offset + np.arange(count)), whole)


def test_large_draws_do_not_depend_on_how_they_are_cut() -> None:
    whole = normal(1, "e", (50_001,))
    cuts = [0, 1, 16_384, 16_387, 40_000, 50_001]
    parts = [normal(1, "e", (stop - start,), offset=start) for start, stop in pairwise(cuts)]
    assert np.array_equal(np.concatenate(parts), whole)


def test_streams_differ_by_every_part_of_key_and_counter() -> None:
    base = uniform(1, "a", 64)
    others = [
        uniform(2, "a", 64),
        uniform(1, "b", 64),
        uniform(1, "a", 64, instance=1),
        uniform(1, "a", 64, macro=1),
        uniform(1, "a", 64, time=1),
        uniform(1, "a", 64, offset=64),
    ]
    assert all(not np.isin(base, other).any() for other in others)


def test_uniform_moments_and_open_interval() -> None:
    u = uniform(0, "u", (400, 500))
    assert u.shape == (400, 500)
    assert u.min() > 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 5 * math.sqrt(1 / 12 / u.size)
    assert abs(u.var() - 1 / 12) < 0.001


def test_normal_follows_the_normal_distribution() -> None:
    z = np.sort(normal(0, "z", 200_000))
    cdf = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in z[::100]])
    assert np.abs(cdf - (np.arange(z.size)[::100] + 0.5) / z.size).max() < 1.95 / math.sqrt(z.size)  # KS, 0.1 %
    assert abs(np.corrcoef(normal(0, "z", 200_000)[:-1], normal(0, "z", 200_000)[1:])[0, 1]) < 0.01


def test_float32_is_the_rounded_float64() -> None:
    assert np.array_equal(normal(0, "z", 100, dtype=np.float32), normal(0, "z", 100).astype(np.float32))
    assert normal(0, "z", (0, 4)).shape == (0, 4)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: uniform(-1, "e", 1),
        lambda: uniform(2**32, "e", 1),
        lambda: uniform(0, "e", 1, instance=2**16),
        lambda: uniform(0, "e", 1, macro=-1),
        lambda: uniform(0, "e", 1, time=2**32),
        lambda: uniform(0, "e", 1, offset=2**50),
        lambda: normal_at(0, "e", [-1]),
    ],
)
def test_refuses_what_does_not_fit_the_counter(draw: object) -> None:
    with pytest.raises(RangeError):
        draw()  # type: ignore[operator]
