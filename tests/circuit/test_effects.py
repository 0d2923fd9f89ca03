from __future__ import annotations

import pytest

from insitu.arch.load import load_chip
from insitu.base.errors import UsageError
from insitu.circuit.effects import EFFECTS, Physics, chip_effects

WTM = load_chip("wtm2101")


def test_full_is_everything_the_chip_has_in_hook_order() -> None:
    physics = Physics.parse("full", WTM)
    assert physics.effects == tuple(name for name in EFFECTS if name in chip_effects(WTM))
    assert not physics.ideal
    assert str(physics) == "programming_noise,column_gain,column_offset,read_noise,adc_noise"


def test_ideal_is_nothing() -> None:
    physics = Physics.parse("ideal", WTM)
    assert physics.ideal
    assert str(physics) == "ideal"


def test_names_are_kept_in_hook_order_and_once() -> None:
    physics = Physics.parse("read_noise, programming_noise,read_noise", WTM)
    assert physics.effects == ("programming_noise", "read_noise")
    assert physics.has("read_noise")
    assert not physics.has("adc_noise")


def test_a_digital_chip_has_no_effects() -> None:
    digital = load_chip("dcim-28nm")
    assert Physics.parse("full", digital).ideal
    with pytest.raises(UsageError, match=r"dcim-28nm has no such effect.*no analog effects"):
        Physics.parse("read_noise", digital)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("programing_noise", "Try: programming_noise"),
        ("adc_inl", "no such effect"),
        ("drift", "no such effect"),
        ("full,read_noise", "full alone"),
        ("", "physics ''"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        Physics.parse(text, WTM)
    assert message in str(error.value)


def test_no_calibration_means_none_of_the_procedures() -> None:
    raw = Physics.parse("full", WTM, calibrated=False).calibration(WTM)
    assert (raw.refine_passes, raw.reads, raw.column_offset) == (0, 1, False)
    assert Physics.parse("full", WTM).calibration(WTM) == WTM.calibration
