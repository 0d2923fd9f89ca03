"""The embedded keyword network on torch tensors against the processor's kernels: what differs, in JSON.

    python tools/acceptance_gpu.py CHIP [SAMPLES]                      torch's operations, or a GPU where there is one
    TRITON_INTERPRET=1 python tools/acceptance_gpu.py CHIP [SAMPLES]   Triton's kernel, interpreted

`ideal` counts output codes of array products that differ under ideal physics.  Under full physics every product gets
the same inputs on both sides: `most` is how far its codes are apart, `fraction` how many are.  `outputs` is the share
of the network's own outputs that differ where each side goes its own way, so that layers hand on what differs.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import insitu
from insitu.circuit.effects import Physics
from insitu.flow.chain import Options
from insitu.runtime.session import Session
from insitu.sim.functional import load, run
from insitu.sim.gpu.fused import runs_on
from insitu.sim.gpu.model import TensorModel
from insitu.sim.macro import MacroModel
from insitu.tasks.registry import evaluation_data, named_task

SEED, INSTANCE = 3, 1


@dataclass(frozen=True)
class Both(TensorModel):
    """Products on both sides; the processor's codes go on."""

    seen: list[np.ndarray] = field(default_factory=list[Any], compare=False)

    def read(self, bound: Any, codes: Any, **more: Any) -> Any:
        found, wanted = super().read(bound, codes, **more), MacroModel.read(self, bound, codes, **more)
        self.seen.append(np.abs(found - wanted).ravel())
        return wanted


def main(chip: str, samples: int) -> int:
    """Print what differs."""
    task = named_task("task:kws")
    assert task is not None
    options = Options(physics="ideal", instances=1, samples=samples, check=1)
    deployed = insitu.deploy("task:kws", chip, options=options)
    assert deployed.program is not None
    assert deployed.session is not None
    device, codes = (
        "cuda" if torch.cuda.is_available() else "cpu",
        deployed.session.codes(evaluation_data(task)["x"][:samples]),
    )
    apart: dict[str, np.ndarray] = {}
    for physics in ("ideal", "full"):
        effects = Physics.parse(physics, deployed.chip)
        both = Both(deployed.chip, effects, SEED, INSTANCE, device=device, fused=runs_on(device))
        run(load(deployed.program, model=both), codes)
        apart[physics] = np.concatenate(both.seen)
    given: dict[str, Any] = {"physics": "full", "seed": SEED, "instance": INSTANCE}
    backend = "cuda" if device == "cuda" else "torch"
    ends = [Session(deployed.program, backend=b, **given).run_codes(codes) for b in (backend, "cpu")]
    pairs = [(ends[0][n], ends[1][n]) for n in ends[0]]
    own = np.concatenate([np.abs(a.astype(np.int64) - b).ravel() for a, b in pairs])
    found = {
        "device": device, "fused": runs_on(device), "samples": samples, "codes": int(apart["full"].size),
        "ideal": int(np.count_nonzero(apart["ideal"])), "most": int(apart["full"].max()),
        "fraction": float(np.count_nonzero(apart["full"]) / apart["full"].size),
        "outputs": float(np.count_nonzero(own) / own.size), "outputs_most": int(own.max()),
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 50))
