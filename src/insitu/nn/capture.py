"""A module as a network: exported once, and read again whenever its parameters have changed.

The exporter names the network's constants after the module's parameters, so new values go into the exported form and
the front end reads that: whatever it folds or moves is done to the current weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from torch.utils import _pytree as pytree

from insitu.base.errors import DataError, ModelError
from insitu.compiler import canonicalize, fuse
from insitu.frontend.onnx import import_model
from insitu.frontend.torch_export import export_module, export_onnx_form
from insitu.graph.graph import Graph, Node
from insitu.graph.verify import verify

Array = npt.NDArray[Any]
Source = Callable[..., dict[str, Array] | None]
MARK = 0x3B000000  # bits of the first number that tells where a weight is from: 2**-9
ZERO = -MARK


@dataclass(frozen=True)
class Capture:
    """A module's network without its weights.

    `shapes` are those of the example's tensors without the batch; `batch` says which axis of each output counts
    samples; `out` puts the outputs back into what the module returns; factors of the names `apart` stay out of weights.
    """

    name: str
    proto: onnx.ModelProto
    shapes: tuple[tuple[int, ...], ...]
    batch: tuple[int, ...]
    out: Any
    apart: frozenset[str] = frozenset()

    def graph(self, state: Mapping[str, torch.Tensor]) -> Graph:
        """The canonical captured graph with the weights of `state`."""
        graph = self.unfused(state)
        nodes = (replace(n, attrs={**n.attrs, "apart": 1}) if self._factor(n) else n for n in graph.nodes)
        return verify(fuse.run(graph.with_nodes(nodes)))

    def _factor(self, node: Node) -> bool:
        return node.op == "Mul" and not self.apart.isdisjoint(node.inputs)

    def unfused(self, state: Mapping[str, torch.Tensor]) -> Graph:
        """The same before neighbours become one node."""
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        for tensor in proto.graph.initializer:
            if tensor.name in state:
                kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
                array = state[tensor.name].detach().cpu().float().numpy().astype(kind)
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        return canonicalize.run(import_model(proto, where=self.name, name=self.name))


def capture(module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Capture:
    """Export a converted module with example arguments; ModelError where torch cannot."""
    made = type(module)
    module.__class__ = made.__bases__[1]  # under its own class arguments have their own names
    try:
        program = export_module(module, args, kwargs)
    finally:
        module.__class__ = made
    proto = export_onnx_form(program, type(module).__name__)
    leaves = [leaf for leaf in pytree.tree_leaves((tuple(args), dict(kwargs))) if isinstance(leaf, torch.Tensor)]
    shapes = tuple(tuple(t.shape[1:]) for t in leaves)
    batch = tuple(_batch_axis(node) for node in _outputs(program))
    return Capture(type(module).__name__, proto, shapes, batch, program.call_spec.out_spec)


def _outputs(program: Any) -> list[Any]:
    """What the exported program's outputs look like, in order."""
    by_name = {node.name: node.meta.get("val") for node in program.graph.nodes}
    return [by_name.get(name) for name in program.graph_signature.user_outputs]


def _batch_axis(value: Any) -> int:
    """The axis of an output whose size is open; the first where none is."""
    sizes = getattr(value, "shape", ())
    return next((i for i, size in enumerate(sizes) if not isinstance(size, int)), 0)


def tensors_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    """The tensors among arguments, in the order of the network's inputs."""
    return [leaf for leaf in pytree.tree_leaves((tuple(args), dict(kwargs))) if isinstance(leaf, torch.Tensor)]


def arrays_of(graph: Graph, tensors: Sequence[torch.Tensor]) -> dict[str, Array]:
    """Inputs of a graph, (samples, 1, ...) by name, for the tensors of one call."""
    if len(tensors) != len(graph.inputs):
        got = f"{len(tensors)} tensors"
        raise DataError(graph.name, got, f"{len(graph.inputs)}, as in the call that the module was exported with")
    found: dict[str, Array] = {}
    for name, tensor in zip(graph.inputs, tensors, strict=True):
        array = tensor.detach().cpu()
        array = (array.float() if array.is_floating_point() else array).numpy()
        found[name] = array.reshape(len(array), *graph.type(name).sizes())
    return found


def put_back(capture: Capture, outputs: Sequence[Array]) -> Any:
    """Outputs (samples, *shape) in the form that the module returns, samples along their own axis."""
    made: list[torch.Tensor] = []
    for array, axis in zip(outputs, capture.batch, strict=True):
        rows = np.moveaxis(array, axis + 1, 1).reshape(-1, *np.delete(array.shape, (0, axis + 1)))
        made.append(torch.from_numpy(np.ascontiguousarray(np.moveaxis(rows, 0, axis))))
    return pytree.tree_unflatten(made, capture.out)


def factors(capture: Capture, module: torch.nn.Module) -> frozenset[str]:
    """Constants of the network that multiply and are elements of parameters, such as the scale of a layer's outputs.

    Behind a layer they would go into its weights, which would then be the product of two parameters.
    """
    state, source = _marks(capture, module)
    graph = capture.unfused(state)
    values = {v for n in graph.nodes if n.op == "Mul" for v in n.inputs if v in graph.constants}
    return frozenset(v for v in values if source(graph.constants[v]) is not None)


def marked(capture: Capture, module: torch.nn.Module) -> tuple[Graph, Source]:
    """A graph whose weights are numbers that occur once, and what finds out where such numbers come from.

    It takes a constant of the graph and gives {parameter: flat index of every element}, -1 where an element
    is another parameter's; None for a constant with elements that are no parameter's, but for zeros where they may be.
    """
    state, source = _marks(capture, module)
    return capture.graph(state), source


def _marks(capture: Capture, module: torch.nn.Module) -> tuple[dict[str, torch.Tensor], Source]:
    names = {t.name for t in capture.proto.graph.initializer}
    params = [(n, p) for n, p in module.state_dict().items() if n in names and p.is_floating_point()]
    total = sum(p.numel() for _, p in params)
    if total >= 1 << 27:
        raise ModelError(capture.name, f"{total:,} parameters", f"fewer than {1 << 27:,}")
    numbers = (np.arange(total, dtype=np.uint32) + np.uint32(MARK)).view(np.float32)  # from 2**-9 on, all apart
    state, starts, at = dict(module.state_dict()), {}, 0
    for name, p in params:
        state[name] = torch.from_numpy(numbers[at : at + p.numel()].reshape(tuple(p.shape)))
        starts[name] = (at, at + p.numel())
        at += p.numel()

    def source(constant: Array, zeros: bool = False) -> dict[str, Array] | None:
        codes = np.ascontiguousarray(constant, np.float32).view(np.uint32).astype(np.int64) - MARK
        known = codes[codes != ZERO] if zeros else codes
        if known.size == 0 or known.min() < 0 or known.max() >= total:
            return None
        found = {n: np.where((codes >= a) & (codes < b), codes - a, -1) for n, (a, b) in starts.items()}
        return {n: index for n, index in found.items() if (index >= 0).any()}

    return state, source
