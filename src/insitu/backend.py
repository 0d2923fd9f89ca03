"""ONNX's own conformance suite on the whole line: `python -m insitu.backend --json [--group node]`.

Every model is lowered, compiled for the conformance chip (no real chip: exact fp32 macros and vector unit), checked,
and run by the functional simulator; what the interpreter says of each value has to be equal.  An operator without a
lowering is one HOST command; no model is ever handed to ONNX Runtime as a whole.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from onnx.backend.base import Backend, BackendRep

from insitu.arch.load import load_chip
from insitu.base.errors import InsituError
from insitu.compiler.pipeline import compile_graph
from insitu.frontend.general import General, import_general
from insitu.graph.interpret import interpret
from insitu.graph.ops.float import needed
from insitu.isa.check import check_program
from insitu.isa.program import Program
from insitu.sim.functional import load, run

Array = npt.NDArray[Any]
CHIP = "conformance-fp32"
GROUPS = ("node", "expanded", "converted", "operator", "simple", "real")
KINDS = {"converted": "pytorch-converted", "operator": "pytorch-operator", "simple": "simple", "real": "real"}
MOST_CHECKED = 1 << 24  # elements of a program's constants up to which the interpreter runs beside the simulator


class Exactness(NamedTuple):
    """How many values interpreter and simulator agree on, and how many are the host's."""

    checked: int
    mismatches: int
    first: str
    excluded: int


