"""Noise-aware training: one chip instance a step, through the functions of arrays that the simulator calls.

Input planes and weight slices are taken together: errors of conversions add up as their variances do, and the rounding
of partial codes is noise of its variance.  What cells hold, what columns and converters do to it and how noisy a read
is come from `circuit`; random numbers from torch's generator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from insitu.arch.spec import Chip
from insitu.base.errors import ConfigError
from insitu.circuit.converter import bend, drive_levels
from insitu.circuit.effects import Physics
from insitu.circuit.tile import adc_bend, column_error, drawn_cells, driver_gain, read_noise_sd
from insitu.compiler.quantize_layers import slice_bits, weight_magnitude_bits
from insitu.nn.functional import Apply, Setting, along, codes_of_weights, real_bias
from insitu.numeric.readout import adc_range
from insitu.numeric.slicing import digit_shifts

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
    `spread` [rows, outputs] that of squared driven codes, both in column-sum steps squared.
    """

    cells: Tensor
    bias: Tensor
    offset: Tensor
    floor: Tensor
    spread: Tensor | None


def check_reach(chip: Chip, physics: Physics) -> None:
    """ConfigError for an effect that training cannot bring to a layer of this chip."""
    several = len(plane_shifts(chip)) * len(chip.slice_bits) > 1
    if physics.has("adc_inl") and several:
        got = "adc_inl, where several conversions make one output"
        need = "effects that reach a layer in training: leave adc_inl out (the simulator has it)"
        raise ConfigError("Config.physics", got, need)


def noisy_layer(
    setting: Setting, x: Tensor, w: Tensor, bias: Tensor | None, apply: Apply, *, field: Field, channel: int = -1
) -> Tensor:  # fmt: skip
    """A chip layer in training on one chip instance; arguments as those of `functional.layer`."""
    x = x.float() if setting.x is None else setting.x.rounded(x)
    q = codes_of_weights(setting, w)
    b, held = real_bias(setting, bias, q), programmed(setting, setting.cells(q), field)
    real = setting.back(held.cells) * setting.step
    x = _driven(setting, x, field)
    y = apply(x, real)
    errors = setting.source * (held.cells - setting.cells(q)).sum(0)  # the zero point drives cells, and their errors
    moved = b * held.bias if setting.bias_unit else b
    shift = (held.offset + errors) * setting.unit + moved
    if field.physics.calibration(field.chip).column_offset and field.chip.macro.readout.kind == "wtm2101":
        change, rest = real - q * setting.step, errors * setting.unit + moved - b
        shift = shift - _compensated(setting, x, change, rest, field.chip)
    y = y + along(shift, y, channel)
    y = y + _read_noise(setting, held, x, y, apply, channel, field.chip)
    y = _bent(setting, y, channel, field)
    return y if setting.y is None else setting.y.rounded(y)


# cells and columns


def programmed(setting: Setting, q: Tensor, field: Field) -> Held:
    """Weight codes q [rows, outputs] on one chip instance."""
    parts = setting.parts or (*range(0, len(q), field.chip.array.rows), len(q))
    found = [_part(setting, q[a:b], i, len(parts) - 1, field) for i, (a, b) in enumerate(pairwise(parts))]
    spreads = [f.spread for f in found if f.spread is not None]
    offset, floor = torch.stack([f.offset for f in found]).sum(0), torch.stack([f.floor for f in found]).sum(0)
    return Held(
        torch.cat([f.cells for f in found]), found[0].bias, offset, floor, torch.cat(spreads) if spreads else None
    )


def _part(setting: Setting, q: Tensor, index: int, parts: int, field: Field) -> Held:
    """The rows of one part, all weight slices together."""
    chip, physics, read = field.chip, field.physics, setting.read / 2.0**setting.finer
    planes = [float(1 << at) for at in plane_shifts(chip)]
    sliced = slices(chip, q)
    several = parts * len(planes) * len(sliced) > 1
    cells, spread = torch.zeros_like(q), torch.zeros_like(q)
    bias, offset, floor = torch.ones_like(read), torch.zeros_like(read), torch.zeros_like(read)
    for number, (up, digits, levels) in enumerate(sliced):
        normals = _normals(digits)
        held = drawn_cells(digits, normals, chip=chip, physics=physics, slice_index=number, levels=levels)
        gain, off = _columns(setting, read, index, number, field)
        noise = read_noise_sd(torch.ones_like(read), chip=chip, physics=physics, step=read) ** 2
        still = read_noise_sd(torch.zeros_like(read), chip=chip, physics=physics, step=read) ** 2
        weight = float(4**up)
        cells, bias = cells + held.weights * gain * float(2**up), gain if number == 0 else bias
        offset = offset + off * read * (sum(planes) * 2**up)
        rounding = read * read / 12.0 if several else 0.0 * read
        floor = floor + (still + rounding) * (sum(p * p for p in planes) * weight)
        spread = spread + _cell_noise(digits, held.variance, noise - still, field) * weight
    if len(sliced) > 1:  # digits have no gradient: that of the whole weight stands for them
        cells = q + (cells - q).detach()
    spec = chip.physics.dac
    if spec is not None and physics.has("dac_nonlinearity") and spec.row_sd > 0:
        cells = cells * driver_gain(torch.randn(len(q), 1, device=q.device), spec)
    return Held(cells, bias, offset, floor, spread if _any_noise(field) else None)


