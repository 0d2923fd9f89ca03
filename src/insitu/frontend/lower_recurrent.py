"""Recurrent layers of ONNX, unrolled: input products of all steps are one weight layer, recurrent ones share theirs.

Steps read the same weights: nodes with one weight constant are placed once (compiler/place.py) and their inputs and
outputs share codes (algo/ties.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.frontend.call import Call, need

Array = npt.NDArray[Any]
MOST_STEPS = 256
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
FUNCTIONS = {
    "tanh": "tanh x", "sigmoid": "sigmoid x", "relu": "max x 0.0", "softsign": "div x add 1.0 abs x",
    "softplus": "softplus x",
}  # fmt: skip


@dataclass(frozen=True)
class _Way:
    """One direction: weights [in, gates], recurrent ones [hidden, gates], biases, activations, peepholes."""

    call: Call
    w: Array
    r: str
    own_bias: Array  # of the input's products
    other_bias: str  # of the recurrent ones
    peepholes: list[str]
    hidden: int
    functions: tuple[str, ...]
    rest: tuple[str, str] = ("", "")  # a GRU's recurrent weights and bias of the new gate, where they stand alone

    def gate(self, value: str, index: int) -> str:
        """One gate's columns."""
        return self.call.cut(value, 1, index * self.hidden, (index + 1) * self.hidden)

    def apply(self, index: int, x: str) -> str:
        """An activation."""
        clip = float(self.call.attrs.get("clip", 0.0))
        text = FUNCTIONS[self.functions[index]]
        inner = f"max {-clip!r} min {clip!r} x" if clip else "x"
        return self.call.curved(" ".join(inner if w == "x" else w for w in text.split()), x)

    def product(self, h: str) -> str:
        """The recurrent product of all gates."""
        return self.call.helper("Gemm", [h, self.r, self.other_bias])

    def add(self, a: str, b: str) -> str:
        return self.call.helper("Add", [a, b])

    def mul(self, a: str, b: str) -> str:
        return self.call.helper("Mul", [a, b])


def _lstm(d: _Way, left: str, state: list[str]) -> list[str]:
    h, c = state
    total = d.add(left, d.product(h)) if h else left
    i, o, f, g = (d.gate(total, k) for k in range(4))
    if d.peepholes and c:
        i, f = d.add(i, d.mul(c, d.peepholes[0])), d.add(f, d.mul(c, d.peepholes[2]))
    new = d.mul(d.apply(0, i), d.apply(1, g))
    if c:
        new = d.add(d.mul(d.apply(0, f), c), new)
    o = d.add(o, d.mul(new, d.peepholes[1])) if d.peepholes else o
    return [d.mul(d.apply(0, o), d.apply(2, new)), new]


def _gru(d: _Way, left: str, state: list[str]) -> list[str]:
    """The new state as n + z * (h - n), so that one product is enough."""
    [h] = state
    if not h:
        z = d.apply(0, d.gate(left, 0))
        n = d.apply(1, _without_state(d, left))
        return [d.call.helper("Sub", [n, d.mul(z, n)])]
    right = d.product(h)
    z, r = (d.apply(0, d.add(d.gate(left, i), d.gate(right, i))) for i in (0, 1))
    if d.rest[0]:
        inner = d.call.helper("Gemm", [d.mul(r, h), *d.rest])
    else:
        inner = d.mul(r, d.gate(right, 2))
    n = d.apply(1, d.add(d.gate(left, 2), inner))
    return [d.add(n, d.mul(z, d.call.helper("Sub", [h, n])))]


def _without_state(d: _Way, left: str) -> str:
    """The new gate's sum where the state is 0: biases of the recurrent product stay."""
    new, bias = d.gate(left, 2), d.call.builder.constants[d.rest[1] or d.other_bias][-d.hidden :]
    if not bias.any():
        return new
    if d.rest[0]:
        return d.add(new, d.call.table("bias", bias))
    return d.add(new, d.mul(d.apply(0, d.gate(left, 1)), d.call.table("bias", bias)))


