from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from insitu.base.arrays import namespace, stop_gradient


def test_numpy() -> None:
    assert namespace(np.zeros(2), 1.0) is np
    x = np.zeros(2)
    assert stop_gradient(x) is x


def test_torch_is_not_imported() -> None:
    code = "import sys, numpy; from insitu.base.arrays import namespace; namespace(numpy.ones(1)); "
    subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules"], check=True)


def test_torch() -> None:
    torch = pytest.importorskip("torch")
    x = torch.ones(2, requires_grad=True)
    assert namespace(1.0, x) is torch
    assert not stop_gradient(x).requires_grad
