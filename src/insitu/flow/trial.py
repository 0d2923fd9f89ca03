"""A trial deployment: one programmed chip run on calibration samples, and its last layer solved again for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.algo.expected import expected_inputs
from insitu.algo.head import head_of, solved
from insitu.algo.vectors import evenly
from insitu.arch.spec import Chip
from insitu.circuit.effects import Physics
from insitu.flow.check import observed
from insitu.flow.physics import instance_session
from insitu.graph.export import float_session
from insitu.graph.graph import Graph
from insitu.isa.program import Program
from insitu.runtime.objective import best_program
from insitu.runtime.session import Session

Array = npt.NDArray[Any]
SAMPLES = 128


@dataclass(frozen=True)
class Tuner:
    """What the last layer is solved with: the float network's outputs of it on calibration samples.

    `compiled` makes the program of a quantized graph as the network's own was made.
    """

    captured: Graph
    calibration: Mapping[str, Array]
    compiled: Callable[[Graph], Program]

    def session(self, session: Session, effects: Physics, *, instance: int, seed: int) -> Session:
        """The instance after its trial: read as programmed, its last layer programmed again."""
        fresh = instance_session(session, effects.after(0.0), instance=instance, seed=seed)
        graph = self.tuned(fresh)
        if graph is None:
            return instance_session(session, effects, instance=instance, seed=seed)
        return Session(
            self.compiled(graph), physics=effects, instance=instance, seed=seed, graph=graph, backend=session.backend
        )  # fmt: skip

    def tuned(self, session: Session) -> Graph | None:
        """The quantized graph with the head that suits a running chip; none where the network has no such head."""
        node = head_of(session.graph, self.captured)
        if node is None:
            return None
        few = {n: np.asarray(evenly(a, SAMPLES), np.float32) for n, a in self.calibration.items()}
        wanted = np.asarray(float_session(self.captured, expose=[node.output])(few)[node.output], np.float64)
        given = session.codes(few)
        seen = given[node.inputs[0]] if node.inputs[0] in given else observed(session, given)[node.inputs[0]]
        return solved(session.graph, node, seen, wanted)


def played(chip: Chip, inputs: Callable[..., dict[str, Array]], *of: Any) -> dict[str, Array]:
    """The codes that the chip's own calibration plays, by layer; none where it plays nothing."""
    own = chip.calibration
    return inputs(*of, known=own.known_inputs if own.trims else 0) if own.trims or own.column_offset else {}


def recompiled(
    captured: Graph, quantized: Graph, chip: Chip, calibration: Mapping[str, Array], **how: Any
) -> Program:  # fmt: skip
    """The program of a quantized graph whose weights have changed; `how` as for `best_program`."""
    return best_program(
        quantized, chip, expected=played(chip, expected_inputs, captured, quantized, calibration), **how
    )
