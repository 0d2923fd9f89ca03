"""Run the points of acceptance/NN.yaml, print bar, figure and verdict, and write them to docs/status.md.

    python tools/accept.py 01               every point
    python tools/accept.py 01 demo bytes    the points with these ids; docs/status.md stays as it is
    python tools/accept.py 01 demo --write  the same, and their rows there are written anew

A point is a command with a figure taken from its output and a bar for the figure, or something a person looked at:

    title: The line
    points:
      - id: demo
        text: the demo ends in under 4 minutes
        command: python tools/acceptance_fresh.py
        figure: {json: first_s}      # or {regex: '(\\d+) passed'}, exit, seconds
        bar: < 240                   # ==, !=, <, <=, >, >= and a number
        exit: 0                      # the exit code expected; any other fails the point
        timeout: 10 min
      - {id: report, text: the report was looked at, by: eye, date: "2026-01-31", seen: what was seen}

Commands run in bash in the repository's root; a command that several points share runs once.
"""

from __future__ import annotations

import argparse
import json
import operator
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from insitu.base.errors import InsituError
from insitu.base.schema import Config, Seconds, load_config
from insitu.base.store import write_text

ROOT = Path(__file__).resolve().parents[1]
STATUS = ROOT / "docs" / "status.md"
BAR = re.compile(r"(==|!=|<=|>=|<|>)\s*(-?[0-9.]+(?:e-?[0-9]+)?)")
COMPARE = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


class Figure(Config):
    """Where the figure stands in the output; `json` is a path such as metrics.latency_s.value or layers[0].macs."""

    json_path: str | None = Field(None, alias="json")
    regex: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Figure:
        if (self.json_path is None) == (self.regex is None):
            raise ValueError("either json or regex")
        return self


class Point(Config):
    """One thing that must hold."""

    id: str = Field(pattern=r"^[a-z0-9-]+$")
    text: str
    by: Literal["command", "eye"] = "command"
    command: str | None = None
    figure: Figure | Literal["exit", "seconds"] = "exit"
    bar: str = "== 0"
    exit: int = 0
    timeout: Seconds = 600.0
    date: str | None = None
    seen: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Point:
        if self.by == "command" and not self.command:
            raise ValueError("a command, or by: eye")
        if self.by == "eye" and not (self.date and self.seen):
            raise ValueError("date and seen, what was looked at by eye")
        if not BAR.fullmatch(self.bar):
            raise ValueError("a bar such as >= 0.9")
        return self


class Acceptance(Config):
    """One file of points."""

    title: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Outcome:
    """What a command gave."""

    exit: int | None  # None: it ran past its timeout
    seconds: float
    stdout: str
    tail: str


@dataclass(frozen=True)
class Verdict:
    point: Point
    figure: str
    holds: bool
    why: str = ""


