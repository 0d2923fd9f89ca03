"""`insitu tasks`: the tasks that ship."""

from __future__ import annotations

from insitu.cli import console
from insitu.report.text import count, percent
from insitu.tasks.registry import Task, tasks


def run(*, json: bool) -> int:
    """List the tasks; returns the exit code."""
    known = tasks()
    if json:
        console.put_json({"schema": 1, "tasks": [t.facts.model_dump(mode="json") for t in known.values()]})
    else:
        console.put("\n".join(_line(task) for task in known.values()))
    return 0


def _line(task: Task) -> str:
    stated = ", ".join(f"{percent(s.value)} on {kind} data" for kind, s in task.facts.accuracy_float.items())
    return f"task:{task.name}  {task.facts.title}; {count(task.facts.parameters)} parameters; float accuracy {stated}"
