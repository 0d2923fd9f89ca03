"""What the process needs of its surroundings before numpy and numba are imported."""

from __future__ import annotations

import contextlib
import gc
import os
import warnings
from pathlib import Path

import insitu

BLAS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def settle() -> None:
    """One BLAS thread, a place for compiled kernels, nothing sent anywhere, no warnings of libraries."""
    # Blocks of samples run on our own threads; a BLAS with threads of its own would round differently at other counts.
    for name in BLAS:
        os.environ[name] = "1"
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime would send model names and hashes to its makers
    if not debugging():
        warnings.simplefilter("ignore")
    gc.set_threshold(
        10_000, 10, 10
    )  # a start makes a hundred thousand objects that stay; the usual 700 walk them often
    _place_for_kernels()
    drop_stale_kernels(Path(insitu.__file__).parent)


def debugging() -> bool:
    """Whether INSITU_DEBUG asks for tracebacks and warnings."""
    return os.environ.get("INSITU_DEBUG", "") not in ("", "0")


def _place_for_kernels() -> None:
    """Compiled kernels lie beside their source, or in the user's cache where that cannot be written."""
    if "NUMBA_CACHE_DIR" in os.environ or os.access(Path(insitu.__file__).parent / "sim", os.W_OK):
        return
    for folder in (cache_folder() / "kernels", _private_folder):
        place = folder() if callable(folder) else folder
        try:
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            continue
        if os.access(place, os.W_OK):
            os.environ["NUMBA_CACHE_DIR"] = str(place)
            return


def drop_stale_kernels(package: Path) -> None:
    """Remove compiled kernels older than the newest source of kernels: they contain parts of other files'.

    numba looks at the file a kernel is in, not at those it calls; a pulled change would meet yesterday's machine code.
    """
    sources = list(package.rglob("kernels.py"))
    newest = max((source.stat().st_mtime for source in sources), default=0.0)
    for source in sources:
        for compiled in (source.parent / "__pycache__").glob("kernels.*.nbi"):
            with contextlib.suppress(OSError):  # of another user, or dropped by another process
                if compiled.stat().st_mtime < newest:
                    compiled.unlink()


def _private_folder() -> Path:
    """A folder of this run's own: a cache holds code, so it must not lie where others may write."""
    import atexit
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="insitu-kernels-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def cache_folder() -> Path:
    """Where notes and caches of a user lie."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return Path(base) / "insitu" if base else Path.home() / ".cache" / "insitu"
    except RuntimeError:  # no home at all
        return Path(".cache") / "insitu"
