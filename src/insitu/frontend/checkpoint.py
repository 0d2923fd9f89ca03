"""A folder of a model as its authors pass it on: config.json and safetensors, one file or shards with an index.

Nothing of a folder is executed: only JSON and safetensors are read, pickled weights are refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.errors import ModelError, did_you_mean

Array = npt.NDArray[Any]
CONFIG, WHOLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
GENERATION = "generation_config.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
MOST_CONFIG = 1 << 22  # bytes of a config.json


@dataclass
class Checkpoint:
    """Settings and named tensors of a folder; tensors are read when asked for, as float32."""

    folder: Path
    config: Mapping[str, Any]
    files: Mapping[str, Path]  # tensor: file
    used: set[str] = field(default_factory=set[str])

    def has(self, name: str) -> bool:
        """Whether the folder holds a tensor of this name."""
        return name in self.files

    def tensor(self, name: str, shape: tuple[int, ...]) -> Array:
        """One tensor, float32; ModelError where it is missing, of another shape, or not finite."""
        if name not in self.files:
            close = did_you_mean(name, self.files)
            raise ModelError(str(self.folder), f"no tensor {name!r}", f"{name} {_text(shape)}", try_=close)
        array = _read(self.files[name], name)
        where = f"{self.files[name]}: {name}"
        if array.shape != shape:
            raise ModelError(where, f"shape {_text(array.shape)}", f"{_text(shape)}, as {CONFIG} has it")
        if not np.isfinite(array).all():
            raise ModelError(where, "NaN or infinity among the weights", "finite numbers")
        self.used.add(name)
        return array

    def integer(self, *names: str, default: int | None = None) -> int:
        """The first setting of these names, a positive integer."""
        for name in names:
            value = self.config.get(name)
            if value is None:
                continue
            if type(value) is not int or not 0 < value <= 1 << 31:
                raise ModelError(f"{self.folder / CONFIG}: {name}", repr(value)[:40], "a positive integer")
            return value
        if default is None:
            raise ModelError(str(self.folder / CONFIG), f"no {names[0]}", f"{names[0]}: a positive integer")
        return default

    def number(self, *names: str, default: float) -> float:
        """The first setting of these names, a finite number."""
        for name in names:
            value = self.config.get(name)
            if value is None:
                continue
            if type(value) not in (int, float) or not np.isfinite(value):
                raise ModelError(f"{self.folder / CONFIG}: {name}", repr(value)[:40], "a number")
            return float(value)
        return default

    def tokens(self, name: str, vocab: int) -> tuple[int, ...]:
        """A setting of one token or several; the generation's own settings go before the model's."""
        path = self.folder / GENERATION
        own = _json(path, "settings of generation") if path.is_file() else {}
        value = own.get(name, self.config.get(name))
        given: list[Any] = value if isinstance(value, list) else [value]
        return tuple(int(v) for v in given if type(v) is int and 0 <= v < vocab)


def open_checkpoint(folder: Path) -> Checkpoint:
    """The settings and tensor names of a folder."""
    config = _json(folder / CONFIG, "the model's settings")
    files = sorted(folder.glob("*.safetensors"))
    pickled = [p.name for p in sorted(folder.iterdir()) if p.suffix in PICKLED]
    if not files and not (folder / INDEX).is_file():
        if pickled:
            got = f"weights as {pickled[0]}, a pickle, which could run code when it is read"
            raise ModelError(str(folder), got, WHOLE, try_=("convert the weights to safetensors",))
        raise ModelError(str(folder), "no weights", f"{WHOLE}, or shards with {INDEX}")
    if (folder / INDEX).is_file():
        return Checkpoint(folder, config, _indexed(folder))
    return Checkpoint(folder, config, {name: path for path in files for name in _names(path)})


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder looks like a model's: it has settings, or weights."""
    return (folder / CONFIG).is_file() or any(folder.glob("*.safetensors")) or (folder / INDEX).is_file()


def _indexed(folder: Path) -> dict[str, Path]:
    """Tensor: shard, by the index; every shard has to be there and hold what the index says."""
    table = _json(folder / INDEX, "the index of the shards").get("weight_map")
    if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):  # pyright: ignore[reportUnknownVariableType]
        raise ModelError(str(folder / INDEX), "no weight_map of names", "weight_map: tensor to file name")
    shards: dict[str, str] = dict(table)  # pyright: ignore[reportUnknownArgumentType]
    outside = [s for s in shards.values() if Path(s).name != s or not s.endswith(".safetensors")]
    if outside:
        raise ModelError(str(folder / INDEX), f"a shard {outside[0]!r}", "a .safetensors file of this folder")
    missing = sorted({s for s in shards.values() if not (folder / s).is_file()})
    if missing:
        held = sum(1 for s in shards.values() if s in missing)
        got = f"{len(missing)} shard(s) missing, {missing[0]} first, with {held} tensors"
        raise ModelError(str(folder), got, "every shard that the index names")
    found = {s: set(_names(folder / s)) for s in sorted(set(shards.values()))}
    lost = [n for n, s in shards.items() if n not in found[s]]
    if lost:
        raise ModelError(str(folder / shards[lost[0]]), f"no tensor {lost[0]!r}", "what the index says it holds")
    return {n: folder / s for n, s in shards.items()}


def _json(path: Path, what: str) -> dict[str, Any]:
    if not path.is_file():
        raise ModelError(str(path.parent), f"no {path.name}", f"{path.name}, {what}")
    if path.stat().st_size > MOST_CONFIG and path.name == CONFIG:
        raise ModelError(str(path), f"{path.stat().st_size} bytes", f"at most {MOST_CONFIG}")
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(str(path), str(error)[:100] or "no JSON", "JSON") from None
    if not isinstance(data, dict):
        raise ModelError(str(path), "no JSON object", "an object of settings")
    return data  # pyright: ignore[reportUnknownVariableType]


def _names(path: Path) -> Iterable[str]:
    return _opened(path, lambda file: list(file.keys()))


def _read(path: Path, name: str) -> Array:
    """A tensor as float32; bfloat16 is widened by its bits."""
    from safetensors import SafetensorError

    try:
        return _opened(path, lambda file: np.asarray(file.get_tensor(name), np.float32))
    except (TypeError, AttributeError, SafetensorError):
        return _wide(path, name)


def _opened(path: Path, use: Any) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            return use(file)
    except SafetensorError as error:
        raise ModelError(str(path), str(error)[:120] or "no safetensors", "a whole safetensors file") from None


def _wide(path: Path, name: str) -> Array:
    """A bfloat16 tensor, whose bits are the upper half of a float32's."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(size))[name]
        if entry["dtype"] != "BF16":
            raise ModelError(f"{path}: {name}", f"type {entry['dtype']}", "F64, F32, F16 or BF16")
        start, end = entry["data_offsets"]
        file.seek(8 + size + start)
        raw = np.frombuffer(file.read(end - start), "<u2")
    return (raw.astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])


def _text(shape: Iterable[int]) -> str:
    return "x".join(str(d) for d in shape) or "scalar"
