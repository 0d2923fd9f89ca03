"""Recurrent cells of the vendor dialect as array reads, tables and 16-bit products; the graph carries their state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from insitu.frontend.wtm2101_digital import first, look_up
from insitu.frontend.wtm2101_draft import INT8, Array, Call, Draft, Value, rounding, spec_of
from insitu.frontend.wtm2101_layers import Matrix, array_layer, bias_of, weights_of
from insitu.graph.graph import Attr

INT16 = (-(1 << 15), (1 << 15) - 1)
Operator = Callable[[Draft, Call], Value]


def _tables(call: Call, count: int) -> list[Array]:
    """The tables of a cell: one tensor of `count` rows, or as many tensors."""
    given: Any = call.attrs.get("activate_table")
    if isinstance(given, list | tuple):
        rows = [np.asarray(t).reshape(-1) for t in given]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    else:
        rows = [] if given is None else list(np.asarray(given).reshape(-1, np.asarray(given).shape[-1]))
    if len(rows) < count:
        raise call.fault(f"{len(rows)} tables", f"{count}: {', '.join(('sigmoid', 'tanh', 'tanh')[:count])}")
    return rows


def _shifts(call: Call, default: Sequence[int]) -> list[int]:
    """The cell's shifts, positive to the left; two numbers stand for the last two of an Lstm's four."""
    given = [int(s) for s in call.attrs.get("shift_bits") or default]
    if len(given) == 2 and len(default) == 4 and call.node.op == "Lstm":
        given = [*default[:2], *given]
    given += list(default[len(given) :])
    if len(given) != len(default) or max(abs(s) for s in given) > 14:
        raise call.fault(f"shift_bits {given}", f"{len(default)} numbers of at most 14 places")
    return given


def _arithmetic(
    draft: Draft, call: Call, op: str, pair: Sequence[Value | str], name: str,
    span: tuple[int, int], *, shift: int = 0, signs: tuple[int, int] = (1, 1), output: str = "",
) -> Value:  # fmt: skip
    """(a op b) * 2**shift in `span`, rounded as the dialect's table has it."""
    up = 1 << max(shift, 0)
    attrs = {"multiplier": up} if op == "Mul" else {"scale_a": signs[0] * up, "scale_b": signs[1] * up}
    return draft.arithmetic(
        op,
        pair,
        *span,
        name=name,
        output=output,
        rounding=rounding(call.node.op),
        shift=max(-shift, 0),
        attrs=dict(attrs),
    )


def _gate(draft: Draft, gates: Value, index: int, size: int, name: str) -> Value:
    return draft.cut(gates, 1, index * size, (index + 1) * size, name=name)


def _read(
    draft: Draft, call: Call, x: Sequence[Value], index: int, bias: int, gain: str, name: str, array: int
) -> Value:
    """Gates of one array: its weights at input `index`, biases at `bias`, gain an attribute."""
    w, rows = weights_of(call, draft, index), sum(draft.shape(v)[-1] for v in x)
    if w.ndim != 2 or w.shape[0] != rows:
        got = f"weights {w.shape} for {rows} inputs (its own and the state's)"
        raise call.fault(got, "a matrix of as many rows")
    matrix = Matrix(w, bias_of(call, draft, bias, w.shape[1]), call.integer(gain, 1024))
    return array_layer(
        draft, call, x, matrix, name=f"{call.name}.{name}", options=call.options.array(array), low=INT8[0]
    )


def _hidden(draft: Draft, call: Call, size: int, name: str) -> Value:
    return draft.state(f"{call.name}.{name}", (1, size), spec_of(*INT8), lo=INT8[0], hi=INT8[1])


def lstm(draft: Draft, call: Call) -> Value:
    """Lstm; every line is exact to the vendor's reference dumps."""
    x, name = first(draft, call), call.name
    sigmoid, tanh, tanh_c = _tables(call, 3)
    s_f, s_i, s_c, s_h = _shifts(call, (0, 0, -7, -7))
    size = weights_of(call, draft, 2).shape[1]
    h, c = _hidden(draft, call, size, "h"), _hidden(draft, call, size, "c")
    rows = [x, replace(h, delay=x.delay)]
    ifo = look_up(draft, call, _read(draft, call, rows, 1, 3, "scale_ioft", "ifo", 0), sigmoid, name=f"{name}.gates")
    cell = look_up(draft, call, _read(draft, call, rows, 2, 4, "scale_ct", "c_in", 1), tanh, name=f"{name}.candidate")
    i, f, o = (_gate(draft, ifo, k, size, f"{name}.{g}") for k, g in enumerate("ifo"))
    fc = _arithmetic(draft, call, "Mul", [f, c], f"{name}.fc", INT16, shift=s_f)
    ic = _arithmetic(draft, call, "Mul", [i, cell], f"{name}.ic", INT16, shift=s_i)
    c_next = _arithmetic(draft, call, "Add", [fc, ic], f"{name}.c_next", INT8, shift=s_c)
    shaped = look_up(draft, call, c_next, tanh_c, name=f"{name}.c_tanh")
    h_next = _arithmetic(draft, call, "Mul", [o, shaped], name, INT8, shift=s_h, output=call.output)
    draft.carry(h, h_next)
    draft.carry(c, c_next)
    return h_next


