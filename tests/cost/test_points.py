"""Closed forms: equal to what executed programs are charged, monotonic, and never nothing."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest

from insitu.arch.load import load_chip
from insitu.base.errors import RangeError
from insitu.bench.registry import run_bench
from insitu.circuit.model import Operands, measured_operands
from insitu.cost.designs import Designs, designs, spread, sweep
from insitu.cost.layers import Layer, convolution, layers_of, stack
from insitu.cost.points import cost
from insitu.sim.counts import Counts
from insitu.sim.energy import energy
from insitu.sim.timing import simulate_time
from tests.flow.line import build, captured, chip_of
from tests.graph.networks import model, node

RERAM = load_chip("parametric-reram-adc8")
GRID = {"rows": [64, 128, 256], "cols": [16, 64], "node": [22e-9, 32e-9, 65e-9], "supply": [0.8, 1.0]}


def mlp(*sizes: int):
    rng = np.random.default_rng(3)
    weights = {f"w{i}": rng.standard_normal(shape).astype(np.float32) / 4 for i, shape in enumerate(pairwise(sizes))}
    names = ["x", *(f"h{i}" for i in range(1, len(sizes)))]
    steps = [node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(len(weights))]
    return captured(model(steps, inputs={"x": ("N", sizes[0])}, outputs=[names[-1]], tensors=weights))


@pytest.mark.parametrize("name", ["exact", "adc", "exact-small", "adc-small"])
def test_equal_to_the_events_of_an_executed_program(name: str) -> None:
    """Weights that fill whole columns of tiles: drivers of a row that several column tiles share count for each."""
    chip = chip_of(name)
    quantized, program = build(mlp(24, 12, 8), chip)
    timing = simulate_time(program, chip)
    closed = cost(stack(layers_of(quantized)), designs([chip]))
    weighted = {label: events for label, events in timing.counts.layers.items() if events["array_macs"]}
    spent = energy(Counts(weighted, {}, 0), timing, chip).components
    for part in ("array", "dac", "adc", "shift_add", "vector", "ram"):
        assert closed.components[part].sum() == pytest.approx(spent[part].value, rel=1e-12, abs=1e-30), part


def test_a_sweep_is_the_chip_with_those_values() -> None:
    changed = ["technology.node=28 nm", "technology.supply=0.8 V", "macro.readout.bits=7", "array.rows=128"]
    [given, moved] = (
        designs([load_chip("parametric-reram-adc8", overrides=changed)]),
        sweep(RERAM, {"node": [28e-9], "supply": [0.8], "adc_bits": [7], "rows": [128]}),
    )
    for field in fields(Designs):
        if not field.name.startswith("t_"):  # times move with the process, a file's do not
            assert getattr(moved, field.name) == pytest.approx(getattr(given, field.name), rel=1e-9, abs=0), field.name


@pytest.mark.parametrize("cell", ["sonos-40nm", "nor-flash-8b", "nand-3d", "pcm-hermes", "sram-8t1c-charge"])
@pytest.mark.parametrize(("node", "supply"), [(28, 0.7), (65, 1.2)])
def test_a_sweep_moves_the_current_of_cells(cell: str, node: int, supply: float) -> None:
    """I V t of cells without a read voltage or pulse of their own: V is the supply's, t the time of the swept point."""
    kind = [f"cell={cell}", "array.bits_per_cell=1", "array.cell_range=[-1, 1]", "macro.weights.slices=1"]
    moved = sweep(load_chip("parametric-reram-adc8", overrides=kind), {"node": [node * 1e-9], "supply": [supply]})
    there = [
        f"technology.node={node} nm",
        f"technology.supply={supply} V",
        f"macro.t_read={float(moved.t_read[0])!r} s",
    ]
    given = designs([load_chip("parametric-reram-adc8", overrides=[*kind, *there])])
    assert moved.e_mac == pytest.approx(given.e_mac, rel=1e-9, abs=0)


@pytest.mark.parametrize("name", ["exact", "adc"])
def test_bounds_are_those_of_the_executed_program(name: str) -> None:
    """Floor and pessimistic: the program's own events, its conversions priced at the survey's quantiles."""
    chip = chip_of(name)
    quantized, program = build(mlp(24, 12, 8), chip)
    timing = simulate_time(program, chip)
    closed = cost(stack(layers_of(quantized)), designs([chip]))
    weighted = {label: events for label, events in timing.counts.layers.items() if events["array_macs"]}
    spent = energy(Counts(weighted, {}, 0), timing, chip).components
    parts = {part: spent[part].value or 0.0 for part in ("array", "dac", "adc", "shift_add", "vector", "ram")}
    for factor, found in zip(spread(), (closed.floor, closed.pessimistic), strict=True):
        expected = sum(parts.values()) + (factor - 1.0) * parts["adc"]
        assert found.sum() - closed.components["static"].sum() == pytest.approx(expected, rel=1e-9, abs=0)


