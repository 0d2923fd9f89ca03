"""The reference page of the commands: `python -m insitu.cli.reference docs/reference/cli.md` writes it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import typer

from insitu.cli.main import app

_HEAD = """# The commands

Generated from the command tree by `python -m insitu.cli.reference`; do not edit.

Results go to standard output, progress and messages to standard error. With `--json` standard output holds exactly one
JSON object, whatever happens. A model is an existing file (.onnx or .graph), `task:NAME`, or the bare name of a task;
for `run` also a language model's folder (config.json and safetensors) or `shape:NAME`, which has no weights. A
chip is a preset or a YAML file.

| exit code | meaning |
|---|---|
| 0 | it ran |
| 1 | something you gave cannot be used: where, what it got, what it needs, what to try; also on the command line |
| 2 | the network does not fit the chip: which resource is short, what fills it, what would make it fit |
| 3 | a fault of Insitu's; a note is saved, `INSITU_DEBUG=1` shows the traceback |
| 130 | stopped by Ctrl-C or SIGTERM; nothing is left half-written |
"""


def reference_page() -> str:
    """The page as Markdown."""
    tree: Any = typer.main.get_command(app)
    sections = ["\n".join(_command(name, command)) for name, command in tree.commands.items()]
    return "\n".join([_HEAD, *sections])


def _command(name: str, command: Any) -> Iterator[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    words = [*map(_name, arguments), *(_usage(o) for o in options if o.required), "[OPTIONS]"]
    yield f"## insitu {name}\n\n{command.help}\n\n`insitu {name} {' '.join(words)}`\n"
    yield "| name | takes | default | meaning |\n|---|---|---|---|"
    for parameter in (*arguments, *options):
        yield _row(parameter)
    yield ""


def _name(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _usage(option: Any) -> str:
    return f"{option.opts[0]} {_takes(option)}"


def _takes(option: Any) -> str:
    """What follows an option: nothing for a switch."""
    return str(option.metavar or "")


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"| `{_name(parameter)}` | | required | {_cell(parameter.help)} |"
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    takes = _takes(parameter)
    more = " (may be repeated)" if parameter.multiple else ""
    return f"| {names} | {f'`{takes}`' if takes else ''} | {_default(parameter)} | {_cell(parameter.help)}{more} |"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    if value in (None, [], ()) or isinstance(value, bool):
        return "on" if value is True else ""
    return f"`{value}`"


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


if __name__ == "__main__":
    from insitu.base.store import write_text

    write_text(sys.argv[1], reference_page())
