"""PyTorch modules and exported programs -> Graph, by way of torch's own ONNX exporter (extra `torch`).

The exporter folds what is constant (batch norms in eval) and keeps the names of parameters; from there on a module and
an ONNX file are the same thing.  Files of `torch.export.save` (.pt2) may hold pickled objects and expressions that
torch evaluates; those are refused before torch sees them.
"""

from __future__ import annotations

import inspect
import io
import json
import logging
import math
import re
import warnings
import zipfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.errors import InsituError, ModelError, UsageError
from insitu.frontend.inputs import Shapes
from insitu.frontend.onnx import import_model
from insitu.graph.export import float_session
from insitu.graph.graph import Graph

INSTALL = 'pip install "insitu[torch]"'
SUFFIX = ".pt2"
FAR = 1e-3  # of the power of an output: float16 modules come to 1e-6
LARGEST_JSON = 1 << 28  # bytes of a program's description
SIZE_WORDS = (  # what torch writes into the size expressions of a program
    "Symbol|Integer|Rational|Add|Mul|Pow|Max|Min|Mod|FloorDiv|PythonMod|CleanDiv|CeilToInt|Eq|Ne|Le|Lt|Ge|Gt|Equality|"
    "Unequality|LessThan|StrictLessThan|GreaterThan|StrictGreaterThan|And|Or|Not|positive|nonnegative|integer|True|"
    "False|oo|int_oo|[suz][a-z]*[0-9]+"
)
EXPRESSION = re.compile(rf"(?:\b(?:{SIZE_WORDS})\b|'\w{{1,40}}'|\b[0-9]+\b|[\s+*/(),<>=&|~-])*")


def import_torch(
    model: Any, example: Sequence[npt.NDArray[Any]] = (), *, name: str = "", shapes: Shapes | None = None
) -> Graph:
    """The captured graph of an `nn.Module` in eval, or of an ExportedProgram.

    `example` holds one array per input of the module, samples along the first axis; more than one sample leaves the
    batch open.  A module is taken as it computes in eval; it is not changed.  Raises ModelError with torch's reason
    where it cannot be exported, or where what torch wrote gives other numbers; UsageError where torch is not there.
    """
    torch = needs_torch()
    label = name or type(model).__name__
    whole = isinstance(model, torch.export.ExportedProgram)
    with _quiet():
        program = model if whole else _exported(model, example, label)
        proto = _onnx(program, label)
    graph = import_model(proto, where=label, name=label, shapes=shapes)
    if not whole:
        with _quiet():
            check_numbers(graph, model, [torch.from_numpy(np.ascontiguousarray(a[:1])) for a in example], {}, label)
    return graph


