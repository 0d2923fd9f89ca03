"""Footprints hold every element that is touched, and two that share one meet."""

from __future__ import annotations

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from insitu.compiler.footprint import WHOLE, Footprint, footprint
from insitu.isa.program import Descriptor

SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@st.composite
def addressed(draw):
    sizes, loops = draw(SIZES), draw(st.lists(st.integers(1, 3), max_size=2))
    strides = draw(st.lists(st.integers(-20, 20), min_size=len(sizes), max_size=len(sizes)))
    steps = draw(st.lists(st.integers(-30, 30), min_size=len(loops), max_size=len(loops)))
    return Descriptor("x", draw(st.integers(0, 50)), tuple(sizes), tuple(strides), tuple(steps)), tuple(loops)


def elements(descriptor, loops):
    sizes, strides = (*descriptor.sizes, *loops), (*descriptor.strides, *descriptor.steps)
    counters = product(*(range(n) for n in sizes))
    return {descriptor.offset + sum(c * s for c, s in zip(counter, strides, strict=True)) for counter in counters}


def held(found: Footprint) -> set[int]:
    assert found.starts is not None
    return {int(a) + i for a in found.starts for i in range(found.run)}


@settings(max_examples=200, deadline=None)
@given(addressed(), addressed())
def test_a_footprint_holds_what_is_addressed_and_meets_what_shares_an_element(a, b):
    first, second = footprint(*a), footprint(*b)
    assert elements(*a) <= held(first)
    assert first.meets(second) == second.meets(first) == bool(held(first) & held(second))


def test_rows_of_a_value_are_apart():
    """Rows 0..3 and 4..7 of 16 channels of 8 x 10, the halo between them and the next channel included."""
    rows = [Descriptor("x", 10 * row, (16, 4, 8), (100, 10, 1)) for row in (0, 4, 3)]
    top, bottom, across = (footprint(d, ()) for d in rows)
    assert not top.meets(bottom)
    assert top.meets(across)
    assert bottom.meets(across)


def test_a_size_bound_at_run_time_is_the_whole_symbol():
    assert footprint(Descriptor("x", 0, ("L", 4), (4, 1)), ()) is WHOLE
    assert WHOLE.meets(footprint(Descriptor("x", 0, (1,), (1,)), ()))
