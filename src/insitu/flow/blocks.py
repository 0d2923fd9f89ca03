"""The samples of a run, and how many of them go at once: what is held stays within `--memory`.

Blocks are whole blocks of a session, counted from the first sample, and noise follows the number of a sample, so
results do not depend on how much memory there is, to the last bit (decision 0024).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from insitu.flow.check import LARGE, samples_at_once, values_per_sample
from insitu.flow.quality import layer_samples
from insitu.flow.rows import Coded, coded
from insitu.graph.export import BLOCK as FLOAT_BLOCK
from insitu.graph.graph import Graph
from insitu.graph.passes import Passes
from insitu.runtime.blocks import block_size
from insitu.runtime.memory import blocks_need, room, weights_need
from insitu.runtime.session import Session

Array = npt.NDArray[Any]
Told = Callable[[int], None]
LAYER_BYTES = 32  # of a value while layers are compared: as float32, two int64 and a float64
INPUT_BYTES, OUTPUT_BYTES = 8, 32  # of a number: with the copy that is at work; with its parts, real and reference


@dataclass(frozen=True)
class Feed:
    """Inputs and their codes (samples, *shape) by name; `rows` samples have their outputs held at once."""

    inputs: Mapping[str, Array]
    codes: Mapping[str, Array]
    rows: int
    unit: int  # samples of a session's own block

    def __len__(self) -> int:
        return len(next(iter(self.codes.values())))

    def outputs(self, session: Session, *, done: Told | None = None) -> Iterator[tuple[slice, dict[str, Array]]]:
        """(samples, their output codes) on one chip, in order; a network that takes frames has one stream."""
        if bool(session.graph.states) and bool(session.graph.meta.get("frames")):
            yield slice(0, len(self)), session.stream(self.codes, done=done)
            return
        for start in range(0, len(self), self.rows):
            taken = slice(start, min(start + self.rows, len(self)))
            tell = None if done is None else _from(start, done)
            block = {name: _part(array, taken) for name, array in self.codes.items()}
            yield taken, session.run_codes(block, first_sample=start, done=tell, block=self.unit)

    def units(self, taken: slice) -> Iterator[slice]:
        """A block's samples a session's block at a time: sums over them do not depend on `rows`."""
        for start in range(taken.start, taken.stop, self.unit):
            yield slice(start, min(start + self.unit, taken.stop))


def _from(start: int, done: Told) -> Told:
    return lambda n: done(start + n)


def _part(array: Array, taken: slice) -> Array:
    """Some samples; codes that are not kept are made block by block, on the threads that need them."""
    found: Any = array
    return cast(Array, Coded(found.array[taken], found.code)) if isinstance(found, Coded) else array[taken]


def feed_of(session: Session, inputs: Mapping[str, Array], *, slices: int, memory: int | None) -> Feed:
    """The feed of a run that takes at most `memory` bytes (None: a share of the machine's).

    UsageError where that is too little for the network and one block of samples.
    """
    graph, program, total = session.graph, session.program, len(next(iter(inputs.values())))
    unit = block_size(program, total)
    given = sum(graph.type(n).count() for n in graph.inputs)
    put = sum(graph.type(n).count() for n in graph.outputs)
    each = INPUT_BYTES * given + OUTPUT_BYTES * put
    values = values_per_sample(graph)
    running = 2 * weights_need(program, slices) + blocks_need(program, total)  # the ideal chip and an instance
    compared = LAYER_BYTES * max(layer_samples(graph), min(samples_at_once(graph), total))
    need = max(running, values * max(compared, 4 * float_rows(graph))) + unit * each
    free = room(memory, need)
    codes = coded(inputs, session.code, unit=unit, room=free // 4)
    rows = max(1, free // 2 // max(1, each) // unit) * unit
    return Feed(inputs, codes, min(rows, -(-total // unit) * unit), unit)


def float_rows(graph: Graph) -> int:
    """Samples that go through the float network together while a run's outputs are compared with its own."""
    return Passes(graph, ()).rows if values_per_sample(graph) > LARGE else FLOAT_BLOCK


def real_outputs(session: Session, outputs: Mapping[str, Array], rows: slice) -> dict[str, Array]:
    """Outputs of some samples as real numbers."""
    return {name: session.real(name, np.asarray(outputs[name][rows])) for name in session.outputs}
