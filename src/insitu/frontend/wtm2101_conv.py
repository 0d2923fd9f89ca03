"""Convolutions of the vendor dialect; in a streamed network their last axis is time, one frame a step.

A transposed convolution is the equivalent one that gives all phases of its stride at once, interleaved after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from insitu.frontend.wtm2101_draft import Call, Draft, Value
from insitu.frontend.wtm2101_layers import Matrix, array_layer, bias_of, weights_of
from insitu.graph.graph import Attr
from insitu.numeric.affine import Ints


def conv(draft: Draft, call: Call) -> Value:
    """A convolution; in a streamed network its last axis is time, one frame a step."""
    x, w = draft.values[call.node.inputs[0]], weights_of(call, draft, 1)
    rank = w.ndim - 2
    if rank < 1 or len(draft.shape(x)) != w.ndim:
        raise call.fault(f"inputs {draft.shape(x)} and weights {w.shape}", "inputs and weights of equal rank")
    strides, dilations, pads = windows(call, draft.shape(x)[2:], w.shape[2:])
    if draft.streamed and w.ndim == 4:
        x, pads = _streamed(draft, call, x, w.shape[-1], strides[-1], dilations[-1], pads)
    attrs: dict[str, Attr] = {"strides": strides, "dilations": dilations, "pads": pads}
    attrs["group"] = call.integer("group", 1)
    bias = bias_of(call, draft, 2, w.shape[0])
    return array_layer(draft, call, x, Matrix(w, bias, call.gain, attrs), output=call.output)


def windows(
    call: Call, space: tuple[int, ...], kernel: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """(strides, dilations, pads); as many pads as axes count on both sides.  `kernel` is needed for "SAME" only."""
    rank = len(space)
    strides, dilations = (tuple(call.attrs.get(n) or (1,) * rank) for n in ("strides", "dilations"))
    pads = tuple(call.attrs.get("pads") or (0,) * 2 * rank)
    pads = pads * 2 if len(pads) == rank else pads
    strides, dilations = strides[:rank], dilations[:rank]  # 1-D files carry a second number
    auto = call.attrs.get("auto_pad", "NOTSET")
    if auto in ("SAME", "SAME_UPPER", "SAME_LOWER") and len(kernel) == len(strides) == len(dilations) == rank:
        pads = _same(space, kernel, strides, dilations, lower=auto == "SAME_LOWER")
    elif auto not in ("NOTSET", "VALID"):
        raise call.fault(f"auto_pad = {auto}", "pads as numbers")
    if (len(strides), len(dilations), len(pads)) != (rank, rank, 2 * rank) or min((*strides, *dilations)) < 1:
        raise call.fault(f"strides {strides}, dilations {dilations}, pads {pads}", f"{rank} each, and {2 * rank} pads")
    return strides, dilations, pads


def _same(
    space: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    *,
    lower: bool,
) -> tuple[int, ...]:
    """Pads with which there are as many outputs as strides fit the input; an odd one behind, or in front."""
    whole = [
        max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        for n, k, s, d in zip(space, kernel, strides, dilations, strict=True)
    ]
    front = [-(-w // 2) if lower else w // 2 for w in whole]
    return (*front, *(w - f for w, f in zip(whole, front, strict=True)))


def _streamed(
    draft: Draft, call: Call, x: Value, taps: int, stride: int, dilation: int, pads: tuple[int, ...]
) -> tuple[Value, tuple[int, ...]]:
    """The frames that one step's output needs; frames it would need ahead of time make it lag."""
    half = len(pads) // 2
    reach = (taps - 1) * dilation
    ahead = reach - pads[half - 1]
    if stride != 1 or ahead < 0:
        raise call.fault(
            f"stride {stride} and padding {pads[half - 1]} along time", "stride 1 and padding within the kernel"
        )
    whole = draft.window(x, reach + 1, len(draft.shape(x)) - 1, name=call.name)
    bare = tuple(0 if i in (half - 1, 2 * half - 1) else p for i, p in enumerate(pads))
    return replace(whole, delay=x.delay + ahead), bare


def conv_transpose(draft: Draft, call: Call) -> Value:
    """A transposed convolution as the convolution that gives all phases of its stride, then interleaved and cut."""
    x, w = draft.values[call.node.inputs[0]], weights_of(call, draft, 1)
    rank, groups = w.ndim - 2, call.integer("group", 1)
    if rank < 1 or len(draft.shape(x)) != w.ndim or groups < 1 or w.shape[0] % groups:
        raise call.fault(f"weights {w.shape} in {groups} groups", "equal groups, and weights of the input's rank")
    strides, dilations, pads = windows(call, draft.shape(x)[2:], ())
    w = _spread(_ungrouped(w, groups), dilations)
    extra = tuple(call.attrs.get("output_padding") or (0,) * rank)[:rank]
    axes = [
        _Axis(size, k, s, pads[i], pads[i + rank], extra[i])
        for i, (size, k, s) in enumerate(zip(draft.shape(x)[2:], w.shape[2:], strides, strict=True))
    ]
    if draft.streamed and rank == 2:
        x, axes[-1] = _streamed_axis(draft, call, x, axes[-1])
    pads = (*(a.before for a in axes), *(a.after for a in axes))
    attrs: dict[str, Attr] = {"strides": (1,) * rank, "dilations": (1,) * rank, "group": 1, "pads": pads}
    bias = np.tile(bias_of(call, draft, 2, w.shape[1]), prod(a.stride for a in axes))
    equal = Matrix(_phases(w, axes), bias, call.gain, attrs)
    plain = all(a.stride == 1 and a.out == a.positions and a.cut == 0 for a in axes)
    phased = array_layer(draft, call, x, equal, output=call.output if plain else "")
    return phased if plain else _interleaved(draft, call, phased, axes, w.shape[1])


