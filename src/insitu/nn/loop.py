"""A small training loop with progress, checkpoints and resume; it trains float modules and converted ones alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from insitu.base.errors import DataError

Report = Callable[[int, float], None]  # (step, mean loss since the last report)
Augment = Callable[[Tensor, torch.Generator], Tensor]
CHECKPOINT = "checkpoint.pt"
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: AdamW, its rate up for a tenth of the steps and down along a cosine.

    Every `every` steps there is a report and a checkpoint.  `settle`: batches behind the last step, from which batch
    norms take their statistics anew with all of them alike (Wu and Johnson, arXiv:2105.07576): a running mean of ten
    batches is as noisy as the chips that were drawn for them.
    """

    steps: int
    batch: int = 64
    rate: float = 1e-3
    weight_decay: float = 0.01
    seed: int = 0
    every: int = 100
    settle: int = 64

    def share(self, step: int) -> float:
        """The rate of a step, as a share of `rate`."""
        rise = max(1, self.steps // 10)
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - rise) / max(1, self.steps - rise))))


def fit(
    module: nn.Module, x: Tensor, y: Tensor, schedule: Schedule, *, augment: Augment | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy, folder: Path | None = None,
    report: Report = lambda step, loss: None,
) -> nn.Module:  # fmt: skip
    """Train in place on samples x and targets y; returns the module in eval.

    Batches and augmentation depend on the seed and the step alone, so that two modules see the same ones and a run that
    was cut off goes on from `folder` as if it had not been.
    """
    if len(x) != len(y) or len(x) == 0:
        raise DataError("fit", f"{len(x)} samples and {len(y)} targets", "as many of both, at least one")
    optimizer = torch.optim.AdamW(module.parameters(), schedule.rate, weight_decay=schedule.weight_decay)
    cycle = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.share)
    torch.manual_seed(schedule.seed)
    module.train()
    done = _resumed(module, optimizer, cycle, folder)
    losses: list[float] = []
    for step in range(done, schedule.steps):
        batch, wanted = _batch(x, y, schedule, step, augment)
        error = loss(module(batch), wanted)
        optimizer.zero_grad()
        error.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 2.0)
        optimizer.step()
        cycle.step()
        losses.append(float(error.detach()))
        if (step + 1) % schedule.every == 0 or step + 1 == schedule.steps:
            report(step + 1, sum(losses) / len(losses))
            losses.clear()
            _saved(module, optimizer, cycle, folder, step + 1)
    if schedule.settle:
        _settled(module, (_batch(x, y, schedule, schedule.steps + i, augment)[0] for i in range(schedule.settle)))
    return module.eval()


def _batch(x: Tensor, y: Tensor, schedule: Schedule, step: int, augment: Augment | None) -> tuple[Tensor, Tensor]:
    """The samples and targets of a step."""
    rng = torch.Generator().manual_seed(schedule.seed << 32 | step)
    pick = torch.randint(0, len(x), (schedule.batch,), generator=rng)
    return x[pick] if augment is None else augment(x[pick], rng), y[pick]


@torch.no_grad()
def _settled(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Statistics of batch norms that train, from these batches."""
    norms = [m for m in module.modules() if isinstance(m, NORMS) and m.training and m.track_running_stats]
    if not norms:
        return
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # a plain mean
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.zero_()
    for batch in batches:
        module(batch)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum


def _saved(module: nn.Module, optimizer: Any, cycle: Any, folder: Path | None, step: int) -> None:
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "cycle": cycle.state_dict()}
    fresh = folder / f"{CHECKPOINT}.new"
    torch.save({**parts, "step": step, "rng": torch.get_rng_state()}, fresh)
    fresh.replace(folder / CHECKPOINT)


def _resumed(module: nn.Module, optimizer: Any, cycle: Any, folder: Path | None) -> int:
    """Steps done so far, everything put back as it was then."""
    path = None if folder is None else folder / CHECKPOINT
    if path is None or not path.is_file():
        return 0
    saved: dict[str, Any] = torch.load(path, weights_only=True)
    module.load_state_dict(saved["module"])
    optimizer.load_state_dict(saved["optimizer"])
    cycle.load_state_dict(saved["cycle"])
    torch.set_rng_state(saved["rng"])
    return int(saved["step"])
