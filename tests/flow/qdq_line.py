"""A QDQ model through the whole line, and what must hold of it: integers of the simulator and of ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from insitu.arch.spec import Chip
from insitu.compiler import given
from insitu.flow.agreement import agreement
from insitu.flow.chain import build, capture
from insitu.flow.check import compare
from insitu.frontend.onnx import import_model
from insitu.report.result import BitExact, OnnxAgreement
from insitu.runtime.session import Session

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Run:
    """What one model on one chip showed."""

    exact: BitExact
    agreed: OnnxAgreement | None
    values: int  # of the operators compared with ONNX Runtime
    session: Session


def run(proto: onnx.ModelProto, chip: Chip, x: Array, *, samples: int = 3) -> Run:
    """Compile, simulate, compare."""
    captured = given.run(capture(import_model(proto, name="net")), chip)
    rows = {captured.inputs[0]: x.reshape(len(x), *captured.type(captured.inputs[0]).sizes())}
    _, quantized, program = build(captured, chip, calibration=rows)
    session = Session(program, graph=quantized)
    codes = session.codes({n: a[:samples] for n, a in rows.items()})
    agreed = agreement(captured, quantized, codes, samples=samples)
    return Run(compare(session, codes), agreed, _values(captured, quantized, samples), session)


def _values(captured: Any, quantized: Any, samples: int) -> int:
    from insitu.flow.agreement import comparable

    return samples * sum(captured.type(n.output).count() for n in captured.nodes if comparable(captured, quantized, n))
