"""The at most twelve lines that a person sees at the end of `insitu run`."""

from __future__ import annotations

from insitu.report.diagnose import best_change, broken_text, energy_shares
from insitu.report.result import AccuracyPoint, Result
from insitu.report.text import UNKNOWN, component_name, count, metric_text, percent, quantity, time_label

MAX_LINES = 12


def summary_lines(result: Result) -> list[str]:
    """What it is, same numbers, accuracy, speed, array, energy and where it goes, the best change, the path."""
    body = _feasible(result) if result.fits else _infeasible(result)
    lines = [_what(result), *body]
    path = [f"Report        {result.run_dir.rstrip('/')}/report.html"] if result.run_dir else []
    return [*lines[: MAX_LINES - len(path)], *path]


def _what(result: Result) -> str:
    model = result.model
    chips = result.value("chips") or 1
    several = f"{chips:.0f} x " if chips > 1 else ""
    line = f"{model.name} on {several}{result.chip}: {count(model.parameters)} parameters, {count(model.macs)} MACs"
    over = result.accuracy_over or result.sqnr_over
    instances = len(over[0].values) if over else 0
    return f"{line}; seed {result.seed}" + (f", {instances} chip instances" if instances else "")


def _feasible(result: Result) -> list[str]:
    lines = [
        f"Same numbers  {same_numbers(result)}",
        *scales_text(result),
        *_accuracy(result),
        *plan_text(result),
        *_speed(result),
        *_energy(result),
        *_beside(result),
    ]
    broken = broken_text(result)
    change = best_change(result)
    if broken:
        lines.append(f"Look here     {broken}")
    elif change:
        lines.append(f"Best change   {change}")
    return lines


def scales_text(result: Result) -> list[str]:
    """Where the scales of a model that came quantized went, and how its operators agree with ONNX Runtime."""
    scales, agreed = result.extra.get("scales"), result.onnx_agreement
    if not scales:
        return []
    if scales["source"] != "model":
        return [f"Its scales    {scales['source']}"]
    text = f"Its scales    {scales['values']} values and {scales['layers']} layers as the model has them"
    calibrated = int(scales["calibrated_values"]), int(scales["calibrated_layers"])
    if any(calibrated):
        text += f", {calibrated[0]} values and {calibrated[1]} layers from calibration"
    if agreed is not None:
        share = f"{100 * agreed.equal_fraction:.4f} %"
        text += f"; {agreed.operators} operators equal ONNX Runtime's in {share}, at most {agreed.max_difference} apart"
    return [text]


def plan_text(result: Result) -> list[str]:
    """What a searched precision plan closes of the gap to an ideal chip, and what it takes for that."""
    found = result.extra.get("optimize")
    if not found:
        return []
    chosen, costs = found["chosen"], list[str]()
    for name, ratio in (("cells", found["cells_ratio"]), ("energy", found["energy_ratio"])):
        costs += [f"{ratio:.2f} x the {name}"] if ratio is not None else []
    missed = "" if found["reached"] else f", {100 * found['target']:.0f} % were asked for"
    what = ", ".join([*found["procedures"], f"{len(found['layers'])} layers changed"]).replace("_", " ")
    gap = f"closes {100 * chosen['gap_share']:.0f} % of the error's gap{missed}"
    return [f"Plan          {what}: {gap}, at {' and '.join(costs)}"]


def same_numbers(result: Result) -> str:
    """The outcome of the check of interpreter against simulator, in one phrase."""
    check = result.bit_exact
    if check is None:
        return "not checked"
    text = f"{check.mismatches:,} mismatches of {check.checked_values:,} checked values"
    if check.excluded_values:
        text += f"; {check.excluded_values:,} on the host not compared"
    if check.mismatches and check.first:
        text += f"; first: {', '.join(f'{key} {value}' for key, value in check.first.items())}"
    return text


def _accuracy(result: Result) -> list[str]:
    known = [f"{word} {percent(value)}" for word, value in _stages(result) if value is not None]
    if not known:
        return _fidelity(result)
    note = f" ({result.data_note})" if result.data_note else ""
    return [
        f"Accuracy      {', '.join(known)}{_spread(result)}{note}",
        *_raw(result),
        *_aged(result.accuracy_over, note),
    ]


def _fidelity(result: Result) -> list[str]:
    """Without labels: signal over noise, of quantization and of the chips' physics, and how the latter moves."""
    value, near = result.value("sqnr_db"), result.value("sqnr_chip_mean_db")
    words = [] if value is None else [f"{quantity(value, 'dB')} signal to quantization noise"]
    if near is not None:
        worst = quantity(result.value("sqnr_chip_min_db"), "dB")
        words.append(f"{quantity(near, 'dB')} to the noise of the chips, worst chip {worst}")
    points = result.sqnr_over
    known = [f"{time_label(p.time_s)} {quantity(p.mean, 'dB')}" for p in points if p.values]
    why = next((point.note for point in points if point.note), "")
    moves = ", ".join(known) + (f" ({why})" if why else "") if len(known) > 1 else why
    return [*([f"Fidelity      {', '.join(words)}"] if words else []), *([f"Over time     {moves}"] if moves else [])]


