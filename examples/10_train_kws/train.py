"""Trains the keyword network that ships with insitu, from synthesised speech alone, and writes its assets.

    python3 -m venv venv && venv/bin/pip install numpy onnx pydantic pyyaml torch==2.13.0
    PYTHONPATH=src venv/bin/python examples/10_train_kws/train.py --cache /tmp/kws --out src/insitu/tasks/kws

Not needed to run insitu.  Half an hour on one core; `speech.py` names the speech engines it needs.
Stages are cached in --cache.
"""

import argparse
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import speech
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from insitu.streams.audio import FeatureConfig, cepstra, features, mel_energies, quantize_features, write_wav

CONFIG = FeatureConfig()
SCALE, ZERO_POINT = 0.25, 0
COPIES = {"train": 400, "valid": 64, "test": 48}
SILENCE, UNKNOWN = speech.CLASSES.index("silence"), speech.CLASSES.index("unknown")

# name, input channels, output channels, kernel, stride, added to its own input
LAYERS = (
    ("conv1", 10, 48, 5, 2, False),
    ("conv2", 48, 48, 5, 1, True),
    ("conv3", 48, 56, 5, 2, False),
    ("conv4", 56, 56, 5, 1, True),
    ("conv5", 56, 72, 3, 2, False),
)
Maps = NDArray[np.int8]
Labelled = tuple[Maps, NDArray[np.int64]]
Batches = Iterator[tuple[Tensor, Tensor]]


# --- data


def label(word: str) -> int:
    """Class of a word."""
    return speech.CLASSES.index(word) if word in speech.KEYWORDS else UNKNOWN


def words_of(split: str, cache: Path) -> list[speech.Utterance]:
    """All utterances of a split, synthesised once."""
    path = cache / f"{split}.pkl"
    if not path.exists():
        path.write_bytes(pickle.dumps(list(speech.utterances(split, copies=COPIES[split], seed=1))))
    return pickle.loads(path.read_bytes())


