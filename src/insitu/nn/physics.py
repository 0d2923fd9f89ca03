"""Noise-aware training: one chip instance a step, through the functions of arrays that the simulator calls.

Input planes and weight slices are taken together: errors of conversions add up as their variances do, and the rounding
of partial codes is noise of its variance, none where a column's sums are whole codes.  What cells hold, what columns
and converters do to it and how noisy a read is come from `circuit`; random numbers from torch's generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from insitu.arch.spec import Chip
from insitu.base.errors import ConfigError
from insitu.base.random import effect_key
from insitu.circuit.converter import bend, drive_levels
from insitu.circuit.effects import Physics
from insitu.circuit.tile import adc_bend, column_error, drawn_cells, driver_gain, read_noise_sd
from insitu.circuit.trim import GAIN_MOST
from insitu.compiler.quantize_layers import slice_bits, stored_bits
from insitu.nn.functional import (
    Apply,
    Programmed,
    Setting,
    along,
    codes_of_weights,
    converted,
    inputs,
    real_bias,
    rounded_weights,
)
from insitu.numeric.readout import adc_range
from insitu.numeric.slicing import digit_shifts, slice_shifts

SEEDS = 1 << 62
Sliced = list[tuple[int, Tensor, tuple[Tensor, int] | None]]


@dataclass(frozen=True)
class Field:
    """The physics of one step: the chip, its effects, and which chip instance this is."""

    chip: Chip
    physics: Physics
    seed: int = 0
    instance: int = 0


@dataclass(frozen=True)
class Held:
    """The cells of one layer: [rows, outputs] in weight steps, and the errors of its columns.

    `bias` is the gain of bias rows, `offset` in column-sum steps, `floor` the variance of a read that no input makes,
    `spread` [rows, outputs] that of squared driven codes, both in column-sum steps squared.  `rounded`: conversions of
    whole codes, whose rounding depends on how much else they err by.
    """

    cells: Tensor
    bias: Tensor
    offset: Tensor
    floor: Tensor
    spread: Tensor | None
    rounded: Sequence[Rounded] = ()


@dataclass(frozen=True)
class Rounded:
    """Conversions of one slice in one row part: what a plane's counts in the sum, squared; steps of a code [outputs].

    `still` is the variance of a read in steps squared, `wrong` the sum of squares of what its cells err by.
    """

    counts: float
    read: Tensor
    still: Tensor
    wrong: Tensor


def check_reach(chip: Chip, physics: Physics) -> None:
    """ConfigError for an effect that training cannot bring to a layer of this chip."""
    several = len(plane_shifts(chip)) * len(chip.slice_bits) > 1
    if physics.has("adc_inl") and several:
        got = "adc_inl, where several conversions make one output"
        need = "effects that reach a layer in training: leave adc_inl out (the simulator has it)"
        raise ConfigError("Config.physics", got, need)

    if physics.calibration(chip).spare_columns and physics.has("stuck_cells"):
        need = "faults that training can place: stuck_cells left out, or calibration.spare_columns=false"
        raise ConfigError("Config.physics", "stuck_cells on a chip that moves columns to spare ones", need)


@dataclass(frozen=True)
class Drawn:
    """One copy of a layer on a chip instance: weight codes, what is held, and what was when columns were measured."""

    q: Tensor
    held: Held
    measured: Held


def drawn(setting: Setting, w: Tensor, field: Field, copies: int = 1) -> list[Drawn]:
    """The copies of a layer on the chip instance of this step."""
    own = field.physics.calibration(field.chip)
    with torch.no_grad():
        q = codes_of_weights(setting, w)
        state = torch.get_rng_state()
        held = before = programmed(setting, setting.cells(q), field, copies)
        if own.trims and field.physics.time > 0 and not own.column_drift:
            now = torch.get_rng_state()
            torch.set_rng_state(state)  # the same cells, as they were when they were measured
            fresh = replace(field, physics=field.physics.after(0.0))
            before = programmed(setting, setting.cells(q), fresh, copies)
            torch.set_rng_state(now)
    return [Drawn(q, a, b) for a, b in zip(held, before, strict=True)]


def noisy_layer(
    setting: Setting, x: Tensor, w: Tensor, bias: Tensor | None, apply: Apply, *, field: Field, cells: Drawn,
    channel: int = -1,
) -> Tensor:  # fmt: skip
    """A chip layer's sums in training on the cells drawn for it; arguments as those of `functional.layer`."""
    x = inputs(setting, x)
    own, q, held = field.physics.calibration(field.chip), cells.q, cells.held
    with torch.no_grad():
        holds = setting.back(held.cells) * setting.step
    first, behind = real_bias(setting, bias, q)
    b, real = first + behind, straight(setting, w, q, holds, moves=field.physics.moves)
    x = _driven(setting, x, field)
    y = apply(x, real)
    shift = _shift(setting, held, q, b)
    if setting.source and own.column_offset and field.chip.macro.readout.kind == "wtm2101":
        errors = shift - held.offset * setting.unit - b
        shift = shift - _compensated(setting, x, holds - q * setting.step, errors, field.chip)
    y = y + along(shift, y, channel)
    if own.trims:
        y = _trimmed(setting, x, b, y, cells, apply, channel)
    y = _read(setting, held, x, y, apply, channel, field.chip)
    if setting.bias_unit:
        return _bent(setting, y, channel, field)
    last = along(behind, y, channel)  # the bias joins behind the converter
    y = _bent(setting, y - last, channel, field)
    return (y if setting.converter is None else converted(setting, y, channel)) + last


