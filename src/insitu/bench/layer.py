"""One linear layer on a chip, from real inputs to real outputs, as the simulator's macros compute it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.resources import as_file, files
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.algo import ptq
from insitu.arch.load import load_chip
from insitu.arch.spec import Chip
from insitu.circuit.effects import Physics
from insitu.compiler.pipeline import compile_graph
from insitu.compiler.quantize import quantize
from insitu.graph.graph import Graph, Node, const_type
from insitu.graph.types import TensorType
from insitu.numeric.affine import QuantSpec
from insitu.runtime.parallel import company, spread, threads
from insitu.sim.backends import macro_model
from insitu.sim.bound import BoundMatrix
from insitu.sim.macro import MacroModel
from insitu.sim.noisy import Settings, settings, stream

Array = npt.NDArray[Any]
TOGETHER = 96  # vectors of a block of a thread's work: whole tiles of six, short enough to be shared out evenly


@dataclass(frozen=True)
class Layer:
    """A layer bound to one chip instance."""

    model: MacroModel
    matrix: BoundMatrix
    source: QuantSpec
    target: QuantSpec

    def __call__(self, x: Array, out: Array) -> None:
        """Out = chip(x), float32 [vectors, rows] to [vectors, columns], on all threads."""
        from insitu.bench.kernels import noisy_layer

        if self.noisy is None:
            spread(lambda part: self._part(x, out, *part), list(pairwise(blocks(len(x)))))
        else:
            work = stream(self.model, self.matrix, 0, 0), *self.noisy
            noisy_layer(company(), blocks(len(x)), x, *self._scale, *work, self._step, out)

    def _part(self, x: Array, out: Array, first: int, end: int) -> None:
        """Vectors first .. end by the general way."""
        from insitu.bench.kernels import to_codes, to_reals

        codes = np.empty((end - first, x.shape[1]), np.int8)
        to_codes(x[first:end], *self._scale, codes)
        to_reals(self.model.read(self.matrix, codes, first_vector=int(first)), self._step, out[first:end])

    @property
    def _scale(self) -> tuple[np.float32, np.float32, np.float32]:
        """(codes per unit of an input, the least code, the largest)."""
        source = self.source
        return np.float32(1.0 / source.scale[0]), np.float32(source.lo), np.float32(source.hi)

    @property
    def _step(self) -> np.float32:
        """Units of an output per code."""
        return np.float32(self.target.scale[0])

    @cached_property
    def noisy(self) -> Settings | None:
        """The layer as one kernel takes it, where it is noisy."""
        return settings(self.model, self.matrix, signed=True)


def blocks(vectors: int) -> Array:
    """Bounds of blocks of up to TOGETHER vectors in groups of four, as many for each thread and of equal size."""
    most, each = TOGETHER * threads(), 4 * threads()
    whole = vectors // most
    rest = -(-(vectors - whole * most) // each) * 4
    bounds = [*range(0, whole * most, TOGETHER), *range(whole * most, vectors, rest or 1), vectors]
    return np.array(bounds, np.int64)


def bench_chip(*overrides: str) -> Chip:
    """The benchmarks' analog chip."""
    with as_file(files("insitu.bench") / "chip.yaml") as path:
        return load_chip(path, overrides=overrides)


def layer(weights: Array, chip: Chip, *, physics: str, inputs: Array, backend: str = "cpu") -> Layer:
    """The layer of float weights [rows, columns], its ranges set on `inputs`."""
    rows, cols = weights.shape
    bias = np.zeros(cols, np.float32)
    constants = {"w": weights, "b": bias}
    types = {"x": TensorType((1, rows), "f32"), "y": TensorType((1, cols), "f32")}
    types |= {name: const_type(array) for name, array in constants.items()}
    graph = Graph(
        "layer", "captured", ("x",), ("y",), (Node("fc", "MatMul", ("x", "w", "b"), ("y",)),), types, constants
    )
    plan = ptq.plan(graph, chip, data={"x": inputs[:, None]})
    quantized = quantize(graph, chip, plan=plan)
    program = compile_graph(quantized, chip)
    (section,) = [s for s in program.sections if s.bindings]
    (binding,) = section.bindings
    model = macro_model(backend, chip, Physics.parse(physics, chip), 0, 0)
    matrix = model.bind(program, section, binding, dtype=np.int8)
    source, target = (quantized.type(v).quant for v in ("x", "y"))
    assert source is not None
    assert target is not None
    return Layer(model, matrix, source, target)
