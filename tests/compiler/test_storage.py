"""Storage: views that need no copy, halos for padding, memory reused only after its last use."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.base.errors import InfeasibleError
from insitu.compiler.storage import Block, allocate, lay_out, split_pads
from insitu.graph.graph import Graph, Node
from insitu.graph.types import TensorType
from insitu.numeric.affine import QuantSpec

SPEC = QuantSpec(8, signed=True, scale=(1.0,), zero_point=4)


def graph_of(nodes, shapes, outputs=("y",)):
    return Graph(
        "g", "quantized", ("x",), outputs, tuple(nodes), {n: TensorType(s, "i8", SPEC) for n, s in shapes.items()}
    )


def elements(at, sizes=None):
    """The element index of every index of a location."""
    shape = tuple((sizes or {}).get(d, d) for d in at.shape)
    index = np.full(shape, at.offset)
    for axis, stride in enumerate(at.strides):
        index += np.arange(shape[axis]).reshape(-1, *(1,) * (len(shape) - axis - 1)) * stride
    return index


@given(st.data())
def test_a_view_is_the_move(data):
    """Transposes, slices and reshapes in a row, where they are views, address the elements that NumPy would."""
    draw = data.draw
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=2, max_size=4)))
    values = np.arange(int(np.prod(shape))).reshape(shape)
    nodes, shapes, last = [], {"x": shape}, "x"
    wanted = {"x": values}
    for i in range(draw(st.integers(1, 4))):
        name, now = f"v{i}", wanted[last]
        op = draw(st.sampled_from(["Transpose", "Slice", "Reshape"]))
        if op == "Transpose":
            perm = tuple(draw(st.permutations(range(now.ndim))))
            attrs, value = {"perm": perm}, now.transpose(perm)
        elif op == "Slice":
            axis, step = draw(st.integers(0, now.ndim - 1)), draw(st.sampled_from([1, 2]))
            start = draw(st.integers(0, now.shape[axis] - 1))
            attrs = {"axes": (axis,), "starts": (start,), "ends": (99,), "steps": (step,)}
            value = now[(slice(None),) * axis + (slice(start, None, step),)]
        else:
            attrs, value = (
                {},
                now.reshape(draw(st.sampled_from([(now.size,), (1, now.size), (now.size, 1), now.shape]))),
            )
        nodes.append(Node(name, op, (last,), (name,), attrs))
        shapes[name], wanted[name], last = value.shape, value, name
    storage = lay_out(graph_of(nodes, shapes, outputs=(last,)), {})
    for name in storage.views:
        source = storage.locations[name].symbol
        assert np.array_equal(wanted[source].reshape(-1)[elements(storage.locations[name])], wanted[name])
    assert all(storage.counts[v] == wanted[v].size for v in storage.counts)


def test_sizes_bound_at_run_time_keep_their_place():
    nodes = [Node("r", "Reshape", ("x",), ("h",)), Node("t", "Transpose", ("h",), ("y",), {"perm": (0, 2, 1, 3)})]
    graph = graph_of(nodes, {"x": (1, "L", 6), "h": (1, "L", 2, 3), "y": (1, 2, "L", 3)})
    storage = lay_out(graph, {"L": 10})
    assert storage.views == {"h", "y"}
    assert storage.counts == {"x": 60}
    whole = np.arange(60).reshape(1, 10, 6)[:, :4]
    assert np.array_equal(elements(storage.locations["y"], {"L": 4}), whole.reshape(1, 4, 2, 3).transpose(0, 2, 1, 3))


def padded(op, **attrs):
    return Node(op.lower(), op, ("x",), (f"{op}_out",), {"kernel_shape": (3, 3), "pads": (1, 2, 0, 1), **attrs})


def test_padding_is_a_halo_of_the_widest_reader():
    nodes = [padded("Conv"), padded("AveragePool", pads=(0, 3, 1, 0))]
    graph = graph_of(
        nodes, {"x": (1, 2, 5, 5), "Conv_out": (1, 2, 4, 6), "AveragePool_out": (1, 2, 4, 6)}, ("Conv_out",)
    )
    storage = lay_out(graph, {})
    assert storage.halos["x"] == ((0, 0), (0, 0), (1, 1), (3, 1))
    assert storage.counts["x"] == 2 * 7 * 9
    assert storage.locations["x"].offset == 9 + 3
    assert storage.fills["x"] == SPEC.zero_point


def test_a_halo_holds_the_lowest_code_for_max_pools_alone():
    graph = graph_of([padded("MaxPool")], {"x": (1, 2, 5, 5), "MaxPool_out": (1, 2, 4, 6)}, ("MaxPool_out",))
    assert split_pads(graph) == graph
    assert lay_out(graph, {}).fills["x"] == -128


def test_max_pools_beside_others_read_a_padded_copy():
    shapes = {"x": (1, 2, 5, 5), "MaxPool_out": (1, 2, 4, 6), "Conv_out": (1, 2, 4, 6)}
    split = split_pads(graph_of([padded("MaxPool"), padded("Conv")], shapes, ("MaxPool_out", "Conv_out")))
    copy, pool, conv = split.nodes
    assert (copy.op, copy.attr("code"), copy.attr("pads")) == ("Pad", -128, (0, 0, 1, 2, 0, 0, 0, 1))
    assert split.type(copy.output).shape == (1, 2, 6, 8)
    assert not any(pool.attr("pads"))
    assert pool.inputs == (copy.output,)
    assert conv.inputs == ("x",)


@given(st.lists(st.tuples(st.integers(1, 200), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=20))
def test_blocks_alive_together_lie_apart(items):
    blocks = [Block(f"b{i}", size, min(a, b), max(a, b)) for i, (size, a, b) in enumerate(items)]
    addresses, used = allocate(blocks, space="ram", bound=1 << 20, chip="c")
    for a, b in combinations(blocks, 2):
        together = a.first <= b.last and b.first <= a.last
        apart = addresses[a.name] + a.bytes <= addresses[b.name] or addresses[b.name] + b.bytes <= addresses[a.name]
        assert apart or not together
    assert used >= max(addresses[b.name] + b.bytes for b in blocks)
    assert all(at % 16 == 0 for at in addresses.values())


def test_memory_that_is_too_small_says_what_fills_it():
    blocks = [Block("large", 900, 0, 5), Block("small", 200, 2, 3)]
    with pytest.raises(InfeasibleError) as caught:
        allocate(blocks, space="ram", bound=1000, chip="c")
    (item,) = caught.value.items
    assert (item.resource, item.bound, item.filled_by) == ("memory ram", 1000.0, ("large", "small"))
    assert item.demand >= 1100
