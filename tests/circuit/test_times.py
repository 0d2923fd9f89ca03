"""Times of a pass: gate delays of the process, kinds of converters, and what may never get faster."""

from __future__ import annotations

import numpy as np
import pytest

from insitu.arch.load import load_chip
from insitu.circuit.times import Converter, analog_time, bitline_rows, conversion_delays, digital_time, fo4, pass_time

NODES = np.array([3, 7, 16, 22, 28, 45, 65, 90, 130, 180]) * 1e-9
RERAM, DCIM = load_chip("parametric-reram-adc8"), load_chip("dcim-28nm")


def test_fo4_is_the_rule_of_thumb() -> None:
    """360 ps per um of gate length (Ho, Mai, Horowitz 2001): 23.4 ps at 65 nm and 1 V."""
    assert fo4(65e-9, 1.0) == pytest.approx(23.4e-12, rel=1e-6, abs=0)


def test_older_nodes_and_lower_supplies_are_slower() -> None:
    assert (np.diff(fo4(NODES, 1.0)) > 0).all()
    assert (np.diff(fo4(28e-9, np.linspace(0.5, 1.2, 15))) < 0).all()


@pytest.mark.parametrize("converter", ["sar", "ramp"])
def test_more_bits_take_longer(converter: Converter) -> None:
    assert (np.diff(conversion_delays(np.arange(1, 13), converter)) > 0).all()


def test_kinds_of_converters() -> None:
    """One decision, one a bit, one a code: 8 bits are 8 and 256 times a flash conversion."""
    flash, sar, ramp, cco = (float(conversion_delays(8, kind)) for kind in ("flash", "sar", "ramp", "cco"))
    assert (sar / flash, ramp / flash, cco) == pytest.approx((8.0, 256.0, 0.0))


def test_more_rows_or_input_bits_never_take_less() -> None:
    rows = np.arange(1, 2000, 7)
    assert (np.diff(analog_time(8, 28e-9, 0.9, rows=rows, input_bits=1)) > 0).all()
    assert (np.diff(digital_time(28e-9, 0.9, rows=rows)) >= 0).all()
    for pulses in (False, True):
        times = [float(analog_time(8, 28e-9, 0.9, rows=128, input_bits=b, pulses=pulses)) for b in range(1, 9)]
        assert (np.diff(times) > 0).all()


def test_a_conducting_cells_bitline_is_whole() -> None:
    """Arrays of a macro share columns: a read of one loads the lines of all; SRAM cuts its bitlines."""
    stacked = load_chip("parametric-reram-adc8", overrides=["macro.arrays=2"])
    assert bitline_rows(stacked) == 2 * bitline_rows(RERAM)
    assert pass_time(stacked) > pass_time(RERAM)
    assert bitline_rows(DCIM) == DCIM.array.rows


def test_a_sweep_of_rows_is_one_call() -> None:
    times = pass_time(RERAM, rows=np.array([64.0, 128.0, 256.0]))
    assert times.shape == (3,)
    assert (np.diff(times) > 0).all()
