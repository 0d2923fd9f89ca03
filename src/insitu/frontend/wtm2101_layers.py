"""Array layers of the vendor dialect, bit for bit: one matrix on unsigned rows, read at a gain.

Signed inputs, wide weights and the side file's options become rows, bias and gain that give the same integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from insitu.frontend.wtm2101_draft import INT8, Array, Call, Draft, Value, dialect, limit, rounding
from insitu.frontend.wtm2101_drive import Matrix, blocks, driven, halves
from insitu.frontend.wtm2101_options import ArrayOptions
from insitu.frontend.wtm2101_sparse import HALF, Digital, high_part, products
from insitu.graph.graph import Attr
from insitu.numeric.affine import Ints, QuantSpec

CELL_SPEC = QuantSpec(10, signed=True, scale=(1.0,))


def array_layer(
    draft: Draft, call: Call, x: Value | Sequence[Value], matrix: Matrix, *, name: str = "", output: str = "",
    options: ArrayOptions | None = None, low: int | None = None,
) -> Value:  # fmt: skip
    """Codes of x (or of several values side by side) times a matrix, read at its gain."""
    options = call.options.array() if options is None else options
    name, low = name or call.name, call.low if low is None else low
    x, matrix = (x, matrix) if isinstance(x, Value) else _side_by_side(draft, x, matrix, name)
    matrix = replace(matrix, bias=matrix.bias << options.front, gain=matrix.gain << options.front >> options.magnify)
    if options.mode in ("MIX_MODE", "DIG_MODE"):
        wide = matrix.weights << options.weight_shift
        if np.abs(wide).max(initial=0) > limit("cell") or options.mode == "DIG_MODE":
            return _by_processor(draft, call, x, matrix, name=name, output=output, options=options, low=low)
    options = _fitting(draft, x, options, name)
    whole, (matrix, pieces) = matrix, _scaled(call, matrix, options)
    bounds = blocks(call, x, matrix, options, len(pieces)) if x.lo < 0 else ()
    if bounds:
        rest = replace(options, front=0, magnify=0)
        return _in_blocks(draft, call, x, whole, bounds, name=name, output=output, options=rest, low=low)
    drive = driven(draft, call, x, matrix, options, name=name, pieces=len(pieces))
    cells = np.concatenate([drive.cells(p, matrix.inputs) for p in pieces], axis=matrix.inputs)
    matrix = replace(matrix, weights=cells, bias=_bias(call, drive.bias))
    _check_gain(call, matrix.gain)
    if options.repeat > 1:
        matrix, cells = _copied(call, matrix, options.repeat)
    attrs = dict(matrix.conv or {}) | drive.attrs | {"lo": low, "hi": 127, "rounding": "half_even"}
    attrs |= {"readout": "wtm2101", "parts": _parts(matrix.rows), "k": 0}
    if options.region != "ANY_REGION":
        attrs["region"] = options.region.removesuffix("_REGION").lower()
    stored = cells.astype(np.int8 if cells.min(initial=0) >= -128 and cells.max(initial=0) <= 127 else np.int16)
    tables = [
        draft.constant(f"{name}.weight", stored, spec=CELL_SPEC),
        draft.constant(f"{name}.bias", matrix.bias),
        "", "", draft.constant(f"{name}.gain", np.array([matrix.gain], np.int64)),
    ]  # fmt: skip
    op, last = "MatMul" if matrix.conv is None else "Conv", output if options.repeat == 1 else ""
    y = draft.put(op, [drive.x, *tables], low, 127, name=name, output=last, attrs=attrs)
    return y if options.repeat == 1 else _mean_of_copies(draft, y, matrix, options.repeat, name=name, output=output)


def _copied(call: Call, matrix: Matrix, count: int) -> tuple[Matrix, Ints]:
    """arrayOutputOpti.repeat: every output several times, from cells of its own each time."""
    if matrix.group > 1:
        raise call.fault("a grouped convolution with arrayOutputOpti.repeat", "one group, or repeat 0")
    cells = np.concatenate([matrix.weights] * count, axis=1 - matrix.inputs)
    matrix = replace(matrix, weights=cells, bias=np.tile(matrix.bias, count))
    return matrix, cells


def _mean_of_copies(draft: Draft, y: Value, matrix: Matrix, count: int, *, name: str, output: str) -> Value:
    """The mean of the copies of each output, which are equal but for noise."""
    shape = draft.shape(y)
    axis = 1 if matrix.conv is not None else len(shape) - 1
    apart = (*shape[:axis], count, shape[axis] // count, *shape[axis + 1 :])
    parts = draft.move("Reshape", y, name=f"{name}.copies", attrs={"shape": apart})
    attrs: dict[str, Attr] = {
        "axes": (axis,), "keepdims": 0, "multiplier": 1, "shift": count.bit_length() - 1,
        "rounding": rounding("AveragePool"), "lo": y.lo, "hi": y.hi,
    }  # fmt: skip
    mean = draft.put("ReduceMean", [parts], y.lo, y.hi, name=f"{name}.mean", output=output, attrs=attrs)
    return replace(mean, delay=y.delay)


def _in_blocks(
    draft: Draft, call: Call, x: Value, matrix: Matrix, bounds: Sequence[int], *, name: str, output: str,
    options: ArrayOptions, low: int,
) -> Value:  # fmt: skip
    """Parts of signed inputs as layers of their own, their codes summed: each makes up for its own offset."""
    axis = draft.frame_axis(x) if matrix.conv is None else 1
    total: Value | None = None
    for i, (first, last) in enumerate(pairwise(bounds)):
        rows = draft.cut(x, axis, first, last, name=f"{name}.rows{i}")
        part = matrix.part(first, last)
        read = array_layer(draft, call, rows, part, name=f"{name}.part{i}", options=options, low=INT8[0])
        if total is None:
            total = read
        elif last < bounds[-1]:
            total = draft.arithmetic("Add", [total, read], -(1 << 15), (1 << 15) - 1, name=f"{name}.sum{i}")
        else:
            total = draft.arithmetic("Add", [total, read], low, INT8[1], name=name, output=output)
    assert total is not None
    return total


def _by_processor(
    draft: Draft, call: Call, x: Value, matrix: Matrix, *, name: str, output: str, options: ArrayOptions, low: int
) -> Value:
    """The vendor's MIX and DIG modes: the processor sums what the array does not hold."""
    _check_gain(call, matrix.gain)
    places = matrix.gain.bit_length() - 1
    if options.mode == "DIG_MODE":
        after = Digital(1, places, rounding("DIG"), _bias(call, matrix.bias))
        sums = products(draft, call, x, matrix, name=name, after=after)
        return draft.clipped(sums, low, 127, name=name, output=output)
    lows, highs = high_part(matrix.weights)
    part = replace(options, mode="", weight_shift=0, front=0, magnify=0)
    if options.weight_shift:
        draft.notes.append(f"{name}: weightOpti.num = {options.weight_shift} in MIX_MODE")
    held = array_layer(draft, call, x, replace(matrix, weights=lows), name=f"{name}.low", options=part, low=-128)
    after = Digital(2 * HALF, places, rounding("MIX"))
    high = products(draft, call, x, replace(matrix, weights=highs), name=f"{name}.high", after=after)
    return draft.arithmetic("Add", [held, high], low, 127, name=name, output=output)


