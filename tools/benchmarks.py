"""Keep results of `insitu bench` with their date and machine, and draw them.

python tools/benchmarks.py run mvm wires    run, keep as benchmarks/DATE/NAME.json, draw
python tools/benchmarks.py keep F.json ...  keep what `insitu bench NAME --json` printed, draw
python tools/benchmarks.py draw             docs/benchmarks.md and docs/benchmarks.svg from the newest of each
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import date
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
KEPT, PAGE, PICTURE = ROOT / "benchmarks", ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmarks.svg"
LIBRARIES = ("numpy", "numba", "onnxruntime", "torch")
WIDTH, ROW, LABEL, SCALE = 860, 18, 330, 200.0  # pixels; SCALE is how long a value at its bar is
MOST = 2.0  # times the bar; longer ones are cut


def machine() -> dict[str, Any]:
    """What the figures depend on beside the code."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    known = {name: version(name) for name in LIBRARIES}
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        **known,
    }


def run(names: list[str]) -> None:
    for name in names:
        command = [sys.executable, "-m", "insitu.cli.main", "bench", name, "--json"]
        keep(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def keep(result: dict[str, Any]) -> None:
    folder = KEPT / date.today().isoformat()
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine(), **result}, indent=1) + "\n"
    (folder / f"{result['name']}.json").write_text(text, "utf-8")


def newest() -> dict[str, tuple[str, dict[str, Any]]]:
    """(date, result) of each benchmark by name."""
    files = sorted(KEPT.glob("*/*.json"))
    return {f.stem: (f.parent.name, json.loads(f.read_text("utf-8"))) for f in files}


def draw() -> None:
    found = newest()
    PICTURE.write_text(picture(found), "utf-8")
    PAGE.write_text(page(found), "utf-8")


def page(found: dict[str, tuple[str, dict[str, Any]]]) -> str:
    """The page: the picture, then every case."""
    lines = [
        "# Benchmarks", "",
        "Each is a row of `insitu bench NAME`, run beside its baseline in one process, medians of five. Results with",
        "their date and machine are kept in `benchmarks/`; this page is drawn from the newest of each",
        "by `tools/benchmarks.py`.",
        "", "![Every case against its bar](benchmarks.svg)", "",
        "| benchmark | case | value | unit | bar | holds | date |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, (day, result) in sorted(found.items()):
        for case in result["cases"]:
            holds = "yes" if case["holds"] else "**no**"
            lines.append(
                f"| {name} | {case['case']} | {case['value']:.4g} | {case['unit']} | {limit(case)} | {holds} | {day} |"
            )
    machines = {json.dumps(result["machine"], sort_keys=True): day for day, result in found.values()}
    lines += ["", "Machines:", ""]
    for text, day in machines.items():
        facts = json.loads(text)
        lines.append(f"- {day}: " + ", ".join(f"{key} {value}" for key, value in facts.items()))
    return "\n".join(lines) + "\n"


def limit(case: dict[str, Any]) -> str:
    if case["least"] is not None:
        return f"at least {case['least']:g}"
    return "none" if case["most"] is None else f"at most {case['most']:g}"


def picture(found: dict[str, tuple[str, dict[str, Any]]]) -> str:
    """A line a case: how far it is from its bar, the bar as one line through all."""
    cases = [(n, c) for n, (_, r) in sorted(found.items()) for c in r["cases"] if reach(c) is not None]
    height = ROW * (len(cases) + 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"',
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for i, (name, case) in enumerate(cases):
        share, y = reach(case) or 0.0, ROW * (i + 1)
        color = "#2a7a4b" if case["holds"] else "#b4432f"
        parts.append(
            f'<text x="{LABEL - 8}" y="{y + 12}" text-anchor="end">{escape(name)}: {escape(case["case"])}</text>'
        )
        parts.append(
            f'<rect x="{LABEL}" y="{y + 2}" width="{SCALE * min(share, MOST):.1f}" height="{ROW - 5}" fill="{color}"/>'
        )
        parts.append(f'<text x="{LABEL + SCALE * min(share, MOST) + 5:.1f}" y="{y + 12}">{share:.2f} of the bar</text>')
    parts.append(
        f'<line x1="{LABEL + SCALE}" x2="{LABEL + SCALE}" y1="{ROW}" y2="{height - ROW}" stroke="#222"/></svg>'
    )
    return "\n".join(parts) + "\n"


def reach(case: dict[str, Any]) -> float | None:
    """How good a value is in bars: 1 just holds, more is better."""
    if case["least"] is not None:
        return case["value"] / case["least"]
    return None if case["most"] is None or case["value"] <= 0 else case["most"] / case["value"]


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "run":
        run(rest)
    elif what == "keep":
        for file in rest:
            keep(json.loads(Path(file).read_text("utf-8")))
    draw()
