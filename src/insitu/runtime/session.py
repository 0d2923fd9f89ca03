"""Session: load a Program once, feed it tensors, keep its state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.arch.load import chip_from_json
from insitu.base.errors import DataError
from insitu.circuit.effects import Physics
from insitu.graph.graph import Graph
from insitu.graph.text import parse_graph
from insitu.isa.program import Program, Section
from insitu.numeric.affine import QuantSpec, dequantize, quantize
from insitu.runtime.parallel import ranges, spread
from insitu.sim.functional import Machine, load, run
from insitu.sim.macro import MacroModel

Array = npt.NDArray[Any]
BLOCK_BYTES = 24 << 20  # of memory image and gathered windows; a constant, so that blocks are the same everywhere
MAX_BLOCK = 64


class Session:
    """A loaded program on one chip instance.

    Float arrays are quantized on the way in and dequantized on the way out; integer arrays are codes and come back
    as codes.  Arrays carry a leading sample axis: (samples, *shape).  Samples are independent runs; a program with
    state is stepped with `step`, which carries the state of every sample from one call to the next until `reset`.
    """

    def __init__(
        self, program: Program, *, physics: str | Physics = "ideal", instance: int = 0, seed: int = 0,
        sizes: Mapping[str, int] | None = None,
        graph: Graph | None = None, calibrated: bool = True,
    ) -> None:  # fmt: skip
        """Raises UsageError for physics the chip does not have, DataError for a missing size."""
        missing = [n for n in program.sizes if n not in (sizes or {})]
        if missing:
            raise DataError(
                program.name,
                f"sizes {', '.join(missing)} not given",
                "a number for each",
                try_=["Session(program, sizes={...})"],
            )
        chip = chip_from_json(program.chip)
        effects = Physics.parse(physics, chip, calibrated=calibrated) if isinstance(physics, str) else physics
        self.program = program.bind(_checked_sizes(program, sizes or {}))
        self.graph = (graph or parse_graph(program.graph)).bind(sizes or {})
        self.model = MacroModel(chip, effects, seed, instance)
        self.states: dict[str, Array] = {}
        self._machine = load(self.program, model=self.model)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return self.graph.inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return self.graph.outputs

    def spec(self, value: str) -> QuantSpec:
        """What the codes of a value stand for."""
        quant = self.graph.type(value).quant
        assert quant is not None
        return quant

    def codes(self, inputs: Mapping[str, Array] | Array) -> dict[str, Array]:
        """Input codes (samples, *shape) by name; floats are quantized.  DataError where name or shape is wrong."""
        given = dict(inputs) if isinstance(inputs, Mapping) else {self.inputs[0]: np.asarray(inputs)}
        unknown = [n for n in given if n not in self.inputs]
        missing = [n for n in self.inputs if n not in given]
        if unknown or missing:
            raise DataError(
                "inputs",
                ", ".join([*(f"unknown {n}" for n in unknown), *(f"missing {n}" for n in missing)]),
                ", ".join(self.inputs),
            )
        return {name: self._codes(name, np.asarray(array)) for name, array in given.items()}

    def _codes(self, name: str, array: Array) -> Array:
        shape = self.graph.type(name).sizes()
        samples = len(array) if array.ndim else 0
        if array.size != samples * int(np.prod(shape)) or samples == 0:
            raise DataError(f"input {name}", f"shape {array.shape}", f"(samples, {', '.join(map(str, shape))})")
        array = array.reshape(samples, *shape)
        if np.issubdtype(array.dtype, np.integer):
            spec = self.spec(name)
            if array.min(initial=spec.lo) < spec.lo or array.max(initial=spec.hi) > spec.hi:
                raise DataError(f"input {name}", f"codes {array.min()}..{array.max()}", f"codes {spec.lo}..{spec.hi}")
            return array
        if not np.isfinite(array).all():
            raise DataError(f"input {name}", "NaN or infinity", "finite numbers")
        return quantize(array, self.spec(name))

    def run_codes(
        self,
        codes: Mapping[str, Array],
        *,
        observe: Callable[[str, Array], None] | None = None,
        done: Callable[[int], None] | None = None,
        first_sample: int = 0,
    ) -> dict[str, Array]:
        """Output codes by name for input codes; with `observe`, all samples run as one block."""
        samples = len(next(iter(codes.values())))
        if observe is not None:
            return self._outputs(run(self._machine, codes, observe=observe, first_sample=first_sample))
        size = block_size(self.program)
        blocks = ranges(samples, size)
        if not blocks:
            return {}
        self._warm(codes)

        def work(bounds: tuple[int, int]) -> dict[str, Array]:
            a, b = bounds
            machine = replace(self._machine, memory={}, pending={})  # own memory, shared matrices
            return self._outputs(run(machine, {n: c[a:b] for n, c in codes.items()}, first_sample=first_sample + a))

        parts = spread(work, blocks, done=None if done is None else lambda n: done(blocks[n - 1][1]))
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    def _warm(self, codes: Mapping[str, Array]) -> None:
        """Bind the weights once, before threads share them."""
        if not self._machine.matrices:
            run(self._machine, {n: c[:1] for n, c in codes.items()})

    def _outputs(self, values: Mapping[str, Array]) -> dict[str, Array]:
        return {name: values[name] for name in self.outputs}

    def run(self, inputs: Mapping[str, Array] | Array) -> dict[str, Array]:
        """Outputs by name: reals for float inputs, codes when every input was given as integers."""
        given = inputs.values() if isinstance(inputs, Mapping) else [inputs]
        whole = all(np.issubdtype(np.asarray(a).dtype, np.integer) for a in given)
        codes = self.run_codes(self.codes(inputs))
        return codes if whole else {n: dequantize(c, self.spec(n)) for n, c in codes.items()}

    def step(self, inputs: Mapping[str, Array] | Array) -> dict[str, Array]:
        """One step of a program with state, for all samples at once; the state goes on to the next call."""
        values = run(self._machine, self.codes(inputs), states=self.states)
        self.states = {s.input: values[s.input].copy() for s in self.graph.states}
        return {n: dequantize(values[n], self.spec(n)) for n in self.outputs}

    def reset(self) -> None:
        """Back to the initial state."""
        self.states = {}


def _checked_sizes(program: Program, sizes: Mapping[str, int]) -> dict[str, int]:
    for name, most in program.sizes.items():
        if not 1 <= int(sizes[name]) <= most:
            raise DataError(f"size {name}", str(sizes[name]), f"1 to {most}, as the program was compiled")
    return dict(sizes)


def block_size(program: Program) -> int:
    """Samples a block holds: memory image and the largest window matrix within BLOCK_BYTES."""
    windows = max((_largest_window(section) for section in program.sections), default=0)
    each = sum(program.spaces.values()) + 4 * windows
    return int(np.clip(BLOCK_BYTES // max(each, 1), 1, MAX_BLOCK))


def _largest_window(section: Section) -> int:
    """Elements an MVM gathers at most, over the trips of the loops around it."""
    trips, largest = [1], 0
    for command in section.code:
        if command.op == "LOOP":
            trips.append(trips[-1] * int(command.args[0]))
        elif command.op == "ENDL":
            trips.pop()
        elif command.op == "MVM":
            sizes = section.descriptors[int(command.args[1])].sizes
            largest = max(largest, trips[-1] * int(np.prod([int(n) for n in sizes])))
    return largest


def machine_of(session: Session) -> Machine:
    """The machine behind a session, for observers."""
    return session._machine  # pyright: ignore[reportPrivateUsage]
