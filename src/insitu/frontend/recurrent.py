"""Recurrent layers unrolled over their steps: products on macros or the vector unit, gates on the vector unit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from insitu.frontend.general_ops import Op, Rule, UnloweredError
from insitu.frontend.net import Net

MOST_STEPS = 512
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
Cell = Callable[["_Direction", str, list[str]], list[str]]


@dataclass(frozen=True)
class _Direction:
    """One direction of a layer: transposed weights, biases, activations."""

    net: Net
    op: Op
    w: str
    r: str
    bias: tuple[str, str] | None
    peepholes: str
    hidden: int
    functions: tuple[str, ...]

    def gate(self, value: str, index: int) -> str:
        """One gate's columns."""
        return self.net.slice(value, 1, index * self.hidden, (index + 1) * self.hidden)

    def apply(self, index: int, x: str) -> str:
        """An activation; clipped where the layer says so."""
        clip = self.op.attr("clip", 0.0)
        if clip:
            x = self.net.v2n("min", self.net.v2n("max", x, -clip), clip)
        return self.net.v1(self.functions[index], x)

    def sums(self, x: str, h: str) -> tuple[str, str]:
        """(x W, h R), each with its bias."""
        left, right = self.net.matmul(x, self.w), self.net.matmul(h, self.r)
        if self.bias is None:
            return left, right
        return self.net.v2("add", left, self.bias[0]), self.net.v2("add", right, self.bias[1])


def _rnn(d: _Direction, x: str, state: list[str]) -> list[str]:
    left, right = d.sums(x, state[0])
    return [d.apply(0, d.net.v2("add", left, right))]


def _gru(d: _Direction, x: str, state: list[str]) -> list[str]:
    net, h = d.net, state[0]
    left, right = d.sums(x, h)
    z, r = (d.apply(0, net.v2("add", d.gate(left, i), d.gate(right, i))) for i in (0, 1))
    if d.op.attr("linear_before_reset", 0):
        inner = net.v2("mul", r, d.gate(right, 2))
    else:
        inner = net.matmul(net.v2("mul", r, h), d.gate(d.r, 2))
        inner = net.v2("add", inner, d.net.slice(d.bias[1], 0, 2 * d.hidden, 3 * d.hidden)) if d.bias else inner
    new = d.apply(1, net.v2("add", d.gate(left, 2), inner))
    keep = net.v2("mul", z, h)
    return [net.v2("add", net.v2("mul", net.v2("sub", net.like(1, z), z), new), keep)]


def _lstm(d: _Direction, x: str, state: list[str]) -> list[str]:
    net, (h, c) = d.net, state
    left, right = d.sums(x, h)
    total = net.v2("add", left, right)
    i, o, f, g = (d.gate(total, k) for k in range(4))
    peep = [net.slice(d.peepholes, 0, k * d.hidden, (k + 1) * d.hidden) for k in range(3)] if d.peepholes else []
    if peep:
        i, f = net.v2("add", i, net.v2("mul", peep[0], c)), net.v2("add", f, net.v2("mul", peep[2], c))
    i, f, g = d.apply(0, i), d.apply(0, f), d.apply(1, g)
    new = net.v2("add", net.v2("mul", f, c), net.v2("mul", i, g))
    o = net.v2("add", o, net.v2("mul", peep[1], new)) if peep else o
    return [net.v2("mul", d.apply(0, o), d.apply(2, new)), new]


CELLS: dict[str, tuple[Cell, tuple[str, ...]]] = {
    "RNN": (_rnn, ("tanh",)), "GRU": (_gru, ("sigmoid", "tanh")), "LSTM": (_lstm, ("sigmoid", "tanh", "tanh")),
}  # fmt: skip


def _layer(kind: str) -> Rule:
    def run(op: Op) -> list[str]:
        cell, functions = CELLS[kind]
        net, x = op.net, op.x()
        if op.has(4) or op.attr("input_forget", 0):
            raise UnloweredError
        if op.attr("layout", 0):
            x = net.transpose(x, (1, 0, 2))
        steps, batch, _ = net.shape(x)
        way = op.attr("direction", "forward")
        way = way.decode() if isinstance(way, bytes) else way
        count, hidden = net.shape(op.x(1))[0], net.shape(op.x(2))[-1]
        given = [str(a.decode() if isinstance(a, bytes) else a).lower() for a in op.attr("activations", ())]
        if steps > MOST_STEPS or any(a not in ("tanh", "sigmoid", "relu") for a in given):
            raise UnloweredError
        ends: list[list[str]] = []
        lines: list[str] = []
        for k in range(count):
            own = tuple(given[k * len(functions) : (k + 1) * len(functions)]) or functions
            d = _direction(op, k, hidden, own, GATES[kind])
            back = way == "reverse" or k == 1
            line, state = _walk(d, cell, x, _start(op, k, batch, hidden, kind), back=back)
            lines.append(line)
            ends.append(state)
        return _ends(op, lines, ends)

    return run


def _direction(op: Op, k: int, hidden: int, functions: tuple[str, ...], gates: int) -> _Direction:
    net = op.net
    w, r = (net.transpose(net.squeeze(net.slice(op.x(i), 0, k, k + 1), [0]), (1, 0)) for i in (1, 2))
    bias = None
    if op.has(3):
        both = net.squeeze(net.slice(op.x(3), 0, k, k + 1), [0])
        bias = (net.slice(both, 0, 0, gates * hidden), net.slice(both, 0, gates * hidden, 2 * gates * hidden))
    peep = net.squeeze(net.slice(op.x(7), 0, k, k + 1), [0]) if op.has(7) else ""
    return _Direction(net, op, w, r, bias, peep, hidden, functions)


def _start(op: Op, k: int, batch: int, hidden: int, kind: str) -> list[str]:
    net = op.net
    out: list[str] = []
    for index in (5, 6) if kind == "LSTM" else (5,):
        if op.has(index):
            given = net.transpose(op.x(index), (1, 0, 2)) if op.attr("layout", 0) else op.x(index)
            out.append(net.squeeze(net.slice(given, 0, k, k + 1), [0]))
        else:
            out.append(net.expand(net.like(0, op.x()), (batch, hidden)))
    return out


def _walk(d: _Direction, cell: Cell, x: str, state: list[str], *, back: bool) -> tuple[str, list[str]]:
    """(outputs [steps, 1, batch, hidden], last state)."""
    net, steps = d.net, d.net.shape(x)[0]
    rows: list[str] = []
    for t in reversed(range(steps)) if back else range(steps):
        state = cell(d, net.squeeze(net.slice(x, 0, t, t + 1), [0]), state)
        rows.append(net.unsqueeze(state[0], [0, 1]))
    return net.concat(rows[::-1] if back else rows, 0), state


def _ends(op: Op, lines: Sequence[str], ends: Sequence[list[str]]) -> list[str]:
    net = op.net
    y = net.concat(lines, 1)
    last = [net.concat([net.unsqueeze(e[i], [0]) for e in ends], 0) for i in range(len(ends[0]))]
    if op.attr("layout", 0):
        y = net.transpose(y, (2, 0, 1, 3))
        last = [net.transpose(v, (1, 0, 2)) for v in last]
    return [y, *last]


RECURRENT: dict[str, Rule] = {kind: _layer(kind) for kind in CELLS}
