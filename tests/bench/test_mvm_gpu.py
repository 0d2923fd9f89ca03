"""The GPU's benchmark on a machine without one."""

from __future__ import annotations

from typing import Any

import pytest

from insitu.base.errors import UsageError
from insitu.bench.registry import run_bench

torch: Any = pytest.importorskip("torch", reason="extra gpu")


def test_it_says_that_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        UsageError, match=r"insitu bench mvm-gpu: PyTorch finds no CUDA device; needs a GPU.*insitu bench mvm"
    ):
        run_bench("mvm-gpu")
