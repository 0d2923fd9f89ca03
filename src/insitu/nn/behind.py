"""Layers behind norms: the compiler takes a norm's factors and terms into the weights, and training sees the same.

Rows are then driven with the norm's numbers as they are before its factors, and the weights carry those.  Factors
and terms are read from the module at every forward, since they are trained too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from insitu.graph.graph import Graph, Node

Array = npt.NDArray[Any]
Source = Callable[[Array], Mapping[str, Array] | None]
TINY = 1e-20  # in place of a factor of 0


@dataclass(frozen=True, eq=False)
class Row:
    """One factor or term per input: some elements of a parameter, or numbers that are nobody's."""

    op: str  # "Mul" or "Add"
    owner: nn.Module | None
    name: str
    index: Tensor
    fixed: Tensor

    def now(self, device: torch.device) -> Tensor:
        """The numbers [inputs], or [1]."""
        if self.owner is None:
            return self.fixed.to(device)
        value: Tensor = getattr(self.owner, self.name)
        return value.float().reshape(-1)[self.index.to(device)]

    def same(self, other: Row) -> bool:
        """Whether it is the same parameter's."""
        return self.owner is not None and self.owner is other.owner and (self.op, self.name) == (other.op, other.name)


@dataclass(frozen=True, eq=False)
class Behind:
    """What lies between a norm and a layer's weights, in its order."""

    rows: tuple[Row, ...]
    width: int

    def now(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """(factors, terms) [inputs]: the module's inputs are factors * norm + terms."""
        scale, shift = torch.ones(self.width, device=device), torch.zeros(self.width, device=device)
        for row in self.rows:
            value = row.now(device)
            scale, shift = (scale * value, shift * value) if row.op == "Mul" else (scale, shift + value)
        return scale, shift

    def same(self, other: Behind | None) -> bool:
        """Whether both are the same parameters'."""
        if other is None or len(other.rows) != len(self.rows):
            return False
        return all(a.same(b) for a, b in zip(self.rows, other.rows, strict=True))


def behind_of(node: Node, canonical: Graph, signed: Graph, source: Source, module: nn.Module) -> Behind | None:
    """What the compiler took into the weights of a chip's node: the module's products and sums from its input on.

    `canonical` is the network before that, `signed` the same with weights whose origin `source` knows.
    """
    before = next((n for n in canonical.nodes if n.name == node.name), None)
    if before is None or before.inputs[0] == node.inputs[0]:
        return None
    rows, value = list[Row](), before.inputs[0]
    while value != node.inputs[0]:
        made = canonical.producer(value)
        if made is None or made.op not in ("Mul", "Add") or made.inputs[1] not in canonical.constants:
            return None
        rows.insert(0, _row(made, canonical, signed, source, module))
        value = made.inputs[0]
    return Behind(tuple(rows), canonical.type(before.inputs[0]).sizes()[-1])


def _row(made: Node, canonical: Graph, signed: Graph, source: Any, module: nn.Module) -> Row:
    fixed = torch.tensor(canonical.constants[made.inputs[1]].astype(np.float32).reshape(-1))
    twin = signed.producer(made.output)
    found = (
        source(signed.constants[twin.inputs[1]]) if twin is not None and twin.inputs[1] in signed.constants else None
    )
    if found is None or len(found) != 1:
        return Row(made.op, None, "", torch.zeros(0), fixed)
    ((name, index),) = found.items()
    owner, _, own = name.rpartition(".")
    return Row(made.op, module.get_submodule(owner), own, torch.from_numpy(index.reshape(-1)), fixed)
