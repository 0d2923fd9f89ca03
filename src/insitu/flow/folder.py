"""Run folders: everything a run made, in one place, the same bytes for the same run."""

from __future__ import annotations

import json
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import insitu
from insitu.base.store import RunFolder, hash8
from insitu.compiler.plan import plan_to_json
from insitu.graph.text import print_graph
from insitu.isa.container import program_bytes
from insitu.report.audio import playback_copies
from insitu.report.html import render
from insitu.report.summary import summary_lines
from insitu.sim.timing import simulate_time
from insitu.sim.trace import write_trace

if TYPE_CHECKING:
    from insitu.flow.chain import Deployment

HOME = "insitu-runs"
PACKAGES = ("numpy", "scipy", "numba", "onnx", "onnxruntime", "pydantic", "safetensors")
LONGEST = 60  # characters of a model's or chip's name in a folder's name


def default_folder(model: str, chip: str, parts: Sequence[str | bytes]) -> Path:
    """insitu-runs/<model>-<chip>-<8 hex digits of the inputs>."""
    return Path(HOME) / f"{_file_name(model)}-{_file_name(chip)}-{hash8(*parts)}"


def _file_name(name: str) -> str:
    """The name with nothing that a file system or a shell takes for something else."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", name)[:LONGEST].strip("._-") or "model"


def write_run(
    deployment: Deployment, folder: str | Path, *, audio: Sequence[Path] = (), host: Mapping[str, Any] | None = None
) -> Path:
    """Write report, result, program, graph, plan and trace; nothing is left half-written.  Returns the folder."""
    with RunFolder.create(folder) as run:
        fill_run(run, deployment, audio=audio, host=host)
    return Path(folder)


def fill_run(
    run: RunFolder, deployment: Deployment, *, audio: Sequence[Path] = (), host: Mapping[str, Any] | None = None
) -> None:
    """Write all files of a run into an open run folder.

    Only host.json may differ between equal runs: no other file holds a time, a path of this machine or the folder.
    """
    result = replace(deployment.result, run_dir=None)
    run.write_text("report.html", render(result, audio=playback_copies(audio)))
    run.write_json("result.json", result.to_json())
    run.write_text("summary.txt", "\n".join(summary_lines(result)) + "\n")
    if deployment.program is not None and deployment.session is not None:
        run.write_bytes("program.insitu", program_bytes(deployment.program))
        run.write_text("quantized.graph", print_graph(deployment.session.graph, weights=False))
        if deployment.plan is not None:
            run.write_text("plan.json", plan_to_json(deployment.plan))
        timing = simulate_time(deployment.program, deployment.chip, trace=True)
        write_trace(run.file("trace.json"), deployment.program, timing)
    for path in audio:
        run.write_bytes(f"audio/{path.name}", path.read_bytes())
    run.write_json("host.json", {**machine(), **(host or {}), "folder": printable(str(run.path))})


def read_summary(folder: str | Path) -> tuple[str, dict[str, Any]]:
    """(summary, JSON result) of a run folder; OSError or ValueError where a file is missing or broken."""
    text = (Path(folder) / "summary.txt").read_text("utf-8")
    return text, {**json.loads((Path(folder) / "result.json").read_text("utf-8")), "run_dir": str(folder)}


def printable(path: str) -> str:
    """A path whose bytes may be no text, as text."""
    return path.encode("utf-8", "backslashreplace").decode()


def machine() -> dict[str, Any]:
    """The machine and versions a run came from (the only file that may differ between equal runs)."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": {n: package(n) for n in PACKAGES},
    }


def versions_text() -> str:
    """The versions that decide a run's numbers, in one line."""
    return ", ".join([f"insitu {insitu.__version__}", *(f"{n} {package(n) or 'missing'}" for n in PACKAGES)])


def package(name: str) -> str | None:
    """The installed version of a package; none where it is absent."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
