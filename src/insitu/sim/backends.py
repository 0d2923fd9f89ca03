"""What computes array products: kernels on the processor, or torch tensors on the processor or a GPU."""

from __future__ import annotations

from importlib.util import find_spec

from insitu.base.errors import UsageError, did_you_mean
from insitu.circuit.effects import Physics
from insitu.circuit.spec import MacroChip
from insitu.sim.macro import MacroModel

BACKENDS = ("cpu", "torch", "cuda")
INSTALL = 'pip install "insitu[gpu]"'


def check_backend(name: str, *, where: str = "backend") -> str:
    """The name of a backend that this machine has; UsageError else."""
    if name not in BACKENDS:
        raise UsageError(
            f"{where} {name!r}", "unknown", f"one of {', '.join(BACKENDS)}", try_=did_you_mean(name, BACKENDS)
        )
    if name == "cpu":
        return name
    if find_spec("torch") is None:
        raise UsageError(f"{where} {name}", "PyTorch is not installed", "the extra gpu", try_=(INSTALL, f"{where} cpu"))
    if name == "cuda" and not _has_gpu():
        got, need = "PyTorch finds no CUDA device", "a GPU, and a PyTorch that is built for it"
        same = f"{where} torch, which computes the same on the processor"
        raise UsageError(f"{where} cuda", got, need, try_=(f"{where} cpu", same))
    return name


def macro_model(
    backend: str, chip: MacroChip | None, physics: Physics, seed: int, instance: int
) -> MacroModel:  # fmt: skip
    """Macros of a chip instance whose products run on a backend; UsageError for one that this machine has not."""
    if check_backend(backend) == "cpu":
        return MacroModel(chip, physics, seed, instance)
    from insitu.sim.gpu.fused import runs_on
    from insitu.sim.gpu.model import TensorModel

    device = "cpu" if backend == "torch" else "cuda"
    return TensorModel(chip, physics, seed, instance, device=device, fused=runs_on(device))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
