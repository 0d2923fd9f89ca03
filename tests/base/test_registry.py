from __future__ import annotations

import pytest

from insitu.base.errors import ChipError, UsageError
from insitu.base.registry import resolve


def test_resolve() -> None:
    assert resolve("a", {"a": 1}, "task") == 1
    with pytest.raises(UsageError) as caught:
        resolve("kwz", {"kws": 1, "vww": 2}, "task")
    assert str(caught.value) == "task 'kwz': unknown; needs one of kws, vww. Try: kws"
    with pytest.raises(ChipError):
        resolve("a", {}, "chip", error=ChipError)
