"""Graph text: reads well, parses back to an equal graph, and refuses everything else with a line number."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.base.errors import ModelError, OutputError
from insitu.compiler import canonicalize, fuse
from insitu.frontend.onnx import import_model
from insitu.graph.graph import Graph, Node, State, const_type
from insitu.graph.text import load_graph, parse_graph, print_graph, same_graph, save_graph
from insitu.graph.text_parse import NUMPY_TYPES
from insitu.graph.types import TensorType
from insitu.numeric.affine import QuantSpec
from tests.graph.networks import random_model

NAMES = st.text(min_size=1, max_size=8) | st.sampled_from(["x", "a.b/c:0", "_", "as", "end", "input", "3", "a b", '"'])
FLOATS = st.floats(allow_nan=False)
SCALARS = st.booleans() | st.integers(-(2**62), 2**62) | FLOATS | st.text(max_size=6)
ATTRS = SCALARS | st.lists(SCALARS, max_size=4).map(tuple)


@st.composite
def specs(draw: st.DrawFn, shape: tuple[int | str, ...]) -> QuantSpec | None:
    axes = [i for i, d in enumerate(shape) if isinstance(d, int) and d > 0]
    axis = draw(st.sampled_from([None, *axes]))
    count = 1 if axis is None else int(shape[axis])
    scale = draw(st.lists(st.floats(1e-30, 1e30), min_size=count, max_size=count))
    signed = draw(st.booleans())
    spec = QuantSpec(draw(st.integers(1, 32)), signed, tuple(scale), 0, axis)
    return draw(st.sampled_from([None, replace(spec, zero_point=draw(st.integers(spec.lo, spec.hi)))]))


@st.composite
def types(draw: st.DrawFn) -> TensorType:
    dims = st.integers(0, 20) | st.sampled_from(["N", "T 2", "7", "_"])
    shape = tuple(draw(st.lists(dims, max_size=3)))
    return TensorType(shape, draw(st.sampled_from(list(NUMPY_TYPES))), draw(specs(shape)))


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    shape = draw(st.sampled_from([(), (0,), (3,), (2, 2), (5, 7)]))
    dtype = NUMPY_TYPES[draw(st.sampled_from(list(NUMPY_TYPES)))]
    raw = draw(st.binary(min_size=9, max_size=9)) * 40
    count = int(np.prod(shape)) * dtype.itemsize
    if dtype == np.bool_:
        return np.frombuffer(raw[:count], np.uint8).reshape(shape) > 100
    return np.frombuffer(raw[:count], dtype).reshape(shape)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    names = draw(st.lists(NAMES, min_size=6, max_size=12, unique=True))
    constants = {n: draw(arrays()) for n in names[:2]}
    kinds = {n: draw(types()) for n in names[2:]} | {n: const_type(a) for n, a in constants.items()}
    nodes = tuple(
        Node(draw(NAMES), draw(NAMES), tuple(draw(st.sampled_from(["", *names])) for _ in range(2)), outputs, attrs)
        for outputs, attrs in (
            ((names[4],), draw(st.dictionaries(NAMES, ATTRS, max_size=3))),
            ((names[5], ""), {}),
        )
    )
    return Graph(
        name=draw(NAMES),
        level=draw(st.sampled_from(["captured", "quantized", "placed"])),
        inputs=(names[2],),
        outputs=(names[4], names[5]),
        nodes=nodes,
        types={n: kinds[n] for n in names[:6]},
        constants=constants,
        states=(State(names[3], names[4]),),
        meta=draw(st.dictionaries(NAMES, ATTRS, max_size=3)),
    )


def assert_equal(a: Graph, b: Graph) -> None:
    for field in ("name", "level", "inputs", "outputs", "nodes", "states"):
        assert getattr(a, field) == getattr(b, field)
    assert dict(a.types) == dict(b.types)
    assert dict(a.meta) == dict(b.meta)
    assert a.constants.keys() == b.constants.keys()
    for name, array in a.constants.items():
        other = b.constants[name]
        assert (array.dtype, array.shape, array.tobytes()) == (other.dtype, other.shape, other.tobytes())


@given(graph=graphs())
def test_round_trip(graph: Graph) -> None:
    text = print_graph(graph)
    again = parse_graph(text)
    assert_equal(again, graph)
    assert print_graph(again) == text
    assert same_graph(again, graph)
    assert text.isascii()


@given(seed=st.integers(0, 10_000))
def test_round_trip_of_networks(seed: int) -> None:
    graph = import_model(random_model(seed)[0])
    for each in (graph, fuse.run(canonicalize.run(graph))):
        assert_equal(parse_graph(print_graph(each)), each)


def small() -> Graph:
    x = TensorType((1, 4), "i8", QuantSpec(8, True, (0.5,), -3))
    w = np.arange(20, dtype=np.int8).reshape(4, 5)
    scale = tuple(0.25 * (i + 1) for i in range(5))
    return Graph(
        name="net",
        level="quantized",
        inputs=("x",),
        outputs=("y",),
        nodes=(Node("fc", "MatMul", ("x", "w", "b"), ("y",), {"lo": 0, "hi": 127, "readout": "exact"}),),
        types={
            "x": x,
            "y": TensorType((1, 5), "i8", QuantSpec(8, True, (0.5,))),
            "w": TensorType((4, 5), "i8", QuantSpec(8, True, scale, 0, 1)),
            "b": TensorType((5,), "i64"),
        },
        constants={"w": w, "b": np.array([1, -2, 3, 0, 9])},
        meta={"parameters": 25},
    )


TEXT = """\
graph net level=quantized
  meta parameters = 25
  input x : i8[1, 4] quant(8, signed, scale=0.5, zero=-3)
  const w : i8[4, 5] quant(8, signed, scale=[0.25, 0.5, 0.75, 1.0, 1.25], axis=1) = HASH
  const b : i64[5] = [1, -2, 3, 0, 9]
  y : i8[1, 5] quant(8, signed, scale=0.5) = MatMul(x, w, b) {hi=127, lo=0, readout="exact"} as fc
  output y
