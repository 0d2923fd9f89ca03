"""Playback copies: recordings as 8 kHz, 16-bit mono data URIs, as many as the page may carry."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from insitu.streams.audio import read_wav, resample

PLAYBACK_RATE = 8_000
MAX_BYTES = 220_000
SECONDS = 6.0  # no single recording takes more of the page


@dataclass(frozen=True)
class Clip:
    """A recording by the name it has in the answers, as a data URI."""

    file: str
    uri: str


def playback_copies(paths: Sequence[str | Path], *, max_bytes: int = MAX_BYTES) -> tuple[Clip, ...]:
    """A playback copy of each mono 16-bit WAV, in order, until the next one would pass `max_bytes` of text."""
    clips: list[Clip] = []
    left = max_bytes
    for path in paths:
        uri = f"data:audio/wav;base64,{base64.b64encode(_playback(path)).decode('ascii')}"
        if len(uri) > left:
            break
        left -= len(uri)
        clips.append(Clip(Path(path).name, uri))
    return tuple(clips)


def _playback(path: str | Path) -> bytes:
    import numpy as np

    samples, rate = read_wav(path)
    audio = resample(samples[: int(SECONDS * rate)], rate, PLAYBACK_RATE)
    codes = np.clip(np.rint(audio * 32767.0), -32768, 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(PLAYBACK_RATE)
        file.writeframes(codes.tobytes())
    return buffer.getvalue()
