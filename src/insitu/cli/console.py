"""The one place that prints: plain text without markup or colour, JSON, and progress on standard error."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
import time
from contextlib import suppress
from io import TextIOWrapper
from typing import Any, TextIO

from insitu.base.errors import OutputError
from insitu.base.store import plain

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
SPARSE_SECONDS = 5.0  # without a terminal, a stage that lasts says so this often


def prepare() -> None:
    """Characters that a stream's encoding lacks are printed as escapes instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def clean(text: str) -> str:
    """The text without control characters, which names in files may hold."""
    return _CONTROL.sub("?", text)


def put(text: str) -> None:
    """Lines on standard output, exactly as they are but for control characters."""
    _write(sys.stdout, clean(text if text.endswith("\n") else f"{text}\n"))


def stream(text: str) -> None:
    """A piece of a line on standard output, at once."""
    _write(sys.stdout, clean(text))


def put_json(value: Any) -> None:
    """One JSON object on standard output: finite numbers, null for what is not known."""
    _write(sys.stdout, json.dumps(plain(value), indent=1, allow_nan=False) + "\n")


def note(text: str) -> None:
    """Lines for people on standard error."""
    with suppress(OSError, ValueError):  # nobody listens
        sys.stderr.write(clean(f"{text}\n"))
        sys.stderr.flush()


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop(stream)
        way = ("free some space or choose another disk",) if error.errno == errno.ENOSPC else ()
        raise OutputError(
            "standard output", (error.strerror or str(error)).lower(), "a place that can be written", try_=way
        ) from error


def _drop(stream: TextIO) -> None:
    """Give up a stream that cannot be written, so that the interpreter does not try again at its end."""
    with suppress(OSError, ValueError), open(os.devnull, "w") as sink:
        os.dup2(sink.fileno(), stream.fileno())


def hang_up() -> None:
    """Standard output was closed by its reader: write no more."""
    _drop(sys.stdout)


class Progress:
    """What a long command is at, on standard error: one line that changes on a terminal, else a line per stage."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._stage = ""
        self._shown = 0.0
        self._width = 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Stage, steps done, steps in all."""
        now = time.monotonic()
        fresh = stage != self._stage
        if not fresh and now - self._shown < (0.1 if self._live else SPARSE_SECONDS):
            return
        self._stage, self._shown = stage, now
        share = f" {min(done, total)}/{total}" if total > 1 and (self._live or not fresh) else ""
        if self._live:
            self._line(f"{stage}{share}")
        else:
            note(f"{stage}{share} ...")

    def _line(self, text: str) -> None:
        text = clean(text)[: max(10, shutil.get_terminal_size().columns - 1)]
        sys.stderr.write(f"\r{text:<{self._width}}")
        sys.stderr.flush()
        self._width = len(text)

    def end(self) -> None:
        """Take the changing line away."""
        if self._live and self._width:
            self._line("")
            sys.stderr.write("\r")
            sys.stderr.flush()
            self._width = 0