def test_bounds_are_the_survey_s_quantile() -> None:
    """The regression's residual: exp(-1.4702) for the best fifth, mirrored."""
    assert spread() == pytest.approx((0.22988, 4.3501), rel=1e-4)


def test_bounds_enclose_the_typical_energy() -> None:
    found = cost(stack([Layer("fc", 300, 70, 4)]), designs([RERAM]))
    assert (found.floor < found.energy).all()
    assert (found.energy < found.pessimistic).all()


@pytest.mark.parametrize("grow", ["rows", "cols", "vectors"])
def test_a_larger_layer_never_costs_less(grow: str) -> None:
    sizes = np.unique(np.geomspace(1, 4000, 60).astype(int))
    layers = [Layer(str(n), **{"rows": 100, "cols": 40, "vectors": 7, grow: int(n)}) for n in sizes]
    found = cost(stack(layers), designs([RERAM, load_chip("dcim-28nm"), load_chip("wtm2101")]))
    assert (np.diff(found.energy, axis=0) > 0).all()
    assert (np.diff(found.latency, axis=0) >= 0).all()


@pytest.mark.parametrize(
    ("what", "values"), [("adc_bits", [4, 6, 8, 10]), ("input_bits", [2, 4, 8]), ("node", [7e-9, 22e-9, 40e-9, 65e-9])]
)
def test_more_bits_or_an_older_node_never_cost_less(what: str, values: list[float]) -> None:
    found = cost(stack([Layer("fc", 512, 256, 10)]), sweep(RERAM, {what: values}))
    for part, joules in found.components.items():
        if part != "static":
            assert (np.diff(joules, axis=1) >= 0).all(), part


def test_everything_costs_something() -> None:
    found = cost(stack([Layer("one", 1, 1, 1), Layer("fc", 300, 70, 4)]), sweep(RERAM, GRID))
    for numbers in (found.energy, found.latency, found.area, found.floor):
        assert np.isfinite(numbers).all()
        assert (numbers > 0).all()


def test_padding_and_partial_tiles_are_counted() -> None:
    """A 3x3 kernel on a 2x2 map works; one peer's tool gives it no cost at all."""
    layer = convolution("conv", channels=(8, 16), kernel=(3, 3), size=(2, 2), padding=1)
    assert (layer.rows, layer.vectors) == (72, 4)
    partial = cost(stack([Layer("fc", 257, 64, 1), Layer("fc", 256, 64, 1)]), designs([RERAM]))
    assert partial.components["adc"][0, 0] == 2 * partial.components["adc"][1, 0]


def test_energy_follows_the_operands() -> None:
    busy, idle = (
        cost(stack([Layer("fc", 256, 64, 1)]), designs([RERAM], operands=Operands(d, d))).energy for d in (0.9, 0.1)
    )
    assert (busy > idle).all()


def test_energy_follows_measured_operands() -> None:
    """Codes of 8 bits: 0 has no ones, 255 has eight, -1 as well; half of an array's energy moves with each product."""
    silent = measured_operands(np.zeros(9, int), np.full((9, 4), -1), input_bits=8, weight_bits=8)
    assert (silent.inputs, silent.weights) == (0.0, 1.0)
    typical = measured_operands(np.array([15]), np.array([15]), input_bits=8, weight_bits=8)
    assert typical.factor == pytest.approx(1.0)
    layer = stack([Layer("fc", 256, 64, 1)])
    quiet, mean = (cost(layer, designs([RERAM], operands=o)).components["array"] for o in (silent, typical))
    assert (quiet < mean).all()
    assert (quiet > 0).all()


def test_shared_converters_are_smaller_and_slower() -> None:
    shares = [8, 16, 32, 64]
    chips = [
        load_chip("parametric-reram-adc8", overrides=[f"macro.columns_per_adc={n}", "macro.t_adc=1 ns"]) for n in shares
    ]
    found = cost(stack([Layer("fc", 256, 64, 10)]), designs(chips))
    assert (np.diff(found.area) < 0).all()
    assert (np.diff(found.latency[0]) >= 0).all()


def test_the_benchmark_sweeps_every_point() -> None:
    (case,) = run_bench("cost").cases
    assert case.least == 1e5
    assert len(case.runs) == 5


def test_bad_layers_and_sweeps() -> None:
    with pytest.raises(RangeError):
        Layer("none", 0, 1, 1)
    with pytest.raises(RangeError):
        sweep(RERAM, {"colour": [1.0]})
