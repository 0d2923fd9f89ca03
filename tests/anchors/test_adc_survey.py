"""The ADC regression is the published one."""

from __future__ import annotations

import numpy as np
import pytest

from insitu.circuit.model import adc_survey, convert_energy, pitch


@pytest.mark.parametrize(("node", "rate", "pj", "um2"), [(32, 1.2e9, 1.8486, 6313), (22, 1e8, 0.8472, 2199)])
def test_regression_equals_its_published_form(node: float, rate: float, pj: float, um2: float) -> None:
    """Andrulis et al., arXiv:2404.06553, 8 bits."""
    energy, area = adc_survey(8, node * 1e-9, rate)
    assert energy * 1e12 == pytest.approx(pj, abs=5e-5)
    assert area * 1e12 == pytest.approx(um2, abs=0.6)


def test_it_takes_arrays() -> None:
    energy, area = adc_survey(np.arange(4, 11), 28e-9, 1e8)
    assert energy.shape == area.shape == (7,)
    assert (np.diff(energy) > 0).all()


def test_an_older_node_is_never_cheaper() -> None:
    """And nothing is interpolated backwards between two nodes, as one library did at 22 and 28 nm."""
    nodes = np.linspace(3, 180, 400) * 1e-9
    assert (np.diff(pitch(nodes)) >= 0).all()
    assert (np.diff(convert_energy(8, nodes, 0.9, kind="sram")) >= 0).all()
    assert (np.diff(adc_survey(8, nodes, 1e8)[0]) > 0).all()
