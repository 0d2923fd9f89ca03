"""Commands done straight from memory to memory give the integers of the general way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from insitu.isa.program import Binding, Post, Readout, Vector
from insitu.numeric.affine import requantize
from insitu.numeric.readout import wtm2101_code
from insitu.sim import fused
from insitu.sim.bound import BoundMatrix
from insitu.sim.fused import elementwise, ideal_product
from insitu.sim.lines import Lines, across, disjoint, lines, offsets
from insitu.sim.products import exact_matrix

SAMPLES, PITCH = 3, 4096


def memory(seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (SAMPLES, PITCH), np.uint8)


def elements(bytes_: Any, dtype: Any, address: int, sizes: Any, strides: Any) -> Any:
    """The operand as the general way sees it."""
    at = address + offsets(sizes, strides) * np.dtype(dtype).itemsize
    flat = np.stack([bytes_[:, at + i] for i in range(np.dtype(dtype).itemsize)], axis=-1)
    return np.ascontiguousarray(flat).view(dtype)[..., 0].reshape(SAMPLES, *sizes)


def operand(bytes_: Any, dtype: Any, address: int, sizes: Any, strides: Any, rows: int = 1) -> Lines:
    found = lines(bytes_, np.dtype(dtype), address, sizes, strides, rows)
    assert found is not None
    return found


def bound(
    weights: Any, bias: Any, *, kind: str, post: Post, zero: int = 0, shift: Any = None, **more: Any
) -> BoundMatrix:
    rows, cols = weights.shape
    binding = Binding("layer", "w", "b", rows, cols, zero, (), Readout(kind=kind), post, **more)
    m = np.full(cols, 1 if kind == "wtm2101" else 1_234_567_891, np.int64)
    r = np.full(cols, 8 if kind == "wtm2101" else 41, np.int64) if shift is None else shift
    return BoundMatrix(binding, bias, (slice(0, rows),), (exact_matrix(weights, peak=300, bias=bias),), m, r, 0)


WINDOWS = {  # sizes and strides of the vectors, then of the rows, over a map of 12 x 14 with 4 channels
    "rows of a map": ((10, 12), (14, 1), (4, 3, 3), (168, 14, 1)),
    "stride 2": ((5, 6), (28, 2), (4, 3, 3), (168, 14, 1)),
    "dilated": ((8, 10), (14, 1), (2, 3, 3), (168, 28, 2)),
    "one channel each": ((12, 14), (14, 1), (4,), (168,)),
    "one row": ((1, 9), (14, 1), (3,), (168,)),
}


@pytest.mark.parametrize("patches", [1 << 19, 600, 1])
@pytest.mark.parametrize("kind", ["exact", "wtm2101"])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
@pytest.mark.parametrize("name", WINDOWS)
def test_windows(name: str, dtype: Any, kind: str, patches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "IDEAL_PATCHES", patches)
    at, steps, kernel, inner = WINDOWS[name]
    rng, rows, cols = np.random.default_rng(1), int(np.prod(kernel)), 8
    memory_in = memory()
    if dtype == np.int16:
        memory_in[:, 1::2] = rng.integers(0, 2, memory_in[:, 1::2].shape) * 255  # small codes of both signs
    x = operand(memory_in, dtype, 2, (*at, *kernel), (*steps, *inner), rows)
    out = np.zeros((SAMPLES, PITCH), np.uint8)
    y = operand(out, np.int8, 7, (*at, cols), (at[1], 1, at[0] * at[1]), cols)
    w, bias = rng.integers(-100, 100, (rows, cols)), rng.integers(-500, 500, cols)
    more = {"input_shift": 1, "input_offset": 128} if kind == "wtm2101" else {}
    matrix = bound(
        w, bias, kind=kind, post=Post(zero_point=3 if kind == "exact" else 0, lo=-90, hi=101), zero=2, **more
    )
    done = ideal_product(matrix, x, y, SAMPLES)
    assert done == across(x)
    codes = elements(memory_in, dtype, 2, (*at, *kernel), (*steps, *inner)).reshape(SAMPLES, -1, rows).astype(np.int64)
    if kind == "wtm2101":
        sums = (np.clip((codes << 1) + 128, 0, 255) - 2) @ w + bias
        wanted = np.clip(wtm2101_code(sums, 256), -90, 101)
    else:
        wanted = requantize((codes - 2) @ w + bias, 1_234_567_891, 41, zero_point=3, lo=-90, hi=101)
    got = elements(out, np.int8, 7, (*at, cols), (at[1], 1, at[0] * at[1])).reshape(wanted.shape)
    if done:
        np.testing.assert_array_equal(got, wanted)


def test_sums_at_the_bound_of_float64_take_the_general_way() -> None:
    """2**53 is where a product of sum and multiplier may lose its last bit: below it lines, from it on not."""
    x = operand(memory(), np.int8, 0, (4, 8, 2), (8, 1, 100), 2)
    y = operand(np.zeros((SAMPLES, PITCH), np.uint8), np.int8, 0, (4, 8, 1), (8, 1, 64), 1)
    for limit, done in (((1 << 53) - 1, True), (1 << 53, False)):
        matrix = bound(np.array([[1], [0]]), np.zeros(1, np.int64), kind="exact", post=Post(lo=-128, hi=127))
        assert matrix.ideal[0].bound == 300
        matrix.multiplier[:] = -(-limit // 300) if not done else limit // 300
        assert ideal_product(matrix, x, y, SAMPLES) is done


@pytest.mark.parametrize("op", ["ADD", "MUL", "REQ"])
@pytest.mark.parametrize(("a", "b"), [(np.int8, np.uint8), (np.uint8, np.uint8), (np.int16, np.int8)])
def test_elementwise(op: str, a: Any, b: Any) -> None:
    sizes, left, right = (5, 6), (7, 1), (1, 20)
    one, two, out = memory(1), memory(2), np.zeros((SAMPLES, PITCH), np.uint8)
    scale_b = 0 if op == "REQ" else -3
    zero_b = 0 if op == "REQ" else 5
    settings = Vector(4, zero_b, 11, scale_b, Post(multiplier=1_000_003, shift=24, zero_point=-2, lo=-100, hi=99))
    x, y = operand(one, a, 4, sizes, left), operand(two, b, 6, sizes, right)
    z = operand(out, np.int8, 1, sizes, (6, 1))
    assert elementwise(op, settings, x, y, z, SAMPLES)
    p = elements(one, a, 4, sizes, left).astype(np.int64) - 4
    q = elements(two, b, 6, sizes, right).astype(np.int64) - zero_b
    wide = p * q if op == "MUL" else 11 * p + scale_b * q
    wanted = requantize(wide, 1_000_003, 24, zero_point=-2, lo=-100, hi=99)
    np.testing.assert_array_equal(elements(out, np.int8, 1, sizes, (6, 1)), wanted)


@pytest.mark.parametrize("op", ["ADD", "MUL", "REQ"])
def test_elementwise_with_a_multiplier_for_each_channel(op: str) -> None:
    sizes, rng = (2, 5, 6), np.random.default_rng(0)
    one, two, out = memory(1), memory(2), np.zeros((SAMPLES, PITCH), np.uint8)
    settings = Vector(4, 0, 11, 0 if op == "REQ" else -3, Post(shift=24, zero_point=-2, lo=-100, hi=99), multiplier=0)
    x, y = operand(one, np.int16, 4, sizes, (40, 7, 1)), operand(two, np.int8, 6, sizes, (120, 1, 20))
    z, table = operand(out, np.int8, 1, sizes, (30, 6, 1)), rng.integers(0, 1 << 20, (5, 1))
    assert elementwise(op, settings, x, y, z, SAMPLES, table=np.broadcast_to(table, sizes))
    p = elements(one, np.int16, 4, sizes, (40, 7, 1)).astype(np.int64) - 4
    q = elements(two, np.int8, 6, sizes, (120, 1, 20)).astype(np.int64)
    wide = p * q if op == "MUL" else 11 * p + settings.scale_b * q
    wanted = requantize(wide, table, 24, zero_point=-2, lo=-100, hi=99)
    np.testing.assert_array_equal(elements(out, np.int8, 1, sizes, (30, 6, 1)), wanted)
    assert not elementwise(op, settings, x, y, z, SAMPLES)  # a table that is not given
    huge = np.full(sizes, (1 << 31) - 1)
    assert elementwise(op, settings, x, y, z, SAMPLES, table=huge) == (op != "MUL")  # beyond what float64 holds


def test_what_overlaps_takes_the_general_way() -> None:
    held = memory()
    x = operand(held, np.int8, 0, (4, 5), (5, 1))
    assert elementwise("ADD", Vector(), x, x, operand(held, np.int8, 0, (4, 5), (5, 1)), SAMPLES)
    assert not elementwise("ADD", Vector(), x, x, operand(held, np.int8, 1, (4, 5), (5, 1)), SAMPLES)
    assert not disjoint(x, operand(held, np.int16, 18, (2,), (1,)))
    assert disjoint(x, operand(held, np.int16, 20, (2,), (1,)))


def test_what_has_no_lines() -> None:
    assert lines(memory(), np.dtype(np.float32), 0, (2, 3), (3, 1), 3) is None
    assert lines(memory(), np.dtype(np.int16), 1, (2, 3), (3, 1), 3) is None
    assert lines(memory(), np.dtype(np.int8), 0, (2, 3), (3, 1), 2) is None


@pytest.mark.parametrize("physics", ["ideal", "full"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("chip", ["parametric-reram-adc8", "wtm2101"])
def test_a_convolution_is_the_same_from_lines_and_from_vectors(
    chip: str, stride: int, physics: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ideal codes are equal; noisy ones as DESIGN 3 has it for different cuts, and equal however samples are cut."""
    from insitu.arch.load import load_chip
    from insitu.bench.networks import Network
    from insitu.flow.chain import capture
    from insitu.frontend.onnx import import_model
    from insitu.runtime.session import Session
    from insitu.sim import functional

    net = Network("conv", (1, 3, 16, 16))
    graph = capture(import_model(net.model(net.conv(net.conv("x", 8, 3), 24, 3, stride=stride))))
    x = np.random.default_rng(0).standard_normal((6, 1, 3, 16, 16), np.float32)
    program = compiled(graph, load_chip(chip), x)
    session = Session(program, physics=physics)
    codes = session.codes(x)
    (name,) = session.outputs
    fast = session.run_codes(codes)[name]
    parts = [session.run_codes({"x": codes["x"][a : a + 2]}, first_sample=a)[name] for a in (0, 2, 4)]
    np.testing.assert_array_equal(np.concatenate(parts), fast)
    monkeypatch.setattr(functional, "converted_product", lambda *_: False)
    slow = session.run_codes(codes)[name]
    apart = np.abs(fast.astype(int) - slow)
    assert apart.max() <= (1 if physics == "full" else 0)
    assert np.count_nonzero(apart) <= (1e-4 * apart.size if physics == "full" else 0)


def compiled(graph: Any, chip: Any, x: Any) -> Any:
    from insitu.algo import ptq
    from insitu.compiler.pipeline import compile_graph
    from insitu.compiler.precision import apply_plan

    return compile_graph(apply_plan(graph, chip, plan=ptq.plan(graph, chip, data={"x": x})), chip)
