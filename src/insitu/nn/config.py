"""What a conversion is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Config:
    """Options of `insitu.nn.convert`; the defaults are quantization-aware training on the ideal chip.

    `data`: calibration inputs as the module takes them, a tensor or array, a tuple of positional ones, or a dict of
    keyword ones, samples along the first axis.  Without it the first batch that the module sees calibrates it.
    `physics`: effects in training, as `insitu run --physics` names them ("ideal", "full", or names with commas); a new
    chip is drawn for every step.  `time`: when it is read after programming, a time such as "1d" or a range
    ("1s", "1y"), from which every step draws one, evenly in log time.
    `objective`: the one that the module will be deployed for, which says how often layers are held ("cells": once).
    `fold_batch_norms`: batch norms behind layers become part of them, as on the chip.
    """

    data: Any = None
    physics: str = "ideal"
    time: str | float | Sequence[str | float] = 0.0
    calibrated: bool = True
    seed: int = 0
    objective: str = "latency"
    fold_batch_norms: bool = True
