"""The draws of insitu.base.random on torch tensors: the same words, uniforms and normals on any device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from insitu.base.random import MULTIPLIERS, ROUNDS, WEYL, effect_key, rows_together

MASK = 0xFFFFFFFF
Device = str | torch.device


def philox(counter: Tensor, key: tuple[int, int]) -> Tensor:
    """Philox 4x32-10 of counters shaped (4, ...), words in the low halves of int64.

    A product of two words fills all 64 bits; its halves are read off the bits, whatever its sign says.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1 = ((p1 >> 32) & MASK) ^ c1 ^ k0, p1 & MASK
        c2, c3 = ((p0 >> 32) & MASK) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return torch.stack([c0, c1, c2, c3])


def words(
    seed: int, effect: str, blocks: Tensor, *, instance: int = 0, macro: int = 0, time: int = 0
) -> Tensor:  # fmt: skip
    """Four random words (4, ...) of each block of a stream."""
    high = (blocks >> 32) | (instance << 16)
    counter = torch.stack([blocks & MASK, torch.full_like(blocks, time), torch.full_like(blocks, macro), high])
    return philox(counter, (seed, effect_key(effect)))


def uniforms(found: Tensor) -> Tensor:
    """Uniform in (0, 1), float64, one of each word."""
    return (found.double() + 0.5) * 2.0**-32


def normals(found: Tensor) -> Tensor:
    """Standard normals (4, ...) by Box-Muller in float64: words 0 and 1 give normals 0 and 1, 2 and 3 the others."""
    u = uniforms(found)
    radius, angle = torch.sqrt(-2.0 * torch.log(u[0::2])), (2.0 * math.pi) * u[1::2]
    return torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], 1).flatten(0, 1)


def read_normals(
    seed: int, effect: str, vectors: int, columns: int, *,
    first: int = 0, instance: int = 0, macro: int = 0, time: int = 0, device: Device = "cpu",
) -> Tensor:  # fmt: skip
    """insitu.base.random.read_normals [vectors, columns], float64; every block of words is drawn once."""
    g = rows_together(columns)
    begin, end = first // (4 * g), (first + vectors - 1) // (4 * g) + 1
    blocks = torch.arange(begin * g * columns, end * g * columns, dtype=torch.int64, device=device)
    drawn = normals(words(seed, effect, blocks, instance=instance, macro=macro, time=time))
    runs = drawn.reshape(4, end - begin, g, columns).transpose(0, 1).reshape(-1, columns)
    return runs[first - 4 * g * begin :][:vectors]
