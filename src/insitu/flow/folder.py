"""Run folders: everything a run made, in one place, the same bytes for the same run."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insitu.base.store import RunFolder, hash8
from insitu.compiler.plan import plan_to_json
from insitu.graph.text import print_graph
from insitu.isa.container import program_bytes
from insitu.report.audio import playback_copies
from insitu.report.html import render
from insitu.sim.timing import simulate_time
from insitu.sim.trace import write_trace

if TYPE_CHECKING:
    from insitu.flow.chain import Deployment

PACKAGES = ("numpy", "numba", "onnx", "onnxruntime", "pydantic", "safetensors")


def default_folder(model: str, chip: str, parts: Sequence[str | bytes]) -> Path:
    """insitu-runs/<model>-<chip>-<8 hex digits of the inputs>."""
    return Path("insitu-runs") / f"{model}-{chip}-{hash8(*parts)}"


def write_run(deployment: Deployment, folder: str | Path, *, audio: Sequence[Path] = (), host: dict[str, Any] | None = None) -> Path:
    """Write report, result, program, graph, plan and trace; nothing is left half-written.  Returns the folder."""
    result = replace(deployment.result, run_dir=str(folder))
    with RunFolder.create(folder) as run:
        run.write_text("report.html", render(result, audio=playback_copies(audio)))
        run.write_json("result.json", {**result.to_json(), "run_dir": None})
        if deployment.program is not None and deployment.plan is not None and deployment.session is not None:
            run.write_bytes("program.insitu", program_bytes(deployment.program))
            run.write_text("quantized.graph", print_graph(deployment.session.graph, weights=False))
            run.write_text("plan.json", plan_to_json(deployment.plan))
            timing = simulate_time(deployment.program, deployment.chip, trace=True)
            write_trace(run.file("trace.json"), deployment.program, timing)
        for path in audio:
            run.write_bytes(f"audio/{path.name}", path.read_bytes())
        run.write_json("host.json", {**machine(), **(host or {}), "folder": str(folder)})
    return Path(folder)


def machine() -> dict[str, Any]:
    """The machine and versions a run came from (the only file that may differ between equal runs)."""
    versions = {name: version(name) for name in PACKAGES}
    return {"python": sys.version.split()[0], "platform": platform.platform(), "packages": versions}