def run(command: str, timeout: float) -> Outcome:
    """Run one command; its process group ends with it."""
    start = time.monotonic()
    process = subprocess.Popen(
        ["bash", "-c", command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout)
        code: int | None = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        code = None
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    last = (stderr.strip() or stdout.strip()).splitlines()[-8:]
    return Outcome(code, time.monotonic() - start, stdout, "\n".join(last))


def read_figure(figure: Figure | str, outcome: Outcome) -> float | None:
    """The figure as a number; None if the output has none."""
    if figure == "exit":
        return outcome.exit
    if figure == "seconds":
        return outcome.seconds
    assert isinstance(figure, Figure)
    if figure.regex is not None:
        match = re.search(figure.regex, outcome.stdout)
        return float(match.group(1).replace(",", "")) if match else None
    try:
        value: Any = json.loads(outcome.stdout)
        for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", figure.json_path or ""):
            value = value[name or int(index)]
        return float(value)
    except (ValueError, LookupError, TypeError):
        return None


def judge(point: Point, outcome: Outcome) -> Verdict:
    """Whether the outcome meets the point's bar."""
    if outcome.exit is None:
        return Verdict(point, "none", False, f"ran past {point.timeout:.0f} s")
    if outcome.exit != point.exit and point.figure != "exit":
        return Verdict(point, "none", False, f"exit code {outcome.exit}")
    figure = read_figure(point.figure, outcome)
    if figure is None:
        return Verdict(point, "none", False, "no such figure in the output")
    match = BAR.fullmatch(point.bar)
    assert match is not None
    return Verdict(point, f"{figure:.6g}", bool(COMPARE[match[1]](figure, float(match[2]))))


def verdicts(points: list[Point]) -> list[Verdict]:
    """Judge every point, saying so as it goes."""
    outcomes: dict[str, Outcome] = {}
    judged: list[Verdict] = []
    for point in points:
        if point.by == "eye":
            judged.append(Verdict(point, f"by eye, {point.date}: {point.seen}", True))
        else:
            assert point.command is not None
            if point.command not in outcomes:
                outcomes[point.command] = run(point.command, point.timeout)
            judged.append(judge(point, outcomes[point.command]))
        last = judged[-1]
        note = f"  ({last.why})" if last.why else ""
        print(f"{'holds' if last.holds else 'FAILS'}  {point.id:24} {point.bar:>10}  {last.figure}{note}", flush=True)
        if not last.holds and point.command:
            print("\n".join(f"       | {line}" for line in outcomes[point.command].tail.splitlines()), flush=True)
    return judged


def row(verdict: Verdict) -> str:
    """One line of a section's table."""
    point = verdict.point
    bar = "by eye" if point.by == "eye" else point.bar
    figure = verdict.figure if not verdict.why else f"{verdict.figure} ({verdict.why})"
    cells = (point.id, point.text, bar, figure, "yes" if verdict.holds else "**no**")
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def section(issue: str, title: str, rows: list[str]) -> str:
    """One section of docs/status.md."""
    held = sum(line.endswith("| yes |") for line in rows)
    lines = [
        f"## {issue} {title}",
        "",
        f"{held} of {len(rows)} points hold; run on {date.today().isoformat()}.",
        "",
        "| point | what must hold | bar | figure | holds |",
        "|---|---|---|---|---|",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def written_rows(page: str, issue: str) -> dict[str, str]:
    """The rows of an issue's section as they stand, by the point's id."""
    parts = [part for part in re.split(r"(?m)^(?=## )", page) if part.startswith(f"## {issue} ")]
    lines = parts[0].splitlines()[6:] if parts else []
    return {line.split("|")[1].strip(): line for line in lines if line.startswith("| ")}


def replace_section(page: str, issue: str, text: str) -> str:
    """The page with the section of this issue put in its place; sections are in order of their numbers."""
    head, *sections = re.split(r"(?m)^(?=## )", page)
    kept = {part.split()[1]: part.rstrip("\n") + "\n" for part in sections}
    kept[issue] = text
    return "\n".join([head.rstrip("\n") + "\n", *(kept[key] for key in sorted(kept))])


def main() -> int:
    parser = argparse.ArgumentParser(description="Run acceptance/NN.yaml and write docs/status.md.")
    parser.add_argument("issue", help="the number of the file, such as 01")
    parser.add_argument("ids", nargs="*", help="run only these points and leave docs/status.md as it is")
    parser.add_argument(
        "--write", action="store_true", help="write the rows of these points, the others stay as they are"
    )
    arguments = parser.parse_args()
    issue = arguments.issue.zfill(2)
    try:
        acceptance = load_config(ROOT / "acceptance" / f"{issue}.yaml", Acceptance)
    except InsituError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    points = [point for point in acceptance.points if not arguments.ids or point.id in arguments.ids]
    judged = verdicts(points)
    if arguments.write or not arguments.ids:
        page = STATUS.read_text()
        rows = {point.id: row(Verdict(point, "not run", holds=False)) for point in acceptance.points}
        rows |= written_rows(page, issue) | {verdict.point.id: row(verdict) for verdict in judged}
        kept = [rows[point.id] for point in acceptance.points]
        write_text(STATUS, replace_section(page, issue, section(issue, acceptance.title, kept)))
    held = sum(verdict.holds for verdict in judged)
    print(f"{held} of {len(judged)} points hold")
    return 0 if held == len(judged) else 1


if __name__ == "__main__":
    sys.exit(main())
