"""Metric: how any number leaves a layer, with its unit and its origin."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

Source = Literal["measured", "modelled", "assumed"]


@dataclass(frozen=True)
class Metric:
    """A number with its origin; `value` None means not known, `note` names the assumption it rests on."""

    name: str
    value: float | None
    unit: str
    source: Source
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """value, unit, source, and note when there is one; NaN and infinity are not known, so null."""
        known = self.value is not None and math.isfinite(self.value)
        value = _plain(self.value) if known and self.value is not None else None
        shown: dict[str, Any] = {"value": value, "unit": self.unit, "source": self.source}
        return {**shown, "note": self.note} if self.note else shown


def _plain(value: float) -> float:
    """The same number as a Python int or float (a NumPy scalar is neither to a JSON writer)."""
    return int(value) if isinstance(value, int) else float(value)
