"""Random records for the round trips: any values the types allow, whether or not a chip would take them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from insitu.isa.program import (
    Binding,
    Command,
    Descriptor,
    Location,
    Post,
    Program,
    Readout,
    Section,
    Symbol,
    Tile,
    Vector,
    weight_ref,
)
from insitu.isa.table import Operand, table
from insitu.numeric.affine import ROUNDINGS

names = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ["x", "conv/1.w", "true", "none", "12", "#", "d0"]
)
numbers = st.integers(-(1 << 40), 1 << 40)
indices = st.integers(0, 1 << 20)
size_names = ("L", "n tokens", "true")
sizes = st.integers(1, 1 << 20) | st.sampled_from(size_names)
symbol_names = ("act", "out", 'odd "name" #1', "none", "a/b.c-1")
number_or_name = numbers | names

posts = st.builds(
    Post,
    multiplier=number_or_name,
    shift=number_or_name,
    rounding=st.sampled_from(ROUNDINGS),
    zero_point=numbers,
    lo=numbers,
    hi=numbers,
) | st.just(Post())
readouts = st.builds(
    Readout,
    kind=st.sampled_from(("exact", "adc", "wtm2101")),
    bits=indices,
    signed=st.booleans(),
    multiplier=number_or_name,
    gain=number_or_name,
    parts=st.lists(indices, max_size=3).map(tuple),
    k=indices,
    slice_bits=st.lists(indices, max_size=3).map(tuple),
    encoding=names,
) | st.just(Readout())
tiles = st.builds(Tile, *(indices for _ in range(7)), bias0=indices, bias_rows=indices)
bindings = st.builds(
    Binding,
    label=names,
    weight=names,
    bias=names,
    rows=indices,
    cols=indices,
    zero_in=numbers,
    tiles=st.lists(tiles, max_size=3).map(tuple),
    readout=readouts,
    post=posts,
    input_shift=indices,
    input_offset=numbers,
)
vectors = st.builds(
    Vector, zero_a=numbers, scale_b=numbers, post=posts, multiplier=st.none() | indices, lut=names, label=names
)


@st.composite
def descriptors(draw: st.DrawFn) -> Descriptor:
    rank = draw(st.integers(0, 4))
    shape = tuple(draw(st.lists(sizes, min_size=rank, max_size=rank)))
    strides = tuple(draw(st.lists(numbers, min_size=rank, max_size=rank)))
    return Descriptor(
        draw(st.sampled_from(symbol_names)), draw(numbers), shape, strides, tuple(draw(st.lists(numbers, max_size=4)))
    )


def argument(operand: Operand) -> st.SearchStrategy[int | str]:
    fits = st.integers(operand.lo, operand.hi)
    return fits | st.sampled_from(size_names) if operand.kind == "size" else fits


@st.composite
def commands(draw: st.DrawFn) -> Command:
    row = table().instructions[draw(st.sampled_from(sorted(table().instructions)))]
    return Command(row.mnemonic, tuple(draw(argument(operand)) for operand in row.operands))


sections = st.builds(
    Section,
    chip=indices,
    core=indices,
    descriptors=st.lists(descriptors(), max_size=4).map(tuple),
    bindings=st.lists(bindings, max_size=2).map(tuple),
    vectors=st.lists(vectors, max_size=2).map(tuple),
    code=st.lists(commands(), max_size=6).map(tuple),
)
plain = st.recursive(
    st.none() | st.booleans() | numbers | st.floats(allow_nan=False, allow_infinity=False) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
weights = st.builds(
    lambda shape, dtype, seed, shape_only: _weight(tuple(shape), dtype, seed, shape_only=shape_only),
    st.lists(st.integers(0, 4), max_size=3),
    st.sampled_from(["int8", "uint8", "int16", "int32", "int64", "float32", "bool"]),
    st.integers(0, 99),
    st.booleans(),
)


def _weight(shape: tuple[int, ...], dtype: str, seed: int, *, shape_only: bool):
    ref = weight_ref(np.random.default_rng(seed).integers(0, 2, shape).astype(dtype))
    return type(ref)(ref.shape, ref.dtype, ref.hash) if shape_only else ref


symbols = st.builds(
    Symbol,
    name=st.just(""),
    kind=st.sampled_from(("input", "output", "weight", "state", "scratch")),
    space=names,
    dtype=names,
    count=indices,
    address=indices,
    weight=names,
    initial=numbers,
)
locations = st.builds(
    Location,
    symbol=names,
    offset=numbers,
    shape=st.lists(sizes, max_size=3).map(tuple),
    strides=st.lists(numbers, max_size=3).map(tuple),
)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    table_ = tuple(
        Symbol(name, s.kind, s.space, s.dtype, s.count, s.address, s.weight, s.initial)
        for name, s in zip(symbol_names, draw(st.lists(symbols, min_size=5, max_size=5)), strict=True)
    )
    return Program(
        name=draw(names),
        chip=draw(st.dictionaries(names, plain, max_size=3)),
        graph=draw(names),
        symbols=table_,
        sections=tuple(draw(st.lists(sections, max_size=2))),
        weights=draw(st.dictionaries(names, weights, max_size=3)),
        values=draw(st.dictionaries(names, locations, max_size=3)),
        sizes=dict.fromkeys(size_names, 7),
        spaces=draw(st.dictionaries(names, indices, max_size=2)),
        meta=draw(st.dictionaries(names, plain, max_size=3)),
    )
