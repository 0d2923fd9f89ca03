from __future__ import annotations

import json
import math

import numpy as np
import pytest

from insitu.base.metrics import Metric


def test_json_names_unit_and_origin() -> None:
    metric = Metric("latency_s", 37e-6, "s", "modelled", note="t_read inferred")
    assert metric.to_json() == {"value": 37e-6, "unit": "s", "source": "modelled", "note": "t_read inferred"}
    assert "note" not in Metric("latency_s", 37e-6, "s", "modelled").to_json()


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, np.float64("nan")])
def test_not_known_is_null(value: float | None) -> None:
    assert Metric("x", value, "1", "measured").to_json()["value"] is None


@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), np.int64(3), 3, True])
def test_numpy_scalars_become_json_numbers(value: float) -> None:
    assert json.loads(json.dumps(Metric("x", value, "1", "measured").to_json()))["value"] == value
