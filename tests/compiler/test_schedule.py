"""Schedule: tokens on exactly the edges between cores that something depends on."""

from __future__ import annotations

from insitu.compiler.commands import Axis, Code, Op, Operand, Task, descriptor, merge, split_loops
from insitu.compiler.schedule import sections, sync_edges
from insitu.isa.program import Descriptor


def apart(a, b):
    return False


def task(node, core, out, *sources):
    whole = [Axis(4, (1,))]
    operands = tuple(descriptor(Operand(s, 0, 0), [], whole) for s in (out, *sources))
    return Task(node, core, (Op("ADD" if len(sources) == 2 else "DMA", operands),))


def test_a_reader_on_another_core_waits_for_the_writer():
    tasks = [task("a", 0, "h", "x"), task("b", 1, "y", "h")]
    assert sync_edges(tasks, apart) == [(0, 1)]
    codes = sections(tasks, [(0, 1)])
    assert [c.op for c in codes[0].commands] == ["DMA", "SIG", "HALT"]
    assert [c.op for c in codes[1].commands] == ["AWAIT", "DMA", "HALT"]


def test_one_core_needs_no_token():
    assert sync_edges([task("a", 0, "h", "x"), task("b", 0, "y", "h")], apart) == []


def test_what_is_known_already_needs_no_second_token():
    """c waits for b, which waited for a; so c needs nothing of a."""
    tasks = [task("a", 0, "h", "x"), task("b", 1, "i", "h"), task("c", 2, "y", "i", "h")]
    assert sync_edges(tasks, apart) == [(0, 1), (1, 2)]


def test_a_writer_waits_for_readers_of_what_it_overwrites():
    tasks = [task("a", 0, "h", "x"), task("b", 1, "h", "z")]
    assert sync_edges(tasks, apart) == [(0, 1)]
    tasks = [task("a", 0, "u", "h"), task("b", 1, "k", "z")]
    assert sync_edges(tasks, lambda a, b: {a, b} == {"h", "k"}) == [(0, 1)]
    assert sync_edges(tasks, apart) == []


def test_parts_of_one_layer_need_no_order_but_other_memory_does():
    parts = [task("a", 0, "y", "x"), task("a", 1, "y", "x")]
    assert sync_edges(parts, apart) == []
    assert sync_edges([task("a", 0, "s", "x"), task("a", 1, "y", "s")], apart) == [(0, 1)]
    assert sync_edges([task("a", 0, "s", "x"), task("a", 1, "y", "z")], lambda a, b: {a, b} == {"x", "y"}) == [(0, 1)]


# what commands are made of


def test_axes_that_run_on_are_one():
    axes = [Axis(2, (12, 24)), Axis(3, (4, 8)), Axis(1, (99, 99)), Axis(4, (1, 2))]
    assert merge(axes) == [Axis(24, (1, 2))]
    assert merge([Axis(2, (12, 25)), Axis(3, (4, 8))]) == [Axis(2, (12, 25)), Axis(3, (4, 8))]
    assert merge([Axis("L", (4,)), Axis(4, (1,))]) == [Axis("L", (4,)), Axis(4, (1,))]


def test_axes_beyond_four_become_loops():
    axes = [Axis(n, (10**n,)) for n in range(2, 8)]
    loops, dims = split_loops(axes, inner=1)
    assert (len(loops), len(dims)) == (3, 3)
    made = descriptor(Operand("x", 5, 0), loops, dims)
    assert made == Descriptor("x", 5, (5, 6, 7), (10**5, 10**6, 10**7), (10**2, 10**3, 10**4))


def test_equal_operands_have_one_index():
    code = Code()
    d = Descriptor("x", 0, (4,), (1,))
    code.add(Op("DMA", (d, Descriptor("y", 0, (4,), (1,))), loops=(2, 3)))
    code.add(Op("FILL", (d, 7)))
    assert len(code.descriptors) == 2
    assert [c.op for c in code.commands] == ["LOOP", "LOOP", "DMA", "ENDL", "ENDL", "FILL"]
    assert code.commands[-1].args == (0, 7)