def _side_by_side(draft: Draft, parts: Sequence[Value], matrix: Matrix, name: str) -> tuple[Value, Matrix]:
    """Values as one input; signed ones beside unsigned ones become two rows (x, -x) where a region holds that."""
    parts = draft.aligned(parts, name=name)
    sizes = [draft.shape(p)[-1] for p in parts]
    rows = sum(n * (2 if p.lo < 0 else 1) for n, p in zip(sizes, parts, strict=True))
    axis = draft.frame_axis(parts[0])
    if len(parts) == 1:
        return parts[0], matrix
    if all(p.lo < 0 for p in parts) or rows > limit("rows"):
        return draft.joined(parts, axis, name=f"{name}.input"), matrix
    blocks = np.split(matrix.weights, np.cumsum(sizes)[:-1], axis=0)
    values: list[Value] = []
    cells: list[Ints] = []
    for i, (part, block) in enumerate(zip(parts, blocks, strict=True)):
        values += halves(draft, part, f"{name}.{i}") if part.lo < 0 else [part]
        cells += [block, -block] if part.lo < 0 else [block]
    return draft.joined(values, axis, name=f"{name}.input"), replace(matrix, weights=np.concatenate(cells))


def _fitting(draft: Draft, x: Value, options: ArrayOptions, name: str) -> ArrayOptions:
    """The options without an input shift that would push codes out of a byte; it is noted."""
    if x.hi << options.input_shift <= 255 and x.lo << options.input_shift >= -255:
        return options
    draft.notes.append(f"{name}: inputOpti.num = {options.input_shift} on inputs of {x.lo} to {x.hi}")
    return replace(options, input_shift=0)


