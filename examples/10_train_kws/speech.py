"""Synthesised words for the keyword task: three free speech engines, many voices, split by voice.

Needs Debian's espeak-ng, flite, festival, festvox-kallpc16k, festvox-kdlpc16k, festvox-us-slt-hts, festvox-italp16k,
festvox-itapc16k, festvox-czech-dita, -krb, -machac, -ph, festvox-suopuhe-lj, -mv and festvox-ca-ona-hts.
A voice is one espeak-ng variant (whatever its accent or pitch) or one recorded speaker (whatever the engine);
`voices.yaml` gives each voice, as a whole, to one of the splits train, valid and test.
"""

import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from insitu.streams.audio import read_wav, resample

RATE = 16_000
VOICES: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("voices.yaml").read_text(encoding="utf-8"))
RESPELLED: dict[str, str] = VOICES["respelled"]
KEYWORDS = tuple(VOICES["keywords"])
UNKNOWN = (*(word for word in RESPELLED if word not in KEYWORDS), *VOICES["unknown"])
CLASSES = (*KEYWORDS, "silence", "unknown")


@dataclass(frozen=True, slots=True)
class Utterance:
    """One synthesised word: 16 kHz samples in -1..1 without leading and trailing silence."""

    word: str
    voice: str
    audio: NDArray[np.float32]


