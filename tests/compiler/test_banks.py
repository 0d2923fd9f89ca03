"""Weights in memory banks: what GEMV gives, where matrices lie, what a product takes, and chips that cannot."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from insitu.algo import ptq
from insitu.arch.cost import peak_efficiency, peak_tops
from insitu.arch.load import load_chip
from insitu.arch.spec import Chip
from insitu.base.errors import ConfigError, InfeasibleError, ProgramError
from insitu.bench.networks import Network
from insitu.compiler.pipeline import compile_graph
from insitu.compiler.quantize import quantize
from insitu.flow.chain import capture
from insitu.flow.check import compare
from insitu.frontend.onnx import import_model
from insitu.graph.graph import Graph
from insitu.isa import semantics
from insitu.isa.check import check_program
from insitu.isa.program import Program
from insitu.runtime.session import Session
from insitu.sim.counts import count
from insitu.sim.energy import energy
from insitu.sim.timing import simulate_time

AIM = load_chip("aim-gddr6")


def perceptron(chip: Chip, widths: tuple[int, ...] = (24, 40, 17, 3)) -> Graph:
    net = Network("mlp", (1, widths[0]))
    x = "x"
    for width in widths[1:]:
        x = net.dense(x, width, "Relu")
    graph = capture(import_model(net.model(x), name="mlp"))
    data = {"x": np.random.default_rng(0).standard_normal((8, 1, widths[0])).astype(np.float32)}
    return quantize(graph, chip, plan=ptq.plan(graph, chip, data=data))


def built(chip: Chip = AIM) -> tuple[Graph, Program]:
    graph = perceptron(chip)
    program = compile_graph(graph, chip)
    check_program(program)
    return graph, program


def test_layers_are_products_in_the_banks_and_bit_true() -> None:
    graph, program = built()
    ops = [c.op for s in program.sections for c in s.code]
    assert ops.count("GEMV") == 5  # 40 and 17 columns over two channels, 3 on one
    assert "MVM" not in ops
    codes = np.random.default_rng(1).integers(-128, 128, (6, 1, 24), dtype=np.int8)
    result = compare(Session(program, graph=graph), {graph.inputs[0]: codes})
    assert result.mismatches == 0, result.first
    got = Session(program, graph=graph).run_codes({graph.inputs[0]: codes})[graph.outputs[0]]
    for i in range(2):  # the reference reads the weights out of the banks
        assert np.array_equal(semantics.run(program, {graph.inputs[0]: codes[i]})[graph.outputs[0]], got[i])


def test_matrices_lie_in_the_banks_one_behind_the_other() -> None:
    _, program = built()
    held = [s for s in program.symbols if s.space == "banks"]
    assert sum(s.count for s in held) == 24 * 40 + 40 * 17 + 17 * 3
    ends = [(s.address, s.address + s.count) for s in sorted(held, key=lambda s: s.address)]
    assert all(end <= start for (_, end), (start, _) in pairwise(ends))
    assert program.spaces["banks"] == -(-ends[-1][1] // 16) * 16


def test_each_position_reads_the_whole_matrix_again() -> None:
    _, program = built()
    counts = count(program, AIM)
    weights = 24 * 40 + 40 * 17 + 17 * 3
    assert counts.total["bank_read_bytes"] == counts.total["macs"] == counts.total["array_macs"] == weights
    assert counts.total["adc_conversions"] == counts.total["array_operations"] == 0
    timing = simulate_time(program, AIM)
    assert timing.counts == counts
    # 16 banks take 16 rows a ns; 20, 9 or 8, and 3 columns a channel: 2 x 2, 1 x 3, 1 x 2 reads
    busy = [timing.busy_ps[f"chip0.core{core}.banks"] for core in (0, 1)]
    assert sorted(busy) == [7000, 9000]
    parts = energy(counts, timing, AIM).components
    assert parts["banks"].value == pytest.approx(weights * 8 * 2.7e-12)
    assert parts["banks"].source == "assumed"


def test_the_peak_counts_the_reads_of_the_banks() -> None:
    assert peak_tops(AIM).value == pytest.approx(2 * 16 * 32 * 1e9 * 1e-12)  # 1 TFLOPS of the published chip
    assert peak_efficiency(AIM).value == pytest.approx(2 / (0.1 + 8 * 2.7))


def test_a_chip_without_such_memory_is_refused() -> None:
    _, program = built()
    able = dict(program.chip["capabilities"]) | {"gemv": False}
    with pytest.raises(ProgramError, match=r"GEMV\): chip aim-gddr6 without capability gemv"):
        check_program(replace(program, chip={**program.chip, "capabilities": able}))


def test_weights_beyond_the_banks_do_not_fit() -> None:
    small = load_chip("aim-gddr6", overrides=["memories.banks.size=1 KiB"])
    with pytest.raises(InfeasibleError) as caught:
        compile_graph(perceptron(small), small)
    [item] = caught.value.items
    assert (item.resource, item.demand, item.bound) == ("memory banks", 24 * 40 + 40 * 17 + 17 * 3, 1024)


@pytest.mark.parametrize(
    ("override", "need"),
    [
        ("capabilities={wload: true, mma: true, scales: any, gemv: true}", "a memory called banks"),
        ("array.cell_range=[-200, 200]", "a range within"),
    ],
)
def test_a_chip_that_could_not_multiply_in_memory_is_refused(override: str, need: str) -> None:
    with pytest.raises(ConfigError, match=need):
        load_chip("dcim-28nm", overrides=[override])
