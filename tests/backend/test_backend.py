"""ONNX's conformance suite: a few tests of every kind here, all of it where long tests run."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.backend.base import BackendRep

from insitu import backend
from insitu.isa.container import program_bytes, program_from_bytes
from insitu.isa.semantics import run as run_reference

PART = (
    "test_add_bcast", "test_attention_3d_gqa", "test_averagepool_2d_ceil", "test_basic_conv_with_padding",
    "test_clip_example", "test_convtranspose_dilations", "test_cumsum_2d_axis_0", "test_depthtospace_example",
    "test_einsum_batch_matmul", "test_erf", "test_gather_elements_1", "test_gemm_all_attributes", "test_gru_defaults",
    "test_layer_normalization_2d_axis1", "test_lstm_defaults", "test_maxpool_with_argmax_2d_precomputed_pads",
    "test_mod_mixed_sign_int64", "test_nllloss_NCd1", "test_pow_types_float32_int64",
    "test_reduce_sum_keepdims_random", "test_resize_upsample_scales_cubic", "test_slice_neg", "test_softmax_axis_1",
    "test_split_equal_parts_2d", "test_transpose_all_permutations_3", "test_where_example",
)  # fmt: skip


@pytest.fixture(scope="module")
def nodes() -> dict[str, object]:
    """All but the tests of LpPool: onnx takes 20 s to make them, one window at a time."""
    sys.modules.setdefault("onnx.backend.test.case.node.lppool", ModuleType("lppool"))
    return {case.name: case for case in backend.cases("node")}


@pytest.mark.parametrize("name", PART)
def test_nodes_run_as_compiled_commands_alone(nodes, name: str) -> None:
    count = backend.Count()
    backend.run_case(nodes[name], count)
    assert (count.failures, count.compiled, count.mismatches) == ({}, 1, 0)
    assert count.checked > 0


@pytest.mark.parametrize(
    "name", ["test_top_k", "test_nonzero_example", "test_string_concat", "test_sequence_insert_at_back", "test_loop11"]
)
def test_what_has_no_lowering_is_one_host_command(nodes, name: str) -> None:
    count = backend.Count()
    backend.run_case(nodes[name], count)
    assert (count.failures, count.passed, count.compiled) == ({}, 1, 0)
    assert sum(count.host.values()) == 1


def chain(*nodes: onnx.NodeProto, shape: tuple[int, ...] = (2, 6)) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    k = helper.make_tensor("k", TensorProto.INT64, [1], [3])
    graph = helper.make_graph(list(nodes), "chain", [x], [y], initializer=[k])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


TOP = chain(
    helper.make_node("Sigmoid", ["x"], ["a"]),
    helper.make_node("TopK", ["a", "k"], ["b", "i"]),
    helper.make_node("ReduceSum", ["b"], ["y"]),
)
X = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)


def test_one_operator_goes_to_the_host_and_the_rest_stays_on_the_chip() -> None:
    rep = backend.prepare(TOP)
    [y] = rep.run([X])
    wanted = np.sort(1 / (1 + np.exp(-X)), axis=1)[:, ::-1][:, :3].sum()
    assert np.allclose(y, wanted, rtol=1e-6)
    assert isinstance(rep, BackendRep)
    assert rep.commands["HOST"] == 1
    assert {"V1", "RED"} <= set(rep.commands)
    assert rep.program is not None
    assert rep.program.meta["host_ops"] == {"TopK": 1}
    assert rep.exactness is not None
    assert (rep.exactness.mismatches, rep.exactness.excluded) == (0, 12)


def test_a_program_with_a_host_command_survives_its_file_and_means_the_same_by_reference() -> None:
    rep = backend.prepare(TOP)
    [y] = rep.run([X])
    assert rep.program is not None
    again = program_from_bytes(program_bytes(rep.program))
    assert program_bytes(again) == program_bytes(rep.program)
    found = run_reference(again, {"x": X})
    assert np.array_equal(found["y"].astype(np.float32), y)


def test_the_reference_semantics_give_the_same_bits(nodes) -> None:
    for name in (
        "test_softmax_axis_1",
        "test_basic_conv_with_padding",
        "test_gather_elements_1",
        "test_cast_DOUBLE_to_FLOAT16",
    ):
        model, pairs = backend.samples(nodes[name])
        for inputs, _ in pairs:
            rep = backend.prepare(model)
            got = rep.run([backend.plain(v) for v in inputs])
            assert rep.program is not None
            assert rep.general is not None
            named = dict(zip((v.name for v in model.graph.input), inputs, strict=True))
            fed = {value: backend.plain(named[n]) for n, value in rep.general.inputs.items()}
            found = run_reference(rep.program, fed)
            for (_, value), array in zip(rep.general.outputs, got, strict=True):
                assert np.array_equal(found[value].astype(array.dtype), array, equal_nan=array.dtype.kind == "f"), name


def test_operators_nobody_runs_are_named() -> None:
    count = backend.run_group("simple", only="test_gradient_of_add_and_mul")
    assert "Gradient" in count.failures["test_gradient_of_add_and_mul"]


def test_the_command_prints_json(capsys) -> None:
    assert backend.main(["--json", "--group", "operator", "--only", "test_operator_add_broadcast"]) == 0
    found = json.loads(capsys.readouterr().out)["groups"]["operator"]
    assert found["passed"] == found["compiled"] == found["total"] > 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("group", "passed", "compiled"),
    [
        ("node", 1350, 970),
        ("expanded", 470, 375),
        ("converted", 82, 82),
        ("operator", 35, 35),
        ("simple", 20, 7),
        ("real", 9, 9),
    ],
)
def test_the_suite(group: str, passed: int, compiled: int) -> None:
    count = backend.run_group(group)
    assert count.mismatches == 0
    assert count.passed >= passed, count.failures
    assert count.compiled >= compiled