def clean_energies(words: list[speech.Utterance], copies: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Mel energies (copies * words, frames, bands) of words in rooms, before noise; the loud part has unit RMS."""
    out = np.empty((copies * len(words), CONFIG.frames, CONFIG.bands), np.float32)
    for i in range(len(out)):
        word = speech.resampled_speed(words[i % len(words)].audio, float(np.exp(rng.normal(0, 0.1))))
        word = speech.room(word, rng) if rng.uniform() < 0.6 else word
        clip = speech.placed(speech.microphone(word, rng), rng, spread=0.05)
        out[i] = mel_energies(clip / (np.sqrt(np.sort(clip**2)[-speech.RATE // 4 :].mean()) + 1e-12), CONFIG)
    return out


def noise_energies(words: list[speech.Utterance], count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Mel energies (count, frames, bands) of noise of unit RMS."""
    talkers = [word.audio for word in words]
    out = np.empty((count, CONFIG.frames, CONFIG.bands), np.float32)
    for i in range(count):
        clip = speech.noise(speech.RATE, rng, talkers)
        clip = np.rint(clip / np.abs(clip).max() * 10 ** rng.uniform(1, 4))  # a faint recording has coarse steps
        out[i] = mel_energies(clip / (np.sqrt((clip**2).mean()) + 1e-12), CONFIG)
    return out


def warped(energies: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Each clip stretched in time, shifted, and moved along the bands (vocal tract length), by linear interpolation."""
    count, frames, bands = energies.shape
    centered = np.arange(frames) - frames / 2
    time = centered * np.exp(rng.normal(0, 0.17, (count, 1))) + frames / 2 + rng.normal(0, 3, (count, 1))
    band = np.arange(bands) * np.exp(rng.normal(0, 0.08, (count, 1)))
    for axis, position in ((1, time), (2, band)):
        size = energies.shape[axis]
        low = np.clip(np.floor(position).astype(int), 0, size - 2)
        part = np.clip(position - low, 0, 1).astype(np.float32)
        low, part = (np.expand_dims(value, 3 - axis) for value in (low, part))
        here, there = (np.take_along_axis(energies, index, axis) for index in (low, low + 1))
        energies = here * (1 - part) + there * part
        if axis == 1:
            energies = energies * ((position >= 0) & (position <= size - 1))[..., None]
    return energies


def augmented(words: NDArray[np.float32], noises: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Noisy energies: warp, a random response, a rougher voice, noise 0 to 35 dB below, a random level.  Powers add."""
    count, _, bands = words.shape
    knots = np.maximum(0, 1 - np.abs(np.arange(bands) * 5 / (bands - 1) - np.arange(6)[:, None]))
    tilt = rng.normal(0, 3, (count, 1, 6)) @ knots
    rough = rng.choice([4.0, 8.0, 1000.0, 1000.0], (count, 1, 1))
    speech_part = warped(words, rng) * 10 ** (tilt / 10) * rng.gamma(rough, 1 / rough, words.shape)
    second = np.roll(noises, 1, axis=0) * 10 ** (-rng.uniform(3, 25, (count, 1, 1)) / 10)
    mixed = speech_part + (noises + second) * 10 ** (-rng.uniform(0, 35, (count, 1, 1)) / 10)
    return mixed * 10 ** (rng.uniform(-45, -5, (count, 1, 1)) / 10)


def batches(cache: Path, size: int, rng: np.random.Generator) -> Batches:
    """Endless float inputs (size, coefficients, frames, 1), as the int8 maps decode, and their labels."""
    words = words_of("train", cache)
    path = cache / "energies.npz"
    if not path.exists():
        np.savez(path, clean=clean_energies(words, 2, rng), noise=noise_energies(words, 2500, rng))
    stored = np.load(path)
    clean, noises = stored["clean"], stored["noise"]
    y = np.array([label(word.word) for word in words])
    weight = np.array([3.0 if word.voice.startswith("recorded") else 1.0 for word in words])
    for value in range(len(speech.CLASSES)):
        weight[y == value] *= (1.8 if value == UNKNOWN else 1.0) / max(1e-9, weight[y == value].sum())
    while True:
        pick = rng.choice(len(words), size, p=weight / weight.sum())
        energies = clean[pick + len(words) * rng.integers(0, 2, size)]
        silent = rng.uniform(size=size) < 0.07
        energies[silent] *= 1e-9
        maps = coded(cepstra(augmented(energies, noises[rng.integers(0, len(noises), size)], rng), CONFIG))
        yield decoded(maps), torch.from_numpy(np.where(silent, SILENCE, y[pick]))


def coded(values: NDArray[np.float32]) -> Maps:
    """Features (N, frames, coefficients) as the network's int8 input (N, coefficients, frames, 1)."""
    return quantize_features(values, scale=SCALE, zero_point=ZERO_POINT).swapaxes(-1, -2)[..., None]


def decoded(maps: Maps) -> Tensor:
    """The network's float input of int8 maps."""
    return torch.from_numpy((maps.astype(np.float32) - ZERO_POINT) * np.float32(SCALE))


def scenes(
    split: str, cache: Path, per_class: int, snr_db: tuple[float, float], seed: int
) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """Balanced noisy clips of a split, mixed sample by sample, with their labels; babble is of the same split."""
    rng, words = np.random.default_rng(seed), words_of(split, cache)
    talkers = [word.audio for word in words]
    clips, labels = [], []
    for value in range(len(speech.CLASSES)):
        own = [word for word in words if label(word.word) == value]
        for _ in range(per_class):
            background = speech.noise(speech.RATE, rng, [] if value == SILENCE else talkers)
            if value == SILENCE:
                level = 10 ** rng.uniform(1.5, 4)
                clips.append(np.rint(background / np.abs(background).max() * level).astype(np.int16))
            else:
                word = own[rng.integers(len(own))]
                clips.append(speech.scene(word.audio, rng, background=background, snr_db=rng.uniform(*snr_db)))
            labels.append(value)
    order = rng.permutation(len(clips))
    return np.stack(clips)[order], np.array(labels)[order]


# --- network


class Network(nn.Module):
    """Convolutions over time with the cepstra as channels; `folded` has biases and no BatchNorm.

    A residual adds its input after the ReLU, so a sum of two 7-bit maps is again an unsigned 8-bit input of the array.
    `noise` (training only) disturbs each layer by that fraction of its range and rounds to 8-bit weights and
    7-bit activations.
    """

    def __init__(self, *, folded: bool) -> None:
        super().__init__()
        self.folded, self.noise = folded, 0.0
        for name, inputs, outputs, kernel, stride, _ in LAYERS:
            pad = (kernel // 2, 0)
            self.add_module(name, nn.Conv2d(inputs, outputs, (kernel, 1), (stride, 1), pad, bias=folded))
            if not folded:
                self.add_module(f"{name}_norm", nn.BatchNorm2d(outputs))
        self.fc = nn.Linear(LAYERS[-1][2], len(speech.CLASSES))
        self.drop = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        for name, _, _, _, _, residual in LAYERS:
            conv = self.get_submodule(name)
            y = functional.conv2d(x, self.disturbed(conv.weight), conv.bias, conv.stride, conv.padding)
            y = y if self.folded else self.get_submodule(f"{name}_norm")(y)
            y = self.rounded(functional.relu(y))
            x = x + y if residual else y
        x = self.drop(x.mean((2, 3)))
        return functional.linear(x, self.disturbed(self.fc.weight), self.fc.bias)

    def disturbed(self, weight: Tensor) -> Tensor:
        """The weight on 8 bits with Gaussian noise relative to its largest entry; gradients pass straight through."""
        if not (self.training and self.noise):
            return weight
        top = weight.detach().abs().max()
        step = top / 127
        return weight + ((weight / step).round() * step - weight + self.noise * top * torch.randn_like(weight)).detach()

    def rounded(self, y: Tensor) -> Tensor:
        """The activation on 7 bits up to its 99.9 % point, with readout noise; gradients pass inside the range."""
        if not (self.training and self.noise):
            return y
        top = torch.quantile(y.detach().flatten()[:: max(1, y.numel() // 100_000)], 0.999) + 1e-6
        y = torch.clamp(y, max=top.item())
        step = top / 127
        return y + (((y / step).round() * step + self.noise * top * torch.randn_like(y)).clamp(min=0) - y).detach()


def folded(network: Network) -> Network:
    """The same function with each BatchNorm folded into its convolution."""
    out = Network(folded=True)
    state = {key: value for key, value in network.state_dict().items() if key.startswith("fc")}
    for name, *_ in LAYERS:
        norm, conv = network.get_submodule(f"{name}_norm"), network.get_submodule(name)
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        state[f"{name}.weight"] = conv.weight * gain[:, None, None, None]
        state[f"{name}.bias"] = norm.bias - norm.running_mean * gain
    out.load_state_dict(state)
    return out


def accuracy(network: Network, maps: Maps, y: NDArray[np.integer]) -> float:
    """Fraction of maps answered right."""
    network.eval()
    with torch.no_grad():
        return float((network(decoded(maps)).argmax(1).numpy() == y).mean())


def fit(network: Network, data: Batches, *, steps: int, rate: float, valid: Labelled) -> None:
    """AdamW with a one-cycle rate; prints the validation accuracy now and then."""
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.1)
    for step in range(1, steps + 1):
        x, y = next(data)
        network.train()
        loss = functional.cross_entropy(network(x), y, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
        schedule.step()
        if step % 500 == 0 or step == steps:
            print(f"step {step}: loss {loss.item():.3f}, valid {accuracy(network, *valid):.4f}", flush=True)


# --- export


def exported(network: Network) -> onnx.ModelProto:
    """The folded network as ONNX opset 17, written node by node: Conv, Relu, Add, GlobalAveragePool, Flatten, Gemm."""
    nodes, weights, x = [], [], "features"
    for i, (name, _, _, kernel, stride, residual) in enumerate(LAYERS, 1):
        conv = network.get_submodule(name)
        weights += constants(name, conv.weight, conv.bias)
        pads = [kernel // 2, 0, kernel // 2, 0]
        shape = {"kernel_shape": [kernel, 1], "strides": [stride, 1], "pads": pads}
        nodes.append(
            helper.make_node("Conv", [x, f"{name}.weight", f"{name}.bias"], [f"{name}_out"], name=name, **shape)
        )
        nodes.append(helper.make_node("Relu", [f"{name}_out"], [f"relu{i}_out"], name=f"relu{i}"))
        if residual:
            nodes.append(helper.make_node("Add", [x, f"relu{i}_out"], [f"add{i}_out"], name=f"add{i}"))
        x = f"add{i}_out" if residual else f"relu{i}_out"
    weights += constants("fc", network.fc.weight, network.fc.bias)
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["pool_out"], name="pool"))
    nodes.append(helper.make_node("Flatten", ["pool_out"], ["flatten_out"], name="flatten"))
    nodes.append(helper.make_node("Gemm", ["flatten_out", "fc.weight", "fc.bias"], ["logits"], name="fc", transB=1))
    shape = ["N", CONFIG.coefficients, CONFIG.frames, 1]
    inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(speech.CLASSES)])]
    graph = helper.make_graph(nodes, "kws", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="insitu")
    onnx.checker.check_model(model, full_check=True)
    return model


def constants(name: str, weight: Tensor, bias: Tensor) -> list[TensorProto]:
    """Weight and bias initializers of one layer."""
    named = ((weight, f"{name}.weight"), (bias, f"{name}.bias"))
    return [numpy_helper.from_array(tensor.detach().numpy(), label) for tensor, label in named]


def write_assets(out: Path, cache: Path, snr_db: tuple[float, float]) -> None:
    """Test and calibration maps and the ten WAVs."""
    (out / "wav").mkdir(parents=True, exist_ok=True)
    classes = np.array(speech.CLASSES)
    common = {"scale": np.float32(SCALE), "zero_point": np.int8(ZERO_POINT), "classes": classes}
    clips, y = scenes("test", cache, 84, snr_db, seed=11)
    wavs, words = scenes("test", cache, 1, snr_db, seed=13)
    wavs = wavs[np.argsort(words)][: len(speech.KEYWORDS)]
    maps = {"x_q": coded(features(clips, CONFIG)), "y": y.astype(np.uint8), "wav_x_q": coded(features(wavs, CONFIG))}
    np.savez_compressed(out / "test.npz", **maps, **common)
    calibration, _ = scenes("train", cache, 8, snr_db, seed=12)
    np.savez_compressed(out / "calib.npz", x_q=coded(features(calibration, CONFIG)), **common)
    for number, (word, audio) in enumerate(zip(speech.KEYWORDS, wavs, strict=True)):
        write_wav(out / "wav" / f"{number:02}_{word}.wav", audio)


def train(cache: Path, steps: int, snr_db: tuple[float, float]) -> Network:
    """The folded network: first with BatchNorm, then folded and fine-tuned under rounding and noise."""
    torch.manual_seed(1)
    torch.set_num_threads(1)
    clips, y = scenes("valid", cache, 60, snr_db, seed=10)
    valid = coded(features(clips, CONFIG)), y
    data = batches(cache, 192, np.random.default_rng(2))
    network = Network(folded=False)
    fit(network, data, steps=steps, rate=4e-3, valid=valid)
    torch.save(network.state_dict(), cache / "float.pt")
    network.eval()
    network = folded(network)
    network.noise = 0.02
    fit(network, data, steps=steps // 4, rate=4e-4, valid=valid)
    return network


def main() -> None:
    """Synthesise, train, export, write the assets; the card is written by hand from what this prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=11_000)
    parser.add_argument("--snr-db", type=float, nargs=2, default=(20.0, 40.0), help="word over noise, of the test set")
    arguments = parser.parse_args()
    snr_db = tuple(arguments.snr_db)
    arguments.cache.mkdir(parents=True, exist_ok=True)
    network = train(arguments.cache, arguments.steps, snr_db)
    write_assets(arguments.out, arguments.cache, snr_db)
    onnx.save(exported(network), arguments.out / "model.onnx")
    test = np.load(arguments.out / "test.npz")
    parameters = sum(parameter.numel() for parameter in network.parameters())
    print(f"test {accuracy(network, test['x_q'], test['y']):.4f}, {parameters} parameters")


if __name__ == "__main__":
    main()
