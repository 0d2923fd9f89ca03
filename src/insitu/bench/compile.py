"""`insitu bench compile`: ResNet-18 (224 x 224) from its ONNX file to a checked program file's bytes.

CPU seconds are of the second run in a fresh process, imports excluded; the quantization plan is given, since choosing
ranges on calibration data is no part of compiling.  Memory is the peak of another fresh process that compiles once,
interpreter and imports included.  Code is commands, tables, memory map and graph, weights excluded.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from insitu.bench.result import BenchResult, Case

CHIP, OVERRIDES = "dcim-28nm", ("chip.tiles=32", "memories.ram.size=16 MiB")  # holds the network: 16.8 M weights
RUNS = 5
MOST_SECONDS, MOST_MEMORY, MOST_CODE, MOST_COMMANDS = 2.0, 250.0, 500e3, 30_000.0
# PIMCOMP-NN on the same network (benchmarks of peers, 2-core x86): 20-22 s, 4.5-5.1 GiB, 3.1-3.3 M instructions, 7-8 MB
PEER_SECONDS, PEER_MEMORY, PEER_CODE, PEER_COMMANDS = 20.0, 4600.0, 7e6, 3.1e6
BAR = "2 CPU s, 250 MiB, 500 kB of code, 30,000 commands"


def run() -> BenchResult:
    """Median of five fresh processes, and the size of what they make."""
    with tempfile.TemporaryDirectory() as folder:
        _prepare(Path(folder))
        warm = [_child(folder, times=2) for _ in range(RUNS)]
        once = _child(folder, times=1)
    seconds = tuple(float(facts["seconds"]) for facts in warm)
    cases = (
        _case("CPU time", median(seconds), "s", MOST_SECONDS, PEER_SECONDS, seconds),
        _case("peak memory", once["memory_mib"], "MiB", MOST_MEMORY, PEER_MEMORY, (once["memory_mib"],)),
        _case("code and tables", once["code_bytes"], "B", MOST_CODE, PEER_CODE, (once["code_bytes"],)),
        _case("commands", once["commands"], "1", MOST_COMMANDS, PEER_COMMANDS, (once["commands"],)),
    )
    return BenchResult("compile", cases, BAR)


def _case(name: str, value: float, unit: str, most: float, peer: float, runs: tuple[float, ...]) -> Case:
    return Case(name, float(value), unit, peer, peer / value, runs, most)


def _prepare(folder: Path) -> None:
    """The model's file and its quantization plan."""
    import numpy as np

    from insitu.algo import ptq
    from insitu.arch.load import load_chip
    from insitu.bench.networks import resnet18
    from insitu.compiler.plan import plan_to_json
    from insitu.flow.chain import capture

    (folder / "model.onnx").write_bytes(resnet18().SerializeToString())
    graph = capture(folder / "model.onnx")
    data = {"x": np.random.default_rng(0).standard_normal((1, 1, 3, 224, 224), np.float32)}
    plan = ptq.plan(graph, load_chip(CHIP, overrides=OVERRIDES), data=data)
    (folder / "plan.json").write_text(plan_to_json(plan), "utf-8")


def _child(folder: str, *, times: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "insitu.bench.compile", folder, str(times)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def measure(folder: Path, *, times: int) -> dict[str, Any]:
    """Compile `times` times in this process; facts of the last one."""
    from insitu.arch.load import load_chip
    from insitu.compiler.plan import plan_from_json

    chip, plan = load_chip(CHIP, overrides=OVERRIDES), plan_from_json((folder / "plan.json").read_text("utf-8"))
    seconds, program = 0.0, None
    for _ in range(times):
        program = None  # the run before must not count as memory of this one
        start = time.process_time()
        program = _compile(folder / "model.onnx", chip, plan)
        seconds = time.process_time() - start
    memory = peak_memory()
    commands = sum(len(section.code) for section in program.sections) if program else 0
    return {"seconds": seconds, "memory_mib": memory, "commands": commands, "code_bytes": code_bytes(program)}


def peak_memory() -> float:
    """MiB that this process held at most.  Linux counts the parent's in getrusage, so its own file is read there."""
    try:
        status = Path("/proc/self/status").read_text("ascii")
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        scale = 1 << 20 if sys.platform == "darwin" else 1 << 10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def _compile(model: Path, chip: Any, plan: Any) -> Any:
    """What is measured: file in, bytes of the checked program out."""
    from insitu.compiler.pipeline import compile_graph
    from insitu.compiler.precision import apply_plan
    from insitu.flow.chain import capture
    from insitu.graph.verify import verify
    from insitu.isa.check import check_program
    from insitu.isa.container import program_bytes

    program = compile_graph(verify(apply_plan(capture(model), chip, plan=plan)), chip)
    check_program(program)
    program_bytes(program)
    return program


def code_bytes(program: Any) -> int:
    """Bytes of a program's file less its weights: those of the graph stand by hash."""
    from dataclasses import replace

    from insitu.isa.container import program_bytes

    graph = str(program.graph).split("\ndata sha256:", 1)[0]
    bare = {name: replace(ref, data=None) for name, ref in program.weights.items()}
    return len(program_bytes(replace(program, graph=graph, weights=bare)))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(Path(sys.argv[1]), times=int(sys.argv[2]))))
