"""Counter-based random numbers: a draw depends on what it is for, never on the order or thread it is drawn in.

The generator is Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), which turns a
key of two and a counter of four 32-bit words into four random words.  Ours are

    key      = (seed, first 4 bytes of blake2b(effect), little-endian)
    counter  = (block & 0xffffffff, time, macro, instance << 16 | block >> 32)

and element i of a draw is word i % 4 of block i // 4.  So seed, time and macro are below 2**32, instance below 2**16
and elements below 2**50; `time` counts time points or reads, whichever the effect varies with.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from math import prod

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from insitu.base.errors import RangeError

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10

_LOW = np.uint64(0xFFFFFFFF)
_HIGH = np.uint64(32)
_CHUNK = 1 << 14  # elements at a time, so that the intermediate arrays stay in the cache; no effect on the numbers


@cache
def effect_key(effect: str) -> int:
    """The second key word of an effect's name, the same on every machine."""
    return int.from_bytes(blake2b(effect.encode(), digest_size=4).digest(), "little")


def philox(counter: NDArray[np.uint32], key: tuple[int, int]) -> NDArray[np.uint32]:
    """Philox 4x32-10 of counters shaped (4, ...), the bare generator."""
    c0, c1, c2, c3 = (word.astype(np.uint64) for word in counter)
    k0, k1 = key
    m0, m1 = (np.uint64(multiplier) for multiplier in MULTIPLIERS)
    for _ in range(ROUNDS):
        p0, p1 = c0 * m0, c2 * m1
        c0, c1 = (p1 >> _HIGH) ^ c1 ^ np.uint64(k0), p1 & _LOW
        c2, c3 = (p0 >> _HIGH) ^ c3 ^ np.uint64(k1), p0 & _LOW
        k0, k1 = (k0 + WEYL[0]) & 0xFFFFFFFF, (k1 + WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3]).astype(np.uint32)


def bits(seed: int, effect: str, counters: tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike]) -> NDArray[np.uint32]:
    """Four random words, shaped (4, ...), for each of the four counter words broadcast together."""
    _check("seed", seed, 32)
    words = np.broadcast_arrays(*(np.asarray(word, dtype=np.uint32) for word in counters))
    return philox(np.stack(words), (seed, effect_key(effect)))


def uniform_at(
    seed: int, effect: str, indices: ArrayLike, *, instance: int = 0, macro: int = 0, time: int = 0
) -> NDArray[np.float64]:
    """The elements `indices` of a uniform draw, in the open interval (0, 1), steps of 2**-32."""
    return _gather(_uniforms, seed, effect, indices, instance=instance, macro=macro, time=time)


def normal_at(
    seed: int, effect: str, indices: ArrayLike, *, instance: int = 0, macro: int = 0, time: int = 0
) -> NDArray[np.float64]:
    """The elements `indices` of a standard normal draw."""
    return _gather(_normals, seed, effect, indices, instance=instance, macro=macro, time=time)


def uniform(
    seed: int, effect: str, shape: int | tuple[int, ...], *,
    instance: int = 0, macro: int = 0, time: int = 0, offset: int = 0, dtype: DTypeLike = np.float64,
) -> NDArray[np.floating]:  # fmt: skip
    """Uniform in (0, 1); flat element i is element offset + i of the stream."""
    return _fill(_uniforms, seed, effect, shape, instance, macro, time, offset, dtype)


def normal(
    seed: int, effect: str, shape: int | tuple[int, ...], *,
    instance: int = 0, macro: int = 0, time: int = 0, offset: int = 0, dtype: DTypeLike = np.float64,
) -> NDArray[np.floating]:  # fmt: skip
    """Standard normal by Box-Muller in float64, rounded to `dtype`; flat element i is element offset + i."""
    return _fill(_normals, seed, effect, shape, instance, macro, time, offset, dtype)


def rows_together(columns: int) -> int:
    """Vectors whose normals lie side by side in the stream of a macro's reads; four such runs share their blocks."""
    return max(1, 64 // columns)


def read_normals(
    seed: int, effect: str, vectors: int, columns: int, *,
    first: int = 0, instance: int = 0, macro: int = 0, time: int = 0,
) -> NDArray[np.float64]:  # fmt: skip
    """Standard normals [vectors, columns] of reads number `first` on, the same however reads are cut into calls.

    Of g = rows_together(columns) vectors in a row, vector v and column c use word (v // g) % 4 of block
    (v // 4g) * g * columns + (v % g) * columns + c, so that a kernel fills a row of outputs from one word of
    consecutive blocks.
    """
    g = rows_together(columns)
    v = np.arange(first, first + vectors, dtype=np.int64)[:, None]
    block = (v // (4 * g)) * (g * columns) + (v % g) * columns + np.arange(columns)
    return normal_at(seed, effect, 4 * block + v // g % 4, instance=instance, macro=macro, time=time)


_Transform = Callable[[NDArray[np.uint32]], NDArray[np.float64]]  # words (4, blocks) -> numbers (4, blocks)


def _uniforms(words: NDArray[np.uint32]) -> NDArray[np.float64]:
    return (words.astype(np.float64) + 0.5) * 2.0**-32


def _normals(words: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Words 0 and 1 give normals 0 and 1, words 2 and 3 give normals 2 and 3."""
    u = _uniforms(words)
    radius = np.sqrt(-2.0 * np.log(u[0::2]))
    angle = (2.0 * np.pi) * u[1::2]
    numbers = np.empty_like(u)
    numbers[0::2] = radius * np.cos(angle)
    numbers[1::2] = radius * np.sin(angle)
    return numbers


def _words(
    seed: int, effect: str, blocks: NDArray[np.uint64], instance: int, macro: int, time: int
) -> NDArray[np.uint32]:
    _check("instance", instance, 16)
    _check("macro", macro, 32)
    _check("time", time, 32)
    high = (blocks >> _HIGH) | np.uint64(instance << 16)
    return bits(seed, effect, ((blocks & _LOW).astype(np.uint32), time, macro, high.astype(np.uint32)))


def _fill(
    transform: _Transform, seed: int, effect: str, shape: int | tuple[int, ...],
    instance: int, macro: int, time: int, offset: int, dtype: DTypeLike,
) -> NDArray[np.floating]:  # fmt: skip
    shape = (shape,) if isinstance(shape, int) else shape
    count = prod(shape)
    _check("element", offset, 50)
    _check("element", offset + max(count, 1) - 1, 50)
    flat: NDArray[np.floating] = np.empty(count, dtype)
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        first, last = (offset + start) // 4, (offset + start + size - 1) // 4
        words = _words(seed, effect, np.arange(first, last + 1, dtype=np.uint64), instance, macro, time)
        numbers = transform(words).T.reshape(-1)
        skip = offset + start - 4 * first
        flat[start : start + size] = numbers[skip : skip + size]
    return flat.reshape(shape)


def _gather(
    transform: _Transform, seed: int, effect: str, indices: ArrayLike, *, instance: int, macro: int, time: int
) -> NDArray[np.float64]:
    index = np.asarray(indices)
    if index.size:
        _check("element", int(index.min()), 50)
        _check("element", int(index.max()), 50)
    flat = index.astype(np.uint64).reshape(-1)
    numbers = transform(_words(seed, effect, flat // np.uint64(4), instance, macro, time))
    return numbers[flat % np.uint64(4), np.arange(flat.size)].reshape(index.shape)


def _check(name: str, value: int, width: int) -> None:
    if not 0 <= value < 1 << width:
        raise RangeError(name, str(value), f"a whole number from 0 to 2**{width} - 1")