def _rnn(d: _Way, left: str, state: list[str]) -> list[str]:
    [h] = state
    return [d.apply(0, d.add(left, d.product(h)) if h else left)]


Cell = Callable[[_Way, str, list[str]], list[str]]
CELLS: dict[str, tuple[Cell, tuple[str, ...]]] = {
    "RNN": (_rnn, ("tanh",)), "GRU": (_gru, ("sigmoid", "tanh")), "LSTM": (_lstm, ("sigmoid", "tanh", "tanh")),
}  # fmt: skip


def _layer(kind: str) -> Callable[[Call], None]:
    def run(call: Call) -> None:
        cell, functions = CELLS[kind]
        _check(call, kind)
        x = call.node.inputs[0]
        x = call.turned(x, (1, 0, 2)) if call.attrs.get("layout", 0) else x
        steps, batch, width = (int(d) for d in call.builder.types[x].shape)
        w, given = call.constant(1), [str(a).lower() for a in call.attrs.get("activations", ())]
        assert w is not None
        need(steps <= MOST_STEPS and all(a in FUNCTIONS for a in given))
        lines: list[list[str]] = []
        ends: list[list[str]] = []
        for k in range(w.shape[0]):
            names = tuple(given[k * len(functions) : (k + 1) * len(functions)]) or functions
            way = _way(call, k, kind, names)
            back = call.attrs.get("direction", "forward") == "reverse" or k == 1
            line, last = _walk(way, cell, x, (steps, batch, width), _start(call, k, kind), back=back)
            lines.append(line)
            ends.append(last)
        _write(call, lines, ends, batch)

    return run


def _check(call: Call, kind: str) -> None:
    fixed = [call.constant(i) is not None for i in (1, 2)]
    need(all(fixed) and (call.constant(3) is not None or not call.has(3)))
    _check_shapes(call, kind)
    need(not call.attrs.get("input_forget", 0) and not call.attrs.get("activation_alpha"))
    need(call.constant(7) is not None or not call.has(7))
    lengths = call.constant(4)
    if call.has(4):  # all steps, or not at all
        along = 1 if call.attrs.get("layout", 0) else 0
        need(lengths is not None and bool(np.all(lengths == call.size(along))))


def _check_shapes(call: Call, kind: str) -> None:
    """PyTorch's exporter writes an LSTM with a projection as one whose weights and states do not fit each other."""
    w, r, bias = (call.constant(i) for i in (1, 2, 3))
    assert w is not None
    assert r is not None
    rows, hidden = GATES[kind] * r.shape[-1], r.shape[-1]
    states = [call.builder.types[call.node.inputs[i]].shape for i in (5, 6) if call.has(i)]
    fits = w.ndim == r.ndim == 3 and w.shape[:2] == r.shape[:2] == (len(r), rows)
    if not fits or (bias is not None and bias.shape != (len(r), 2 * rows)) or any(s[-1] != hidden for s in states):
        got = f"weights {list(w.shape)}, recurrent ones {list(r.shape)}"
        got += "" if bias is None else f", biases {list(bias.shape)}"
        got += "".join(f", a state {list(s)}" for s in states)
        hint = "; instead of proj_size, a Linear of its own" if kind == "LSTM" else ""
        raise call.fault(got, f"{GATES[kind]} gates of hidden size {hidden} in all of them{hint}")


