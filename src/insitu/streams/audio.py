"""Audio streams: WAV files in and out, resampling, and the cepstral front end of the keyword task.

Front end, per one-second clip x at `rate` Hz (in float64, so that the rounded maps are the same on every machine):

    y       = x resampled to `analysis_rate` by a windowed-sinc FIR (`resample`)
    P[t, f] = |FFT(hann * y[t * hop : t * hop + window])|^2
    E[t, m] = sum_f P[t, f] * T[f, m] + floor              triangular filters, equally spaced in mel, unit peak
    L       = ln(max(E, max(E) * 10 ** (-dynamic_db / 10)))  the floor follows the level of the clip
    C[t, k] = lift[k] * sum_m L[t, m] * D[m, k]            orthonormal DCT-II; lift = 1/2, 4/3, 5/3, 2 ...
    out     = C - mean over t of C                         removes the microphone and the level
    code    = clip(half_even(out / scale) + zero_point, -128, 127)
"""

import math
import wave
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from insitu.base.errors import DataError

Floats = NDArray[np.float64]

FILTER_ZEROS = 16  # zero crossings of the resampler's sinc on each side
PASSBAND = 0.95  # cut-off of the resampler, as a fraction of the lower Nyquist frequency


@dataclass(frozen=True, slots=True)
class FeatureConfig:
    """Cepstral front end: one second of audio to `frames` x `coefficients`.  Units: Hz; window and hop in samples."""

    rate: int = 16_000
    samples: int = 16_000
    analysis_rate: int = 8_000
    window: int = 320
    hop: int = 160
    fft: int = 512
    bands: int = 40
    low: float = 60.0
    high: float = 3_600.0
    dynamic_db: float = 50.0
    floor: float = 1e-6
    coefficients: int = 10

    @property
    def frames(self) -> int:
        """Number of frames in one clip."""
        length = -(-self.samples * self.analysis_rate // self.rate)
        return 1 + (length - self.window) // self.hop


def read_wav(path: str | Path) -> tuple[NDArray[np.int16], int]:
    """Samples and sampling rate of a mono 16-bit PCM WAV file."""
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            data = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise DataError(str(path), str(error) or "a truncated file", "a PCM WAV file") from error
    if channels != 1 or width != 2:
        got = f"{channels} channel(s) of {8 * width} bits"
        raise DataError(str(path), got, "1 channel of 16 bits", try_=("convert the file to mono 16-bit PCM",))
    return np.frombuffer(data, dtype="<i2").astype(np.int16), rate


def write_wav(path: str | Path, audio: NDArray[Any], *, rate: int = 16_000) -> None:
    """Writes one channel of int16 samples, or floats in -1..1, as 16-bit PCM."""
    if audio.ndim != 1:
        raise DataError(str(path), f"audio of shape {audio.shape}", "one channel: shape (samples,)")
    samples = audio if audio.dtype == np.int16 else np.clip(np.rint(audio * 32768.0), -32768, 32767)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())


def to_float(audio: NDArray[Any]) -> Floats:
    """Samples in -1..1: int16 is divided by 32768, floats pass."""
    if audio.dtype == np.int16:
        return audio.astype(np.float64) / 32768.0
    if not np.issubdtype(audio.dtype, np.floating):
        raise DataError("audio", f"dtype {audio.dtype}", "int16, or floats in -1..1")
    return audio.astype(np.float64)