@dataclass
class InsituRep(BackendRep):
    """A model that is lowered and compiled for the sizes of each call's inputs; what the last call did is kept."""

    model: onnx.ModelProto
    check: bool = True
    general: General | None = None
    program: Program | None = None
    exactness: Exactness | None = None
    commands: Mapping[str, int] = field(default_factory=dict[str, int])

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs for inputs in the order of the model, or by name."""
        del kwargs
        given = _named(self.model, inputs)
        self.general = general = import_general(self.model, given)
        self.program = program = compile_graph(general.graph, load_chip(CHIP))
        check_program(program)
        self.commands = Counter(c.op for s in program.sections for c in s.code)
        fed = {value: _sample(given[name]) for name, value in general.inputs.items()}
        found, self.exactness = execute(general, program, fed, check=self.check)
        by_name = dict(general.outputs)
        names = [o.name for o in self.model.graph.output]
        return tuple(general.known[n] if n in general.known else found[by_name[n]][0] for n in names)


class InsituBackend(Backend):
    """Insitu as a backend of ONNX."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> InsituRep:
        """A model to run; it is compiled when its inputs are there, since they decide its sizes."""
        del device, kwargs
        return InsituRep(model)

    @classmethod
    def run_model(cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        """The outputs of a model."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Only the simulated chip on a CPU."""
        return device == "CPU"


prepare, run_model, supports_device = InsituBackend.prepare, InsituBackend.run_model, InsituBackend.supports_device


def _named(model: onnx.ModelProto, inputs: Any) -> dict[str, Any]:
    if isinstance(inputs, Mapping):
        return {str(n): plain(v) for n, v in inputs.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    filled = {t.name for t in model.graph.initializer}
    free = [v.name for v in model.graph.input if v.name not in filled]
    every = [v.name for v in model.graph.input]
    values = list(inputs) if isinstance(inputs, Sequence) and not isinstance(inputs, np.ndarray) else [inputs]
    return {n: plain(v) for n, v in zip(free if len(values) <= len(free) else every, values, strict=False)}


def plain(value: Any) -> Any:
    """A test's value as an array, or what the host takes (lists, text)."""
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _sample(value: Any) -> Any:
    """With a leading sample axis."""
    return value[None] if isinstance(value, np.ndarray) else [value]


def execute(
    general: General, program: Program, inputs: Mapping[str, Any], *, check: bool
) -> tuple[dict[str, Any], Exactness]:
    """The program's outputs, and how they and every value on the way compare with the interpreter's."""
    seen: dict[str, Array] = {}
    small = sum(c.size for c in general.graph.constants.values()) <= MOST_CHECKED
    observe = (lambda n, a: seen.__setitem__(n, a.copy())) if check and small else None
    found = run(load(program), inputs, observe=observe)
    excluded = int(program.meta.get("excluded_values", 0))
    if not check or not small:
        return found, Exactness(0, 0, "", excluded)
    wanted: dict[str, Any] = {}
    makers = {v: n for n in general.graph.nodes for v in n.outputs}
    hosted = {v for n in general.graph.nodes if n.op == "Host" for v in n.outputs}
    interpret(general.graph, inputs, observe=lambda n, a: wanted.__setitem__(n, a))
    checked = mismatches = 0
    first = ""
    for name, got in seen.items():
        if name not in wanted or name in hosted:
            continue
        mask = needed(makers[name], {**inputs, **wanted}) if name in makers else None
        if mask is not None and not mask.all():
            continue  # of a branch not taken
        bad = ~_equal(np.asarray(wanted[name], got.dtype), got)
        checked, mismatches = checked + bad.size, mismatches + int(bad.sum())
        first = first or (name if bad.any() else "")
    return found, Exactness(checked, mismatches, first, excluded)


def _equal(a: Array, b: Array) -> Array:
    same = np.broadcast_to(a, b.shape) == b
    return same | ((a != a) & (b != b)) if b.dtype.kind == "f" else same


# the suite


@dataclass
class Count:
    """What became of the tests of one group."""

    total: int = 0
    passed: int = 0
    compiled: int = 0  # passed, by commands of the chip alone
    folded: int = 0  # passed, and nothing was left to compute but moves
    host: Counter[str] = field(default_factory=Counter[str])  # operator -> passed tests in which the host ran it
    host_only: int = 0  # passed, without any command that computes on the chip
    checked: int = 0
    mismatches: int = 0
    excluded: int = 0
    failures: dict[str, str] = field(default_factory=dict[str, str])

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "total": self.total, "passed": self.passed, "failed": self.total - self.passed, "compiled": self.compiled,
            "folded": self.folded, "with_host": self.passed - self.compiled - self.folded, "host_only": self.host_only,
            "host_operators": dict(self.host.most_common()), "failures": self.failures,
            "bit_exact": {"checked": self.checked, "mismatches": self.mismatches, "excluded_values": self.excluded},
        }  # fmt: skip


def cases(group: str) -> list[Any]:
    """The test cases of a group: those of nodes are made in memory, the others ship with onnx."""
    if group in KINDS:
        from onnx.backend.test.loader import load_model_tests

        return load_model_tests(kind=KINDS[group])
    import warnings

    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    return [t for t in found if ("_expanded" in t.name) == (group == "expanded")]


def samples(case: Any) -> tuple[onnx.ModelProto, Iterator[tuple[list[Any], list[Any]]]]:
    """The model of a test, and its pairs of inputs and outputs."""
    if case.model is not None:
        return case.model, ((list(a), list(b)) for a, b in case.data_sets)
    from pathlib import Path

    folder = Path(case.model_dir or _light(case.url))
    if folder.is_file():
        model = onnx.load(folder)
        return model, iter([_dummy_sample(model, case.model_name, folder)])
    model = onnx.load(folder / "model.onnx")
    return model, _stored_samples(model, sorted(folder.glob("test_data_set*")))


def _dummy_sample(model: onnx.ModelProto, name: str, path: Any) -> tuple[list[Any], list[Any]]:
    """The suite's own inputs for a light model, and the outputs that ship with it."""
    from onnx.backend.test.runner import Runner

    filled = {t.name for t in model.graph.initializer}
    free = [v for v in model.graph.input if v.name not in filled]
    inputs = [Runner.generate_dummy_data(v, seed=0, name=name, random=False) for v in free]
    stem = str(path).removesuffix(".onnx")
    files = [f"{stem}_output_{i}.pb" for i in range(len(model.graph.output))]
    return inputs, [numpy_helper.to_array(onnx.load_tensor(f)) for f in files]


def _light(url: str) -> str:
    """The light models lie beside the suite."""
    from pathlib import Path

    import onnx.backend.test as suite

    return str(Path(str(suite.__file__)).parent / "data" / "light" / url.rsplit("/", 1)[-1])


def _stored_samples(model: onnx.ModelProto, folders: Iterable[Any]) -> Iterator[tuple[list[Any], list[Any]]]:
    filled = {t.name for t in model.graph.initializer}
    ends = [v.type for v in model.graph.input if v.name not in filled], [v.type for v in model.graph.output]
    for folder in folders:
        yield tuple(
            [_read(folder / f"{side}_{i}.pb", kind) for i, kind in enumerate(types)]
            for side, types in zip(("input", "output"), ends, strict=True)
        )  # pyright: ignore[reportReturnType]


def _read(path: Any, kind: onnx.TypeProto) -> Any:
    data = path.read_bytes()
    which = kind.WhichOneof("value")
    if which == "sequence_type":
        return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
    if which == "optional_type":
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
    return numpy_helper.to_array(onnx.TensorProto.FromString(data))


def run_case(case: Any, count: Count) -> None:
    """Run one test and count what became of it."""
    from onnx.backend.test.runner import Runner

    count.total += 1
    rep: InsituRep | None = None
    try:
        model, pairs = samples(case)
        rep = InsituRep(model)
        for inputs, outputs in pairs:
            got = rep.run([plain(v) for v in inputs])
            Runner.assert_similar_outputs([plain(v) for v in outputs], list(got), rtol=case.rtol, atol=case.atol)
    except (InsituError, AssertionError, ValueError, TypeError, IndexError, KeyError, AttributeError, OSError) as error:
        count.failures[case.name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
        return
    _tally(case.name, rep, count)


def _tally(name: str, rep: InsituRep, count: Count) -> None:
    assert rep.general is not None
    exact = rep.exactness or Exactness(0, 0, "", 0)
    count.checked, count.mismatches = count.checked + exact.checked, count.mismatches + exact.mismatches
    count.excluded += exact.excluded
    if exact.mismatches:
        count.failures[name] = f"bit_exact: {exact.mismatches} of {exact.checked} differ, {exact.first} first"
        return
    count.passed += 1
    computing = set(rep.commands) & {
        "V1",
        "V2",
        "SEL",
        "RED",
        "CVT",
        "MMA",
        "MVM",
        "GATHER",
        "SCATTER",
        "Q",
        "DQ",
        "QDYN",
    }
    moving = any(n.op != "Copy" or n.inputs[0] in rep.general.graph.inputs for n in rep.general.graph.nodes)
    if rep.general.host_ops:
        count.host.update(set(rep.general.host_ops))
        count.host_only += not computing
    elif computing or moving:
        count.compiled += 1
    else:
        count.folded += 1


def run_group(group: str, *, only: str = "") -> Count:
    """All tests of a group whose names contain `only`."""
    count = Count()
    for case in cases(group):
        if only in case.name:
            run_case(case, count)
    return count


def main(argv: Sequence[str] | None = None) -> int:
    """Print counts per group."""
    parser = argparse.ArgumentParser(prog="python -m insitu.backend", description="ONNX's conformance suite on Insitu.")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--group", choices=GROUPS, action="append", help="only this group (may be repeated)")
    parser.add_argument("--only", default="", help="only tests whose names contain this")
    options = parser.parse_args(argv)
    import warnings

    warnings.simplefilter("ignore")
    result: dict[str, Any] = {}
    for group in options.group or GROUPS:
        result[group] = run_group(group, only=options.only).to_json()
        if not options.json:
            _print(group, result[group])
    if options.json:
        sys.stdout.write(json.dumps({"chip": CHIP, "onnx": onnx.__version__, "groups": result}, indent=1) + "\n")
    return 0


def _print(group: str, found: Mapping[str, Any]) -> None:
    exact = found["bit_exact"]
    sys.stdout.write(
        f"{group}: {found['passed']} of {found['total']} passed; {found['compiled']} as compiled commands only, "
        f"{found['folded']} known at compile time, {found['with_host']} with host commands; "
        f"bit_exact: {exact['mismatches']} mismatches of {exact['checked']:,}\n"
    )
    for name, why in found["failures"].items():
        sys.stdout.write(f"  {name}: {why}\n")


if __name__ == "__main__":
    raise SystemExit(main())
