"""The quantized graph of a vendor network while it is written: values with their ranges, states, and delays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any, cast

import numpy.typing as npt

from insitu.base.errors import ModelError
from insitu.base.yaml import load_yaml
from insitu.frontend.wtm2101_options import LayerOptions
from insitu.graph.graph import Attr, Graph, Node, State
from insitu.graph.rewrite import Builder
from insitu.graph.types import Dim, TensorType, integer_dtype
from insitu.numeric.affine import QuantSpec

Array = npt.NDArray[Any]
MOST = 1e9  # of a number among the attributes
INT8, UINT8 = (-128, 127), (0, 255)


@cache
def dialect() -> dict[str, Any]:
    """The table of the dialect: limits, and the rounding of every operator."""
    return cast(dict[str, Any], load_yaml(Path(__file__).with_name("wtm2101.yaml")).data)


def limit(name: str) -> int:
    """A limit of the chip or the dialect."""
    return int(dialect()["limits"][name])


def rounding(op: str) -> str:
    """The rounding mode of an operator."""
    return str(dialect()["operators"][op]["rounding"])


@dataclass(frozen=True)
class Value:
    """A value of the graph with the codes it can take; `delay`: steps it lags behind the network's input."""

    name: str
    lo: int
    hi: int
    delay: int = 0


@dataclass(frozen=True)
class Call:
    """One node of the file: its attributes, what follows it and was taken into it."""

    node: Node
    attrs: Mapping[str, Any]
    output: str
    gain: int = 0
    relu: bool = False
    options: LayerOptions = field(default_factory=LayerOptions)

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.name

    @property
    def low(self) -> int:
        """The smallest code of the output."""
        return 0 if self.relu else INT8[0]

    def number(self, name: str, default: float) -> float:
        """A number among the attributes."""
        value = self.attrs.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise self.fault(f"{name} = {value!r}"[:80], "a number there")
        if abs(value) > MOST:
            raise self.fault(f"{name} = {value:g}", "a number of ordinary size")
        return float(value)

    def integer(self, name: str, default: int) -> int:
        """A whole number among the attributes."""
        value = self.number(name, default)
        if not value.is_integer():
            raise self.fault(f"{name} = {value:g}", "a whole number there")
        return int(value)

    def fault(self, got: str, need: str, *, try_: Sequence[str] = ()) -> ModelError:
        """An error that names this node."""
        return ModelError(f"node {self.node.name!r} ({self.node.op})", got, need, try_=tuple(try_))


def spec_of(lo: int, hi: int) -> QuantSpec:
    """The narrowest codes that hold a range; an integer stands for itself."""
    for bits, signed in ((8, True), (8, False), (16, True), (32, True)):
        spec = QuantSpec(bits, signed=signed, scale=(1.0,))
        if spec.lo <= lo and hi <= spec.hi:
            return spec
    raise ModelError("network", f"codes {lo} to {hi}", "codes of at most 32 bits")