def _stages(result: Result) -> list[tuple[str, float | None]]:
    names = (("float", "accuracy_float"), ("quantized", "accuracy_quantized"), ("chip", "accuracy_chip_mean"))
    return [(word, result.value(name)) for word, name in names]


def _spread(result: Result) -> str:
    std, worst = result.value("accuracy_chip_std"), result.value("accuracy_chip_min")
    text = "" if std is None else f" +- {percent(std)}"
    return text if worst is None else f"{text}, worst chip {percent(worst)}"


def _aged(points: tuple[AccuracyPoint, ...], note: str) -> list[str]:
    if len(points) < 2:
        return []
    shown = ", ".join(f"{time_label(point.time_s)} {_point(point)}" for point in points)
    why = next((f" ({point.note})" for point in points if point.note), "")
    return [f"Over time     {shown}{note}{why}"]


def _point(point: AccuracyPoint) -> str:
    return percent(point.mean) + ("" if point.std is None else f" +- {percent(point.std)}")


def _raw(result: Result) -> list[str]:
    """The first time without the chip's own procedures, where those act."""
    given = [p for p in result.extra.get("uncalibrated", ()) if p["values"]]
    if not given:
        return []
    point = AccuracyPoint(float(given[0]["time_s"]), tuple(given[0]["values"]))
    return [f"Uncalibrated  chip {_point(point)}, worst chip {percent(point.min)}, without the chip's own procedures"]


def _speed(result: Result) -> list[str]:
    metrics = result.metrics
    latency, rate = metrics.get("latency_s"), metrics.get("throughput_per_s")
    line = f"Speed         {metric_text('latency_s', latency)} per inference"
    line += f", {metric_text('throughput_per_s', rate)}" if rate else ""
    used = metric_text("array_utilization", metrics.get("array_utilization"))
    cells = f"Array used    {used} of the cells"
    loads = result.value("segments")
    cells += f", loaded {loads:.0f} times over" if loads else ""
    copies, gap = result.value("copies"), result.value("copies_gap")
    cells += f", {copies:.0f} copies of layers" if copies else ""
    cells += f" ({percent(gap)} above the bound)" if copies and gap is not None else ""
    if result.coverage and result.coverage.array_macs_fraction is not None:
        cells += f"; {percent(result.coverage.array_macs_fraction)} of the MACs run there"
    hosts = sorted(result.coverage.host_ops) if result.coverage else []
    host = f"; on the host: {', '.join(hosts)}" if hosts else ""
    return [f"{line}{_origin(result, 'latency_s')}", *([cells + host] if used != UNKNOWN or host else [])]


def _energy(result: Result) -> list[str]:
    metrics = result.metrics
    line = f"Energy        {metric_text('energy_j', metrics.get('energy_j'))} per inference"
    low, high = (metrics.get(name) for name in ("energy_floor_j", "energy_pessimistic_j"))
    if low and high:
        line += f" ({metric_text('energy_j', low)} to {metric_text('energy_j', high)} by converter)"
    power = metrics.get("power_w")
    line += f", {metric_text('power_w', power)}" if power else ""
    shares = energy_shares(result)[:4]
    parts = ", ".join(f"{component_name(name)} {percent(share, 0)}" for name, _, share in shares)
    return [f"{line}{_origin(result, 'energy_j')}", *([f"Energy goes   {parts}"] if parts else [])]


def _beside(result: Result) -> list[str]:
    """One line a machine set beside the chip: its time, energy, and bytes moved, each over the chip's."""
    rows = list(result.extra.get("baselines", ()))
    if not rows:
        return []
    chip, lines = rows[0], []
    for row in rows[1:4]:
        far = sum(row["bytes_moved"].values())
        shown = (
            f"{quantity(row['latency_s'], 's')}{_over(row['latency_s'], chip['latency_s'])}, "
            f"{quantity(row['energy_j'], 'J')}{_over(row['energy_j'], chip['energy_j'])}, {quantity(far, 'B')} moved"
        )
        lines.append(f"Beside it     {row['name']}: {shown} (modelled, {row['precision']}, batch 1)")
    return lines


def _over(value: float | None, chip: float | None) -> str:
    return "" if value is None or not chip else f" ({value / chip:.3g} x)"


def _origin(result: Result, name: str) -> str:
    metric = result.metrics.get(name)
    return f" ({metric.source})" if metric else ""


def _infeasible(result: Result) -> list[str]:
    lines = ["Does not fit"]
    for item in result.infeasible[:2]:
        lines.append(f"  {item}")
        if item.filled_by:
            lines.append(f"    filled by: {', '.join(item.filled_by[:3])}")
        lines += [f"    way out: {way}" for way in item.ways_out[:3]]
    return lines
