"""The lines on the console, word for word."""

from __future__ import annotations

from dataclasses import replace

from insitu.report.result import BitExact, ModelFacts, Result
from insitu.report.summary import MAX_LINES, summary_lines

KEYWORD = """\
kws on wtm2101: 24,908 parameters, 2.66 M MACs; seed 0, 8 chip instances
Same numbers  0 mismatches of 131,072 checked values
Accuracy      float 94.1 %, quantized 93.8 %, chip 92.6 % +- 0.4 %, worst chip 92.0 % (synthetic voices)
Uncalibrated  chip 88.9 % +- 1.3 %, worst chip 86.8 %, without the chip's own procedures
Over time     fresh 92.8 % +- 0.4 %, after 1 d 92.4 % +- 0.3 %, after 1 y 91.3 % +- 0.3 % (synthetic voices)
Speed         4.63 ms per inference, 216 per s (modelled)
Array used    1.3 % of the cells; 100.0 % of the MACs run there
Energy        9.36 uJ per inference, 2.02 mW (modelled)
Energy goes   the ADCs 58 %, the arrays 19 %, the DACs 8 %, the vector unit 6 %
Best change   half the energy of the ADCs (57.9 % of all) saves 29.0 %
Report        insitu-runs/kws-wtm2101-1f3a9c02/report.html
"""

INFEASIBLE = """\
resnet18 on wtm2101: 11.7 M parameters, 1.81 G MACs; seed 0
Does not fit
  array cells: needs 11,173,962 cells, has 1,835,008 cells
    filled by: layer4/conv2 (2,359,296), layer4/conv1 (1,179,648), layer3/conv2 (589,824)
    way out: a chip with at least 7 macros of this size: --set chip.tiles=7
    way out: several chips: --max-chips 7
    way out: a narrower network: a width of 0.4 would fit
  RAM: needs 802,816 B, has 327,680 B
    filled by: conv1 output (802,816)
    way out: a smaller input: 128 x 128
    way out: a larger RAM: --set memories.ram.size=1MiB
Report        insitu-runs/resnet18-wtm2101-77ab01cd/report.html
"""


def text(result):
    return "".join(f"{line}\n" for line in summary_lines(result))


def test_keyword_run(keyword):
    assert text(keyword) == KEYWORD
    assert text(keyword).isascii()


def test_infeasible_run(infeasible):
    assert text(infeasible) == INFEASIBLE


def test_the_broken_layer_is_named(broken):
    assert "Look here     Layer block2/pointwise (Conv) breaks the network" in text(broken)


def test_mismatches_are_said_with_the_first(keyword):
    first = {"layer": "conv1", "index": [0, 3], "interpreter": 5, "simulator": 6}
    shown = text(replace(keyword, bit_exact=BitExact(100_000, 2, 10, first)))
    assert (
        "2 mismatches of 100,000 checked values; 10 on the host not compared; first: layer conv1, index [0, 3]" in shown
    )
    assert "not trustworthy" in shown


def test_a_run_that_knows_nothing_still_reads():
    result = Result(ModelFacts("m", None, None), "c", 0, "random")
    assert summary_lines(result) == [
        "m on c: not known parameters, not known MACs; seed 0",
        "Same numbers  not checked",
        "Speed         not known per inference",
        "Energy        not known per inference",
    ]


def test_without_labels_the_fidelity_stands_in(keyword):
    metrics = {name: m for name, m in keyword.metrics.items() if not name.startswith("accuracy")}
    shown = text(replace(keyword, metrics=metrics, accuracy_over=()))
    assert "Fidelity      18.1 dB signal to quantization noise" in shown


def test_never_more_than_twelve_lines(keyword, infeasible, broken):
    many = replace(infeasible, infeasible=infeasible.infeasible * 4)
    assert all(len(summary_lines(result)) <= MAX_LINES for result in (keyword, infeasible, broken, many))
