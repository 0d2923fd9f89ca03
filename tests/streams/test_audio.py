"""WAV files, the resampler against sines, and the front end against a slow transcription of its formula."""

import math
import wave

import numpy as np
import pytest

from insitu.base.errors import DataError
from insitu.streams.audio import (
    FeatureConfig,
    features,
    fit_length,
    mel_energies,
    quantize_features,
    read_wav,
    resample,
    write_wav,
)

CONFIG = FeatureConfig()


def sine(frequency, rate, samples):
    return np.sin(2 * np.pi * frequency * np.arange(samples) / rate)


def test_wav_round_trip(tmp_path):
    audio = np.array([-32768, -1, 0, 1, 32767], np.int16)
    write_wav(tmp_path / "a.wav", audio, rate=8_000)
    back, rate = read_wav(tmp_path / "a.wav")
    assert rate == 8_000
    assert back.dtype == np.int16
    np.testing.assert_array_equal(back, audio)


def test_write_wav_clips_floats(tmp_path):
    write_wav(tmp_path / "a.wav", np.array([-2.0, 0.5, 2.0]))
    np.testing.assert_array_equal(read_wav(tmp_path / "a.wav")[0], [-32768, 16384, 32767])


def test_read_wav_names_the_file_and_the_way_out(tmp_path):
    path = tmp_path / "noise.wav"
    path.write_bytes(b"not a wav")
    with pytest.raises(DataError, match=r"noise\.wav.*needs a PCM WAV file"):
        read_wav(path)


def test_read_wav_refuses_stereo(tmp_path):
    with wave.open(str(tmp_path / "stereo.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(8))
    with pytest.raises(DataError, match=r"2 channel\(s\) of 16 bits; needs 1 channel of 16 bits"):
        read_wav(tmp_path / "stereo.wav")


@pytest.mark.parametrize(("rate", "to"), [(16_000, 8_000), (22_050, 16_000), (8_000, 16_000), (44_100, 16_000)])
def test_resample_keeps_a_sine(rate, to):
    got = resample(sine(440, rate, rate), rate, to)
    assert got.shape == (to,)
    np.testing.assert_allclose(got[500:-500], sine(440, to, to)[500:-500], atol=2e-3)


def test_resample_stops_what_would_alias():
    assert np.abs(resample(sine(5_000, 16_000, 16_000), 16_000, 8_000)[500:-500]).max() < 2e-3


def test_fit_length_keeps_the_middle():
    np.testing.assert_array_equal(fit_length(np.arange(5), 3), [1, 2, 3])
    np.testing.assert_array_equal(fit_length(np.arange(1, 3), 5), [0, 1, 2, 0, 0])


def test_features_of_int16_and_float_agree_and_clips_are_independent():
    audio = np.random.default_rng(0).integers(-9_000, 9_000, (3, 16_000)).astype(np.int16)
    got = features(audio, CONFIG)
    assert got.shape == (3, CONFIG.frames, CONFIG.coefficients) == (3, 49, 10)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, features(audio / 32768.0, CONFIG))
    np.testing.assert_allclose(got[1], features(audio[1], CONFIG), atol=1e-5)


def test_features_equal_the_formula():
    audio = np.random.default_rng(1).normal(0, 0.1, 16_000)
    np.testing.assert_allclose(features(audio, CONFIG), slow_features(audio), atol=1e-4)


def slow_features(audio):
    """The docstring of `insitu.streams.audio`, one frame at a time."""
    y = resample(audio, 16_000, 8_000)
    mel = np.linspace(*(2595 * math.log10(1 + f / 700) for f in (CONFIG.low, CONFIG.high)), 42)
    edges = 700 * (10 ** (mel / 2595) - 1)
    energies = np.zeros((49, 40))
    for t in range(49):
        window = [0.5 - 0.5 * math.cos(2 * math.pi * i / 320) for i in range(320)]
        power = np.abs(np.fft.fft(y[t * 160 : t * 160 + 320] * window, 512)) ** 2
        for m in range(40):
            bands = [np.interp(f * 8_000 / 512, edges[m : m + 3], [0, 1, 0]) for f in range(257)]
            energies[t, m] = power[:257] @ bands + CONFIG.floor
    logs = np.log(np.maximum(energies, energies.max() * 10 ** (-CONFIG.dynamic_db / 10)))
    out = np.zeros((49, 10))
    for k in range(10):
        basis = np.array([math.cos(math.pi * (m + 0.5) * k / 40) for m in range(40)])
        lift = 0.5 * math.sqrt(1 / 40) if k == 0 else (1 + k / 3) * math.sqrt(2 / 40)
        out[:, k] = lift * (logs @ basis)
    return out - out.mean(axis=0)


def test_level_hardly_matters():
    audio = np.random.default_rng(2).normal(0, 0.1, 16_000)
    np.testing.assert_allclose(features(audio, CONFIG), features(audio / 4, CONFIG), atol=0.01)


def test_silence_is_zero():
    np.testing.assert_allclose(features(np.zeros(16_000), CONFIG), 0, atol=1e-9)


def test_wrong_length_and_type_are_refused():
    with pytest.raises(DataError, match="needs 16000 samples at 16000 Hz"):
        mel_energies(np.zeros(15_999), CONFIG)
    with pytest.raises(DataError, match="dtype int32; needs int16"):
        features(np.zeros(16_000, np.int32), CONFIG)


def test_quantize_rounds_half_to_even_and_saturates():
    values = np.array([-99.0, -0.375, 0.125, 0.375, 99.0], np.float32)
    np.testing.assert_array_equal(quantize_features(values, scale=0.25, zero_point=0), [-128, -2, 0, 2, 127])