def _shift(setting: Setting, held: Held, q: Tensor, b: Tensor) -> Tensor:
    """What is added to a column whatever its inputs: bias as the array gives it, offset, errors under a zero point."""
    shift = held.offset * setting.unit + (b * held.bias if setting.bias_unit else b)
    if setting.source:  # the zero point drives cells, and their errors
        shift = shift + setting.source * (held.cells - setting.cells(q)).sum(0) * setting.unit
    return shift


def _trimmed(
    setting: Setting, x: Tensor, b: Tensor, y: Tensor, cells: Drawn, apply: Apply, channel: int
) -> Tensor:  # fmt: skip
    """Outputs behind trims of their columns, set so that this batch is on average and in its slope what is wanted.

    What cells err by is trimmed for row parts and slices together here, for each by itself in the simulator.
    """
    with torch.no_grad():
        seen, q, before = y.detach(), cells.q, cells.measured
        if before is not cells.held:
            seen = apply(x, setting.back(before.cells) * setting.step)
            seen = seen + along(_shift(setting, before, q, b), seen, channel)
        wanted = apply(x, q * setting.step)
        wanted = wanted + along(b, wanted, channel)
        axes = [i for i in range(y.ndim) if i != channel % y.ndim]
        mean, mean_seen = wanted.mean(axes, keepdim=True), seen.mean(axes, keepdim=True)
        power = ((wanted - mean) ** 2).mean(axes, keepdim=True)
        slope = ((wanted - mean) * (seen - mean_seen)).mean(axes, keepdim=True) / power.clamp(min=1e-30)
        slope = torch.where(power > 0, slope, torch.ones_like(slope)).clamp(1.0 / GAIN_MOST, GAIN_MOST)
        offset = mean_seen - slope * mean
    return (y - offset) / slope


# cells and columns


def straight(setting: Setting, w: Tensor, q: Tensor, holds: Tensor, *, moves: bool) -> Tensor:
    """The real weights that cells asked for codes q hold, with the gradient of w, times what all have lost.

    The rest of a cell's error counts as its own, whatever it was asked for: its slope is noise of zero mean.
    """
    if not moves:
        return Programmed.apply(w.float(), setting.step, setting.lo, setting.hi, holds)
    near = rounded_weights(setting, w)
    whole = q * setting.step
    kept = (holds * whole).sum() / (whole * whole).sum().clamp(min=1e-30)
    return near * kept + (holds - whole * kept)