def gru(draft: Draft, call: Call) -> Value:
    """Gru with one array for the candidate (5 inputs), or one for each of its halves (7 inputs)."""
    x, name = first(draft, call), call.name
    sigmoid, tanh = _tables(call, 2)
    s_r, s_h = _shifts(call, (-7, -7))
    size = weights_of(call, draft, 2).shape[1]
    h = replace(_hidden(draft, call, size, "h"), delay=x.delay)
    halves = len(call.node.inputs) >= 7
    zr = look_up(
        draft,
        call,
        _read(draft, call, [h, x], 1, 4 if halves else 3, "scale_zr", "zr", 0),
        sigmoid,
        name=f"{name}.gates",
    )
    z, r = (_gate(draft, zr, k, size, f"{name}.{g}") for k, g in enumerate("zr"))
    if halves:
        of_h = _read(draft, call, [h], 2, 5, "scale_ht", "hn", 1)
        of_x = _read(draft, call, [x], 3, 6, "scale_in", "in", 2)
        kept = _arithmetic(draft, call, "Mul", [r, of_h], f"{name}.rh", INT8, shift=s_r)
        total = _sum(draft, call, of_x, kept, tanh, f"{name}.n_in")
    else:
        kept = _arithmetic(draft, call, "Mul", [r, h], f"{name}.rh", INT8, shift=s_r)
        total = _read(draft, call, [kept, x], 2, 4, "scale_ht", "n_in", 1)
    n = look_up(draft, call, total, tanh, name=f"{name}.n")
    return _mixed(draft, call, h, z, n, (0, 0, s_h))


def gru_2_array(draft: Draft, call: Call) -> Value:
    """Gru2Array: gates z, r, n of the input in one array, of the state in another."""
    x, name = first(draft, call), call.name
    sigmoid, tanh = _tables(call, 2)
    s_r, s_h, s_keep, s_new = _shifts(call, (-7, -7, -7, -7))
    size = weights_of(call, draft, 2).shape[0]
    h = replace(_hidden(draft, call, size, "h"), delay=x.delay)
    of_x = _read(draft, call, [x], 1, 3, "scale_input", "of_x", 0)
    of_h = _read(draft, call, [h], 2, 4, "scale_hidden", "of_h", 1)
    down = call.integer("hidden_shift_bit", 0)
    if call.integer("input_offset", 0) or abs(down) > 7:
        raise call.fault(
            f"input_offset {call.attrs.get('input_offset', 0)}, hidden_shift_bit {down}", "0, and at most 7 places"
        )
    if down:
        attrs: dict[str, Attr] = {"multiplier": 1 << max(down, 0)}
        of_h = draft.arithmetic(
            "Requantize", [of_h], *INT8, name=f"{name}.of_h_shifted", rounding=rounding("Gru2Array"),
            shift=max(-down, 0), attrs=attrs,
        )  # fmt: skip
    gates = [
        [_gate(draft, g, k, size, f"{name}.{who}_{c}") for k, c in enumerate("zrn")]
        for g, who in ((of_x, "x"), (of_h, "h"))
    ]
    z, r = (
        look_up(
            draft,
            call,
            _sum(draft, call, gates[0][k], gates[1][k], sigmoid, f"{name}.{g}_in"),
            sigmoid,
            name=f"{name}.{g}",
        )
        for k, g in enumerate("zr")
    )
    kept = _arithmetic(draft, call, "Mul", [r, gates[1][2]], f"{name}.rh", INT8, shift=s_r)
    n = look_up(draft, call, _sum(draft, call, gates[0][2], kept, tanh, f"{name}.n_in"), tanh, name=f"{name}.n")
    return _mixed(draft, call, h, z, n, (s_keep, s_new, s_h))


def _sum(draft: Draft, call: Call, a: Value, b: Value, table: Array, name: str) -> Value:
    """A sum that a table is read with: 9 bits for 1024 entries, 8 for 256."""
    span = (-256, 255) if table.size == 1024 else INT8
    return _arithmetic(draft, call, "Add", [a, b], name, span)


def _mixed(draft: Draft, call: Call, h: Value, z: Value, n: Value, shifts: tuple[int, int, int]) -> Value:
    """The next state: (ones - z) h + z n, each product and the sum shifted."""
    name, ones = call.name, call.integer("scale_ones", 127)
    if not 1 <= ones <= 1 << 13:
        raise call.fault(f"scale_ones = {ones}", "1 to 8192")
    one = draft.constant(f"{name}.ones", np.full((1, 1), ones, np.int16), spec=spec_of(*INT16))
    rest = _arithmetic(draft, call, "Add", [one, z], f"{name}.rest", INT16, signs=(1, -1))
    wide = INT16 if ones <= 255 else (-(1 << 31), (1 << 31) - 1)
    keep = _arithmetic(draft, call, "Mul", [rest, h], f"{name}.keep", wide, shift=shifts[0])
    new = _arithmetic(draft, call, "Mul", [z, n], f"{name}.new", wide, shift=shifts[1])
    h_next = _arithmetic(draft, call, "Add", [keep, new], name, INT8, shift=shifts[2], output=call.output)
    draft.carry(h, h_next)
    return h_next


RECURRENT: dict[str, Operator] = {"Lstm": lstm, "Gru": gru, "Gru2Array": gru_2_array}