@dataclass
class Draft:
    """Nodes written so far; `values` maps names of the file to what they became."""

    builder: Builder
    streamed: bool
    values: dict[str, Value] = field(default_factory=dict[str, Value])
    states: list[State] = field(default_factory=list[State])
    initial: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])

    def shape(self, value: Value) -> tuple[int, ...]:
        """Sizes of a value."""
        return self.builder.types[value.name].sizes()

    def spec(self, value: Value) -> QuantSpec:
        """Codes of a value."""
        quant = self.builder.types[value.name].quant
        assert quant is not None
        return quant

    def declare(self, name: str, shape: Sequence[Dim], lo: int, hi: int) -> Value:
        """A value that no node writes: an input or a state."""
        self._typed(name, tuple(shape), spec_of(lo, hi))
        return Value(name, lo, hi)

    def _typed(self, name: str, shape: tuple[Dim, ...], spec: QuantSpec) -> None:
        self.builder.types[name] = TensorType(shape, integer_dtype(spec.bits, signed=spec.signed), spec)

    def constant(self, name: str, array: Array, *, spec: QuantSpec | None = None) -> str:
        """A constant under a fresh name."""
        fresh = self.builder.constant(name, array)
        if spec is not None:
            self.builder.types[fresh] = replace(self.builder.types[fresh], quant=spec)
        return fresh

    def put(
        self, op: str, inputs: Sequence[Value | str], lo: int, hi: int, *, name: str,
        output: str = "", attrs: Mapping[str, Attr] | None = None, spec: QuantSpec | None = None,
    ) -> Value:  # fmt: skip
        """A node whose output takes codes lo..hi; strings among the inputs are constants."""
        names = [v if isinstance(v, str) else v.name for v in inputs]
        output = self.builder.emit(op, names, name=name, output=output, attrs=attrs)
        self._typed(output, self.builder.types[output].shape, spec or spec_of(lo, hi))
        delay = max((v.delay for v in inputs if isinstance(v, Value)), default=0)
        return Value(output, lo, hi, delay)

    def arithmetic(
        self, op: str, inputs: Sequence[Value | str], lo: int, hi: int, *, name: str,
        output: str = "", rounding: str = "half_even", shift: int = 0, attrs: Mapping[str, Attr] | None = None,
        spec: QuantSpec | None = None,
    ) -> Value:  # fmt: skip
        """An elementwise node: its result over 2**shift, rounded and clipped to lo..hi."""
        plain: dict[str, Attr] = {"multiplier": 1} if op != "Add" else {"scale_a": 1, "scale_b": 1, "multiplier": 1}
        own = plain | dict(attrs or {}) | {"shift": shift, "rounding": rounding, "lo": lo, "hi": hi}
        return self.put(op, inputs, lo, hi, name=name, output=output, attrs=own, spec=spec)

    def hosted(
        self, value: Value, shape: Sequence[int], lo: int, hi: int, *, name: str, output: str, attrs: Mapping[str, Attr]
    ) -> Value:
        """One operator of the processor, which knows the shape of its result."""
        output = output or self.builder.fresh(name)
        self._typed(output, tuple(shape), spec_of(lo, hi))
        self.builder.emit("Host", [value.name], name=name, output=output, attrs=attrs)
        return Value(output, lo, hi, value.delay)

    def move(self, op: str, value: Value, *, name: str, output: str = "", attrs: Mapping[str, Attr]) -> Value:
        """A node that moves codes and leaves them as they are."""
        moved = self.put(op, [value], value.lo, value.hi, name=name, output=output, attrs=attrs, spec=self.spec(value))
        return replace(moved, delay=value.delay)

    def clipped(self, value: Value, lo: int, hi: int, *, name: str, output: str = "") -> Value:
        """The value with its codes clipped to lo..hi."""
        return self.arithmetic("Requantize", [value], lo, hi, name=name, output=output)

    def cut(
        self, value: Value, axis: int, start: int, end: int, *, name: str, output: str = "", step: int = 1
    ) -> Value:
        """Part of a value along one axis."""
        attrs: dict[str, Attr] = {"axes": (axis,), "starts": (start,), "ends": (end,), "steps": (step,)}
        return self.move("Slice", value, name=name, output=output, attrs=attrs)

    def joined(self, values: Sequence[Value], axis: int, *, name: str, output: str = "") -> Value:
        """Values one behind the other, in codes that hold all."""
        values = self.aligned(values, name=name)
        lo, hi = min(v.lo for v in values), max(v.hi for v in values)
        spec = spec_of(lo, hi)
        if all(self.spec(v) == self.spec(values[0]) for v in values):
            spec = self.spec(values[0])
        same = [v if self.spec(v) == spec else self._respecced(v, spec, f"{name}.{i}") for i, v in enumerate(values)]
        return self.put("Concat", same, lo, hi, name=name, output=output, attrs={"axis": axis}, spec=spec)

    def _respecced(self, value: Value, spec: QuantSpec, name: str) -> Value:
        attrs: dict[str, Attr] = {"multiplier": 1, "shift": 0, "rounding": "floor", "lo": value.lo, "hi": value.hi}
        return self.put("Requantize", [value], value.lo, value.hi, name=name, attrs=attrs, spec=spec)

    # time

    def state(self, name: str, shape: Sequence[int], spec: QuantSpec, *, lo: int, hi: int) -> Value:
        """What a step starts with: zeros at first, then what `carry` names."""
        fresh = self.builder.fresh(name)
        self._typed(fresh, tuple(shape), spec)
        self.initial.append(fresh)
        return Value(fresh, lo, hi)

    def carry(self, state: Value, next_: Value) -> None:
        """`next_` is the state's value at the next step."""
        self.states.append(State(state.name, next_.name))

    def window(self, value: Value, taps: int, axis: int, *, name: str) -> Value:
        """The last `taps` frames along `axis`, the oldest first; the older ones are kept as state."""
        if taps == 1:
            return value
        shape = list(self.shape(value))
        size = shape[axis]
        shape[axis] = size * (taps - 1)
        past = self.state(f"{name}.past", shape, self.spec(value), lo=min(value.lo, 0), hi=max(value.hi, 0))
        whole = self.joined([replace(past, delay=value.delay), value], axis, name=f"{name}.window")
        self.carry(past, self.cut(whole, axis, size, size * taps, name=f"{name}.next"))
        return whole

    def aligned(self, values: Sequence[Value], *, name: str) -> list[Value]:
        """Values of the same step: those that lag less are held back."""
        most = max((v.delay for v in values), default=0)
        return [v if v.delay == most else self._held(v, most, f"{name}.held{i}") for i, v in enumerate(values)]

    def _held(self, value: Value, until: int, name: str) -> Value:
        axis = self.frame_axis(value)
        steps = until - value.delay
        whole = self.window(value, steps + 1, axis, name=name)
        size = self.shape(value)[axis]
        return replace(self.cut(whole, axis, 0, size, name=name), delay=until)

    def frame_axis(self, value: Value) -> int:
        """The axis along which frames are put one behind the other."""
        return max(1, len(self.shape(value)) - 1)

    def finish(self, name: str, inputs: Sequence[str], outputs: Sequence[str], meta: Mapping[str, Attr]) -> Graph:
        """The quantized graph; nodes that reach no output are left out, and so are their states."""
        types = {v: self.builder.types[v] for v in (*inputs, *self.initial)}
        graph = Graph(
            name, "quantized", tuple(inputs), tuple(outputs), (), types, states=tuple(self.states), meta=dict(meta)
        )
        return self.builder.finish(graph)
