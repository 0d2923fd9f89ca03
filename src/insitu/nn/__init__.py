"""The PyTorch users' door (extra `torch`): modules whose layers compute as a chip does, in training and in eval.

Importing this package does not import torch; a public name is resolved when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from insitu.nn.config import Config
    from insitu.nn.converted import convert, quantized
    from insitu.nn.loop import Schedule, fit

__all__ = ["Config", "Schedule", "convert", "fit", "quantized"]

_HOMES = {"Config": "config", "Schedule": "loop", "convert": "converted", "fit": "loop", "quantized": "converted"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'insitu.nn' has no attribute {name!r}")
    if _HOMES[name] != "config":
        _need_torch()
    value = getattr(import_module(f"insitu.nn.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def _need_torch() -> None:
    """UsageError where torch or its exporter's library is absent."""
    from insitu.frontend.torch_export import needs_torch

    needs_torch()
