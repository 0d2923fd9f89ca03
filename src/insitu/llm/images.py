"""Image generators at shape level: a latent-diffusion U-Net and a diffusion transformer, layer by layer.

A layer has weights, the positions at which a step applies them, and parameters beside; attention's products of run-time
operands are counted apart.  One step is one pass; an image takes so many steps (twice the passes with guidance).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from insitu.arch import cost as arch_cost
from insitu.arch.spec import Chip
from insitu.base.errors import ModelError, did_you_mean
from insitu.cost.machines import load_machine
from insitu.llm.beside import factor_of, fitted

PROMPT = 77  # tokens of the text encoder


@dataclass(frozen=True)
class Layer:
    """A matrix of weights applied at `positions` places of a step; `extra` counts biases and norms."""

    name: str
    weights: int
    positions: int
    extra: int = 0

    @property
    def macs(self) -> int:
        """Multiply-adds of one step."""
        return self.weights * self.positions


@dataclass(frozen=True)
class ImageShape:
    """All layers, and products of run-time operands in one step."""

    name: str
    layers: tuple[Layer, ...]
    attention_macs: int
    steps: int
    passes: int  # of each step
    source: str

    @property
    def parameters(self) -> int:
        """Weights, biases, norms and tables."""
        return sum(n.weights + n.extra for n in self.layers)

    @property
    def macs_per_pass(self) -> int:
        """Multiply-adds of one pass."""
        return sum(n.macs for n in self.layers) + self.attention_macs

    @property
    def macs_per_image(self) -> int:
        """Multiply-adds of all steps."""
        return self.macs_per_pass * self.steps * self.passes


# the U-Net of Stable Diffusion 1.5


def _conv(name: str, inputs: int, outputs: int, size: int, kernel: int = 3) -> Layer:
    return Layer(name, inputs * outputs * kernel * kernel, size * size, outputs)


def _linear(name: str, inputs: int, outputs: int, positions: int, *, bias: bool = True) -> Layer:
    return Layer(name, inputs * outputs, positions, outputs if bias else 0)


def _norm(name: str, channels: int) -> Layer:
    return Layer(name, 0, 0, 2 * channels)


def _residual(name: str, inputs: int, outputs: int, size: int, time: int) -> Iterator[Layer]:
    yield _norm(f"{name}.norm1", inputs)
    yield _conv(f"{name}.conv1", inputs, outputs, size)
    yield _linear(f"{name}.time", time, outputs, 1)
    yield _norm(f"{name}.norm2", outputs)
    yield _conv(f"{name}.conv2", outputs, outputs, size)
    if inputs != outputs:
        yield _conv(f"{name}.shortcut", inputs, outputs, size, 1)


def _attended(name: str, c: int, size: int, text: int) -> Iterator[Layer]:
    """A transformer block: self attention, attention to the prompt, a gated feed-forward network."""
    n = size * size
    yield _norm(f"{name}.norm", c)
    yield _conv(f"{name}.proj_in", c, c, size, 1)
    for i in range(3):
        yield _norm(f"{name}.norm{i}", c)
    for part, source, positions in (("self", c, n), ("cross", text, PROMPT)):
        yield _linear(f"{name}.{part}.q", c, c, n, bias=False)
        yield _linear(f"{name}.{part}.k", source, c, positions, bias=False)
        yield _linear(f"{name}.{part}.v", source, c, positions, bias=False)
        yield _linear(f"{name}.{part}.o", c, c, n)
    yield _linear(f"{name}.up", c, 8 * c, n)
    yield _linear(f"{name}.down", 4 * c, c, n)
    yield _conv(f"{name}.proj_out", c, c, size, 1)


def unet(
    *, channels: tuple[int, ...] = (320, 640, 1280, 1280), size: int = 64, text: int = 768, blocks: int = 2,
    latent: int = 4,
) -> tuple[tuple[Layer, ...], int]:  # fmt: skip
    """(layers, run-time multiply-adds) of a latent-diffusion U-Net; the last level has no attention."""
    time, found, attention = 4 * channels[0], list[Layer](), 0
    found += [_conv("conv_in", latent, channels[0], size), _linear("time1", channels[0], time, 1)]
    found += [_linear("time2", time, time, 1)]
    skips, now, last = [channels[0]], channels[0], len(channels) - 1

    def block(name: str, inputs: int, outputs: int, side: int, *, attends: bool) -> None:
        nonlocal attention
        found.extend(_residual(f"{name}.res", inputs, outputs, side, time))
        if attends:
            found.extend(_attended(f"{name}.attn", outputs, side, text))
            attention += 2 * side * side * outputs * (side * side + PROMPT)

    for level, c in enumerate(channels):
        for i in range(blocks):
            block(f"down{level}.{i}", now, c, size, attends=level < last)
            now = c
            skips.append(c)
        if level < last:
            size //= 2
            found.append(_conv(f"down{level}.sample", c, c, size))
            skips.append(c)
    block("mid.0", now, now, size, attends=True)
    block("mid.1", now, now, size, attends=False)
    for level in range(last, -1, -1):
        c = channels[level]
        for i in range(blocks + 1):
            block(f"up{level}.{i}", now + skips.pop(), c, size, attends=level < last)
            now = c
        if level:
            size *= 2
            found.append(_conv(f"up{level}.sample", c, c, size))
    found += [_norm("norm_out", now), _conv("conv_out", now, latent, size)]
    return tuple(found), attention


# a diffusion transformer


def transformer(
    *, width: int = 1152, depth: int = 28, patch: int = 2, size: int = 32, latent: int = 4, classes: int = 1000
) -> tuple[tuple[Layer, ...], int]:  # fmt: skip
    """(layers, run-time multiply-adds) of a DiT: norms whose scales a step's time and class decide."""
    n, d = (size // patch) ** 2, width
    found = [_linear("patches", latent * patch * patch, d, n), _linear("time1", 256, d, 1), _linear("time2", d, d, 1)]
    found += [Layer("classes", 0, 0, (classes + 1) * d)]
    for i in range(depth):
        found += [_linear(f"{i}.qkv", d, 3 * d, n), _linear(f"{i}.o", d, d, n), _linear(f"{i}.up", d, 4 * d, n)]
        found += [_linear(f"{i}.down", 4 * d, d, n), _linear(f"{i}.scales", d, 6 * d, 1)]
    found += [_linear("scales", d, 2 * d, 1), _linear("out", d, 2 * latent * patch * patch, n)]
    return tuple(found), 2 * depth * n * n * d


def image_shapes() -> dict[str, ImageShape]:
    """Generators by name."""
    diffusion, transformed = unet(), transformer()
    return {
        "sd-1.5-unet": ImageShape(
            "sd-1.5-unet", *diffusion, 50, 2, "huggingface.co/stable-diffusion-v1-5 unet/config.json; 50 guided steps"
        ),
        "dit-xl-2": ImageShape(
            "dit-xl-2", *transformed, 250, 2, "arXiv 2212.09748 (DiT-XL/2 at 256); 250 guided steps"
        ),
    }


def load_image_shape(name: str) -> ImageShape:
    """A generator by name; ModelError with close ones."""
    known = image_shapes()
    word = name.removeprefix("shape:")
    if word not in known:
        raise ModelError(name, "no image generator has this name", "one of these", try_=did_you_mean(word, known))
    return known[word]


@dataclass(frozen=True)
class Drawn:
    """Seconds and joules of one image on chips, and beside on a machine."""

    chips: int
    seconds: float
    joules: float
    parts: dict[str, float]
    beside_seconds: float | None
    beside_joules: float | None


def draw(shape: ImageShape, chip: Chip, *, beside: str = "h100", weight_bits: float = 8) -> Drawn:
    """One image: every position of a layer is one read of its macros (banks: its weights at their rate).

    Attention runs on the vector units; every value is written and read once, 2 bytes each way.  The machine computes
    with 16 bits at its peak times the factor of language models: the best it could do; convolutions get less.
    """
    held = chip.capacity * (8 / weight_bits if chip.capabilities.gemv else 1)
    chips = max(1, ceil(sum(n.weights for n in shape.layers) / held))
    rate = (arch_cost.peak_tops(chip).value or 0.0) * 1e12 / 2
    read = chip.capacity / rate
    vector = chip.cores * chip.core.vector.lanes * chip.chip.clock * chips
    moved = sum(_values(n) for n in shape.layers) * 4
    macs = sum(n.macs for n in shape.layers)
    arrays = macs / (rate * chips) if chip.capabilities.gemv else sum(n.positions for n in shape.layers) * read
    parts = {
        "weights": arrays, "attention": shape.attention_macs / vector,
        "memory": moved / (chip.memories["ram"].bandwidth * chips),
    }  # fmt: skip
    passes = shape.steps * shape.passes
    seconds = sum(parts.values()) * passes
    cost = {n: m.value or 0.0 for n, m in arch_cost.event_energy(chip).items()}
    bank = macs * weight_bits / 8 * cost["bank_read_byte"] if chip.capabilities.gemv else 0.0
    each = macs * cost["mac"] + shape.attention_macs * cost["vector_op"] + moved * cost["ram_read_byte"] + bank
    leak = ((arch_cost.leakage(chip).value or 0.0) + (arch_cost.host_idle(chip).value or 0.0)) * chips
    other = _beside(shape, beside)
    return Drawn(chips, seconds, each * passes + leak * seconds, {k: v * passes for k, v in parts.items()}, *other)


def _values(layer: Layer) -> float:
    """Values that a layer reads and writes in one pass: the sides of its matrix, as if it were square."""
    return 2 * layer.positions * layer.weights**0.5 / 3  # a kernel reads an input several times; it is moved once


def _beside(shape: ImageShape, name: str) -> tuple[float | None, float | None]:
    machine = load_machine(name)
    rate = machine.rate("fp16", "bf16")
    if rate is None:
        return None, None
    seconds = 2 * shape.macs_per_image / rate / factor_of(machine)
    watts = machine.power.max
    return seconds, None if watts is None else watts * fitted()["power_share"] * seconds
