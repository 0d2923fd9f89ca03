"""What a converted module keeps beside its parameters: its networks, its plan, how each layer lies on the chip."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy.typing as npt
import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized
from torch.utils import _pytree as pytree

from insitu.algo import ptq
from insitu.algo.vectors import evenly
from insitu.arch.spec import Chip
from insitu.base.errors import ConfigError, ModelError
from insitu.base.units import parse_time
from insitu.circuit.effects import Physics
from insitu.compiler import adapt, given
from insitu.compiler.draft import is_weight_layer
from insitu.compiler.offload import offloaded
from insitu.compiler.plan import QuantPlan, plan_from_json, plan_to_json
from insitu.compiler.precision import apply_plan
from insitu.frontend.torch_export import check_numbers
from insitu.graph.graph import Graph
from insitu.graph.verify import verify
from insitu.nn.capture import Capture, arrays_of, capture, factors, marked, put_back, tensors_of
from insitu.nn.config import Config
from insitu.nn.exact import integers, reals
from insitu.nn.kinds import mixin_of
from insitu.nn.layers import Shared, adopt
from insitu.nn.norms import followed_plan, held_state, norm_factors
from insitu.nn.physics import Field, check_reach
from insitu.nn.runs import copies_of
from insitu.nn.settings import layout_of
from insitu.runtime.objective import objective_of

Array = npt.NDArray[Any]
Shapes = tuple[tuple[int, ...], ...]
T = TypeVar("T")
SAMPLES = 128  # of what it is given, to calibrate on
HAIR = 2.0**-20  # that a factor is more than 1, or a term more than 0


@dataclass
class Conversion:
    """The life of a converted module on one chip."""

    chip: Chip
    config: Config
    physics: Physics
    times: tuple[float, float]
    left_out: frozenset[str] = frozenset()  # layers that stay on the host
    shared: Shared = field(default_factory=Shared)
    captures: dict[Shapes, Capture] = field(default_factory=dict[Shapes, Capture])
    calibration: dict[str, Array] = field(default_factory=dict[str, Array])
    plan: QuantPlan | None = None
    factors: dict[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])  # of norms, as the plan saw them
    columns: Mapping[str, Sequence[tuple[str, Array]]] = field(default_factory=dict[str, Sequence[tuple[str, Array]]])
    ready: bool = False  # layers have their settings
    busy: bool = False  # the module's own forward is wanted
    made: tuple[Any, Graph] | None = None  # (which weights, quantized graph)

    @classmethod
    def of(
        cls, module: nn.Module, chip: Chip, config: Config, wanted: Callable[[str, nn.Module], bool] | None
    ) -> Conversion:
        """The conversion of a copy of a model, whose layers become chip layers."""
        physics = Physics.parse(config.physics, chip, calibrated=config.calibrated)
        check_reach(chip, physics)
        objective_of(config.objective, where="Config.objective")
        made = cls(chip, config, physics, _times(config.time))
        left: list[str] = []
        for name, layer in list(module.named_modules()):
            if not any(True for _ in layer.parameters(recurse=False)):
                continue
            if wanted is not None and not wanted(name, layer):
                left.append(name)
                continue
            adopt(layer, mixin_of(layer))
            layer.__dict__.update(chip_name=name, chip_shared=made.shared)
        made.left_out = frozenset(left)
        return made

    # networks

    def plainly(self, work: Callable[[], T]) -> T:
        """Run something while the module computes in floats, as it was before."""
        self.busy, self.shared.plain = True, True
        try:
            return work()
        finally:
            self.busy, self.shared.plain = False, False

    def captured(self, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Capture:
        """The module's network for inputs of these shapes; exported once for each."""
        shapes = tuple(tuple(t.shape[1:]) for t in tensors_of(args, kwargs))
        if shapes not in self.captures:
            found = self.plainly(lambda: capture(module, args, kwargs))
            state = held_state(module)
            self.plainly(lambda: check_numbers(found.graph(state), module, args, kwargs, found.name, state=state))
            # errors reach cells whose weights are one parameter's; without them a factor costs a layer nothing
            self.captures[shapes] = found if self.physics.ideal else replace(found, apart=factors(found, module))
        return self.captures[shapes]

    @property
    def first(self) -> Capture:
        """The network that the plan was made for; ModelError where the module has seen nothing yet."""
        if not self.captures:
            way = "convert(model, chip, config=Config(data=samples)), or call it once"
            raise ModelError("converted module", "it has seen no inputs yet", "samples to calibrate on", try_=[way])
        return next(iter(self.captures.values()))

    def canonical(self, module: nn.Module, which: Capture | None = None) -> Graph:
        """The captured graph with the module's present weights; layers left out are the host's.

        Norms begin with factors of 1 and terms of 0, which a graph leaves out: here they are a hair away, so that the
        network is the same before and after training.
        """
        which = which or self.first
        state = {name: unlike_neutral(value) for name, value in held_state(module).items()}
        return self._hosted(which.graph(state), which, module)

    def graph(self, module: nn.Module, which: Capture | None = None) -> Graph:
        """The same as this chip computes it."""
        return self._for_chip(self.canonical(module, which))

    def _for_chip(self, canonical: Graph) -> Graph:
        return verify(adapt.run(given.run(canonical, self.chip), self.chip))

    def _hosted(self, graph: Graph, which: Capture, module: nn.Module) -> Graph:
        if not self.left_out:
            return graph
        signed, source = marked(which, module)
        home: dict[str, str] = {}
        for node in signed.nodes:
            if is_weight_layer(signed, node):
                found = source(signed.constants[node.inputs[1]], True)
                home.update((node.name, n.rpartition(".")[0]) for n in found or ())
        return graph.with_nodes(offloaded(graph, n) if home.get(n.name) in self.left_out else n for n in graph.nodes)

    # numbers

    def calibrate(self, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Make the plan, unless a checkpoint brought one, and every layer's setting, from these inputs."""
        which = self.captured(module, args, kwargs)
        tensors = tensors_of(args, kwargs)
        self.calibration = {
            n: evenly(a, SAMPLES) for n, a in arrays_of(which.graph(module.state_dict()), tensors).items()
        }
        if self.plan is None:
            self.plan, self.factors = self._planned(module, which), norm_factors(module)
        self.settle(module)

    def _planned(self, module: nn.Module, which: Capture) -> QuantPlan:
        """The plan of the network with the module's present weights."""
        # weights move in training: steps from their codes would go stale
        effects = self.physics.after(math.sqrt(self.times[0] * self.times[1]))
        nearest = ptq.Choices(rounding="nearest", ranges="cells", effects=effects)
        given: dict[str, Any] = {"data": self.calibration, "seed": self.config.seed, "choices": nearest}
        plan = ptq.plan(self.graph(module, which), self.chip, **given)
        most = self.chip.macro.bias_rows  # biases move too: a row more than calibration needs, which is taken if used
        layers = {n: replace(p, bias_rows=p.bias_rows and min(p.bias_rows + 1, most)) for n, p in plan.layers.items()}
        return replace(plan, layers=layers)

    def settle(self, module: nn.Module) -> None:
        """How every layer lies on the chip, from the plan."""
        assert self.plan is not None
        signed, source = marked(self.first, module)
        canonical = self.canonical(module)
        wtm = self.chip.macro.readout.kind == "wtm2101"  # gains tie steps to outputs there
        self.columns = {}  # how often layers are held is not a matter of steps
        layout = layout_of(
            self._for_chip(canonical), canonical, signed, source, self.chip, self.plan, module,
            copies=self._copies(module), factors={} if wtm else self.factors,
        )  # fmt: skip
        missing = [n for n in layout.unreached if n.rpartition(".")[0] not in self.left_out]
        if missing and not self.physics.ideal:
            got = f"{missing[0]}, whose weights reach the arrays in another form than the module has them"
            ways = _ways_out(module, missing[0].rpartition(".")[0])
            raise ConfigError("Config.physics", got, "layers that the effects can reach in training", try_=ways)
        self.shared.settings.clear()
        self.shared.settings.update(layout.settings)
        self.columns, self.ready, self.made = layout.columns, True, None

    def _copies(self, module: nn.Module) -> dict[str, int]:
        """Times the program holds each layer; their errors are their own, so an ideal chip has no use for it."""
        if self.physics.ideal:
            return {}
        return copies_of(self.quantized(module), self.chip, self.config.objective)

    def now(self, module: nn.Module) -> QuantPlan:
        """The plan with the steps of weights that the module's norms have at present."""
        assert self.plan is not None
        octaves = self.chip.capabilities.scales == "power_of_two"
        return followed_plan(self.plan, self.columns, self.factors, norm_factors(module), octaves=octaves)

    def kept(self) -> str:
        """The plan, and the factors of norms that it was made for, as text; "" where there is no plan yet."""
        if self.plan is None:
            return ""
        factors = {name: values.tolist() for name, values in self.factors.items()}
        return json.dumps({"plan": plan_to_json(self.plan), "factors": factors})

    def take(self, text: str) -> None:
        """The plan of a checkpoint, as `kept` writes it; settings follow at the next call.  ConfigError for others."""
        try:
            given: dict[str, Any] = json.loads(text)
            plan, factors = given["plan"], {name: torch.tensor(values) for name, values in given["factors"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            need = "a plan with factors of norms, as this version's converted modules save them"
            raise ConfigError("checkpoint", str(error), need) from error
        self.plan, self.factors = plan_from_json(plan), factors
        self.ready, self.made = False, None

    def quantized(self, module: nn.Module, which: Capture | None = None) -> Graph:
        """The quantized graph with the module's present weights."""
        which = which or self.first
        held = (*module.parameters(), *module.buffers())
        key = (id(which), tuple((t.data_ptr(), t._version) for t in held))
        if self.made is None or self.made[0] != key:
            assert self.plan is not None
            graph = self.graph(module, which)
            if any(is_weight_layer(graph, n) and n.name not in self.plan.layers for n in graph.nodes):
                got = "a network with other layers than the plan has, from inputs of another shape"
                raise ModelError(which.name, got, "inputs shaped as those it was calibrated on")
            self.made = (key, verify(apply_plan(graph, self.chip, plan=self.now(module))))
        return self.made[1]

    def exact(self, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What the module returns in eval: the numbers that the program's integers stand for."""
        which, tensors = self.captured(module, args, kwargs), tensors_of(args, kwargs)
        graph, count = self.quantized(module, which), len(tensors[0])
        given = tensors if count else [t.new_zeros((1, *t.shape[1:])) for t in tensors]  # of no samples there are none
        out = put_back(which, reals(graph, integers(graph, arrays_of(graph, given))))
        device = tensors[0].device
        return pytree.tree_map(lambda t: (t if count else t[:0]).to(device), out)

    # physics

    def step(self) -> None:
        """Draw the chip instance and the time of one training step."""
        if self.physics.ideal:
            return
        low, high = self.times
        share = float(torch.rand(()))
        time = low if low == high else math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        instance = int(torch.randint(0, 1 << 16, ()))
        self.shared.now = Field(self.chip, self.physics.after(time), self.config.seed, instance)


def unlike_neutral(value: torch.Tensor) -> torch.Tensor:
    """The same tensor, or one a hair away where it is all ones or all zeros."""
    if not value.is_floating_point() or value.numel() == 0:
        return value
    first = value.reshape(-1)[0]
    return value + HAIR if float(first) in (0.0, 1.0) and bool((value == first).all()) else value


def _ways_out(module: nn.Module, layer: str) -> list[str]:
    """What to do about weights that are computed from parameters."""
    formed = next((n for n, m in module.named_modules() if is_parametrized(m)), None)
    if formed is not None:
        return [f"torch.nn.utils.parametrize.remove_parametrizations(model.{formed}, 'weight') before convert"]
    return [f"filter=lambda name, layer: name != {layer!r}" if layer else "Config(physics='ideal')"]


def _times(given: Any) -> tuple[float, float]:
    """(earliest, latest) second after programming."""
    words = [given] if isinstance(given, str | int | float) else list(given)
    seconds = [parse_time(w, where="Config.time") for w in words]
    if len(seconds) not in (1, 2) or (len(seconds) == 2 and not 0 < seconds[0] <= seconds[1]):
        raise ConfigError("Config.time", str(given), "a time, or an earliest above 0 and a latest one")
    return seconds[0], seconds[-1]
