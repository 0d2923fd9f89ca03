"""The array namespace of some inputs, so that one physics function serves NumPy and torch."""

from __future__ import annotations

import sys
from typing import Any


def namespace(*arrays: Any) -> Any:
    """The module whose functions take these arrays: torch if any of them is a tensor, else numpy."""
    if any(_is_tensor(array) for array in arrays):
        return sys.modules["torch"]
    import numpy

    return numpy


def stop_gradient(x: Any) -> Any:
    """The same numbers, taken as constants by torch's gradients."""
    return x.detach() if _is_tensor(x) else x


def _is_tensor(x: Any) -> bool:
    torch = sys.modules.get("torch")  # no tensor exists before torch is imported
    return torch is not None and isinstance(x, torch.Tensor)
