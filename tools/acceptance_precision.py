"""Random layers under random precision transforms on every readout; prints what was compared and what differed.

Compared: graph interpreter with functional simulator (all values of several samples), and with the instruction set's
executable reference (one sample).  One JSON object; cases that a chip refuses or cannot hold are counted, not compared.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from insitu.algo import ptq
from insitu.arch.load import load_chip
from insitu.arch.spec import Chip
from insitu.base.errors import ConfigError, InfeasibleError
from insitu.compiler.pipeline import compile_graph
from insitu.compiler.plan import Precision, QuantPlan
from insitu.compiler.precision import apply_plan
from insitu.flow.chain import capture
from insitu.flow.check import compare, reference
from insitu.flow.precision import read_precision, requested
from insitu.frontend.onnx import import_model
from insitu.graph.graph import Graph
from insitu.graph.verify import verify
from insitu.isa import semantics
from insitu.isa.check import check_program
from insitu.runtime.session import Session

ADC = ("parametric-reram-adc8", ("array.rows=48", "array.cols=16", "macro.columns_per_adc=64"))
CHIPS = {
    "exact": ("dcim-28nm", ("array.rows=48", "array.cols=16")),
    "exact-unsigned": ("dcim-28nm", ("array.rows=48", "array.cols=16", "macro.input.signed=false")),
    "adc-differential": ADC,
    "adc-unsigned-rows": (ADC[0], (*ADC[1], "macro.input.signed=false")),
    "adc-unipolar": (ADC[0], (*ADC[1], "macro.readout.signed=false")),
    "wtm2101": ("wtm2101", ("array.rows=64", "array.cols=192", "macro.bias_rows=64")),
}
UNSIGNED = ("exact-unsigned", "adc-unsigned-rows", "wtm2101")


def layer(rng: np.random.Generator) -> Graph:
    """A random MatMul (some taller than an array) or Conv (plain, grouped or depthwise)."""
    op = str(rng.choice(["MatMul", "tall", "Conv", "grouped", "depthwise"]))
    if op in ("MatMul", "tall"):
        rows, cols = int(rng.integers(50, 90)) if op == "tall" else int(rng.integers(3, 20)), int(rng.integers(2, 20))
        shape, attrs, x = (rows, cols), {}, [1, rows]
    else:
        groups = {"Conv": 1, "grouped": 2, "depthwise": 4}[op]
        channels = groups if op == "depthwise" else 4
        shape = (groups * int(rng.integers(1, 4)), channels // groups, 3, int(rng.integers(1, 4)))
        x, attrs = [1, channels, 6, 5], {"group": groups, "pads": [1, 0, 1, 0]}
    w = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    b = rng.standard_normal(shape[1] if len(shape) == 2 else shape[0])
    nodes = [helper.make_node("Gemm" if len(shape) == 2 else "Conv", ["x", "w", "b"], ["y"], name="layer", **attrs)]
    if rng.random() < 0.5:
        nodes.append(helper.make_node("Relu", ["y"], ["z"], name="relu"))
    out = nodes[-1].output[0]
    tensors = [numpy_helper.from_array(a.astype(np.float32), n) for a, n in ((w, "w"), (b, "b"))]
    graph = helper.make_graph(
        nodes, "layer", [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info(out, TensorProto.FLOAT, None)], tensors,
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return capture(import_model(proto, name="layer"))


def transforms(rng: np.random.Generator, chip: str) -> tuple[Precision, int]:
    """(transforms, width of the input's codes)."""
    analog, unsigned = not chip.startswith("exact"), chip in UNSIGNED

    def some(share: float, *values: Any) -> Any:
        return values[int(rng.integers(len(values)))] if rng.random() < share else None

    wide = chip != "wtm2101" and rng.random() < 0.3
    wanted = Precision(
        input_shift=0 if wide else some(0.5, 1) or 0,
        weight_shift=some(0.4, 1) or 0,
        copies=some(0.6, 2, 4) or 1,
        apart=bool(rng.random() < 0.6),
        reads=(some(0.4, 2, 3, 8) or 0) if analog else 0,
        signed=(some(0.5, "pn", "shift") or "") if unsigned and not wide else "",
        finer=(some(0.4, (1,), (-1,), (0, 1), (2, 0)) or ()) if analog else (),
        finer_columns=(some(0.4, (0, 2), (1, -1), (2, 0, 1)) or ()) if chip.startswith("adc") else (),
    )
    return wanted, int(rng.choice([9, 12, 15])) if wide else 7


def planned(graph: Graph, chip: Chip, wanted: Precision, bits: int, real: dict[str, Any]) -> QuantPlan:
    """A plan that leaves the cells and drivers room for the shifts."""
    plan = ptq.plan(graph, chip, data=real, seed=0)
    plan = requested(plan, graph, chip, wanted=read_precision({"*": {"activation_bits": bits}}))
    room = plan.with_output_scale(graph.outputs[0], 2.0) if chip.macro.readout.kind == "wtm2101" else plan
    layers = {
        n: replace(p, weight_scale=tuple(2.2 * s for s in p.weight_scale), precision=wanted)
        for n, p in room.layers.items()
    }
    return replace(room, layers=layers)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng, used, chips = np.random.default_rng(given.seed), Counter[str](), Counter[str]()
    layers = values = mismatches = refused = 0
    for number in range(given.cases):
        name = list(CHIPS)[number % len(CHIPS)]
        chip, graph = load_chip(CHIPS[name][0], overrides=CHIPS[name][1]), layer(rng)
        wanted, bits = transforms(rng, name)
        real = {"x": rng.standard_normal((8, *graph.type("x").sizes())).astype(np.float32)}
        try:
            made = verify(apply_plan(graph, chip, plan=planned(graph, chip, wanted, bits, real)))
            program = compile_graph(made, chip)
        except (ConfigError, InfeasibleError):
            refused += 1
            continue
        check_program(program)
        session = Session(program, graph=made)
        codes = session.codes({n: 1.5 * a for n, a in real.items()})
        exact = compare(session, codes)
        one = {n: c[0] for n, c in codes.items()}
        seen = semantics.run(program, one, observe=[n.output for n in made.nodes])
        wants = reference(made, {n: c[None] for n, c in one.items()})
        mismatches += exact.mismatches + sum(int((seen[n.output] != wants[n.output][0]).sum()) for n in made.nodes)
        values += exact.checked_values + sum(int(wants[n.output].size) for n in made.nodes)
        layers += len(made.nodes)
        chips[name] += 1
        asked = {f: v for f, v in vars(wanted).items() if v != getattr(Precision(), f) and f != "apart"}
        used.update(
            [*asked, *(["apart"] if wanted.apart and wanted.copies > 1 else []), *(["wide"] if bits > 8 else [])]
        )
    found = {"transforms": len(used), "layers": layers, "values": values, "mismatches": mismatches, "refused": refused}
    print(json.dumps(found | {"by_transform": dict(sorted(used.items())), "by_chip": dict(chips)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