@torch.no_grad()
def programmed(setting: Setting, q: Tensor, field: Field, copies: int = 1) -> list[Held]:
    """Weight codes q [rows, outputs] on one chip instance, so many times; array by array, as they lie there."""
    if (times := setting.rows_times) > 1:
        tall = replace(setting, rows_times=1, grain=times, read=setting.read * times)
        return [_averaged(held, times) for held in programmed(tall, q.repeat(times, 1), field, copies)]
    if copies > 1 and field.physics.has("ir_drop"):  # wires are solved one array at a time
        return [programmed(replace(setting, copy=i), q, field)[0] for i in range(copies)]
    settings = [setting] if copies == 1 else [replace(setting, copy=i) for i in range(copies)]
    parts = setting.parts or (*range(0, len(q), field.chip.array.rows), len(q))
    cells = q.new_empty((copies, *q.shape))
    spread = torch.zeros_like(cells) if _any_noise(field) else None
    columns = [[torch.full_like(setting.read, v) for v in (1.0, 0.0, 0.0)] for _ in settings]
    rounded: list[Rounded] = []
    for index, (a, b) in enumerate(pairwise(parts)):
        rows, noise = cells[:, a:b], None if spread is None else spread[:, a:b]
        found = _part(settings, q[a:b], index, len(parts) - 1, field, rows, noise)
        rounded += found[0][3]
        for own, (gain, off, still, _) in zip(columns, found, strict=True):
            own[:] = gain if index == 0 else own[0], own[1] + off, own[2] + still
    spreads = [None] * copies if spread is None else [*spread]
    return [Held(own, a[0], a[1], a[2], noise, rounded) for own, a, noise in zip(cells, columns, spreads, strict=True)]


