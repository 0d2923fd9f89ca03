"""Results as a run would make them: keywords on wtm2101 with eight chips, one that broke, one that does not fit."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from insitu.base.errors import Infeasible
from insitu.base.metrics import Metric
from insitu.report.result import (
    AccuracyPoint,
    BitExact,
    Coverage,
    LayerResult,
    ModelFacts,
    OnnxAgreement,
    Result,
)

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LAYERS = (
    ("conv1", "Conv", 640_000, 34.1, 34.1, 1.15e-3, 2.10e-6),
    ("block1/depthwise", "Conv", 288_000, 19.2, 18.6, 0.32e-3, 0.52e-6),
    ("block1/pointwise", "Conv", 2_048_000, 31.4, 18.9, 0.81e-3, 1.90e-6),
    ("block2/depthwise", "Conv", 288_000, 17.5, 16.7, 0.32e-3, 0.51e-6),
    ("block2/pointwise", "Conv", 2_048_000, 30.2, 17.0, 0.81e-3, 1.88e-6),
    ("block3/depthwise", "Conv", 288_000, 18.8, 16.3, 0.32e-3, 0.50e-6),
    ("block3/pointwise", "Conv", 2_048_000, 29.9, 16.4, 0.81e-3, 1.87e-6),
    ("pool", "GlobalAveragePool", 0, 38.0, 17.4, 0.05e-3, 0.06e-6),
    ("classifier", "Gemm", 640, 33.0, 18.1, 0.04e-3, 0.02e-6),
)


def keyword_layers() -> tuple[LayerResult, ...]:
    return tuple(
        LayerResult(
            name,
            op,
            "core 0" if op != "GlobalAveragePool" else "vector 0",
            total,
            local,
            1 - 10 ** (-total / 10) / 2,
            macs,
            latency,
            energy,
            "wtm2101" if macs else "exact",
        )
        for name, op, macs, local, total, latency, energy in LAYERS
    )


def keyword_metrics() -> dict[str, Metric]:
    rows = [
        Metric("accuracy_float", 0.9412, "1", "measured", "1,280 samples, ONNX Runtime"),
        Metric("accuracy_quantized", 0.9375, "1", "measured", "the same samples, graph interpreter"),
        Metric("accuracy_chip_mean", 0.9264, "1", "modelled", "8 instances, full physics, calibrated"),
        Metric("accuracy_chip_std", 0.0041, "1", "modelled", "between instances"),
        Metric("accuracy_chip_min", 0.9195, "1", "modelled", ""),
        Metric("sqnr_db", 18.1, "dB", "measured", "over all outputs, without physics"),
        Metric("cosine", 0.9923, "1", "measured", ""),
        Metric("latency_s", 4.63e-3, "s", "modelled", "event-driven timing of the program"),
        Metric("throughput_per_s", 216.0, "1/s", "modelled", ""),
        Metric("energy_j", 9.36e-6, "J", "modelled", "executed events times energy per event, plus leakage"),
        Metric("power_w", 2.02e-3, "W", "modelled", ""),
        Metric("energy_breakdown.adc_j", 5.42e-6, "J", "modelled", ""),
        Metric("energy_breakdown.array_j", 1.81e-6, "J", "modelled", ""),
        Metric("energy_breakdown.dac_j", 0.72e-6, "J", "modelled", ""),
        Metric("energy_breakdown.vector_j", 0.55e-6, "J", "modelled", ""),
        Metric("energy_breakdown.ram_j", 0.49e-6, "J", "modelled", ""),
        Metric("energy_breakdown.leakage_j", 0.37e-6, "J", "assumed", "no published value"),
        Metric("area_mm2", math.nan, "mm2", "assumed", "nobody published the die size"),
        Metric("peak_tops", 0.0497, "TOPS", "modelled", "2 x cells / t_read"),
        Metric("tops_per_w", 1.63, "TOPS/W", "modelled", ""),
        Metric("array_utilization", 0.0132, "1", "measured", "cells that hold a weight, of all cells"),
        Metric("program_bytes", 38_412.0, "B", "measured", ""),
        Metric("cost_usd", None, "USD", "assumed", "not known"),
    ]
    return {metric.name: metric for metric in rows}


def keyword_extra() -> dict[str, object]:
    rng = random.Random(7)
    rects, x = [], 128
    for i, (name, op, macs, *_) in enumerate(LAYERS):
        if not macs:
            continue
        rows, columns = (576, 64) if "depthwise" in name else (40, 64) if i == 0 else (64, 64 if op == "Conv" else 10)
        rects.append(
            {"macro": 0, "label": name, "x": x, "y": 896 if i % 2 else 0, "w": columns, "h": rows},
        )
        x += columns if i % 2 else columns // 2 + 30
    spans, now = [], 0.0
    for name, op, _, _, _, latency, _ in LAYERS:
        unit = "array" if op != "GlobalAveragePool" else "vector"
        spans.append({"unit": unit, "label": name, "start_s": now, "end_s": now + latency})
        spans.append({"unit": "RAM port", "label": name, "start_s": now, "end_s": now + latency * 0.3})
        if unit == "array":
            spans.append({"unit": "ADC", "label": name, "start_s": now + latency * 0.1, "end_s": now + latency})
            spans.append({"unit": "vector", "label": name, "start_s": now + latency * 0.85, "end_s": now + latency})
        now += latency
    counts = []
    for i in range(10):
        row = [0] * 10
        row[i] = 900
        for _ in range(124):
            row[i if rng.random() < 0.35 else rng.randrange(10)] += 1
        counts.append(row)
    answers = []
    for i, word in enumerate(WORDS):
        wrong = WORDS[(i + 4) % 10]
        votes = [word] * 8 if i % 4 else [word] * 6 + [wrong] * 2
        votes = [wrong] * 5 + [word] * 3 if i == 5 else votes
        answers.append(
            {
                "file": f"{i}_{word}.wav",
                "truth": word,
                "float": word,
                "chip": max(sorted(set(votes)), key=votes.count),
                "votes": votes,
            }
        )
    return {
        "chip_text": "wtm2101, 40 nm NOR flash, 1 macro of 2 x 896 x 1024 cells, 24 MHz (vendor)",
        "data": "1,280 int8 feature maps of 49 x 10, ten words, synthetic voices not used in training",
        "physics": "full, with the chip's calibration (1 refine pass, 2 reads, column offsets)",
        "command": "insitu run task:kws --chip wtm2101 --instances 8 --time 0s,1d,1y",
        "versions": "insitu 0.1.0, numpy 2.2.1",
        "uncalibrated": [
            {"time_s": 0.0, "values": [0.889, 0.901, 0.874, 0.895, 0.882, 0.907, 0.868, 0.892]},
        ],
        "constants": [
            {
                "name": "t_read",
                "value": 37e-6,
                "unit": "s",
                "source": "derived: 50 GOPS over 2 x 896 x 1024 cells",
                "kind": "modelled",
                "weighs": "all of the array's time",
            },
            {
                "name": "columns_per_adc",
                "value": 8,
                "unit": "1",
                "source": "assumption, no published value",
                "kind": "assumed",
            },
            {
                "name": "adc.energy",
                "value": 1.9e-12,
                "unit": "J",
                "source": "ADC survey, 10 bit SAR at 40 nm, median",
                "kind": "assumed",
                "weighs": "58 % of the energy",
            },
            {
                "name": "clock",
                "value": 24e6,
                "unit": "Hz",
                "source": "vendor SDK, hal_clock, default",
                "kind": "measured",
            },
            {
                "name": "read noise",
                "value": "0.7 LSB",
                "unit": "",
                "source": "vendor programming log, residual after column offsets",
                "kind": "measured",
            },
        ],
        "metric_constants": {
            "latency_s": ["t_read", "clock", "columns_per_adc"],
            "energy_j": ["adc.energy"],
            "accuracy_chip_mean": ["read noise"],
        },
        "macros": {"columns": 1024, "rows": 1792, "borders": [896], "reserved_columns": 128, "count": 1},
        "floorplan": rects,
        "utilization": [
            {"unit": "array", "busy": 0.981},
            {"unit": "ADC", "busy": 0.883},
            {"unit": "vector", "busy": 0.164},
            {"unit": "RAM port", "busy": 0.291},
        ],
        "timeline": spans,
        "memory": [
            {
                "space": "RAM",
                "size": 320 * 1024,
                "used": [
                    {"label": "activations", "bytes": 62_720},
                    {"label": "commands", "bytes": 8_192},
                    {"label": "descriptors", "bytes": 4_608},
                    {"label": "input", "bytes": 490},
                ],
            },
        ],
        "answers": answers,
        "confusion": {"labels": list(WORDS), "counts": counts, "over": "8 chip instances x 1,280 samples, fresh"},
    }


def keyword_result() -> Result:
    rng = random.Random(3)
    points = [
        AccuracyPoint(t, tuple(round(mean + rng.gauss(0, 0.0045), 4) for _ in range(8)))
        for t, mean in ((0.0, 0.9264), (86400.0, 0.9241), (31557600.0, 0.9167))
    ]
    return Result(
        model=ModelFacts("kws", 24_908, 2_657_280),
        chip="wtm2101",
        seed=0,
        calibration="data",
        bit_exact=BitExact(131_072, 0),
        onnx_agreement=OnnxAgreement(0.99998, 1, 9),
        coverage=Coverage(1.0),
        metrics=keyword_metrics(),
        accuracy_over=tuple(points),
        layers=keyword_layers(),
        run_dir="insitu-runs/kws-wtm2101-1f3a9c02",
        data_note="synthetic voices",
        extra=keyword_extra(),
    )


def broken_result() -> Result:
    layers = list(keyword_layers())
    layers[4] = replace(layers[4], sqnr_local_db=1.3, sqnr_db=1.1)
    layers[5] = replace(layers[5], sqnr_local_db=2.6, sqnr_db=0.8)
    layers[6:] = [replace(layer, sqnr_db=0.4) for layer in layers[6:]]
    good = keyword_result()
    metrics = {**good.metrics, "accuracy_quantized": Metric("accuracy_quantized", 0.112, "1", "measured")}
    metrics["accuracy_chip_mean"] = Metric("accuracy_chip_mean", 0.11, "1", "modelled")
    return replace(good, layers=tuple(layers), metrics=metrics)


def infeasible_result() -> Result:
    items = (
        Infeasible(
            "array cells",
            11_173_962,
            1_835_008,
            "cells",
            ("layer4/conv2 (2,359,296)", "layer4/conv1 (1,179,648)", "layer3/conv2 (589,824)"),
            (
                "a chip with at least 7 macros of this size: --set chip.tiles=7",
                "several chips: --max-chips 7",
                "a narrower network: a width of 0.4 would fit",
            ),
        ),
        Infeasible(
            "RAM",
            802_816,
            327_680,
            "B",
            ("conv1 output (802,816)",),
            ("a smaller input: 128 x 128", "a larger RAM: --set memories.ram.size=1MiB"),
        ),
    )
    return Result(
        ModelFacts("resnet18", 11_689_512, 1_814_073_344),
        "wtm2101",
        0,
        "random",
        fits=False,
        infeasible=items,
        run_dir="insitu-runs/resnet18-wtm2101-77ab01cd",
    )


@pytest.fixture
def keyword() -> Result:
    return keyword_result()


@pytest.fixture
def broken() -> Result:
    return broken_result()


@pytest.fixture
def infeasible() -> Result:
    return infeasible_result()
