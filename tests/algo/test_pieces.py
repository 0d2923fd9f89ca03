"""Quantization within little memory: pieces change no integer, and what it takes is known beforehand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from insitu.algo import expected, ptq, replay
from insitu.algo.calibrate import calibrate
from insitu.algo.expected import expected_inputs
from insitu.compiler.quantize import quantize
from insitu.graph import passes
from insitu.graph.graph import Graph
from insitu.graph.ops.mvm import cuts, input_codes, patches
from insitu.numeric.affine import quantize as codes_of
from tests.algo.small import Net, chip_of


def network() -> tuple[Graph, dict[str, np.ndarray]]:
    """Convolutions, one of them by groups, and a sum."""
    net = Net(1, 3, 13, 11, seed=4)
    wide = net.conv("x", 24, act_lo=0.0)
    deep = net.conv(net.conv(wide, 24, group=4, act_lo=0.0), 24)
    out = net.add("Add", deep, wide)
    return net.graph(net.conv(out, 5, kernel=1)), {"x": net.data(12)}


@pytest.mark.parametrize("chip", ["exact", "adc", "wtm2101"])
def test_pieces_change_no_integer(chip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, data = network()
    found = []
    for small in (False, True):
        if small:
            monkeypatch.setattr(passes, "PIECE", 3 * sum(passes.made_bytes(graph, n) for n in graph.nodes))
            monkeypatch.setattr(replay, "AT_ONCE", 20_000)
            monkeypatch.setattr(replay, "KEPT", 0)
            monkeypatch.setattr(expected, "SLAB", 50)
        plan = ptq.plan(graph, chip_of(chip), data=data)
        coded = quantize(graph, chip_of(chip), plan=plan)
        found.append((coded.types, coded.nodes, {k: v.tolist() for k, v in coded.constants.items()}))
        found[-1] = (*found[-1], {k: v.tolist() for k, v in expected_inputs(graph, coded, data, 9).items()})
    assert found[0] == found[1]


def test_positions_are_drawn_for_samples_that_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, data = network()
    monkeypatch.setattr("insitu.algo.calibrate.KEPT", 1 << 12)
    whole = calibrate(graph, data, seed=5).ranges
    monkeypatch.setattr(passes, "PIECE", 1)
    for name, some in calibrate(graph, data, seed=5).ranges.items():
        assert some.positions == whole[name].positions
        assert some.rows.shape == whole[name].rows.shape
        assert some.rows.size < 12 * graph.types[name].count()
        assert np.allclose(some.rows, whole[name].rows, atol=1e-5)
        assert np.allclose(some.var_of, whole[name].var_of, rtol=1e-4)


def test_expected_inputs_are_means_of_all_windows() -> None:
    graph, data = network()
    coded = quantize(graph, chip_of("wtm2101"), plan=ptq.plan(graph, chip_of("wtm2101"), data=data))
    node = next(n for n in coded.nodes if n.op == "Conv")
    spec = coded.types[node.inputs[0]].quant
    assert spec is not None
    codes = codes_of(data["x"], spec)
    windows = patches(codes, node, kernel=(3, 3), pad_value=spec.zero_point)
    mean = input_codes(windows, node).mean(axis=(0, 1, 2, 3)).reshape(1, -1)
    assert np.array_equal(expected_inputs(graph, coded, data, 0)[node.name], np.rint(mean).astype(np.int16))


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 1, 9, 4), (1, 1, 1)])
@pytest.mark.parametrize("most", [1, 3, 8, 1000])
def test_cuts_fill_an_array_in_order(shape: tuple[int, ...], most: int) -> None:
    numbers = np.arange(np.prod(shape)).reshape(shape)
    parts = [numbers[cut].reshape(-1) for cut in cuts(shape, most)]
    assert np.array_equal(np.concatenate(parts), numbers.reshape(-1))
    assert max(len(p) for p in parts) <= most


CHILD = """
import json, sys
from pathlib import Path
from insitu.algo.needs import needed
from insitu.arch.load import load_chip
from insitu.flow.chain import build, capture
from insitu.flow.data import random_inputs
from insitu.frontend.onnx import import_model
from insitu.runtime.memory import resident
from tests.flow.test_memory import small_network

graph, chip = capture(import_model(small_network(224))), load_chip("parametric-reram-adc8")
data = random_inputs(graph, 34, seed=0)
before, need = resident(), needed(graph, chip, data)
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
build(graph, chip, calibration=data)
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps({"rise": int(peak.split()[1]) * 1024 - before, "need": need}))
"""


@pytest.mark.long  # acceptance/04 measures larger ones
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a peak since a moment")
def test_a_large_network_takes_what_was_said() -> None:
    """32 samples of its values are 103 MB, held three times over, and 16 of its windows as int64 462 MB."""
    done = subprocess.run([sys.executable, "-c", CHILD], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["rise"] < found["need"] < 300 << 20
