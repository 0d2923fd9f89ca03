"""The outermost line: every end of a command is an exit code and one message, or one JSON object."""

from __future__ import annotations

import errno
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from insitu.base.errors import (
    InfeasibleError,
    InsituError,
    InternalError,
    OutputError,
    RangeError,
    UsageError,
    did_you_mean,
)
from insitu.cli import console
from insitu.cli.environment import cache_folder, debugging

INTERRUPTED = 130
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Stopped(BaseException):
    """Ctrl-C or a request to terminate; no library takes it for one of its own errors."""


def guarded(work: Callable[[], int], arguments: Sequence[str]) -> int:
    """The exit code of a command; whatever it raises becomes a message."""
    console.prepare()
    as_json = wants_json(arguments)
    try:
        with listening():
            return _ended(work, arguments, as_json)
    except BrokenPipeError:
        console.hang_up()
        return 1
    except OutputError as error:  # standard output itself cannot be written
        console.note(str(error))
        return 1


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether the command line asks for JSON, read before anything can be wrong with it."""
    given = list(arguments)
    return "--json" in (given[: given.index("--")] if "--" in given else given)


def _ended(work: Callable[[], int], arguments: Sequence[str], as_json: bool) -> int:
    try:
        return work()
    except (Stopped, KeyboardInterrupt):
        return report(
            InsituError("interrupted", "stopped; nothing was written", "to run to its end", code="interrupted"),
            as_json,
            code=INTERRUPTED,
        )
    except BrokenPipeError:
        raise
    except InsituError as error:
        crash = _crash_note(error, arguments) if error.exit_code == InternalError.exit_code else ""
        return report(error, as_json, note=crash)
    except Exception as error:  # noqa: BLE001
        if _is_usage(error):
            return report(usage_error(error), as_json)
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            place = str(error.filename or "disk")
            return report(OutputError(place, (error.strerror or "full").lower(), "room to write"), as_json)
        if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("insitu"):
            absent = f"package {str(error.name).partition('.')[0]}"
            return report(
                UsageError(absent, "not installed", "every package of the core", try_=("insitu doctor",)), as_json
            )
        if isinstance(error, MemoryError):
            return report(RangeError("memory", "not enough for this", "more memory, or fewer --samples"), as_json)
        return _crashed(error, arguments, as_json)


def report(error: InsituError, as_json: bool, *, code: int | None = None, note: str = "") -> int:
    """Say what went wrong; returns the exit code."""
    console.note(str(error) + (f"\n{note}" if note else ""))
    if as_json:
        if isinstance(error, InfeasibleError):
            console.put_json({"schema": 1, "fits": False, "infeasible": [i.to_json() for i in error.items]})
        else:
            console.put_json({"schema": 1, "error": error.to_json()})
    return error.exit_code if code is None else code


# what the command-line library raises


def _is_usage(error: Exception) -> bool:
    return any(kind.__name__ == "ClickException" for kind in type(error).__mro__)


def usage_error(error: Any) -> UsageError:
    """A mistake on the command line in our words; the library's classes are known by what they carry."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "insitu"
    message = str(getattr(error, "message", "") or error.format_message()).rstrip(".")
    parameter, option = getattr(error, "param", None), getattr(error, "option_name", None)
    if type(error).__name__ == "NoSuchOption":
        close = tuple(getattr(error, "possibilities", None) or ())
        return UsageError(
            command, f"there is no option {option}", f"an option that `{command} --help` lists", try_=close
        )
    if parameter is not None:
        place, need = _parameter(parameter)
        got = "not given" if type(error).__name__ == "MissingParameter" else message[:1].lower() + message[1:]
        return UsageError(f"{command}: {place}", got, need)
    commands = getattr(getattr(context, "command", None), "commands", None)
    if message.startswith("No such command") and commands:
        word = [*message.split("'"), ""][1]
        return UsageError(
            command, f"there is no command {word!r}", f"one of {', '.join(commands)}", try_=did_you_mean(word, commands)
        )
    return UsageError(command, message[:1].lower() + message[1:], f"what `{command} --help` lists")


def _parameter(parameter: Any) -> tuple[str, str]:
    """How a parameter is written, and what it takes."""
    names = [name for name in parameter.opts if name.startswith("--")] or list(parameter.opts)
    place = names[0] if names[0].startswith("-") else str(parameter.metavar or parameter.name.upper())
    need = str(getattr(parameter, "help", "") or "a value").rstrip(".")
    return place, f"{parameter.metavar}: {need}" if names[0].startswith("-") and parameter.metavar else need


# our own faults


def _crashed(error: Exception, arguments: Sequence[str], as_json: bool) -> int:
    what = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    fault = InternalError(
        "insitu",
        f"a fault of ours ({what})",
        "a bug report with the note that is saved",
        try_=("INSITU_DEBUG=1 shows where",),
    )
    return report(fault, as_json, note=_crash_note(error, arguments))


def _crash_note(error: BaseException, arguments: Sequence[str]) -> str:
    """Save what happened and where; returns the line that says so, and the traceback where that is wanted."""
    import traceback

    text = "".join(traceback.format_exception(error))
    shown = f"{text.rstrip()}\n" if debugging() else ""
    path = _save_note(text, arguments)
    return shown + (f"A note for a bug report is in {path}" if path else "The note for a bug report could not be saved")


def _save_note(text: str, arguments: Sequence[str]) -> str:
    import tempfile
    from pathlib import Path

    import insitu
    from insitu.base.store import hash8, write_text

    head = f"insitu {insitu.__version__}, Python {sys.version.split()[0]}, {sys.platform}"
    content = f"{head}\ninsitu {' '.join(arguments)}\n\n{text}"
    for folder in (cache_folder() / "crashes", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return str(write_text(folder / f"insitu-crash-{hash8(content)}.txt", content))
        except (OSError, InsituError):
            continue
    return ""


# signals


@contextmanager
def listening() -> Generator[None]:
    """Ctrl-C, SIGTERM and SIGHUP stop the command so that it tidies up; further ones do not disturb the tidying."""
    before: dict[signal.Signals, Any] = {}

    def stop(number: int, frame: Any) -> None:
        for heard in before:
            signal.signal(heard, signal.SIG_IGN)
        raise Stopped(number)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
