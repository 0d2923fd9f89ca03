"""Session: load a Program once, feed it tensors, keep its state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.arch.load import chip_from_json
from insitu.arch.spec import Chip
from insitu.base.errors import DataError
from insitu.circuit.effects import Physics
from insitu.graph.graph import Graph
from insitu.graph.ops.float import numpy_type
from insitu.graph.text import parse_graph
from insitu.isa.program import Program
from insitu.numeric.affine import QuantSpec, dequantize, quantize
from insitu.runtime.blocks import block_size
from insitu.runtime.heat import warmed
from insitu.runtime.parallel import ranges, spread
from insitu.sim.backends import macro_model
from insitu.sim.functional import Machine, load, run
from insitu.sim.recorded import Recording, record, recordable

Array = npt.NDArray[Any]


class Session:
    """A loaded program on one chip instance.

    Float arrays are quantized on the way in and dequantized on the way out; integer arrays are codes and come back
    as codes.  Arrays carry a leading sample axis: (samples, *shape).  Samples are independent runs; a program with
    state is stepped with `step`, which carries the state of every sample from one call to the next until `reset`.
    """

    def __init__(
        self, program: Program, *, physics: str | Physics = "ideal", instance: int = 0, seed: int = 0,
        sizes: Mapping[str, int] | None = None,
        graph: Graph | None = None, calibrated: bool = True, chip: Chip | None = None,
        backend: str = "cpu",
    ) -> None:  # fmt: skip
        """Raises UsageError for physics the chip does not have, DataError for a size it was not compiled for.

        `backend` computes array products: cpu, torch (tensors on the processor) or cuda; UsageError where it is not.

        `chip` stands in for the one the program was compiled for, with other constants of its physics.
        Cells are as warm as the program's mean power makes them, unless `physics` states a temperature.
        Sizes that are bound at run time and not given here follow from the shapes of each call's inputs.
        """
        chip = chip or chip_from_json(program.chip)
        effects = Physics.parse(physics, chip, calibrated=calibrated) if isinstance(physics, str) else physics
        self._given = _checked_sizes(program, sizes or {})
        self.backend = backend
        self.model = macro_model(backend, chip, warmed(effects, program, chip, sizes=self._given), seed, instance)
        self.states: dict[str, Array] = {}
        self._steps = 0  # since the initial state: noise of each step is its own
        self._recordings: dict[tuple[int, int], Recording | None] = {}
        known = all(n in self._given for n in program.sizes)
        self.program = program.bind(self._given) if known else program
        self.graph = (graph or parse_graph(program.graph)).bind(self._given)
        self._machines: dict[tuple[tuple[str, int], ...], Machine] = {}
        if known:
            self._machines[()] = load(self.program, model=self.model)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return self.graph.inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return self.graph.outputs

    def real(self, value: str, array: Array) -> Array:
        """What codes stand for; numbers without quantization as they are."""
        quant = self.graph.type(value).quant
        return array if quant is None else dequantize(array, quant)

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
        arrays = {name: np.asarray(array) for name, array in given.items()}
        sizes = self._sizes(arrays)
        shapes = {name: self.graph.type(name).bind(sizes).sizes() for name in arrays}
        return {name: self._codes(name, array, shapes[name]) for name, array in arrays.items()}

    def code(self, name: str, array: Array) -> Array:
        """Codes (samples, *shape) of one input whose size is known."""
        return self._codes(name, np.asarray(array), self.graph.type(name).sizes())

    def _sizes(self, arrays: Mapping[str, Array]) -> dict[str, int]:
        """Sizes bound at run time that are still open, from the shapes of inputs (samples, *shape)."""
        found: dict[str, int] = {}
        for name, array in arrays.items():
            kind = self.graph.type(name)
            if not kind.symbols:
                continue
            if array.ndim != kind.rank + 1:
                need = f"(samples, {', '.join(map(str, kind.shape))})"
                raise DataError(f"input {name}", f"shape {array.shape}", need)
            for dim, size in zip(kind.shape, array.shape[1:], strict=True):
                if isinstance(dim, str) and found.setdefault(dim, size) != size:
                    raise DataError(f"input {name}", f"{dim} = {size}", f"{dim} = {found[dim]}, as in other inputs")
        return _checked_sizes(self.program, found)

    def _machine(self, codes: Mapping[str, Array]) -> Machine:
        """The machine for inputs of these shapes; machines of all sizes share their weights."""
        sizes = self._sizes(codes)
        missing = [n for n in self.program.sizes if n not in sizes]
        if missing:
            got, need = f"sizes {', '.join(missing)} not given", "a number for each"
            raise DataError(self.program.name, got, need, try_=["Session(program, sizes={...})"])
        key = tuple(sorted(sizes.items()))
        if key not in self._machines:
            fresh = load(self.program.bind(sizes), model=self.model)
            shared = next(iter(self._machines.values()), fresh)
            self._machines[key] = replace(fresh, matrices=shared.matrices)
        return self._machines[key]

    def _codes(self, name: str, array: Array, shape: tuple[int, ...]) -> Array:
        samples = len(array) if array.ndim else 0
        if array.size != samples * int(np.prod(shape)) or samples == 0:
            raise DataError(f"input {name}", f"shape {array.shape}", f"(samples, {', '.join(map(str, shape))})")
        array = array.reshape(samples, *shape)
        if self.graph.type(name).quant is None:
            return array.astype(numpy_type(self.graph.type(name).dtype))
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
        block: int = 0,
    ) -> dict[str, Array]:
        """Output codes by name for input codes; with `observe`, all samples run as one block.

        `block` samples go at once; with 0 as many as `block_size` says.
        """
        samples, loaded = len(next(iter(codes.values()))), self._machine(codes)
        if observe is not None:
            return self._outputs(run(loaded, codes, observe=observe, first_sample=first_sample))
        blocks = ranges(samples, block or block_size(loaded.program, samples))
        if not blocks:
            return {}
        if not loaded.matrices:  # bind the weights once, before threads share them
            run(loaded, {n: c[:1] for n, c in codes.items()})

        def work(bounds: tuple[int, int]) -> dict[str, Array]:
            a, b = bounds
            machine = replace(loaded, memory={}, pending={}, opened={})  # own memory, shared matrices
            return self._outputs(run(machine, {n: c[a:b] for n, c in codes.items()}, first_sample=first_sample + a))

        parts = spread(work, blocks, done=None if done is None else lambda n: done(blocks[n - 1][1]))
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    def _outputs(self, values: Mapping[str, Array]) -> dict[str, Array]:
        return {name: values[name] for name in self.outputs}

    def run(self, inputs: Mapping[str, Array] | Array) -> dict[str, Array]:
        """Outputs by name: reals, or codes when the inputs were given as codes.

        Inputs that are whole numbers by nature (token ids) say nothing of that.
        """
        given = inputs if isinstance(inputs, Mapping) else {self.inputs[0]: inputs}
        codes = self.run_codes(self.codes(given))
        quantized = [np.asarray(a) for n, a in given.items() if self.graph.type(n).quant is not None]
        whole = bool(quantized) and all(np.issubdtype(a.dtype, np.integer) for a in quantized)
        return codes if whole else {n: self.real(n, c) for n, c in codes.items()}

    def step(self, inputs: Mapping[str, Array] | Array) -> dict[str, Array]:
        """One step of a program with state, for all samples at once; the state goes on to the next call."""
        values = self.step_codes(self.codes(inputs))
        return {n: self.real(n, values[n]) for n in self.outputs}

    def step_codes(
        self, codes: Mapping[str, Array], *, observe: Callable[[str, Array], None] | None = None
    ) -> dict[str, Array]:
        """One step in codes: outputs and states by name; the state goes on to the next call."""
        held, given = (len(next(iter(c.values()))) for c in (self.states or codes, codes))
        if held != given:
            raise DataError("inputs", f"{given} samples", f"{held}, those whose state is kept", try_=["reset() first"])
        values = self._stepped(codes, given) if observe is None else None
        first = self._steps * given
        if values is None:
            values = run(self._machine(codes), codes, states=self.states, observe=observe, first_sample=first)
        self._steps += 1
        self.states = {s.input: values[s.input].copy() for s in self.graph.states}
        return values

    def _stepped(self, codes: Mapping[str, Array], samples: int) -> dict[str, Any] | None:
        """A step from a recording of the program; none where it cannot be recorded."""
        machine = self._machine(codes)
        key = (id(machine), samples)
        if key not in self._recordings:
            self._recordings = {key: record(machine, samples, codes) if recordable(machine) else None}
        recording = self._recordings[key]
        return None if recording is None else recording.step(codes, self.states, self._steps * samples)

    def stream(self, codes: Mapping[str, Array], *, done: Callable[[int], None] | None = None) -> dict[str, Array]:
        """Output codes where the samples are steps of one stream, from the initial state on."""
        self.reset()
        rows: list[dict[str, Array]] = []
        for t in range(len(next(iter(codes.values())))):
            rows.append(self._outputs(self.step_codes({n: c[t : t + 1] for n, c in codes.items()})))
            if done is not None:
                done(t + 1)
        self.reset()
        return {n: np.concatenate([r[n] for r in rows]) for n in self.outputs}

    def reset(self) -> None:
        """Back to the initial state."""
        self.states, self._steps = {}, 0


def _checked_sizes(program: Program, sizes: Mapping[str, int]) -> dict[str, int]:
    """The sizes that the program has; DataError where one is out of range."""
    for name, most in program.sizes.items():
        if name in sizes and not 1 <= int(sizes[name]) <= most:
            raise DataError(f"size {name}", str(sizes[name]), f"1 to {most}, as the program was compiled")
    return {name: int(sizes[name]) for name in program.sizes if name in sizes}


def machine_of(session: Session) -> Machine:
    """The machine behind a session, for observers."""
    return session._machine({})  # pyright: ignore[reportPrivateUsage]
