"""convert: a module whose layers compute as a chip does; in training by rounding, in eval by the program's integers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from insitu.arch.load import load_chip
from insitu.arch.spec import Chip
from insitu.base.errors import UsageError
from insitu.graph.graph import Graph
from insitu.nn.config import Config
from insitu.nn.conversion import Conversion
from insitu.nn.fold import NORMS, fold_batch_norms
from insitu.nn.layers import Base, adopt

Filter = Callable[[str, nn.Module], bool]


def convert(
    model: nn.Module, chip: str | Chip, *, filter: Filter | None = None, config: Config | None = None
) -> nn.Module:  # fmt: skip
    """A new module of the same class, with the same parameters, whose layers are those of `chip`.

    In training its layers round as the chip does, with straight-through gradients and, where `config.physics` asks for
    it, the errors of a chip instance drawn for every step.  In eval it returns exactly the numbers of the program that
    `insitu.deploy(module, chip, data=...)` compiles.  `filter(name, module)` says which layers the chip takes; the
    others compute in floats on its host.  The module calibrates on `config.data`, else on the first batch it sees.
    """
    if not isinstance(model, nn.Module):
        raise UsageError("convert", f"a {type(model).__name__}", "an nn.Module")
    config = config or Config()
    chip = chip if isinstance(chip, Chip) else load_chip(chip)
    made = copy.deepcopy(model)
    conversion = Conversion.of(made, chip, config, filter)
    made.__dict__["insitu"] = conversion
    adopt(made, ChipModule)
    made.register_load_state_dict_post_hook(_forgive)
    norms = [n for n, m in made.named_modules() if isinstance(m, NORMS)] if config.fold_batch_norms else []
    if config.data is None and norms:
        got = f"batch norms ({', '.join(norms[:3])}) and no data"
        way = "convert(model, chip, config=Config(data=samples))"
        raise UsageError("convert", got, "samples that show which layers the norms belong to", try_=[way])
    if config.data is not None:
        args, kwargs = call_of(config.data)
        if norms:
            conversion.plainly(lambda: fold_batch_norms(made, args, kwargs))
        conversion.calibrate(made, args, kwargs)
    return made


def call_of(data: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a call from what `Config.data` holds."""

    def tensor(value: Any) -> Any:
        return torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value

    if isinstance(data, Mapping):
        return (), {str(k): tensor(v) for k, v in data.items()}
    rows = data if isinstance(data, tuple | list) else (data,)
    return tuple(tensor(v) for v in rows), {}


def quantized(module: nn.Module) -> Graph:
    """The quantized graph of a converted module with its present weights: what `insitu.deploy` compiles."""
    return conversion_of(module).quantized(module)


def conversion_of(module: nn.Module) -> Conversion:
    """What a converted module keeps of its conversion; UsageError for any other module."""
    found = module.__dict__.get("insitu")
    if not isinstance(found, Conversion):
        raise UsageError(type(module).__name__, "not a converted module", "one that insitu.nn.convert returned")
    return found


class ChipModule(Base):
    """The whole module: training is its own forward over chip layers, eval the integers of the compiled program."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        """As the module's own forward; what it returns in eval has no gradient."""
        conversion: Conversion = self.__dict__["insitu"]
        plain: Any = super().forward
        if conversion.busy:
            return plain(*args, **kwargs)
        if conversion.plan is None or not conversion.ready:
            _calibrate(conversion, self, args, kwargs)
        if self.training:
            conversion.step()
            return plain(*args, **kwargs)
        return _exact(conversion, self, args, kwargs)

    def get_extra_state(self: Any) -> Tensor:
        """The plan, as bytes, so that a checkpoint compiles to the same integers."""
        text = self.__dict__["insitu"].kept()
        return torch.frombuffer(bytearray(text.encode() or b" "), dtype=torch.uint8).clone()

    def set_extra_state(self: Any, state: Tensor) -> None:
        """Take the plan of a checkpoint."""
        text = bytes(state.cpu().numpy().tobytes()).decode().strip()
        if text:
            self.__dict__["insitu"].take(text)


def _forgive(module: nn.Module, keys: Any) -> None:
    """A float module's state dict has no plan: that is fine."""
    keys.missing_keys[:] = [k for k in keys.missing_keys if not k.endswith("_extra_state")]


def _calibrated(conversion: Conversion, module: nn.Module, args: Any, kwargs: Any) -> None:
    conversion.calibrate(module, args, kwargs)


def _exactly(conversion: Conversion, module: nn.Module, args: Any, kwargs: Any) -> Any:
    with torch.no_grad():
        return conversion.exact(module, args, kwargs)


# torch.compile leaves these to Python
_calibrate: Any = torch.compiler.disable(_calibrated)
_exact: Any = torch.compiler.disable(_exactly)
