"""Measured language-model inference against the roofline: a factor for each device class and software class.

A factor is modelled time over measured time, the median over a class's groups of their geometric means.  Leave one
group out: groups share hardware, software and weight bits; a class that loses its last row takes the pooled factor of
its device class, else of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from insitu.base.errors import DataError, InsituError
from insitu.cost.machines import Machine, load_machine
from insitu.llm.roofline import Serving, decode, end_to_end, prefill, throughput
from insitu.llm.shapes import Shape, load_shape
from insitu.llm.software import software_of, threads_of

DEVICE_CLASSES = {"gpu": "gpu", "tpu": "gpu", "soc": "shared", "edge_module": "shared", "phone_soc": "phone",
                  "laptop_soc": "phone"}  # fmt: skip
FASTER = 1.02  # a figure this much above what bandwidth or memory allow is implausible


@dataclass(frozen=True)
class Figure:
    """One measured figure of a row with what the bare model says: both in seconds, or both rates."""

    name: str
    unit: str
    measured: float
    modelled: float  # without a factor

    @property
    def efficiency(self) -> float:
        """Modelled time over measured time."""
        return self.measured / self.modelled if self.unit == "1/s" else self.modelled / self.measured

    def predicted(self, factor: float) -> float:
        """What the model says with a factor."""
        return self.modelled * factor if self.unit == "1/s" else self.modelled / factor


@dataclass(frozen=True)
class Row:
    """One row: its class, its group, its figures; `missing` says why there are none, `implausible` what is wrong."""

    id: str
    device_class: str
    software_class: str
    group: str
    figures: tuple[Figure, ...]
    missing: str = ""
    implausible: str = ""

    @property
    def key(self) -> str:
        """The class whose factor it takes."""
        return f"{self.device_class} x {self.software_class}"


def read_rows(data: Any, *, where: str) -> list[Row]:
    """The rows of a file of measurements; DataError where it has none."""
    rows = data.get("rows") if isinstance(data, dict) else None
    if not isinstance(rows, list) or not rows or not all(isinstance(r, dict) for r in rows):  # pyright: ignore[reportUnknownVariableType]
        raise DataError(where, "no rows", "rows: a list of measurements with id, model, hardware, software, figures")
    return [row_of(r) for r in rows]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def row_of(given: Mapping[str, Any]) -> Row:
    """One measurement with the model's figures beside."""
    software = str(given.get("software") or "")
    habits = software_of(software)[1]
    kind = habits.fit
    bits = given.get("weight_bits")
    hardware = str(given.get("hardware") or "")
    group, name = f"{hardware} | {software} | {bits}", str(given.get("id") or f"{hardware} {given.get('model')}")
    try:
        machine = load_machine(hardware)
        _, shape = load_shape(str(given.get("model") or ""))
    except InsituError as error:
        return Row(name, "unknown", kind, group, (), str(error))
    threads = threads_of(software)
    device = "processor" if threads is not None or machine.kind in ("cpu", "sbc", "mcu") else DEVICE_CLASSES.get(
        machine.kind, machine.kind)  # fmt: skip
    if device == "processor":
        threads = threads or 8
        kind = "any"
    row = Row(name, device, kind, group, ())
    lacking = _lacking(given, machine)
    if lacking:
        return replace(row, missing=lacking)
    serving = _serving(given, shape, machine, replace_split(habits, given), threads)
    figures = tuple(_figures(given, serving))
    row = replace(row, figures=figures, missing="" if figures else "no figure that the lengths and batch given explain")
    alone = str(given.get("kind")).startswith("one_layer")  # nobody says that the whole model was there
    return row if alone else replace(row, implausible=implausible(given, serving))


def replace_split(habits: Any, given: Mapping[str, Any]) -> Any:
    """Tensor parallelism as the row says."""
    tensor = int(given.get("tensor_parallel") or 1) > 1
    return habits.model_copy(update={"split": "tensor" if tensor else "pipeline"})


def _lacking(given: Mapping[str, Any], machine: Machine) -> str:
    if given.get("device_count") is None:
        return "the number of devices is not given"
    if machine.memory.bandwidth is None:
        return f"no memory bandwidth is known of {machine.name}"
    return "the bits of a weight are not given" if given.get("weight_bits") is None else ""


def _serving(given: Mapping[str, Any], shape: Shape, machine: Machine, habits: Any, threads: int | None) -> Serving:
    weights, count = float(given["weight_bits"]), int(given["device_count"])
    activations = float(given.get("activation_bits") or 16)
    cache = float(given.get("kv_cache_bits") or (8 if activations <= 8 else 16))
    parallel = int(given.get("tensor_parallel") or 1)
    if parallel > 1:  # further copies work side by side
        count = parallel
    return Serving(shape, machine, habits, count, habits.split, weights, activations, cache, threads)


