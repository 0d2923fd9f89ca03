"""Real networks, quantized by ONNX Runtime, on chips that take their scales and on one that does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from insitu.flow.chain import Options, deploy
from tests.flow.line import chip_of
from tests.flow.qdq_real import FORMS, REAL, answers, quantize, shaped

pytestmark = pytest.mark.slow
SAMPLES = 48
OPTIONS = Options(physics="ideal", instances=1, check=1)


@pytest.mark.parametrize("name", ["kws_dscnn", "ad_autoencoder"])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(map(str, form)))
def test_their_scales_their_answers(name: str, form: Any, shared_data: Path, tmp_path: Path) -> None:
    real = REAL[name](shared_data)
    path = quantize(real, form, tmp_path)
    x = shaped(real)[-SAMPLES:]
    labels = {} if real.y is None else {"y": real.y[-SAMPLES:].astype(np.int64)}
    deployment = deploy(path, chip_of("exact"), data={"x": x, **labels}, options=OPTIONS)
    result = deployment.result
    assert result.calibration == "model"
    assert result.bit_exact is not None
    assert result.bit_exact.mismatches == 0
    assert result.onnx_agreement is not None
    assert result.onnx_agreement.equal_fraction >= 0.9999
    assert result.onnx_agreement.max_difference <= 1
    if form[0] == "QDQ":  # ONNX Runtime's QLinear kernels saturate pairs of products on some machines
        _close(next(iter(deployment.run(x).values())), answers(path, x))


def _close(got: Any, wanted: Any) -> None:
    """Outputs of a whole network, in which a code that rounds otherwise may travel on."""
    error = np.sqrt(np.mean((got.reshape(wanted.shape) - wanted) ** 2) / np.mean(wanted**2))
    assert error < 0.02


def test_re_derived_where_the_chip_only_shifts(shared_data: Path, tmp_path: Path) -> None:
    real = REAL["kws_dscnn"](shared_data)
    path = quantize(real, FORMS[0], tmp_path)
    assert real.y is not None
    data = {"x": shaped(real)[-SAMPLES:], "y": real.y[-SAMPLES:].astype(np.int64)}
    result = deploy(path, chip_of("wtm2101"), data=data, options=OPTIONS).result
    assert result.onnx_agreement is None
    assert result.extra["scales"]["source"].startswith("re-derived")
    assert (result.value("sqnr_db") or 0) > 20
