"""The JSON of a run: the contract's keys in its order, and never a number that JSON does not know."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np

from insitu.base.metrics import Metric
from insitu.report.result import AccuracyPoint, BitExact, LayerResult, plain


def test_json_has_exactly_the_keys_of_the_contract(keyword):
    shown = keyword.to_json()
    assert list(shown) == [
        "schema", "model", "chip", "fits", "seed", "calibration", "bit_exact", "onnx_agreement", "coverage",
        "metrics", "accuracy_over", "sqnr_over", "layers", "constants", "run_dir",
    ]  # fmt: skip
    assert list(shown["model"]) == ["name", "parameters", "macs"]
    assert list(shown["bit_exact"]) == ["checked_values", "mismatches", "excluded_values", "first"]
    assert list(shown["coverage"]) == ["array_macs_fraction", "host_ops"]
    assert list(shown["onnx_agreement"]) == [
        "equal_fraction", "max_difference", "operators", "tie_fraction", "equal_fraction_all",
    ]  # fmt: skip
    assert list(shown["accuracy_over"][0]) == ["time_s", "mean", "std", "min", "instances"]
    assert list(shown["layers"][0]) == [
        "name", "op", "unit", "sqnr_db", "sqnr_local_db", "cosine", "macs", "latency_s", "energy_j", "readout",
    ]  # fmt: skip
    assert shown["metrics"]["latency_s"] == {
        "value": 4.63e-3, "unit": "s", "source": "modelled", "note": "event-driven timing of the program",
    }  # fmt: skip


def test_what_is_not_known_is_null(keyword):
    layer = LayerResult("conv", "Conv", sqnr_db=math.inf, cosine=math.nan, macs=np.int64(7), energy_j=np.float32(1.5))
    nan = Metric("area_mm2", math.nan, "mm2", "assumed")
    shown = replace(keyword, layers=(layer,), metrics={"area_mm2": nan}, bit_exact=None).to_json()
    text = json.dumps(shown, allow_nan=False)
    read = json.loads(text)
    assert read["layers"][0]["sqnr_db"] is None
    assert read["layers"][0]["cosine"] is None
    assert read["layers"][0]["macs"] == 7
    assert read["layers"][0]["energy_j"] == 1.5
    assert read["metrics"]["area_mm2"]["value"] is None
    assert read["bit_exact"] is None


def test_infeasible_form_adds_its_list(infeasible, keyword):
    shown = infeasible.to_json()
    assert shown["fits"] is False
    assert list(shown)[-1] == "infeasible"
    assert list(shown["infeasible"][0]) == ["resource", "demand", "bound", "unit", "filled_by", "ways_out"]
    assert "infeasible" not in keyword.to_json()
    json.dumps(shown, allow_nan=False)


def test_accuracy_over_instances():
    point = AccuracyPoint(0.0, (0.9, 0.92, 0.94))
    assert math.isclose(point.mean or 0, 0.92)
    assert math.isclose(point.std or 0, 0.02)
    assert point.min == 0.9
    assert AccuracyPoint(0.0, (0.9,)).std is None
    assert AccuracyPoint(0.0, ()).to_json() == {"time_s": 0.0, "mean": None, "std": None, "min": None, "instances": 0}


def test_plain_takes_numpy_and_nesting():
    given = {"a": (np.float64(math.nan), np.bool_(True)), 3: {"b": np.arange(2)}, "c": None}
    assert plain(given) == {"a": [None, True], "3": {"b": [0, 1]}, "c": None}
    first = {"layer": "conv", "index": (np.int64(0), 3), "interpreter": np.int32(5), "simulator": 6}
    assert plain(vars(BitExact(10, 1, 0, first)))["first"]["index"] == [0, 3]