def fit_length(audio: NDArray[Any], samples: int) -> NDArray[Any]:
    """Cuts or zero-pads the last axis to `samples`, keeping the middle."""
    extra = audio.shape[-1] - samples
    if extra >= 0:
        return audio[..., extra // 2 : extra // 2 + samples]
    before = -extra // 2
    return np.pad(audio, [(0, 0)] * (audio.ndim - 1) + [(before, -extra - before)])


def resample(audio: NDArray[Any], rate: int, to: int) -> Floats:
    """Audio at rate `to`: a polyphase Hann-windowed sinc, zero outside the clip.  Last axis is time.

    Output sample n stands at time n / to; there are ceil(samples * to / rate) of them.
    """
    signal = to_float(audio)
    if rate == to:
        return signal
    taps, down = _polyphase(rate, to)
    up, half = taps.shape[0], taps.shape[1] // 2
    count = -(-signal.shape[-1] * up // down)
    padded = np.pad(signal, [(0, 0)] * (signal.ndim - 1) + [(half, half)])
    out = np.zeros((*signal.shape[:-1], count))
    for n in range(min(up, count)):
        part = out[..., n::up]  # every up-th output has the same taps, and its input moves on by `down`
        first, stop = n * down // up, down * (part.shape[-1] - 1) + 1
        for tap in range(taps.shape[1]):
            part += padded[..., first + tap : first + tap + stop : down] * taps[n * down % up, tap]
    return out


@lru_cache(maxsize=8)
def _polyphase(rate: int, to: int) -> tuple[Floats, int]:
    """Filter taps (phases, taps), and `down`: output n has phase n * down % phases at input n * down // phases."""
    common = math.gcd(rate, to)
    up, down = to // common, rate // common
    cutoff = PASSBAND * min(1.0, to / rate)
    half = math.ceil(FILTER_ZEROS / cutoff)
    offset = np.arange(-half, half + 1) - np.arange(up)[:, None] / up
    taps = cutoff * np.sinc(cutoff * offset) * np.cos(np.pi * offset / (2 * half + 2)) ** 2
    return taps / taps.sum(axis=1, keepdims=True), down


@lru_cache(maxsize=8)
def mel_filters(config: FeatureConfig) -> Floats:
    """Triangular filters (fft bins, bands), equally spaced on mel = 2595 log10(1 + f / 700), unit peak."""
    ends = 2595.0 * np.log10(1.0 + np.array([config.low, config.high]) / 700.0)
    edges = 700.0 * (10.0 ** (np.linspace(ends[0], ends[1], config.bands + 2) / 2595.0) - 1.0)
    frequency = np.arange(config.fft // 2 + 1)[:, None] * config.analysis_rate / config.fft
    rising = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling))


@lru_cache(maxsize=8)
def lifted_dct(config: FeatureConfig) -> Floats:
    """Orthonormal DCT-II (bands, coefficients), column k times 1 + k / 3, column 0 times 1/2: equal spreads."""
    k = np.arange(config.coefficients)
    basis = np.cos(np.pi * (np.arange(config.bands)[:, None] + 0.5) * k / config.bands)
    norm = np.where(k == 0, math.sqrt(1 / config.bands), math.sqrt(2 / config.bands))
    return basis * norm * np.where(k == 0, 0.5, 1.0 + k / 3.0)


def mel_energies(audio: NDArray[Any], config: FeatureConfig) -> Floats:
    """Mel-band energies (..., frames, bands) of clips (..., samples), int16 or floats in -1..1."""
    if audio.shape[-1:] != (config.samples,):
        got, need = f"shape {audio.shape}", f"{config.samples} samples at {config.rate} Hz on the last axis"
        raise DataError("audio", got, need, try_=("resample(audio, rate, to) and fit_length(audio, samples)",))
    signal = resample(audio, config.rate, config.analysis_rate)
    frames = np.lib.stride_tricks.sliding_window_view(signal, config.window, axis=-1)[..., :: config.hop, :]
    hann = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(config.window) / config.window)
    spectrum = np.fft.rfft(frames * hann, config.fft)
    return (spectrum.real**2 + spectrum.imag**2) @ mel_filters(config)


def cepstra(energies: NDArray[Any], config: FeatureConfig) -> NDArray[np.float32]:
    """Liftered, mean-free cepstra (..., frames, coefficients) of mel-band energies (..., frames, bands)."""
    level = energies.astype(np.float64) + config.floor
    loudest = level.max(axis=(-2, -1), keepdims=True)
    logs = np.log(np.maximum(level, loudest * 10.0 ** (-config.dynamic_db / 10.0)))
    out = logs @ lifted_dct(config)
    return (out - out.mean(axis=-2, keepdims=True)).astype(np.float32)


def features(audio: NDArray[Any], config: FeatureConfig) -> NDArray[np.float32]:
    """Cepstra (..., frames, coefficients) of clips (..., samples); the formula is at the top of this file."""
    return cepstra(mel_energies(audio, config), config)


def quantize_features(values: NDArray[np.float32], *, scale: float, zero_point: int) -> NDArray[np.int8]:
    """Feature maps as int8: the network's float input is (code - zero_point) * scale."""
    codes = np.rint(values.astype(np.float64) / scale) + zero_point
    return np.clip(codes, -128, 127).astype(np.int8)