def check_numbers(
    graph: Graph, module: Any, args: Sequence[Any], kwargs: Mapping[str, Any], label: str, *,
    state: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """ModelError where a network is not what its module computes in eval for the first sample.

    torch's exporter gets a few modules wrong without a word, an LSTM with proj_size for one, and a module that draws
    random numbers in eval is no network.  `state` holds parameters and buffers to compute with instead of the module's.
    """
    import torch
    from torch.utils import _pytree as pytree

    def one(value: Any) -> Any:
        return value[:1] if isinstance(value, torch.Tensor) else value

    own, named = tuple(one(a) for a in args), {k: one(v) for k, v in kwargs.items()}
    given = [_array(t) for t in pytree.tree_leaves((own, named)) if isinstance(t, torch.Tensor)]
    if len(given) != len(graph.inputs) or graph.symbols() or graph.states:
        return

    def outputs(*call: Any) -> Any:
        return module(*call[0], **call[1]) if state is None else torch.func.functional_call(module, dict(state), *call)

    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            wanted = [_array(t) for t in pytree.tree_leaves(outputs(own, named)) if isinstance(t, torch.Tensor)]
    except Exception:  # noqa: BLE001  the module's own code, which may want more than one sample
        return
    finally:
        module.train(training)
    inputs = {n: a.reshape(1, *graph.type(n).sizes()) for n, a in zip(graph.inputs, given, strict=True)}
    found = float_session(graph)(inputs)
    if len(wanted) != len(graph.outputs):
        return
    for reference, array in zip(wanted, (found[n] for n in graph.outputs), strict=True):
        if reference.dtype.kind != "f" or reference.size != array.size:
            continue
        power = float(np.sum(reference.astype(np.float64) ** 2))
        error = float(np.sum((reference.reshape(-1).astype(np.float64) - array.reshape(-1)) ** 2))
        if math.isfinite(power) and error > FAR * power:
            got = f"torch.onnx.export wrote a network that errs by {error / max(power, 1e-30):.2g} of its power"
            raise ModelError(label, got, "a module that gives the same numbers each time, of layers torch can write")


def _array(tensor: Any) -> npt.NDArray[Any]:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def export_module(module: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The exported program of a module in eval for example tensors, with an open batch where it allows that."""
    torch = needs_torch()

    def doubled(value: Any) -> Any:
        return torch.cat([value[:1], value[:1]]).detach() if isinstance(value, torch.Tensor) else value

    from torch.utils import _pytree as pytree

    rows = pytree.tree_map(doubled, (tuple(args), dict(kwargs)))
    batch = pytree.tree_map(lambda v: {0: torch.export.Dim("batch")} if isinstance(v, torch.Tensor) else None, rows)
    label = type(module).__name__
    with _quiet():
        return _in_eval(module, label, rows[0], rows[1], _dynamic(module, batch))


def _dynamic(module: Any, batch: Any) -> Any:
    """What may vary, by argument name, as torch.export takes it for positional and keyword arguments together."""
    names = [p.name for p in inspect.signature(module.forward).parameters.values()]
    return {**dict(zip(names, batch[0], strict=False)), **batch[1]}


def _in_eval(module: Any, label: str, args: Any, kwargs: Any, dynamic: Any) -> Any:
    import torch

    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            try:
                return torch.export.export(module, args, kwargs, dynamic_shapes=dynamic)
            except Exception:  # noqa: BLE001  a module written for one batch size: whatever torch raises
                one = [v[:1] if isinstance(v, torch.Tensor) else v for v in args]
                few = {k: v[:1] if isinstance(v, torch.Tensor) else v for k, v in kwargs.items()}
                return torch.export.export(module, tuple(one), few)
    except Exception as error:  # noqa: BLE001  the module's own code runs here
        raise ModelError(
            label, f"torch.export fails: {_first_line(error)}", "a module that torch.export takes"
        ) from None
    finally:
        module.train(training)


def export_onnx_form(program: Any, label: str) -> Any:
    """The ONNX form of an exported program in which every parameter stands under its own name."""
    with _quiet():
        return _onnx(program, label, optimize=False)


def is_torch_model(model: object) -> bool:
    """Whether something is a module or an exported program, without importing torch for it."""
    import sys

    torch = sys.modules.get("torch")
    if torch is None:
        return False
    return isinstance(model, torch.nn.Module | torch.export.ExportedProgram)


def import_pt2(path: str | Path, *, shapes: Shapes | None = None) -> Graph:
    """The network of a file of `torch.export.save`; ModelError for a broken one, or one that holds pickled objects."""
    path = Path(path)
    data = _checked(path)
    torch = needs_torch()
    with _quiet():
        try:
            program = torch.export.load(io.BytesIO(data))
        except Exception as error:  # noqa: BLE001  torch raises whatever a broken archive makes it
            raise ModelError(str(path), f"torch cannot read it ({_first_line(error)})", _NEED) from None
    return import_torch(program, name=path.stem, shapes=shapes)


_NEED = "a file that torch.export.save wrote"


def needs_torch() -> Any:
    """The torch module; UsageError where it, or what its exporter needs, is not installed."""
    try:
        import onnxscript  # noqa: F401  # pyright: ignore[reportUnusedImport]
        import torch
    except ImportError as error:
        raise UsageError("PyTorch models", f"{error.name} is not installed", INSTALL, try_=[INSTALL]) from None
    return torch


@contextmanager
def _quiet() -> Generator[None]:
    """Without the exporter's notes on its own registry; its errors reach the caller as exceptions."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _exported(module: Any, example: Sequence[npt.NDArray[Any]], label: str) -> Any:
    """The exported program of a module in eval: with an open batch where the module allows it, else for one sample."""
    import torch

    if not example:
        raise ModelError(label, "a module without example inputs", "an array for each input", try_=["data=..."])
    arrays = [np.asarray(a) for a in example]
    rows = tuple(torch.from_numpy(np.ascontiguousarray(np.resize(a, (2, *a.shape[1:])))) for a in arrays)
    batch = torch.export.Dim("batch")
    return _in_eval(module, label, rows, {}, tuple({0: batch} for _ in rows))


def _onnx(program: Any, label: str, *, optimize: bool = True) -> Any:
    import torch

    try:
        found = torch.onnx.export(program, dynamo=True, verbose=False, optimize=optimize)
        assert found is not None
        return _outputs_apart(found.model_proto)
    except InsituError:
        raise
    except Exception as error:  # noqa: BLE001  the exporter raises many kinds
        need = "operators that torch.onnx.export knows"
        raise ModelError(label, f"torch.onnx.export fails: {_first_line(error)}", need) from None


def _outputs_apart(proto: Any) -> Any:
    """Every output a value of its own: what a module returns twice, or as it was given, gets a node."""
    import onnx

    graph = proto.graph
    taken = {v.name for v in (*graph.input, *graph.initializer)}
    for number, output in enumerate(graph.output):
        if output.name in taken:
            fresh = f"{output.name}_out{number}"
            graph.node.append(onnx.helper.make_node("Identity", [output.name], [fresh], name=fresh))
            output.name = fresh
        taken.add(output.name)
    return proto


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:160]


# files: nothing in them is executed


def _checked(path: Path) -> bytes:
    """The file's bytes, after every part that torch would unpickle or evaluate has been ruled out."""
    try:
        data = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_parts(archive, path)
    except OSError as error:
        raise ModelError(str(path), (error.strerror or str(error)).lower(), _NEED) from None
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, ValueError, NotImplementedError, KeyError) as error:
        raise ModelError(str(path), f"not a readable archive ({_first_line(error)})", _NEED) from None
    return data