def _any_noise(field: Field) -> bool:
    """Whether a read of cells is noisy."""
    has = field.physics.has
    return any(has(n) for n in ("read_noise", "thermal_noise", "shot_noise", "flicker_noise", "telegraph_noise"))


def _columns(setting: Setting, read: Tensor, index: int, number: int, field: Field) -> tuple[Tensor, Tensor]:
    """(gain, offset in codes) of the layer's columns on this chip instance."""
    place: dict[str, Any] = {"seed": field.seed, "instance": field.instance, "macro": setting.number << 8 | index}
    gain, offset = column_error(
        len(read), chip=field.chip, physics=field.physics, x0=0, step=read.detach().cpu().double().numpy(),
        slice_index=number, **place,
    )  # fmt: skip
    return torch.as_tensor(gain).to(read), torch.as_tensor(offset).to(read)


def _cell_noise(digits: Tensor, variance: Any, common: Tensor, field: Field) -> Tensor:
    """Variance of a read for each squared driven code, [rows, outputs]."""
    programmed_only = field.chip.cell.erased_exact
    alike = common * (digits != 0) if programmed_only else common.expand_as(digits)
    if variance is None:
        return alike.detach()
    return (variance / field.physics.calibration(field.chip).reads + alike).detach()


def _normals(like: Tensor) -> Callable[[bool], Callable[[str, int], Tensor]]:
    """Standard normals of cells, the same whenever one effect asks again."""

    def of(reference: bool) -> Callable[[str, int], Tensor]:
        known: dict[tuple[str, int], Tensor] = {}

        def draw(effect: str, plane: int) -> Tensor:
            if (effect, plane) not in known:
                size = (like.shape[0], like.shape[1] + int(reference))
                known[effect, plane] = torch.randn(size, device=like.device, dtype=like.dtype)
            return known[effect, plane]

        return draw

    return of


def slices(chip: Chip, q: Tensor) -> Sliced:
    """(shift, digits, what cells and reference column hold) of weight codes, as the macro has them."""
    bits, step, middle = weight_magnitude_bits(chip), slice_bits(chip), 1 << weight_magnitude_bits(chip)
    offset = chip.macro.weights.encoding == "offset_column"
    if step >= bits:
        return [(0, q, (q + middle, middle) if offset else None)]
    whole, found = q.detach(), Sliced()
    for at in digit_shifts(bits, step):
        last = at + step >= bits
        digits = torch.sign(whole) * _digit(whole.abs(), at, step, last=False)
        levels = (_digit(whole + middle, at, step, last=last), middle >> at if last else 0) if offset else None
        found.append((at, digits, levels))
    return found


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
    shifts, step = plane_shifts(chip), chip.macro.input.bits_per_pass
    if len(shifts) == 1:
        return codes * codes
    last = chip.macro.input.signed
    digits = ((at, _digit(codes, at, step, last=last and at == shifts[-1])) for at in shifts)
    return sum((d * d * float(4**at) for at, d in digits), torch.zeros_like(codes))


def _read_noise(
    setting: Setting, held: Held, x: Tensor, y: Tensor, apply: Apply, channel: int, chip: Chip
) -> Tensor:  # fmt: skip
    """One draw of what reads add to outputs."""
    with torch.no_grad():
        variance = along(held.floor, y, channel)
        if held.spread is not None:
            squares = _squares(chip, torch.round(_codes(setting, x, channel)))
            variance = variance + apply(squares, setting.back(held.spread))
        return torch.randn_like(y) * torch.sqrt(variance.clamp(min=0.0)) * along(setting.unit, y, channel)


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
        macro=setting.number << 8, x0=0,
    )  # fmt: skip
    if table is None:
        return y
    size = (setting.unit * setting.read).reshape(-1)
    codes = y.movedim(channel, -1) / size
    moved = bend(codes.detach(), torch.as_tensor(np.asarray(table)).to(y), lo) - codes.detach()
    return y + (moved * size).movedim(-1, channel)