def _way(call: Call, k: int, kind: str, functions: tuple[str, ...]) -> _Way:
    w, r, bias, peep = (call.constant(i) for i in (1, 2, 3, 7))
    assert w is not None
    assert r is not None
    hidden, gates = r.shape[2], GATES[kind]
    both = np.zeros(2 * gates * hidden, np.float32) if bias is None else bias[k].astype(np.float32)
    own, other = both[: gates * hidden].copy(), both[gates * hidden :].copy()
    if kind != "GRU":  # one bias: that of the step without a state too
        own, other = own + other, np.zeros_like(other)
    else:  # only the new gate's recurrent bias stands inside the product with r
        own[: 2 * hidden] += other[: 2 * hidden]
        other[: 2 * hidden] = 0
    peepholes = [] if peep is None else [call.table("peephole", p) for p in np.split(peep[k].astype(np.float32), 3)]
    matrix, rest = r[k].T.astype(np.float32), ("", "")
    if kind == "GRU" and not call.attrs.get("linear_before_reset", 0):  # the new gate multiplies r * h
        rest = (
            call.table("new", np.ascontiguousarray(matrix[:, 2 * hidden :])),
            call.table("new", other[2 * hidden :]),
        )
        matrix, other = matrix[:, : 2 * hidden], other[: 2 * hidden]
    table = call.table("recurrent", np.ascontiguousarray(matrix))
    wide = w[k].T.astype(np.float32)
    return _Way(call, wide, table, own, call.table("bias", other), peepholes, hidden, functions, rest)


def _start(call: Call, k: int, kind: str) -> list[str]:
    """First states; "" for zeros."""
    found: list[str] = []
    for index in (5, 6) if kind == "LSTM" else (5,):
        constant = call.constant(index)
        if not call.has(index) or (constant is not None and not constant.any()):
            found.append("")
            continue
        need(constant is None)
        value = call.node.inputs[index]
        value = call.turned(value, (1, 0, 2)) if call.attrs.get("layout", 0) else value
        shape = call.builder.types[value].shape
        found.append(call.reshaped(call.cut(value, 0, k, k + 1), shape[1:]))
    need(len(set(map(bool, found))) == 1)
    return found


def _walk(
    d: _Way, cell: Cell, x: str, sizes: tuple[int, int, int], state: list[str], *, back: bool
) -> tuple[list[str], list[str]]:
    """(state after each step, last states)."""
    call, (steps, batch, width) = d.call, sizes
    names = [call.table("input", np.ascontiguousarray(d.w)), call.table("bias", d.own_bias)]
    every = call.helper("Gemm", [call.reshaped(x, (steps * batch, width)), *names])
    rows: list[str] = []
    for t in reversed(range(steps)) if back else range(steps):
        state = cell(d, call.cut(every, 0, t * batch, (t + 1) * batch), state)
        rows.append(state[0])
    return (rows[::-1] if back else rows), state


def _write(call: Call, lines: Sequence[Sequence[str]], ends: Sequence[Sequence[str]], batch: int) -> None:
    """Outputs Y [steps, directions, batch, hidden] and last states [directions, batch, hidden]."""
    steps, layout = len(lines[0]), bool(call.attrs.get("layout", 0))
    if call.node.outputs and call.node.outputs[0]:
        hidden = int(call.builder.types[lines[0][0]].shape[1])
        ways = [_joined(call, [call.reshaped(v, (1, 1, batch, hidden)) for v in line], 0) for line in lines]
        y = _joined(call, ways, 1)
        perm = (2, 0, 1, 3) if layout else (0, 1, 2, 3)
        call.result(0, "Transpose", [y], {"perm": perm})
    for i in range(len(ends[0])):
        if i + 1 < len(call.node.outputs) and call.node.outputs[i + 1]:
            hidden = int(call.builder.types[ends[0][i]].shape[1])
            last = _joined(call, [call.reshaped(e[i], (1, batch, hidden)) for e in ends], 0)
            call.result(i + 1, "Transpose", [last], {"perm": (1, 0, 2) if layout else (0, 1, 2)})
    del steps


def _joined(call: Call, values: Sequence[str], axis: int) -> str:
    return values[0] if len(values) == 1 else call.helper("Concat", values, {"axis": axis})


RECURRENT: dict[str, Callable[[Call], None]] = {kind: _layer(kind) for kind in CELLS}
