"""What the float network and each chip answer to a task's recordings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.circuit.effects import Physics
from insitu.graph.export import float_session
from insitu.graph.graph import Graph
from insitu.runtime.session import Session
from insitu.tasks.registry import Task, recorded_maps, recorded_words

Array = npt.NDArray[Any]


def answers(
    task: Task, captured: Graph, session: Session, *, effects: Physics, instances: int, seed: int
) -> list[dict[str, Any]]:
    """One row per recording: what was said, the float network's answer, each chip's vote and the answer of most.

    `session` holds the ideal chip; `effects` are those of the instances, numbered as in the run itself.
    """
    name, output = captured.inputs[0], captured.outputs[0]
    maps = recorded_maps(task).reshape(-1, *captured.type(name).sizes())
    floats = _best(float_session(captured)({name: maps})[output])
    codes = session.codes({name: maps})
    votes: list[Sequence[int]] = []
    for instance in range(1 if effects.ideal else instances):
        chip = Session(
            session.program, physics=effects, instance=instance, seed=seed, graph=session.graph, backend=session.backend
        )  # fmt: skip
        votes.append(_best(chip.run_codes(codes)[session.outputs[0]]))
    words = task.facts.classes
    return [
        _row(path.name, said, words[floats[i]], [words[vote[i]] for vote in votes])
        for i, (path, said) in enumerate(zip(task.recordings, recorded_words(task), strict=True))
    ]


def _best(scores: Array) -> list[int]:
    return [int(i) for i in np.argmax(scores.reshape(len(scores), -1), axis=1)]


def _row(file: str, said: str, float_: str, votes: list[str]) -> dict[str, Any]:
    """The chip's answer is the one most instances give; of equally many the first by name."""
    chip = max(sorted(set(votes)), key=votes.count)
    return {"file": file, "truth": said, "float": float_, "chip": chip, "votes": votes}
