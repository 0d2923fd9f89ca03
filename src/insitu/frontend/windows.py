"""Convolutions and pools from ONNX: kernels, strides, pads; auto_pad and ceil_mode become plain pads."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

from insitu.frontend.call import Call
from insitu.graph.graph import Attr
from insitu.graph.ops.shapes import text


def conv(call: Call) -> None:
    w = call.constant(1)
    if w is None or len(call.shape()) not in (3, 4) or w.ndim != len(call.shape()):
        got = f"an input {text(call.shape())} and weights {text(call.shape(1))}"
        raise call.fault(got, "a 1-D or 2-D convolution: inputs and weights of 3 or 4 dimensions")
    kernel = tuple(int(d) for d in w.shape[2:])
    given = call.attrs.get("kernel_shape")
    if given is not None and tuple(given) != kernel:
        raise call.fault(f"kernel_shape {list(given)} for weights {text(w.shape)}", "equal sizes")
    attrs = _window(call, kernel)
    call.write({**attrs, "group": int(call.attrs.get("group", 1))}, inputs=call.node.inputs)


def _window(call: Call, kernel: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """strides, pads and dilations, with auto_pad resolved."""
    rank = len(kernel)
    if len(call.shape()) != rank + 2:
        raise call.fault(
            f"a kernel {list(kernel)} for an input {text(call.shape())}", f"an input of {rank + 2} dimensions"
        )
    strides = _numbers(call, "strides", rank)
    dilations = _numbers(call, "dilations", rank)
    pads = tuple(int(p) for p in call.attrs.get("pads", ())) or (0,) * (2 * rank)
    auto = call.attrs.get("auto_pad", "NOTSET")
    if auto == "VALID":
        pads = (0,) * (2 * rank)
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = _same_pads(call, kernel, strides, dilations, lower=auto == "SAME_LOWER")
    elif auto != "NOTSET":
        raise call.fault(f"auto_pad {auto!r}", "NOTSET, VALID, SAME_UPPER or SAME_LOWER")
    if len(pads) != 2 * rank or min(pads) < 0:
        raise call.fault(f"pads {list(pads)}", f"{2 * rank} numbers of at least 0")
    return {"strides": strides, "pads": pads, "dilations": dilations}


def _numbers(call: Call, name: str, rank: int) -> tuple[int, ...]:
    values = tuple(int(v) for v in call.attrs.get(name, ())) or (1,) * rank
    if len(values) != rank or min(values) < 1:
        raise call.fault(f"{name} {list(values)}", f"{rank} numbers of at least 1")
    return values


def _same_pads(
    call: Call, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...], *, lower: bool
) -> tuple[int, ...]:
    begins: list[int] = []
    ends: list[int] = []
    for i, (k, s, d) in enumerate(zip(kernel, strides, dilations, strict=True)):
        size = call.size(i + 2)
        total = max((ceil(size / s) - 1) * s + (k - 1) * d + 1 - size, 0)
        begin = total - total // 2 if lower else total // 2
        begins.append(begin)
        ends.append(total - begin)
    return (*begins, *ends)


def pool(call: Call) -> None:
    kernel = tuple(int(k) for k in call.attrs.get("kernel_shape", ()))
    if not kernel or min(kernel) < 1:
        raise call.fault(f"kernel_shape {list(kernel)}", "one number of at least 1 per spatial axis")
    attrs = _window(call, kernel)
    source, average = call.node.inputs[0], call.node.op == "AveragePool"
    inclusive = average and bool(call.attrs.get("count_include_pad", 0))
    before = attrs["pads"]
    if call.attrs.get("ceil_mode", 0) and call.attrs.get("auto_pad", "NOTSET") == "NOTSET":
        attrs["pads"] = _ceil_pads(call, kernel, attrs)
        if inclusive and attrs["pads"] != before:  # the extra cells do not count, the given ones do
            source = call.helper("Pad", [source], {"pads": _all_axes(before), "value": 0.0})
            attrs["pads"] = tuple(after - given for after, given in zip(attrs["pads"], before, strict=True))
            inclusive = False
    counting: dict[str, Attr] = {"count_include_pad": int(inclusive and any(attrs["pads"]))} if average else {}
    call.write({"kernel_shape": kernel, **attrs, **counting}, inputs=[source])


def _all_axes(pads: tuple[int, ...]) -> tuple[int, ...]:
    rank = len(pads) // 2
    return (0, 0, *pads[:rank], 0, 0, *pads[rank:])


def _ceil_pads(call: Call, kernel: tuple[int, ...], attrs: Mapping[str, Any]) -> tuple[int, ...]:
    """Pads that make the last, partial window a whole one, as ceil_mode asks."""
    rank, pads = len(kernel), list(attrs["pads"])
    for i, (k, s, d) in enumerate(zip(kernel, attrs["strides"], attrs["dilations"], strict=True)):
        size, reach = call.size(i + 2), (k - 1) * d + 1
        count = -(-(size + pads[i] + pads[i + rank] - reach) // s) + 1
        if (count - 1) * s >= size + pads[i]:
            count -= 1  # a window has to start inside the input or its left padding
        pads[i + rank] = max((count - 1) * s + reach - size - pads[i], 0 if count > 0 else pads[i + rank])
    return tuple(pads)


def global_max(call: Call) -> None:
    rank = len(call.shape()) - 2
    if rank < 1:
        raise call.fault(f"an input {text(call.shape())}", "at least 3 dimensions (samples, channels, space)")
    ones, kernel = (1,) * rank, tuple(call.size(i + 2) for i in range(rank))
    call.write({"kernel_shape": kernel, "strides": ones, "pads": (0,) * (2 * rank), "dilations": ones}, op="MaxPool")
