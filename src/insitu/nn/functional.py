"""What a chip layer computes while it trains: rounding with straight-through gradients, cells, the readout's codes.

Everything is in real numbers, so that the module around a layer sees what it saw before; codes appear where cells and
converters have their errors (physics.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from insitu.nn.behind import TINY, Behind
from insitu.numeric.affine import QuantSpec

Apply = Callable[[Tensor, Tensor], Tensor]  # (inputs, weights in the parameter's shape) -> column sums


class Rounded(torch.autograd.Function):
    """Numbers at the nearest of lo * scale .. hi * scale, half to even; the gradient passes where nothing is clipped.

    What torch.fake_quantize_per_tensor_affine does, in passes that use all threads and vectors.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, lo: int, hi: int) -> Tensor:
        """Save the numbers for what is clipped."""
        ctx.save_for_backward(x)
        ctx.bounds = ((lo - 0.5) * scale, (hi + 0.5) * scale)
        return x.mul(1.0 / scale).round_().clamp_(lo, hi).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        """The gradient, but for what is clipped."""
        (x,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(grads[0], x, *ctx.bounds), None, None, None


class RoundedEach(torch.autograd.Function):
    """`Rounded` with a scale of its own for each channel: scales broadcast against x.

    With `zero`, the code of a real 0, codes are those of the wtm2101 readout: two bits behind the point towards code 0,
    then half up (insitu.numeric.readout.wtm2101_code).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scales: Tensor | float, lo: int, hi: int, zero: int | None = None) -> Tensor:
        """Save the numbers in steps for what is clipped."""
        steps = x / scales
        ctx.save_for_backward(steps)
        ctx.bounds = (lo - 0.5, hi + 0.5)
        if zero is None:
            return steps.round().clamp_(lo, hi).mul_(scales)
        quarters = steps.mul(4.0).add_(4.0 * zero).trunc_()
        return quarters.add_(2.0).mul_(0.25).floor_().sub_(zero).clamp_(lo, hi).mul_(scales)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        """The gradient, but for what is clipped."""
        (steps,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(grads[0], steps, *ctx.bounds), None, None, None, None


@dataclass(frozen=True)
class Codes:
    """What the codes of an activation stand for; `axis` counts from the end, `scales` are per channel there.

    `quarters`: they are rounded as the wtm2101 readout does.
    """

    scale: float
    zero: int
    lo: int
    hi: int
    axis: int | None = None
    scales: Tensor | None = None
    quarters: bool = False

    @classmethod
    def of(cls, spec: QuantSpec, *, lo: int | None = None, hi: int | None = None) -> Codes:
        """The codes of a spec, within the bounds of a fused activation; 0 stays among them."""
        low, high = (spec.lo if lo is None else lo), (spec.hi if hi is None else hi)
        scales = None if spec.axis is None else torch.tensor(spec.scale, dtype=torch.float32)
        zero = spec.zero_point
        return cls(max(spec.scale), zero, min(low, zero), max(high, zero), spec.axis, scales)

    def along(self, axis: int) -> Codes:
        """The same where channels lie along another axis."""
        return self if self.axis is None else replace(self, axis=axis)

    def each(self, like: Tensor) -> Tensor:
        """The step of every channel."""
        return torch.full_like(like, self.scale) if self.scales is None else self.scales.to(like)

    def rounded(self, x: Tensor) -> Tensor:
        """The numbers next to `x` that codes stand for; the gradient passes where nothing is clipped."""
        x = x.float()
        lo, hi, zero = self.lo - self.zero, self.hi - self.zero, self.zero if self.quarters else None
        if self.scales is None or self.axis is None:
            return (
                RoundedEach.apply(x, self.scale, lo, hi, zero)
                if self.quarters
                else Rounded.apply(x, self.scale, lo, hi)
            )
        return RoundedEach.apply(x, along(self.scales.to(x.device), x, self.axis), lo, hi, zero)


@dataclass(frozen=True)
class Setting:
    """One layer on the chip, in the layout of its parameter.

    `step`: real size of a weight's code, shaped to broadcast against the parameter of `shape`; `lo`, `hi` bound codes.
    `unit`: real size of one column-sum step [outputs]; `read`: column-sum steps of one code of the readout [outputs],
    which a bias behind it is a whole number of.
    `source`: the driven code of a real 0; `drive`: driven codes of one input code.  `parts`: rows of separate readings,
    2**`finer` times as fine as `read`.  `shift`: real numbers added to the bias.  `bias_unit`: column-sum steps of a
    bias in the array (0: it joins behind the readout), of which its rows hold `bias_most`.  `transposed`: inputs stand
    before outputs in the parameter.  `behind`: a norm's factors and terms that the weights have taken in.  `copies`:
    times the program holds the layer, each of which serves a run of positions; `copy` counts them.  `rows_times`: how
    often an array holds the layer's rows, whose sums a column adds up; sums are multiples of `grain` steps.  `absent`:
    runs of outputs that no node of the network has, because what they give is constant or nobody reads it.  `norm`:
    factors of a batch norm among the weights [outputs], of which steps keep their share (`nn.norms.followed`),
    in `octaves` where scales are powers of two.  `converter`: the lowest and highest code of a converter that makes an
    output in one conversion; none where several make one, or no such converter does.
    """

    name: str
    number: int
    shape: tuple[int, ...]
    x: Codes | None
    y: Codes | None
    step: Tensor
    lo: int
    hi: int
    unit: Tensor
    read: Tensor
    source: float = 0.0
    drive: float = 1.0
    parts: tuple[int, ...] = ()
    finer: int = 0
    shift: Tensor | None = None
    bias_unit: int = 0
    bias_most: float = float("inf")
    groups: int = 1
    transposed: bool = False
    behind: Behind | None = None
    copies: int = 1
    copy: int = 0
    rows_times: int = 1
    grain: int = 1
    absent: tuple[tuple[int, int], ...] = ()
    norm: Tensor | None = None
    octaves: bool = False
    converter: tuple[int, int] | None = None

    @property
    def nowhere(self) -> bool:
        """Whether no node of the network has anything of it."""
        return self.absent == ((0, len(self.unit)),)

    @property
    def place(self) -> int:
        """Where the columns' own draws are found, below 2**24 for the first copy and 2**32 in all."""
        return self.copy << 16 | self.number

    def under(self, scale: Tensor) -> Setting:
        """The setting in the module's own numbers, where rows are driven with inputs over `scale` [inputs]."""
        scale = torch.where(scale == 0, torch.full_like(scale, TINY), scale.detach())
        x = self.x if self.x is None else replace(self.x, axis=-1, scales=self.x.each(scale) * scale)
        step = self.step / (scale[:, None] if self.transposed else scale)
        return replace(self, x=x, step=step, behind=None)

    def stretched(self, ratio: Tensor) -> Setting:
        """The setting with steps of weights so many times as large [outputs]; codes mean that much more."""
        if self.transposed:
            ins, out, *kernel = self.shape
            each = ratio.reshape(self.groups, 1, out).expand(-1, ins // self.groups, -1).reshape(ins, out)
            step = self.step * each.reshape(ins, out, *[1] * len(kernel))
        else:
            step = self.step * ratio.reshape(-1, *[1] * (len(self.shape) - 1))
        return replace(self, step=step, unit=self.unit * ratio)

    def to(self, device: torch.device) -> Setting:
        """The same on another device."""
        if self.step.device == device:
            return self
        moved = {n: getattr(self, n).to(device) for n in ("step", "unit", "read")}
        moved |= {n: v.to(device) for n in ("shift", "norm") if (v := getattr(self, n)) is not None}
        return replace(self, **moved)

    def cells(self, w: Tensor) -> Tensor:
        """A parameter-shaped tensor as [rows, outputs]; rows of one group where there are several."""
        if not self.transposed:
            return w.reshape(len(w), -1).T
        ins, out = w.shape[0] // self.groups, w.shape[1]
        apart = w.reshape(self.groups, ins, out, -1).transpose(1, 2)
        return apart.reshape(self.groups * out, -1).T

    def back(self, cells: Tensor) -> Tensor:
        """[rows, outputs] in the parameter's shape."""
        if not self.transposed:
            return cells.T.reshape(self.shape)
        ins, out = self.shape[0] // self.groups, self.shape[1]
        return cells.T.reshape(self.groups, out, ins, -1).transpose(1, 2).reshape(self.shape)


def rounded(x: Tensor) -> Tensor:
    """Whole numbers, with the gradient of x itself."""
    return x + (torch.round(x) - x).detach()


def codes_of_weights(setting: Setting, w: Tensor) -> Tensor:
    """Weights as codes; the gradient passes where none is clipped."""
    if not torch.is_grad_enabled():
        return w.float().div(setting.step).round_().clamp_(setting.lo, setting.hi)
    return rounded(torch.clamp(w.float() / setting.step, setting.lo, setting.hi))


def rounded_weights(setting: Setting, w: Tensor) -> Tensor:
    """The real numbers next to weights that codes stand for."""
    return RoundedEach.apply(w.float(), setting.step, setting.lo, setting.hi)


class Programmed(torch.autograd.Function):
    """What cells hold in place of weights w, in units of their codes; the gradient passes where no code is clipped."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, step: Tensor, lo: int, hi: int, holds: Tensor) -> Tensor:
        """Save the weights in steps for what is clipped."""
        ctx.save_for_backward(w / step)
        ctx.bounds = (lo - 0.5, hi + 0.5)
        return holds

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        """The gradient, but for what is clipped."""
        (codes,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(grads[0], codes, *ctx.bounds), None, None, None, None


def inputs(setting: Setting, x: Tensor) -> Tensor:
    """A layer's inputs on the codes that its rows take."""
    return x.float() if setting.x is None else setting.x.rounded(x)


def before_norm(
    setting: Setting, x: Tensor, w: Tensor, bias: Tensor | None
) -> tuple[Setting, Tensor, Tensor | None]:  # fmt: skip
    """(setting, inputs, bias) of a layer whose weights have taken in a norm's factors, and whose bias its terms."""
    if setting.behind is None:
        return setting, x, bias
    scale, shift = setting.behind.now(x.device)
    more = shift @ (w.float() if setting.transposed else w.float().T)
    return setting.under(scale), x.float() - shift, more if bias is None else bias.float() + more


def real_bias(setting: Setting, bias: Tensor | None, q: Tensor | None) -> tuple[Tensor, Tensor]:
    """What weight codes q add to a column under the zero point, and the bias as the chip adds it, both [outputs].

    The bias is in whole steps, and takes the first away again: a step is a code of the readout, in the array one of its
    rows'.  `q` may be None where a real 0 drives nothing.
    """
    total = torch.zeros_like(setting.unit) if bias is None else bias.float()
    total = total if setting.shift is None else total + setting.shift
    folded, size = 0.0 if q is None else setting.source * setting.cells(q).sum(0), setting.bias_unit or setting.read
    steps = rounded((total / setting.unit - folded) / size)
    if setting.bias_unit:
        steps = torch.clamp(steps, -setting.bias_most, setting.bias_most)
    first, made = folded * setting.unit, steps * size * setting.unit
    for a, b in setting.absent:  # nothing of these lies on the chip
        first[a:b], made[a:b] = 0.0, total[a:b]
    return first, made


def layer(
    setting: Setting, x: Tensor, w: Tensor, bias: Tensor | None, apply: Apply, *, channel: int = -1
) -> Tensor:  # fmt: skip
    """A chip layer's sums in training without physics, of inputs and weights rounded to codes.

    `channel` is the axis of outputs that counts columns.  The readout's codes are `finished`.
    """
    x = inputs(setting, x)
    with torch.no_grad():
        q = codes_of_weights(setting, w) if setting.source else None
    y, (first, b) = apply(x, rounded_weights(setting, w)), real_bias(setting, bias, q)
    if setting.converter is None:
        return y + along(first + b, y, channel)
    return converted(setting, y + along(first, y, channel), channel) + along(b, y, channel)


def converted(setting: Setting, y: Tensor, channel: int) -> Tensor:
    """A column's sums as codes of the one conversion that reads them, in real numbers; the gradient as of `Rounded`."""
    assert setting.converter is not None
    y, size = y.float(), setting.unit * setting.read
    return RoundedEach.apply(y, along(size, y, channel), *setting.converter)


def finished(setting: Setting, y: Tensor) -> Tensor:
    """Sums as the readout's codes."""
    return y if setting.y is None else setting.y.rounded(y)


def along(values: Tensor, like: Tensor, channel: int) -> Tensor:
    """One number per channel, shaped to broadcast against `like`."""
    shape = [1] * like.ndim
    shape[channel] = -1
    return values.reshape(shape).to(like.dtype)
