"""The check can fail: damage to a compiled program is found, by comparison with the interpreter or the static check."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from insitu.base.errors import ProgramError
from insitu.flow.check import compare
from insitu.isa import semantics
from insitu.isa.check import check_program, find_faults
from insitu.isa.program import Program
from insitu.runtime.session import Session
from tests.flow.corrupt import coded, find, moved, reweighted, tables, without
from tests.flow.line import FULL, build, captured, chip_of, inputs_of
from tests.flow.test_sections import residual
from tests.graph.networks import model, node


@cache
def compiled(chip: str) -> Program:
    """A residual network; on "exact-joined" its row tiles lie on several cores."""
    return build(residual(np.random.default_rng(0)), chip_of(chip))[1]


@cache
def joined() -> Program:
    """One layer whose row tiles lie on several cores."""
    w = np.random.default_rng(0).standard_normal((7, 131)).astype(np.float32)
    proto = model(
        [node("Gemm", ["x", "w"], ["y"], transB=1)], inputs={"x": ["N", 131]}, outputs=["y"], tensors={"w": w}
    )
    return build(captured(proto), chip_of("exact-joined"))[1]


def mismatches(program: Program) -> int:
    """How many values differ from the interpreter on a few samples; a program that cannot run counts as one."""
    session = Session(program)
    rng = np.random.default_rng(1)
    shapes = {n: session.graph.type(n).sizes() for n in session.inputs}
    codes = session.codes({n: rng.standard_normal((6, *s), np.float32) for n, s in shapes.items()})
    try:
        return compare(session, codes).mismatches
    except ProgramError:
        return 1


def caught(program: Program) -> bool:
    """Whether the static check or the comparison tells that something is wrong."""
    return bool(find_faults(program)) or mismatches(program) > 0


@pytest.mark.parametrize("chip", [*FULL, "exact-joined"])
def test_the_program_as_compiled_passes(chip):
    check_program(compiled(chip))
    assert mismatches(compiled(chip)) == 0


# one weight


@pytest.mark.parametrize("chip", FULL)
def test_one_weight(chip):
    program = compiled(chip)
    for binding in (b for s in program.sections for b in s.bindings):

        def change(data):
            at = np.abs(data.astype(int)).argmax()
            data.flat[at] = -data.flat[at]

        broken = reweighted(program, binding.weight, change)
        assert not find_faults(broken)  # no rule of the instruction set is broken
        session = Session(broken)
        exact = compare(session, session.codes(inputs_of(session.graph, 4)))
        assert exact.mismatches > 0, binding.label
        made = session.graph.producer(exact.first["layer"])
        assert made.name == binding.label  # and the first mismatch names the layer
        assert exact.first["interpreter"] != exact.first["simulator"]


@pytest.mark.parametrize("chip", FULL)
def test_one_bias(chip):
    program = compiled(chip)
    names = {b.bias for s in program.sections for b in s.bindings if b.bias}
    assert names
    for name in names:
        assert caught(reweighted(program, name, lambda data: data.__iadd__(data.dtype.type(1 << 13))))


# one descriptor


@pytest.mark.parametrize("chip", ["exact", "wtm2101"])
@pytest.mark.parametrize("operand", [0, 1])
def test_one_offset(chip, operand):
    program = compiled(chip)
    for op in ("MVM", "ADD", "SUM"):
        for section, index in find(program, op):
            number = int(program.sections[section].code[index].args[operand])
            old = program.sections[section].descriptors[number]
            for offset in (old.offset + 1, old.offset - 1):
                broken = tables(program, section, "descriptors", number, offset=offset)
                assert caught(broken), (op, section, index, offset)


def test_one_stride_and_one_size():
    program = compiled("exact")
    for section, index in find(program, "MVM"):
        for operand in (0, 1):
            number = int(program.sections[section].code[index].args[operand])
            old = program.sections[section].descriptors[number]
            if len(old.sizes) < 2:
                continue
            wrong = (*old.strides[:-1], old.strides[-1] + 1)
            assert caught(tables(program, section, "descriptors", number, strides=wrong))
            assert caught(tables(program, section, "descriptors", number, sizes=(old.sizes[0] + 1, *old.sizes[1:])))


# one rounding mode


@pytest.mark.parametrize("chip", FULL)
def test_one_rounding_mode(chip):
    program = compiled(chip)
    tried = 0
    for number, section in enumerate(program.sections):
        for kind in ("bindings", "vectors"):
            for index, row in enumerate(getattr(section, kind)):
                if row.post.shift == 0 or (kind == "bindings" and row.readout.kind == "wtm2101"):
                    continue  # nothing is rounded
                broken = tables(program, number, kind, index, post=replace(row.post, rounding="floor"))
                assert mismatches(broken) > 0, row.label
                tried += 1
    assert tried >= 1


def test_one_gain():
    program = compiled("wtm2101")
    section = program.sections[0]
    for index, binding in enumerate(section.bindings):
        gain = binding.readout.gain
        wrong = 8192 if isinstance(gain, str) or gain < 8192 else 4096  # a name: gains differ between its columns
        assert mismatches(tables(program, 0, "bindings", index, readout=replace(binding.readout, gain=wrong))) > 0


# one schedule edge


def without_edge(program: Program, token: int) -> Program:
    """The program without the signal and the wait of one token."""
    for op in ("SIG", "AWAIT"):
        [(section, index)] = [(s, i) for s, i in find(program, op) if program.sections[s].code[i].args[0] == token]
        program = without(program, section=section, index=index)
    return program


@pytest.mark.parametrize("chip", ["exact", "exact-joined", "adc"])
def test_one_schedule_edge(chip):
    """Nearly every edge is needed; one that the static check lets go changes no result in any order."""
    program = compiled(chip)
    tokens = [int(program.sections[s].code[i].args[0]) for s, i in find(program, "SIG")]
    assert len(tokens) >= 3
    spare, found = [], []
    for token in tokens:
        broken = without_edge(program, token)
        rules = {f.rule for f in find_faults(broken)}
        if not rules:
            spare.append(broken)
            continue
        assert rules == {"T4"}
        found.append(broken)
    for broken in found[:: -(-len(found) // 16)]:  # from all over the program
        with pytest.raises(ProgramError, match="without an order between them"):
            check_program(broken)
    assert len(spare) <= len(tokens) // 10
    x = np.random.default_rng(0).integers(-128, 128, (1, 3, 6, 6))
    for broken in spare[:2]:
        for order in (None, range(len(broken.sections) - 1, -1, -1)):
            got = semantics.run(broken, {"x": x}, order=list(order or ()))
            assert np.array_equal(got["y"], semantics.run(program, {"x": x})["y"])


@pytest.mark.parametrize("op", ["SIG", "AWAIT"])
def test_half_an_edge(op):
    program = compiled("exact")
    for section, index in find(program, op):
        assert "T1" in {f.rule for f in find_faults(without(program, section=section, index=index))}


def test_two_commands_in_the_wrong_order():
    program = compiled("exact")
    for section, index in find(program, "MVM")[1:]:
        if program.sections[section].code[index - 1].op == "MVM":
            assert caught(moved(program, section=section, index=index, to=index - 1))


# the order of accumulation


def test_an_accumulate_before_its_producer():
    program = joined()
    section, index = find(program, "ACC")[0]
    broken = moved(program, section=section, index=index, to=0)
    assert "T4" in {f.rule for f in find_faults(broken)}


def test_an_accumulate_after_the_result_was_taken():
    program = joined()
    section, index = find(program, "ACC")[-1]
    code = program.sections[section].code
    last = max(i for i, c in enumerate(code) if c.op == "REQ")
    assert mismatches(moved(program, section=section, index=index, to=last)) > 0


def test_an_accumulate_into_the_wrong_sum():
    program = joined()
    section, index = find(program, "ACC")[0]
    number = int(program.sections[section].code[index].args[0])
    sums = {s.name for s in program.symbols if s.dtype == "i32" and s.kind == "scratch"}
    mine = program.sections[section].descriptors[number].symbol
    for other in sorted(sums - {mine}):
        assert caught(tables(program, section, "descriptors", number, symbol=other)), other


def test_an_accumulate_twice_or_never():
    program = joined()
    for section, index in find(program, "ACC"):
        twice = coded(program, section, lambda code, i=index: [*code[: i + 1], *code[i:]])
        assert mismatches(twice) > 0
        assert caught(without(program, section=section, index=index))
