"""Defects of peers that concern cost, each with its test; docs/design/defects.md lists them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from insitu.arch.load import load_chip
from insitu.circuit.bottom_up import driver_energy
from insitu.circuit.cost import energy_scale
from insitu.circuit.memories import access_time, dram_time
from insitu.circuit.model import Operands, measured_operands, pitch
from insitu.circuit.spec import Technology
from insitu.circuit.times import fo4
from insitu.cost.designs import designs, sweep
from insitu.cost.layers import convolution, stack
from insitu.cost.points import cost
from insitu.sim.timing import simulate_time
from tests.flow.line import build, captured, chip_of
from tests.graph.networks import model, node

RERAM = load_chip("parametric-reram-adc8")


@pytest.mark.parametrize(("size", "vectors"), [((2, 2), 4), ((32, 32), 1024)])
def test_padded_positions_are_counted(size: tuple[int, int], vectors: int) -> None:
    """NeuroSim ignores zero padding: a 2x2 map costs nothing, 32x32 is 900 vectors instead of 1024, 12 % fewer."""
    layer = convolution("conv", channels=(16, 16), kernel=(3, 3), size=size, padding=1)
    assert layer.vectors == vectors
    one = convolution("conv", channels=(16, 16), kernel=(3, 3), size=(1, 1), padding=1)
    found = cost(stack([layer, one]), designs([RERAM])).components["array"][:, 0]
    assert found[0] == pytest.approx(vectors * found[1], rel=1e-9, abs=0)


def test_an_executed_program_counts_padded_positions_too() -> None:
    rng = np.random.default_rng(1)
    weights = {"w": rng.standard_normal((4, 2, 3, 3)).astype(np.float32)}
    net = model(
        [node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        inputs={"x": ("N", 2, 2, 2)},
        outputs=["y"],
        tensors=weights,
    )
    chip = chip_of("exact")
    _, program = build(captured(net), chip)
    assert simulate_time(program, chip).counts.total["macs"] == 4 * 2 * 9 * 4


def test_an_8_bit_driver_takes_no_half_watt() -> None:
    """MNSIM: 0.4992 W instead of 499 uW.  A published one takes 0.291 pJ a code at 40 nm (Chen et al., VLSI 2018)."""
    chip = load_chip(
        "parametric-reram-adc8",
        overrides=["macro.input.bits_per_pass=8", "technology.node=40 nm", "technology.supply=1.1 V"],
    )
    joules = driver_energy(chip)
    assert 0.291e-12 / 3 < joules < 0.291e-12 * 3
    assert joules * 1.1e9 < 1e-3


def test_nothing_runs_backwards_between_two_nodes() -> None:
    """Accelergy's old library interpolates backwards at 22 and 28 nm."""
    nodes = np.array([20, 21, 22, 24, 28, 30, 32]) * 1e-9
    logic = [energy_scale(float(n), 0.8, from_node=45e-9, from_supply=0.8) for n in nodes]
    for values in (logic, pitch(nodes), fo4(nodes, 0.8)):
        assert (np.diff(values) > 0).all()
    swept = cost(
        stack([convolution("c", channels=(16, 16), kernel=(3, 3), size=(8, 8))]), sweep(RERAM, {"node": nodes.tolist()})
    )
    assert (np.diff(swept.energy[0]) > 0).all()
    assert (np.diff(swept.area) > 0).all()


def test_a_smaller_memory_makes_nothing_faster() -> None:
    """ZigZag: latency falls with a smaller memory.  Here a window is kept where the core's memory holds it."""
    rng = np.random.default_rng(2)
    weights = {"w": rng.standard_normal((4, 8, 3, 3)).astype(np.float32)}
    net = model(
        [node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        inputs={"x": ("N", 8, 8, 8)},
        outputs=["y"],
        tensors=weights,
    )
    times: list[int] = []
    for size in (0, 16, 64, 256, 4096):
        chip = chip_of("adc")
        slow = chip.memories["ram"].model_copy(update={"bandwidth": 1e6})  # so that the port is what counts
        core = chip.core.model_copy(update={"sram": size})
        chip = chip.model_copy(update={"core": core, "memories": {**chip.memories, "ram": slow}})
        _, program = build(captured(net), chip)
        times.append(simulate_time(program, chip).latency_ps)
    assert all(smaller >= larger for smaller, larger in pairwise(times))
    assert times[0] > times[-1]


def test_operands_are_not_written_out_as_text() -> None:
    """NeuroSim reads its vectors from 183 MB of text: a layer's data here is two numbers, or the arrays themselves."""
    rng = np.random.default_rng(3)
    codes, weights = rng.integers(0, 256, (1000, 1152)), rng.integers(-128, 128, (1152, 128))
    found = measured_operands(codes, weights, input_bits=8, weight_bits=8)
    layer = stack([convolution("c", channels=(128, 128), kernel=(3, 3), size=(32, 32))])
    moved, default = (cost(layer, designs([RERAM], operands=o)).energy[0, 0] for o in (found, Operands()))
    assert moved == pytest.approx(default, rel=0.02)  # uniform codes are half ones, which is the default
    sparse = measured_operands(codes * (rng.random(codes.shape) < 0.1), weights, input_bits=8, weight_bits=8)
    assert cost(layer, designs([RERAM], operands=sparse)).energy[0, 0] < 0.9 * default


def test_no_memory_answers_in_no_time() -> None:
    """hwcomponents: an eDRAM latency near 1e-16 s.  Light crosses a tenth of a millimetre in 0.3 ps."""
    for size in (1 << 10, 1 << 16, 1 << 20, 1 << 24):
        for process in (7e-9, 32e-9, 130e-9):
            seconds = access_time(size, 1e-7, Technology(node=process, supply=0.9))
            assert 1e-11 < seconds < 1e-6
    assert 1e-9 < dram_time(1.0) < dram_time(0.0) < 1e-6