def trimmed(audio: NDArray[np.float64]) -> NDArray[np.float32] | None:
    """The audio between its first and last loud 10 ms, at unit peak; None where there is hardly any."""
    count = audio.size // 160
    power = (audio[: count * 160].reshape(count, 160) ** 2).mean(axis=1) if count else np.zeros(1)
    loud = np.flatnonzero(power > 1e-4 * power.max())
    if power.max() < 1e-7 or loud.size < 10:
        return None
    part = audio[max(0, loud[0] - 2) * 160 : (loud[-1] + 3) * 160][: RATE * 12 // 10]
    return (part / np.abs(part).max()).astype(np.float32)


def loaded(path: Path, word: str, voice: str) -> Utterance | None:
    """The utterance in a WAV file, at 16 kHz; None where the engine made none."""
    if not path.exists() or path.stat().st_size < 2_000:
        return None
    samples, rate = read_wav(path)
    audio = trimmed(resample(samples, rate, RATE))
    return None if audio is None else Utterance(word, voice, audio)


def espeak(word: str, variant: str, language: str, rng: np.random.Generator, folder: Path) -> Utterance | None:
    """One word by espeak-ng with a random speed, pitch and sentence mark."""
    path = folder / "espeak.wav"
    path.unlink(missing_ok=True)
    text = word + rng.choice([".", ".", "!", "?"])
    options = ["-s", str(rng.integers(90, 200)), "-p", str(rng.integers(15, 90)), "-v", f"{language}+{variant}"]
    subprocess.run(["espeak-ng", *options, "-w", str(path), text], check=False, capture_output=True)
    return loaded(path, word, f"espeak-ng/{variant}")


def flite(word: str, speaker: str, rng: np.random.Generator, folder: Path) -> Utterance | None:
    """One word by flite with a random speed and pitch."""
    path = folder / "flite.wav"
    path.unlink(missing_ok=True)
    pitch = int(rng.integers(140, 230) if speaker == "slt" else rng.integers(80, 160))
    settings = ["--setf", f"duration_stretch={rng.uniform(0.8, 1.7):.2f}", "--setf", f"int_f0_target_mean={pitch}"]
    command = ["flite", "-voice", speaker, *settings, "-t", word + rng.choice([".", "?"]), "-o", str(path)]
    subprocess.run(command, check=False, capture_output=True)
    return loaded(path, word, f"recorded/{speaker.removesuffix('16')}")


def festival(
    words: dict[str, str], speaker: str, copies: int, rng: np.random.Generator, folder: Path
) -> Iterator[Utterance]:
    """Words (spelling by word) by one festival speaker, `copies` times each at random speeds, by one process."""
    lines, made = [f"(voice_{speaker})"], []
    for word, spelling in words.items():
        for copy in range(copies):
            path = folder / f"{speaker}-{word}-{copy}.wav"
            text = spelling + rng.choice([".", "?"])
            lines.append(f"(Parameter.set 'Duration_Stretch {rng.uniform(0.8, 1.7):.2f})")
            lines.append(f'(utt.save.wave (utt.synth (eval (list \'Utterance \'Text "{text}"))) "{path}" \'riff)')
            made.append((path, word))
    script = folder / "words.scm"
    script.write_text("\n".join(lines), encoding="utf-8")
    subprocess.run(["festival", "--batch", str(script)], check=False, capture_output=True)
    short = speaker.removesuffix("_diphone").removeprefix("cmu_us_").split("_arctic")[0]
    for path, word in made:
        utterance = loaded(path, word, f"recorded/{short}")
        path.unlink(missing_ok=True)
        if utterance is not None:
            yield utterance


def utterances(split: str, *, copies: int, seed: int) -> Iterator[Utterance]:
    """All words by the voices of a split; `copies` scales the number per keyword (unknown words get an eighth)."""
    rng = np.random.default_rng([seed, len(split), copies])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for word in (*KEYWORDS, *UNKNOWN):
            yield from spoken(word, split, copies if word in KEYWORDS else max(2, copies // 8), rng, folder)
        english = {word: word for word in (*KEYWORDS, *UNKNOWN)}
        for engine, spelling in (("festival", english), ("festival_respelled", RESPELLED)):
            for speaker in VOICES[engine].get(split, ()):
                keywords = {word: spelling[word] for word in KEYWORDS}
                others = {word: text for word, text in spelling.items() if word not in KEYWORDS}
                yield from festival(keywords, speaker, max(2, copies // 24), rng, folder)
                yield from festival(others, speaker, max(1, copies // 96), rng, folder)


def spoken(word: str, split: str, copies: int, rng: np.random.Generator, folder: Path) -> Iterator[Utterance]:
    """One word by espeak-ng and flite, by random voices of a split."""
    engine = VOICES["espeak"]
    variants, made = engine["variants"][split], []
    for _ in range(copies):
        made.append(espeak(word, str(rng.choice(variants)), str(rng.choice(engine["accents"])), rng, folder))
    if word in RESPELLED and split == "train":
        for _ in range(copies // 8):
            item = espeak(RESPELLED[word], str(rng.choice(variants)), str(rng.choice(engine["readers"])), rng, folder)
            made.append(item and Utterance(word, item.voice, item.audio))
    for speaker in VOICES["flite"].get(split, ()):
        made += [flite(word, speaker, rng, folder) for _ in range(max(1, copies // 16))]
    yield from (item for item in made if item is not None)


# --- rooms and noise


def colored(samples: int, rng: np.random.Generator, slope: float) -> NDArray[np.float64]:
    """Gaussian noise with power ~ f ** -slope (0 white, 1 pink, 2 brown) and a random smooth tilt, unit RMS."""
    frequency = np.fft.rfftfreq(samples, 1 / RATE) + 20.0
    shape = frequency ** (-slope / 2) * np.exp(
        0.5 * np.interp(np.log(frequency), np.linspace(3, 9, 7), rng.normal(0, 1, 7))
    )
    spectrum = shape * (rng.normal(size=frequency.size) + 1j * rng.normal(size=frequency.size))
    noise = np.fft.irfft(spectrum, samples)
    return noise / (np.sqrt((noise**2).mean()) + 1e-12)


def hum(samples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Mains or motor hum: a fundamental of 50 to 200 Hz with harmonics, over a little pink noise."""
    time, base = np.arange(samples) / RATE, rng.choice([50.0, 60.0, rng.uniform(80, 200)])
    tones = sum(rng.uniform(0.1, 1) / k * np.sin(2 * np.pi * (base * k * time + rng.uniform())) for k in range(1, 16))
    return tones / np.sqrt((tones**2).mean()) + 0.2 * colored(samples, rng, 1.0)


def clatter(samples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Dishes and clicks: decaying resonances at random times, over a little noise."""
    out, time = 0.05 * colored(samples, rng, 1.0), np.arange(4_000) / RATE
    for _ in range(rng.integers(1, 12)):
        ring = np.exp(-time * rng.uniform(20, 400)) * np.sin(
            2 * np.pi * rng.uniform(200, 6_000) * time + rng.uniform(0, 6)
        )
        start = rng.integers(0, samples)
        part = ring[: samples - start]
        out[start : start + part.size] += rng.uniform(0.2, 2) * part
    return out


def babble(samples: int, rng: np.random.Generator, words: list[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Several talkers at once: 5 to 12 random words, reversed or not, at random places and levels."""
    out = 0.02 * colored(samples, rng, 1.0)
    for _ in range(rng.integers(5, 13)):
        word = words[rng.integers(len(words))][:: rng.choice([1, -1])]
        start = rng.integers(-word.size // 2, samples - word.size // 2)
        part = word[max(0, -start) : samples - start]
        out[max(0, start) : max(0, start) + part.size] += rng.uniform(0.3, 1) * part
    return out


def noise(samples: int, rng: np.random.Generator, words: list[NDArray[np.float32]]) -> NDArray[np.float64]:
    """A random kind of noise with a random slow swell, unit RMS; no babble where there are no words."""
    kind = rng.choice(["color", "color", "color", *(["babble"] if words else []), "hum", "clatter"])
    if kind == "color":
        out = colored(samples, rng, rng.uniform(-0.5, 2.2))
    elif kind == "babble":
        out = babble(samples, rng, words)
    else:
        out = hum(samples, rng) if kind == "hum" else clatter(samples, rng)
    swell = np.interp(
        np.arange(samples), np.linspace(0, samples, 6), 10 ** rng.normal(0, rng.choice([0.02, 0.15, 0.3]), 6)
    )
    out = out * swell
    return out / (np.sqrt((out**2).mean()) + 1e-12)


def room(audio: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.float64]:
    """Speech in a random room: direct sound, a few echoes, an exponential tail of 0.08 to 0.6 s; unit peak."""
    decay = rng.uniform(0.08, 0.6)
    time = np.arange(int(0.8 * decay * RATE)) / RATE
    tail = rng.normal(size=time.size) * 10 ** (-3 * time / decay) * rng.uniform(0.01, 0.12)
    tail[: rng.integers(16, 200)] = 0.0
    tail[0] = 1.0
    for _ in range(rng.integers(0, 5)):
        tail[rng.integers(16, min(600, tail.size))] += rng.uniform(-0.5, 0.5)
    size = audio.size + tail.size
    out = np.fft.irfft(np.fft.rfft(audio, size) * np.fft.rfft(tail, size), size)
    return out / (np.abs(out).max() + 1e-12)


def microphone(audio: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.float64]:
    """A random smooth frequency response of a few dB and a high-pass between 20 and 250 Hz."""
    frequency = np.fft.rfftfreq(audio.size, 1 / RATE)
    gain_db = np.interp(np.log(frequency + 20), np.linspace(3, 9, 9), rng.normal(0, 4, 9))
    response = 10 ** (gain_db / 20) / np.sqrt(1 + (rng.uniform(20, 250) / (frequency + 1e-3)) ** 4)
    return np.fft.irfft(np.fft.rfft(audio) * response, audio.size)


def resampled_speed(audio: NDArray[np.floating], factor: float) -> NDArray[np.float64]:
    """Faster (factor > 1) or slower, pitch and formants alike, by linear interpolation."""
    return np.interp(np.arange(0, audio.size - 1, factor), np.arange(audio.size), audio)


def placed(audio: NDArray[np.floating], rng: np.random.Generator, *, spread: float) -> NDArray[np.float64]:
    """The word somewhere near the middle of one second: its centre is off by a normal deviation of `spread` seconds."""
    out = np.zeros(RATE)
    start = int(RATE / 2 - min(audio.size, RATE) / 2 + np.clip(rng.normal(0, spread), -0.3, 0.3) * RATE)
    part = audio[max(0, -start) : RATE - start]
    out[max(0, start) : max(0, start) + part.size] = part
    return out


def scene(
    audio: NDArray[np.floating], rng: np.random.Generator, *, background: NDArray[np.floating], snr_db: float
) -> NDArray[np.int16]:
    """One second as int16: word, speed, room, microphone, then background `snr_db` below it; random level."""
    word = resampled_speed(audio, float(np.exp(rng.normal(0, 0.08))))
    if rng.uniform() < 0.6:
        word = room(word, rng)
    word = placed(microphone(word, rng), rng, spread=0.06)
    loud = np.sqrt(np.sort(word**2)[-RATE // 4 :].mean())
    mixed = word / (loud + 1e-12) + background * 10 ** (-snr_db / 20)
    level = 10 ** (rng.uniform(-26, -3) / 20)
    return np.rint(mixed / np.abs(mixed).max() * level * 32767).astype(np.int16)