def _scaled(call: Call, matrix: Matrix, options: ArrayOptions) -> tuple[Matrix, list[Ints]]:
    """The matrix with its options' powers of two in weights, bias and gain; the pieces that add up to its weights."""
    pieces = _pieces(call, matrix.weights << options.weight_shift, options) * (1 << options.copies)
    if len(pieces) > 1 and matrix.group > 1:
        raise call.fault("a grouped convolution with rows to repeat", "weights within a cell, and no doubleWeightOpti")
    up = options.weight_shift + options.input_shift + options.copies
    return replace(matrix, bias=matrix.bias << up, gain=matrix.gain << up, weights=sum(pieces)), pieces  # pyright: ignore[reportArgumentType]


def _pieces(call: Call, weights: Ints, options: ArrayOptions) -> list[Ints]:
    """Weights within the cells' range that add up to `weights`."""
    cell, peak = limit("cell"), int(np.abs(weights).max(initial=0))
    if peak <= cell:
        return [weights]
    if options.mode == "SIM_MODE":  # the vendor's rule: values beyond the range are cut off
        return [np.clip(weights, -cell, cell)]
    count = -(-peak // cell)
    if options.mode or count > limit("most_copies"):
        outside = int((np.abs(weights) > cell).sum())
        got = f"{outside:,} weights beyond {cell}, the largest {peak}" + (
            f", with {options.mode}" if options.mode else ""
        )
        ways = (
            "sparseMatrixOpti { sp_mode: SIM_MODE } in the side file cuts them off as the vendor does",
            "sp_mode: MIX_MODE adds their high part digitally",
        )
        raise call.fault(got, f"weights of at most {cell * limit('most_copies')}", try_=ways)
    left, pieces = weights, list[Ints]()
    for remaining in range(count, 0, -1):  # equal shares: several rows are driven with the same input
        share = np.rint(left / remaining).astype(np.int64)
        pieces.append(share)
        left = left - share
    return pieces


def _bias(call: Call, bias: Ints) -> Ints:
    """The bias as bias rows hold it."""
    unit = limit("bias_unit")
    rounded = np.rint(bias / unit).astype(np.int64) * unit
    most = unit * limit("cell") * limit("bias_rows")
    if np.abs(rounded).max(initial=0) > most:
        got = f"a bias of {int(np.abs(rounded).max()):,}"
        raise call.fault(got, f"at most {most:,}, what {limit('bias_rows')} bias rows hold")
    return rounded


def _check_gain(call: Call, gain: int) -> None:
    low, high = (int(g) for g in dialect()["limits"]["gain"])
    if not low <= gain <= high or gain & (gain - 1):
        got = f"a gain of {gain}" + (" with its options" if call.gain and gain != call.gain else "")
        raise call.fault(got, f"a power of two from {low} to {high}")


def _parts(rows: int) -> tuple[int, ...]:
    """Row parts read one by one, where a region does not hold all rows."""
    count = -(-rows // limit("rows"))
    small, larger = divmod(rows, count)
    bounds = [0, *(small * i + min(i, larger) for i in range(1, count + 1))]
    return tuple(bounds) if count > 1 else ()


# operators


def weights_of(call: Call, draft: Draft, index: int) -> Ints:
    """A constant input as integers."""
    names = call.node.inputs
    array = draft.builder.constants.get(names[index]) if index < len(names) else None
    if array is None:
        raise call.fault(f"its input {index + 1} is no constant", "integers stored in the file")
    return integers(call, array)


def integers(call: Call, array: Array) -> Ints:
    """An array of the file as integers."""
    whole = np.rint(np.asarray(array, np.float64))
    if not np.array_equal(whole, np.asarray(array, np.float64)) or np.abs(whole).max(initial=0) >= 1 << 31:
        raise call.fault("constants that are no integers", "an already quantized network: integers in FLOAT tensors")
    return whole.astype(np.int64)


def bias_of(call: Call, draft: Draft, index: int, cols: int) -> Ints:
    """The bias at an input, zeros where it is absent."""
    names = call.node.inputs
    if index >= len(names) or not names[index]:
        return np.zeros(cols, np.int64)
    bias = weights_of(call, draft, index).reshape(-1)
    if bias.size not in (1, cols):
        raise call.fault(f"{bias.size} biases", f"{cols}, one per output")
    return np.broadcast_to(bias, (cols,)).copy()


def gemm(draft: Draft, call: Call) -> Value:
    """Gemm, or MatMul with a constant."""
    x = draft.values[call.node.inputs[0]]
    w = weights_of(call, draft, 1)
    if w.ndim != 2 or call.number("alpha", 1) != 1 or call.number("beta", 1) != 1:
        raise call.fault("alpha, beta or weights of other rank", "alpha = beta = 1 and a matrix of weights")
    if call.attrs.get("transA", 0):
        raise call.fault("transA = 1", "inputs as rows")
    w = w.T if call.attrs.get("transB", 0) else w
    if draft.shape(x)[-1] != w.shape[0]:
        raise call.fault(f"inputs of {draft.shape(x)[-1]} for weights of {w.shape[0]} rows", "equal sizes")
    return array_layer(draft, call, x, Matrix(w, bias_of(call, draft, 2, w.shape[1]), call.gain), output=call.output)


def tdnn(draft: Draft, call: Call) -> Value:
    """A layer over frames at `time_offsets`; offsets ahead of the newest frame make its output lag."""
    x, w = draft.values[call.node.inputs[0]], weights_of(call, draft, 1)
    offsets = [int(o) for o in integers(call, np.asarray(call.attrs.get("time_offsets", [0]))).reshape(-1)]
    cols, size = w.shape[-1], draft.shape(x)[-1]
    if w.ndim != 2 or w.shape[0] != size * len(offsets) or len(set(offsets)) != len(offsets):
        got = f"weights {w.shape} for {len(offsets)} offsets of {size} inputs"
        raise call.fault(got, f"{size * len(offsets)} rows, and each offset once")
    rows = _frames(draft, x, offsets, call.name)
    bias = call.attrs.get("bias_params")
    bias = bias_of(call, draft, 2, cols) if bias is None else integers(call, np.asarray(bias)).reshape(-1)
    return array_layer(draft, call, rows, Matrix(w, bias, call.gain), output=call.output)


def _frames(draft: Draft, x: Value, offsets: Sequence[int], name: str) -> Value:
    """Frames at the offsets, side by side in their order."""
    ahead, size = max(0, *offsets), draft.shape(x)[-1]
    taps = ahead - min(offsets) + 1
    axis = draft.frame_axis(x)
    whole = draft.window(x, taps, axis, name=name)
    if list(offsets) != list(range(min(offsets), ahead + 1)):
        at = [(o - min(offsets)) * size for o in offsets]
        cuts = [draft.cut(whole, axis, a, a + size, name=f"{name}.frame{i}") for i, a in enumerate(at)]
        whole = draft.joined(cuts, axis, name=f"{name}.frames")
    return replace(whole, delay=x.delay + ahead)