def _check_parts(archive: zipfile.ZipFile, path: Path) -> None:
    for info in archive.infolist():
        inner = info.filename.partition("/")[2]
        if inner.endswith(".json"):
            if info.file_size > LARGEST_JSON:
                raise ModelError(f"{path}: {inner}", f"{info.file_size:,} bytes", f"at most {LARGEST_JSON:,}")
            _check_json(json.loads(archive.read(info)), f"{path}: {inner}")
        elif inner.startswith("data/sample_inputs/"):
            _check_sample(archive.read(info), f"{path}: {inner}")
        elif inner.startswith(("data/constants/custom_obj", "data/constants/opaque_obj")):
            raise ModelError(f"{path}: {inner}", "a pickled object", "a program of tensors only")
        elif inner.startswith(("data/aotinductor", "extra/")):
            raise ModelError(f"{path}: {inner}", "compiled code or extra files", "a program that torch.export wrote")


def _check_json(value: Any, where: str) -> None:
    """No pickled tensors, and no expression but sums and products of named sizes."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if item.get("use_pickle"):
                raise ModelError(where, "pickled tensors", "plain tensors; save a program without tensor subclasses")
            text = item.get("expr_str")
            if isinstance(text, str) and not EXPRESSION.fullmatch(text):
                raise ModelError(where, f"the size {text[:60]!r}", "an expression of named sizes")
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def _check_sample(data: bytes, where: str) -> None:
    """Sample inputs are pickled tensors: only what torch's restricted unpickler takes is let through."""
    torch = needs_torch()
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except Exception as error:  # noqa: BLE001  whatever a hostile pickle makes it raise
        raise ModelError(where, f"not plain tensors ({_first_line(error)})", "sample inputs of tensors only") from None