"""


def test_it_reads_like_this() -> None:
    text = print_graph(small())
    head = text[: text.index("data ")]
    assert re.sub(r"sha256:[0-9a-f]{32}", "HASH", head) == TEXT
    assert text.endswith("\nend\n")
    assert str(small()) == f"{head}end\n"


def test_without_weights_it_says_what_is_missing() -> None:
    with pytest.raises(ModelError, match=r"text:4: the data of sha256:\w+ is missing"):
        parse_graph(print_graph(small(), weights=False), where="text")


def test_truncated_anywhere() -> None:
    text = print_graph(small())
    for length in range(len(text) - 1):
        with pytest.raises(ModelError, match=r"^g:\d+: "):
            parse_graph(text[:length], where="g")


def test_changed_anywhere_is_refused_or_a_graph() -> None:
    text, rng = print_graph(small()), np.random.default_rng(0)
    for _ in range(1500):
        at, new = int(rng.integers(len(text))), chr(int(rng.integers(32, 127)))
        try:
            parse_graph(text[:at] + new + text[at + 1 :], where="g")
        except ModelError as error:
            assert str(error).startswith("g:"), error  # noqa: PT017


@given(text=st.text(max_size=80))
def test_any_text(text: str) -> None:
    for each in (text, f"graph g level=captured\n{text}\nend\n"):
        try:
            parse_graph(each, where="g")
        except ModelError as error:
            assert str(error).startswith("g:")  # noqa: PT017


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("input x : f33[1]", "f33"),
        ("input x : f32[-1]", "size of -1"),
        ("input x : f32[99999999999, 99999999999]", "at most"),
        ("input x : f32[999999999999999999999999]", "a size"),
        ("const c : i8[2] = [1, 300]", "out of range"),
        ("const c : i8[2] = [1]", "1 numbers"),
        ("const c : i8[1] = [1.5]", "fractions"),
        ("const c : i8[N] = [1]", "numbers"),
        ("input x : i8[1] quant(0, signed, scale=1.0)", "QuantSpec.bits = 0"),
        ("input x : i8[1] quant(8, signed, scale=-1.0)", "QuantSpec.scale"),
        ("input x : i8[1] quant(8, odd, scale=1.0)", "signed or unsigned"),
        ("y : f32[1] = Relu(x", "ends too early"),
        ("y : f32[1] = Relu(x) as", "a name"),
        ("y : f32[1] = Relu(x) {a=}", "a number"),
        ('y : f32[1] = Relu("x\\q")', "JSON"),
        ("input x : f32[1] trailing", "end of the line"),
        ("wat", "':'"),
        ('"unclosed', "unreadable"),
        ("data sha256:00 4\n  !!!!", "does not match"),
    ],
)  # fmt: skip
def test_faults_name_their_line(line: str, word: str) -> None:
    with pytest.raises(ModelError) as caught:
        parse_graph(f"graph g level=captured\n\n  {line}\nend\n", where="g")
    assert str(caught.value).startswith("g:3: ")
    assert word in str(caught.value)


def test_two_values_of_one_name() -> None:
    with pytest.raises(ModelError, match="g:3: 'x' is there already"):
        parse_graph("graph g level=captured\ninput x : f32[1]\ninput x : f32[1]\nend\n", where="g")


def test_files(tmp_path: Path) -> None:
    graph = import_model(random_model(1)[0])
    path = save_graph(graph, tmp_path / "net.graph")
    assert_equal(load_graph(path), graph)
    with pytest.raises(OutputError):
        save_graph(graph, tmp_path / "net.graph" / "below")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match="not text"):
        load_graph(path)
    with pytest.raises(ModelError, match="cannot be read"):
        load_graph(tmp_path / "none.graph")


def test_loaded_graphs_are_verified(tmp_path: Path) -> None:
    path = tmp_path / "bad.graph"
    path.write_text("graph g level=captured\ninput x : f32[1]\noutput y\nend\n")
    with pytest.raises(ModelError, match="output 'y' is never written"):
        load_graph(path)