def _ungrouped(w: Ints, groups: int) -> Ints:
    """Weights [I, O / groups, *kernel] as [I, O, *kernel], zeros between groups."""
    each, outs = w.shape[0] // groups, w.shape[1]
    whole = np.zeros((w.shape[0], outs * groups, *w.shape[2:]), np.int64)
    for g in range(groups):
        whole[g * each : (g + 1) * each, g * outs : (g + 1) * outs] = w[g * each : (g + 1) * each]
    return whole


def _spread(w: Ints, dilations: Sequence[int]) -> Ints:
    """A kernel with the zeros that its dilations leave between taps."""
    sizes = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations, strict=True)]
    wide = np.zeros((*w.shape[:2], *sizes), np.int64)
    wide[(slice(None), slice(None), *(slice(None, None, d) for d in dilations))] = w
    return wide


@dataclass(frozen=True)
class _Axis:
    """One spatial axis of a transposed convolution; output element f = stride * q + phase reads inputs q, q - 1, ..."""

    size: int
    kernel: int
    stride: int
    cut: int  # elements dropped in front
    drop: int  # and behind
    extra: int = 0
    streamed: bool = False

    @property
    def taps(self) -> int:
        """Inputs that one output element reads at most."""
        return -(-self.kernel // self.stride)

    @property
    def full(self) -> int:
        """Elements before the cut."""
        return (self.size - 1) * self.stride + self.kernel + self.extra

    @property
    def out(self) -> int:
        """Elements that stay."""
        return 1 if self.streamed else self.full - self.cut - self.drop

    @property
    def positions(self) -> int:
        """Values of q, all that the elements kept need."""
        return 1 if self.streamed else max(self.size, -(-(self.cut + self.out) // self.stride))

    @property
    def before(self) -> int:
        return 0 if self.streamed else self.taps - 1

    @property
    def after(self) -> int:
        return 0 if self.streamed else self.positions - self.size


def _streamed_axis(draft: Draft, call: Call, x: Value, axis: _Axis) -> tuple[Value, _Axis]:
    """Time: the output of a step reads the newest frame and those before; what is cut in front makes it lag."""
    if axis.stride != 1:
        raise call.fault(f"stride {axis.stride} along time", "stride 1")
    whole = draft.window(x, axis.kernel, len(draft.shape(x)) - 1, name=call.name)
    return replace(whole, delay=x.delay + axis.cut), replace(axis, streamed=True, cut=0, drop=0, extra=0)


def _phases(w: Ints, axes: Sequence[_Axis]) -> Ints:
    """Weights [I, O, *kernel] as [phases * O, I, *taps]; tap j of phase r is element r + stride * (taps - 1 - j)."""
    out = np.moveaxis(w, 1, 0)  # [O, I, *kernel]
    for i, axis in enumerate(axes):
        at = out.ndim - len(axes) + i
        wide = np.zeros((*out.shape[:at], axis.taps * axis.stride, *out.shape[at + 1 :]), np.int64)
        wide[(slice(None),) * at + (slice(0, axis.kernel),)] = out
        split = wide.reshape(*out.shape[:at], axis.taps, axis.stride, *out.shape[at + 1 :])
        split = np.flip(split, axis=at)  # the oldest input first
        out = np.moveaxis(split, at + 1, i)  # phases of earlier axes stay outermost
    return out.reshape(-1, *out.shape[len(axes) + 1 :])


def _interleaved(draft: Draft, call: Call, y: Value, axes: Sequence[_Axis], channels: int) -> Value:
    """[1, phases * O, *q] as [1, O, *(stride * q + phase)], cut to the elements that stay."""
    rank, name = len(axes), call.name
    strides, space = [a.stride for a in axes], [a.positions for a in axes]
    last = {"output": call.output}
    cuts = [(2 + i, a.cut, a.cut + a.out) for i, a in enumerate(axes) if (a.cut, a.out) != (0, a.stride * a.positions)]
    if any(s > 1 for s in strides):
        parted = draft.move("Reshape", y, name=f"{name}.phases", attrs={"shape": (1, *strides, channels, *space)})
        perm = [0, 1 + rank] + [axis for i in range(rank) for axis in (2 + rank + i, 1 + i)]
        turned = draft.move("Transpose", parted, name=f"{name}.turned", attrs={"perm": tuple(perm)})
        merged = (1, channels, *(s * q for s, q in zip(strides, space, strict=True)))
        y = draft.move("Reshape", turned, name=f"{name}.interleaved", attrs={"shape": merged}, **({} if cuts else last))
    if not cuts:
        return y
    attrs: dict[str, Attr] = {
        "axes": tuple(c[0] for c in cuts), "starts": tuple(c[1] for c in cuts), "ends": tuple(c[2] for c in cuts),
        "steps": (1,) * len(cuts),
    }  # fmt: skip
    return draft.move("Slice", y, name=f"{name}.cut", attrs=attrs, **last)