def _averaged(held: Held, times: int) -> Held:
    """Cells whose rows are there so many times, in the steps of one: what a column adds up is shared among them."""
    rows = (times, len(held.cells) // times, -1)
    spread = None if held.spread is None else held.spread.reshape(rows).sum(0) / times**2
    rounded = [replace(r, counts=r.counts / times**2) for r in held.rounded]
    cells, offset, floor = held.cells.reshape(rows).mean(0), held.offset / times, held.floor / times**2
    return Held(cells, held.bias, offset, floor, spread, rounded)


def _part(
    settings: Sequence[Setting], q: Tensor, index: int, parts: int, field: Field, cells: Tensor, spread: Tensor | None
) -> list[tuple[Tensor, Tensor, Tensor, list[Rounded]]]:
    """The rows of one part in all copies of a layer: fills `cells` and `spread` [copies, rows, outputs].

    Returns, by copy, the gain of its first slice, its offset, the variance of a read, conversions of whole codes.
    """
    chip, physics, setting = field.chip, field.physics, settings[0]
    read = setting.read / 2.0**setting.finer
    planes, cols = [float(1 << at) for at in plane_shifts(chip)], chip.array.cols
    shifts = [up for up, *_ in sliced(chip, q[:1])]
    columns = [[_columns(s, read, index, number, field) for number in range(len(shifts))] for s in settings]
    gains = [_stacked([own[number][0] for own in columns]) for number in range(len(shifts))]
    still, noise = _variances(read, chip, physics)
    several = parts * len(planes) * len(shifts) > 1
    powers, whole = sum(p * p for p in planes), several and not bool((read > setting.grain).any())
    rounding = read * read / 12.0 if several and not whole else 0.0 * read
    wrong = [torch.zeros_like(read) for _ in shifts]
    drivers = _row_gain((len(settings), len(q), 1), chip, physics, q)
    for c in range(0, q.shape[1], cols):
        own = slice(c, c + cols)
        total: Any = 0.0
        for number, (up, digits, levels) in enumerate(sliced(chip, q[:, own])):
            normals = _normals(digits, len(settings))
            held = drawn_cells(digits, normals, chip=chip, physics=physics, slice_index=number, levels=levels)
            gain = gains[number]
            factor = 2.0**up if gain is None else gain[..., own] * 2.0**up
            more = held.weights if gain is None and up == 0 else held.weights * factor
            total = more if number == 0 else total + more
            if whole:
                wrong[number][own] = (held.weights - digits).square().sum(-2).reshape(-1, digits.shape[1]).mean(0)
            if spread is not None:
                spread[..., own] += _cell_noise(digits, held.variance, noise[own], field) * 4.0**up
        cells[..., own] = total if drivers is None else total * drivers
    floor = (still + rounding) * (powers * sum(4.0**up for up in shifts))
    rounded = [Rounded(4.0**up, read, still, w) for up, w in zip(shifts, wrong, strict=True)] if whole else []
    found: list[tuple[Tensor, Tensor, Tensor, list[Rounded]]] = []
    for at in columns:
        offsets = (off * read * (sum(planes) * 2**up) for up, (_, off) in zip(shifts, at, strict=True))
        gain = at[0][0]
        found.append((torch.ones_like(read) if gain is None else gain, sum(offsets, 0.0 * read), floor, rounded))
    return found


def _rounding(held: Held, codes: Tensor, chip: Chip) -> Any:
    """Variance that rounding adds to sums of whole codes, which small errors leave as they are, in steps squared.

    Of a normal error it is 1/12 code less the first term of the series in its characteristic function (Widrow and
    Kollar, Quantization Noise, Cambridge 2008).  What cells err by counts as often as a plane's digits drive them.
    """
    total: Any = 0.0
    for at, digits in zip(plane_shifts(chip), _digits(chip, codes), strict=True):
        driven = digits.square().mean()
        for part in held.rounded:
            own = (part.still + part.wrong * driven) / (part.read * part.read)
            less = (1.0 / math.pi**2 + 4.0 * own) * torch.exp(-2.0 * math.pi**2 * own)
            total = total + (1.0 / 12.0 - less).clamp(min=0.0) * part.read**2 * (part.counts * float(4**at))
    return total


def _stacked(gains: Sequence[Tensor | None]) -> Tensor | None:
    """Gains of columns [copies, 1, outputs]; for one copy [outputs]."""
    known = [g for g in gains if g is not None]
    return None if not known else known[0] if len(known) == 1 else torch.stack(known)[:, None]


def _variances(read: Tensor, chip: Chip, physics: Physics) -> tuple[Tensor, Tensor]:
    """Variance of one read that no input makes, and that of each squared driven code, by column."""
    still = read_noise_sd(torch.zeros_like(read), chip=chip, physics=physics, step=read) ** 2
    return still, read_noise_sd(torch.ones_like(read), chip=chip, physics=physics, step=read) ** 2 - still


def _row_gain(shape: tuple[int, ...], chip: Chip, physics: Physics, like: Tensor) -> Tensor | None:
    spec = chip.physics.dac
    if spec is None or spec.row_sd == 0 or not physics.has("dac_nonlinearity"):
        return None
    return driver_gain(torch.randn(shape, device=like.device), spec)


def _any_noise(field: Field) -> bool:
    """Whether a read of cells is noisy."""
    has = field.physics.has
    return any(has(n) for n in ("read_noise", "thermal_noise", "shot_noise", "flicker_noise", "telegraph_noise"))


def _columns(setting: Setting, read: Tensor, index: int, number: int, field: Field) -> tuple[Tensor | None, Tensor]:
    """(gain, offset in codes) of the layer's columns on this chip instance; no gain where nothing is left of any.

    Trims take away what each column of cells has of its own, whenever they are set: it does not change with time.
    """
    has, trims = field.physics.has, field.physics.calibration(field.chip).trims
    if trims or not any(has(n) for n in ("column_gain", "column_offset", "adc_gain", "adc_offset")):
        return None, torch.zeros_like(read)
    place: dict[str, Any] = {"seed": field.seed, "instance": field.instance, "macro": setting.place << 8 | index}
    gain, offset = column_error(
        len(read), chip=field.chip, physics=field.physics, x0=0, step=read.cpu().double().numpy(), slice_index=number,
        **place,
    )  # fmt: skip
    return torch.as_tensor(gain).to(read), torch.as_tensor(offset).to(read)


def _cell_noise(digits: Tensor, variance: Any, common: Tensor, field: Field) -> Tensor:
    """Variance of a read for each squared driven code, [rows, outputs]."""
    programmed_only = field.chip.cell.erased_exact
    alike = common * (digits != 0) if programmed_only else common.expand_as(digits)
    if variance is None:
        return alike.detach()
    return (variance / field.physics.calibration(field.chip).reads + alike).detach()


def _normals(like: Tensor, copies: int) -> Callable[[bool], Callable[[str, int], Tensor]]:
    """Standard normals of cells, the same whenever one effect asks again, whichever others are on.

    Those of several copies are [copies, rows, outputs], of one [rows, outputs].
    """
    base = int(torch.randint(SEEDS, ()))

    def of(reference: bool) -> Callable[[str, int], Tensor]:
        known: dict[tuple[str, int], Tensor] = {}

        def draw(effect: str, plane: int) -> Tensor:
            if (effect, plane) not in known:
                size = (like.shape[1] + int(reference), like.shape[0])  # columns lie along memory, as parameters do
                size = size if copies == 1 else (copies, *size)
                normals = _drawn(size, (base + (effect_key(effect) << 8) + plane) % SEEDS, like)
                known[effect, plane] = normals.transpose(-1, -2)
            return known[effect, plane]

        return draw

    return of


def _drawn(size: tuple[int, ...], seed: int, like: Tensor) -> Tensor:
    """Standard normals of a seed of 62 bits: on a CPU from the simulator's kernel, four times as fast as torch's."""
    if like.device.type != "cpu" or like.dtype != torch.float32:
        own = torch.Generator(like.device).manual_seed(seed)
        return torch.randn(size, generator=own, device=like.device, dtype=like.dtype)
    from insitu.base.kernels import standard_normals

    out = np.empty(size, np.float32)
    standard_normals(out.reshape(-1), seed & 0xFFFFFFFF, seed >> 32)
    return torch.from_numpy(out)


def sliced(chip: Chip, q: Tensor) -> Sliced:
    """(shift, digits, what cells and reference column hold) of weight codes, as the macro has them."""
    bits, step = stored_bits(chip), slice_bits(chip)
    middle, offset = 1 << (bits - 1), chip.macro.weights.encoding == "offset_column"
    if step >= bits:
        return [(0, q, (q + middle, middle) if offset else None)]
    if chip.macro.weights.apart:
        return _overlapping(q, slice_shifts(bits, step, chip.macro.weights.apart), float((1 << step) - 1))
    found = Sliced()
    for at, end in pairwise((*slice_shifts(bits, step), bits)):
        if offset:
            cells, reference = _digit(q + middle, at, end - at, last=False), middle >> at if end == bits else 0
            found.append((at, cells - reference, (cells, reference)))
        else:
            found.append((at, torch.sign(q) * _digit(q.abs(), at, end - at, last=False), None))
    return found


def _overlapping(q: Tensor, shifts: Sequence[int], most: float) -> Sliced:
    """As numeric.slicing.slice_weights of slices that lie closer than they are wide."""
    sign, rest, found = torch.sign(q), q.abs(), Sliced()
    for k in range(len(shifts) - 1, 0, -1):
        place, below = float(1 << shifts[k]), most * sum(1 << at for at in shifts[:k])
        digit = torch.ceil((rest - below) / place).clamp(min=0.0)
        found.insert(0, (shifts[k], sign * digit, None))
        rest = rest - digit * place
    return [(0, sign * rest, None), *found]


def _digit(value: Tensor, at: int, step: int, *, last: bool) -> Tensor:
    down = torch.floor(value / float(1 << at))
    return down if last else torch.remainder(down, float(1 << step))


# inputs and reads


def plane_shifts(chip: Chip) -> tuple[int, ...]:
    """Bit positions of the input planes that are converted one by one."""
    given = chip.macro.input
    if chip.macro.readout.kind == "wtm2101" or chip.macro.integrate or given.bits_per_pass >= given.bits:
        return (0,)
    return digit_shifts(given.bits, given.bits_per_pass)


def _codes(setting: Setting, x: Tensor, channel: int) -> Tensor:
    """Driven codes of rounded inputs."""
    if setting.x is None:
        return x * setting.drive + setting.source
    scale = setting.x.scale if setting.x.scales is None else along(setting.x.scales.to(x), x, channel)
    return x / scale * setting.drive + setting.source


def _driven(setting: Setting, x: Tensor, field: Field) -> Tensor:
    """Inputs after their drivers."""
    spec, given = field.chip.physics.dac, field.chip.macro.input
    if spec is None or setting.x is None or spec.bow == 0 or not field.physics.has("dac_nonlinearity"):
        return x
    bits = given.bits if len(plane_shifts(field.chip)) == 1 else given.bits_per_pass
    size = setting.x.scale / setting.drive
    codes = drive_levels(x / size + setting.source, bow=spec.bow, bits=bits, step=given.bits_per_pass)
    return x + ((codes - setting.source) * size - x).detach()


def _squares(chip: Chip, codes: Tensor) -> Tensor:
    """Sum over input planes of 4**shift digit**2."""
    parts = zip(plane_shifts(chip), _digits(chip, codes), strict=True)
    return sum((d * d * float(4**at) for at, d in parts), torch.zeros_like(codes))


def _digits(chip: Chip, codes: Tensor) -> Iterator[Tensor]:
    """What each input plane drives."""
    shifts, step, last = plane_shifts(chip), chip.macro.input.bits_per_pass, chip.macro.input.signed
    if len(shifts) == 1:
        yield codes
        return
    for at in shifts:
        yield _digit(codes, at, step, last=last and at == shifts[-1])


def _read(setting: Setting, held: Held, x: Tensor, y: Tensor, apply: Apply, channel: int, chip: Chip) -> Tensor:
    """Outputs with one draw of what reads add to them."""
    with torch.no_grad():
        if held.spread is None and not bool(held.floor.any()) and not held.rounded:
            return y
        codes = torch.round(_codes(setting, x, channel)) if held.rounded or held.spread is not None else x
        floor = held.floor + _rounding(held, codes, chip) if held.rounded else held.floor
        variance = along(floor, y, channel)
        if held.spread is not None:
            variance = variance + apply(_squares(chip, codes), setting.back(held.spread))
        noise = (
            _drawn(tuple(y.shape), int(torch.randint(SEEDS, ())), y)
            * torch.sqrt(variance.clamp(min=0.0))
            * along(setting.unit, y, channel)
        )
    return y + noise


def _compensated(setting: Setting, x: Tensor, change: Tensor, rest: Tensor, chip: Chip) -> Tensor:
    """What the chip's column compensation takes away: the mean error on inputs like these [outputs]."""
    spec = chip.physics.column_offset
    removed = 1.0 - (spec.compensated if spec is not None else 0.0)
    axis = 1 if change.ndim > 2 else x.ndim - 1
    mean = x.detach().mean(dim=[i for i in range(x.ndim) if i != axis])
    rows = setting.cells(change)
    each = len(rows) * setting.groups // len(mean)
    inputs = mean.repeat_interleave(each).reshape(setting.groups, -1)
    columns = rows.reshape(len(rows), setting.groups, -1)
    return removed * (torch.einsum("gr,rgo->go", inputs, columns).reshape(-1) + rest)


def _bent(setting: Setting, y: Tensor, channel: int, field: Field) -> Tensor:
    """Outputs after the converters' nonlinearity, where one conversion makes an output."""
    if not field.physics.has("adc_inl"):
        return y
    chip, count = field.chip, len(setting.read)
    lo, hi = adc_range(chip.macro.readout.bits, signed=bool(chip.macro.readout.signed))
    table = adc_bend(
        count, hi - lo + 1, chip=chip, physics=field.physics, seed=field.seed, instance=field.instance,
        macro=setting.place << 8, x0=0,
    )  # fmt: skip
    if table is None:
        return y
    size = (setting.unit * setting.read).reshape(-1)
    codes = y.movedim(channel, -1) / size
    moved = bend(codes.detach(), torch.as_tensor(np.asarray(table)).to(y), lo) - codes.detach()
    return y + (moved * size).movedim(-1, channel)