def _figures(given: Mapping[str, Any], serving: Serving) -> list[Figure]:
    """Every figure that the row's kind explains."""
    number = {k: given.get(k) for k in ("batch", "context_in_tokens", "context_out_tokens")}
    batch, into, out = (None if v is None else float(v) for v in number.values())
    kind, found = str(given.get("kind")), list[Figure]()

    def add(name: str, unit: str, modelled: float) -> None:
        measured = given.get(name)
        if measured and modelled > 0:
            found.append(Figure(name, unit, float(measured) * (1e-3 if name.endswith("_ms") else 1), modelled))

    if kind in (
        "decode_single_stream",
        "prefill_and_decode_single_stream",
        "single_stream_end_to_end",
        "vendor_single_user_rate",
    ):
        if kind == "single_stream_end_to_end" and into and out:
            add("end_to_end_s", "s", end_to_end(serving, tokens_in=into, tokens_out=out, batch=batch or 1))
        else:
            # a benchmark's decode starts with an empty cache, so half of its tokens are seen on average
            keys = (out or 256) / 2 + (into or 0) * (kind == "decode_single_stream")
            add("decode_tokens_per_s_per_sequence", "1/s", 1 / decode(serving, keys=keys))
        if kind.startswith("prefill") and into:
            add("prefill_tokens_per_s", "1/s", into / prefill(serving, tokens=into))
    elif (
        kind.startswith("online_serving")
        and given.get("output_tokens_per_s_total")
        and given.get("tpot_ms")
        and into
        and out
    ):
        # so many sequences are served at once (Little's law): what each of their tokens takes
        many = float(given["output_tokens_per_s_total"]) * float(given["tpot_ms"]) * 1e-3 / _copies(given, serving)
        mixed = prefill(serving, tokens=into, batch=many) / out  # prompts that come in between
        add("tpot_ms", "s", decode(serving, keys=into + out / 2, batch=many) + mixed)
    elif kind == "offline_max_throughput" and into and out:
        add(
            "output_tokens_per_s_total",
            "1/s",
            _copies(given, serving) * throughput(serving, tokens_in=into, tokens_out=out)[0],
        )
    elif kind == "batched_end_to_end" and into and out:
        if given.get("prefill_tokens_per_s"):  # the phases were measured apart
            many = batch or serving.batch_that_fits(into + out)
            add("prefill_tokens_per_s", "1/s", _rate(many * into, prefill(serving, tokens=into, batch=max(many, 1))))
            add(
                "output_tokens_per_s_total",
                "1/s",
                _rate(many, decode(serving, keys=into + out / 2, batch=max(many, 1))),
            )
        else:
            rate, _ = throughput(serving, tokens_in=into, tokens_out=out, batch=batch or 0)
            add("output_tokens_per_s_total", "1/s", rate)
    elif kind == "first_token_latency" and into:
        add("ttft_ms", "s", prefill(serving, tokens=into, batch=batch or 1))
    elif kind.startswith("one_layer") and into:
        one = replace(serving, shape=serving.shape.model_copy(update={"layers": 1, "vocab": 1}))
        phase = (
            prefill(one, tokens=into, batch=batch or 1)
            if "prefill" in kind
            else decode(one, keys=into, batch=batch or 1)
        )
        add("layer_latency_ms", "s", phase)
    return found


def _rate(count: float, seconds: float) -> float:
    return count / seconds


def _copies(given: Mapping[str, Any], serving: Serving) -> float:
    """Copies of the model that all devices of a row hold."""
    return max(int(given["device_count"]) / serving.count, 1)


def implausible(given: Mapping[str, Any], serving: Serving) -> str:
    """Why a figure needs more memory or bandwidth than the devices have; "" where it may be."""
    size, speed = serving.machine.memory.size, serving.bandwidth
    need = serving.weight_bytes
    if size and need > size * int(given["device_count"]):
        return f"{need / 1e9:.0f} GB of weights do not fit {size * int(given['device_count']) / 1e9:.0f} GB"
    rate = given.get("decode_tokens_per_s_per_sequence")
    if not rate and (given.get("batch") or 0) == 1:
        rate = given.get("output_tokens_per_s_total")
    if not rate or not speed:
        return ""
    shape = serving.shape
    bound = speed * int(given["device_count"]) / (shape.product_weights * serving.weight_bits / 8)
    if float(rate) > FASTER * bound:
        per_token = shape.product_weights * serving.weight_bits / 8
        asked = float(rate) * per_token / 1e9
        have = speed * int(given["device_count"]) / 1e9
        return f"needs {asked:.0f} GB/s for its weights alone; the memory gives {have:.4g}"
    return ""


# factors


def usable(rows: Sequence[Row]) -> list[Row]:
    """Rows that count: with figures, and plausible."""
    return [r for r in rows if r.figures and not r.implausible]


def factors(rows: Sequence[Row]) -> dict[str, float]:
    """Class: median of its groups' efficiencies."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        each = found.setdefault(row.key, {}).setdefault(row.group, [])
        each += [float(np.log(f.efficiency)) for f in row.figures]
    return {k: float(np.exp(np.median([np.mean(v) for v in groups.values()]))) for k, groups in found.items()}


def pooled(rows: Sequence[Row], device_class: str = "") -> float | None:
    """The factor over all classes of a device class (of all devices without one); None without rows."""
    mine = [r for r in rows if not device_class or r.device_class == device_class]
    logs = [float(np.log(v)) for v in factors(mine).values()]
    return float(np.exp(np.mean(logs))) if logs else None


def factor_for(row: Row, others: Sequence[Row]) -> tuple[float, str]:
    """(factor of a row's class from other rows, where it is from)."""
    own = factors(others).get(row.key)
    if own is not None:
        return own, row.key
    mine = pooled(others, row.device_class)
    if mine is not None:
        return mine, f"pooled over {row.device_class}"
    return pooled(others) or 1.0, "pooled over all devices"
