"""The WTM2101 vendor dialect: already quantized ONNX graphs -> quantized Graph, integer for integer.

Such files hold integers in FLOAT tensors, operators that ONNX does not know (Scale, Tdnn, Lstm of its own, ...), and a
Scale of 1/G behind each array layer.  `wtm2101.yaml` says what every operator computes and where that is known from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from insitu.base.errors import ModelError, did_you_mean
from insitu.frontend.wtm2101_conv import conv, conv_transpose
from insitu.frontend.wtm2101_digital import OPERATORS
from insitu.frontend.wtm2101_draft import INT8, UINT8, Array, Call, Draft, Value, dialect, limit
from insitu.frontend.wtm2101_events import product, sum_norm
from insitu.frontend.wtm2101_fronts import with_fronts
from insitu.frontend.wtm2101_layers import gemm, tdnn
from insitu.frontend.wtm2101_moves import MOVES, split
from insitu.frontend.wtm2101_norms import group_norm
from insitu.frontend.wtm2101_options import LayerOptions
from insitu.frontend.wtm2101_recurrent import RECURRENT
from insitu.graph.graph import Attr, Graph, Node
from insitu.graph.rewrite import Builder
from insitu.graph.types import TensorType

ONLY_HERE = frozenset(
    ("Scale", "Scalar", "Tdnn", "ActLut", "Lstm", "Gru", "Gru2Array", "FloatScale", "ClearLowBits", "Multi", "Added",
     "Permute", "SumNorm", "GroupNorm")
)  # fmt: skip


def multiply(draft: Draft, call: Call) -> Value:
    """MatMul: by a constant on the array, of two values by the processor."""
    return (gemm if call.node.inputs[1] in draft.builder.constants else product)(draft, call)


LAYERS = {"Gemm": gemm, "MatMul": multiply, "Tdnn": tdnn, "Conv": conv, "ConvTranspose": conv_transpose}
KNOWN = {**LAYERS, **OPERATORS, **MOVES, **RECURRENT, "SumNorm": sum_norm, "GroupNorm": group_norm}
STREAMED = frozenset(("Tdnn", *RECURRENT))
TAKES_RELU = frozenset((*LAYERS, "Scale", "Scalar", "Add", "Added", "Mul", "Multi", "BatchNormalization", "AveragePool",
                        "GlobalAveragePool", "MaxPool", "ReduceMean", "Concat", "GroupNorm"))  # fmt: skip
LEAST_INPUTS = {
    "Gemm": 2, "MatMul": 2, "Conv": 2, "ConvTranspose": 2, "Tdnn": 2, "Add": 2, "Added": 2, "Mul": 2, "Multi": 2,
    "Lstm": 5, "Gru": 5, "Gru2Array": 5, "BatchNormalization": 5,
}  # fmt: skip
CONTRADICTIONS = (TypeError, ValueError, IndexError, KeyError, ArithmeticError, RuntimeError)  # of a node with itself
NOT_CALLS = frozenset(("Tdnn", *RECURRENT))  # their gain is an attribute


@dataclass(frozen=True)
class Network:
    """A file's network in execution order, names cleaned: what the dialect is read from."""

    name: str
    nodes: tuple[Node, ...]
    attrs: Mapping[str, Mapping[str, Any]]
    domains: Mapping[str, str]
    constants: Mapping[str, Array]
    inputs: Mapping[str, TensorType]
    outputs: tuple[str, ...]
    meta: Mapping[str, Attr] = field(default_factory=dict[str, Attr])

    @cached_property
    def readers(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read each value, each once."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for value in dict.fromkeys(node.inputs):
                found.setdefault(value, []).append(node)
        return {value: tuple(nodes) for value, nodes in found.items()}


@dataclass(frozen=True)
class Reading:
    """How a vendor network is read: the side file's options, and inputs whose codes are signed."""

    options: Mapping[str, LayerOptions] = field(default_factory=dict[str, LayerOptions])
    signed_inputs: tuple[str, ...] = ()
    unsigned_inputs: tuple[str, ...] = ()  # bytes, although a recurrent cell reads them
    partial: bool = False  # the options also name layers of other networks


def import_network(network: Network, reading: Reading | None = None) -> Graph:
    """The quantized graph of a vendor network; ModelError names all nodes that cannot be taken over."""
    reading = reading or Reading()
    _check_supported(network)
    _check_options(network, reading)
    reading = replace(reading, options=with_fronts(network.nodes, network.readers, network.outputs, reading.options))
    streamed = any(n.op in STREAMED for n in network.nodes) or any(o.streamed for o in reading.options.values())
    draft = _begun(network, streamed)
    _declare_inputs(draft, network, reading)
    done: set[str] = set()
    for node in network.nodes:
        if node.name not in done and not all(v in network.constants for v in node.inputs):
            _take(draft, network, node, reading, done)
    fixed = [v for v in network.outputs if v not in draft.values]
    if fixed:
        raise ModelError("network", f"its output {fixed[0]!r} is constant", "outputs computed from the inputs")
    return _finished(draft, network, reading)


def _check_supported(network: Network) -> None:
    faults: dict[str, list[str]] = {}
    for node in network.nodes:
        label = f"{network.domains[node.name]}::{node.op}" if node.name in network.domains else node.op
        if (label not in KNOWN and label != "Split") or not node.inputs:
            faults.setdefault(label, []).append(node.name)
    if faults:
        total = sum(map(len, faults.values()))
        parts = "; ".join(f"{op}: {', '.join(names)}" for op, names in faults.items())
        got = f"{total} node{'s are' if total > 1 else ' is'} not supported in the WTM2101 dialect ({parts})"
        need = f"operators of {', '.join(sorted((*KNOWN, 'Split')))}"
        raise ModelError("network", got, need, code="unsupported_operator")


def _check_options(network: Network, reading: Reading) -> None:
    """Every layer that the side file names is there."""
    names = {n.name for n in network.nodes}
    for name in reading.options:
        if name not in names and reading.partial:
            continue
        if name not in names:
            close = did_you_mean(name, names)
            raise ModelError(f"options: layer {name!r}", "no node has this name", "a name of the network", try_=close)


def _begun(network: Network, streamed: bool) -> Draft:
    taken = [*network.constants, *network.inputs, *(v for n in network.nodes for v in n.outputs)]
    builder = Builder({}, {}, taken=taken)
    builder.constants = dict(network.constants)
    return Draft(builder, streamed)


def _declare_inputs(draft: Draft, network: Network, reading: Reading) -> None:
    """Inputs as the first layer reads them: bytes, signed where told or where a recurrent cell reads them."""
    for name, kind in network.inputs.items():
        shape = list(kind.sizes())
        if draft.streamed and len(shape) > 2:
            shape[-1] = 1
        elif draft.streamed and shape:
            shape[0] = 1
        readers = network.readers.get(name, ())
        chosen = [reading.options[n.name].array() for n in readers if n.name in reading.options]
        signed = name in reading.signed_inputs or any(o.signed_input for o in chosen)
        signed = signed or (any(n.op in RECURRENT for n in readers) and name not in reading.unsigned_inputs)
        draft.values[name] = draft.declare(name, shape, *(INT8 if signed else UINT8))


# one node, with what is taken into it


def _take(draft: Draft, network: Network, node: Node, reading: Reading, done: set[str]) -> None:
    missing = [v for v in node.inputs[:1] if v not in draft.values]
    if missing:
        raise ModelError(
            f"node {node.name!r} ({node.op})", f"its input {missing[0]!r} is constant", "a value of the network"
        )
    call = _fused(network, node, reading, done)
    done.add(node.name)
    least = LEAST_INPUTS.get(node.op, 1)
    if len([v for v in node.inputs[:least] if v]) < least:
        raise call.fault(f"{len(node.inputs)} inputs", f"at least {least}")
    if node.op == "Split":
        draft.values.update(zip(node.outputs, split(draft, call), strict=True))
        return
    try:
        draft.values[call.output] = KNOWN[node.op](draft, call)
    except CONTRADICTIONS as error:
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        need = "inputs, shapes and attributes that fit each other"
        raise call.fault(f"it contradicts itself ({reason})", need) from None


def _fused(network: Network, node: Node, reading: Reading, done: set[str]) -> Call:
    """The node with the gain of the Scale and the Relu that alone read it."""
    attrs, output, gain, relu = network.attrs[node.name], node.output, 0, False
    if node.op in LAYERS:
        gain = Call(node, attrs, output).integer("scale_params", limit("default_gain"))
    if node.op in LAYERS and node.op not in NOT_CALLS:
        follower = _alone(network, output, "Scale")
        two = node.op == "MatMul" and node.inputs[1] not in network.constants  # of two values of the network
        gain = 0 if two else gain
        if follower is not None and (found := _gain_of(follower, network.attrs[follower.name], least=2 if two else 0)):
            gain, output = found, follower.output
            done.add(follower.name)
    follower = _alone(network, output, "Relu") if node.op in TAKES_RELU else None
    if follower is not None:
        relu, output = True, follower.output
        done.add(follower.name)
    return Call(node, attrs, output, gain, relu, reading.options.get(node.name, LayerOptions()))


def _alone(network: Network, value: str, op: str) -> Node | None:
    """The only reader of a value, if it is an `op`."""
    readers = network.readers.get(value, ())
    if len(readers) != 1 or readers[0].op != op or value in network.outputs:
        return None
    return readers[0]


def _gain_of(node: Node, attrs: Mapping[str, Any], *, least: int = 0) -> int:
    """G of a Scale of 1/G within the array's gains, or from `least` on; 0 where it is something else."""
    if "op_types" in attrs or "shift_bit" in attrs:
        return 0
    value = Call(node, attrs, node.output).number("scale", 1.0)
    gain = 1 / value if value > 0 else 0.0
    low, high = dialect()["limits"]["gain"]
    low, whole = least or low, round(gain)
    return whole if low <= whole <= high and whole & (whole - 1) == 0 and abs(gain - whole) < 1e-3 * whole else 0


def _finished(draft: Draft, network: Network, reading: Reading) -> Graph:
    outputs: list[str] = []
    for name in network.outputs:
        value = draft.values[name]
        if value.name != name or name in network.inputs:
            value = draft.clipped(
                value, value.lo, value.hi, name=f"{name}.out", output="" if name in network.inputs else name
            )
        outputs.append(value.name)
    lags = {draft.values[n].delay for n in network.outputs}
    count = sum(int(np.asarray(a).size) for a in network.constants.values())
    meta: dict[str, Attr] = {"dialect": "wtm2101", "parameters": count, "batch_inputs": (), **network.meta}
    if draft.states:
        meta["frames"] = 1
    if max(lags):
        meta["lag"] = max(lags)
    hints = sorted({h for o in reading.options.values() for h in o.hints})
    if hints:
        meta["hints_without_effect"] = tuple(hints)
    if draft.notes:
        meta["options_not_applied"] = tuple(draft.notes)
    return draft.finish(network.name, tuple(network.inputs), outputs, meta)
