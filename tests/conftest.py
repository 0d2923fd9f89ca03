"""One thread per worker, one hypothesis profile, and the shared data sets where they are at hand."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

from insitu.cli.environment import drop_stale_kernels

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before the first import of numpy

settings.register_profile("insitu", deadline=None, derandomize=True, max_examples=60, print_blob=True)
settings.load_profile("insitu")

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    """Extras named in INSITU_NEEDS are there: tests that need them skip elsewhere, and may not skip there.

    Compiled kernels that are older than a source they contain are dropped first.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        drop_stale_kernels(REPOSITORY / "src" / "insitu")
    missing = [name for name in os.environ.get("INSITU_NEEDS", "").split() if find_spec(name) is None]
    if missing:
        raise pytest.UsageError(f"INSITU_NEEDS: {', '.join(missing)} is not installed")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real models and data: INSITU_SHARED_DATA, else shared/data beside the repository."""
    named = os.environ.get("INSITU_SHARED_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the shared data sets: no folder {folder}; set INSITU_SHARED_DATA")
    return folder


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return REPOSITORY
