"""ONNX's own cases of operators: values of all that `load` accepts, and their gradients and captured calls."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import pynn

onnx = pytest.importorskip("onnx", reason="the onnx package is not installed")
import onnx_conformance as conformance  # noqa: E402
from onnx import TensorProto, numpy_helper  # noqa: E402

from pynn.onnx.loader import module_of  # noqa: E402
from pynn.onnx.operators import OPERATORS  # noqa: E402

# Inputs that no gradient is taken for: statistics, limits, sizes.
SETTINGS = {"BatchNormalization": (3, 4), "Resize": (1, 2, 3), "Pad": (2,), "Dropout": (1, 2)}
# Cases at points where there is no derivative, or with inputs whose gradient is refused.
WITHOUT_DERIVATIVE = ("_with_reduction_m", "scatternd_m", "einsum_batch_diagonal", "einsum_inner_prod")
BELOW = {"Cast", "CastLike", "Trilu"}  # that the cases have no floats for, or such that are no numbers


@pytest.fixture(scope="module")
def cases():
    return conformance.all_cases()


def test_all_cases_that_load_accepts_pass(cases):
    report = conformance.run(cases)
    print(f"{len(report.passed)} passed / {report.selected} selected / {report.total} total")
    assert not report.failed, "\n".join(report.failed)
    assert report.selected >= 300
    by_name = {case.name: case for case in cases}
    run = {node.op_type for name in report.passed for node in by_name[name].model.graph.node}
    assert set(OPERATORS) <= run, "operators that no case runs"


def in_float64(case):
    """Return the case's model in float64 with what is no tensor to differentiate as constants, and its inputs."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph, kept, given = model.graph, [], []
    settings = SETTINGS.get(graph.node[0].op_type, ())
    for info, x in zip(graph.input, map(conformance.as_array, case.data_sets[0][0]), strict=True):
        position = list(graph.node[0].input).index(info.name)
        is_float = x.dtype.kind == "f"
        if is_float and not (graph.node[0].op_type == "Resize" and position in settings):
            x = x.astype(np.float64)
            info.type.tensor_type.elem_type = TensorProto.DOUBLE
        if is_float and position not in settings:
            kept.append(info)
            given.append(x)
        else:
            graph.initializer.append(numpy_helper.from_array(x, info.name))
    kept = [onnx.ValueInfoProto.FromString(info.SerializeToString()) for info in kept]
    del graph.input[:]
    graph.input.extend(kept)
    for info in graph.output:
        if info.type.tensor_type.elem_type == TensorProto.FLOAT:
            info.type.tensor_type.elem_type = TensorProto.DOUBLE
    return model, given


def floats(result):
    return [y for y in (result if isinstance(result, tuple) else (result,)) if y.dtype == np.float64]


def slopes(model, inputs, rng):
    """Return the outputs, and the slope along a random direction by differences and by backward (None without one)."""
    tensors = [pynn.Tensor(x, requires_grad=True) for x in inputs]
    outputs = [y for y in floats(model(*tensors)) if y.requires_grad]
    pulls = [rng.normal(size=y.shape) for y in outputs]
    total = sum(((y * p).sum() for y, p in zip(outputs, pulls, strict=True)), start=pynn.tensor(0.0, dtype="f8"))
    if not outputs or not np.isfinite(total.item()):
        return outputs, None, None
    total.backward()
    directions = [rng.normal(size=x.shape) for x in inputs]

    def value(step):
        with pynn.no_grad():
            results = floats(model(*[np.asarray(x + step * d) for x, d in zip(inputs, directions, strict=True)]))
        return sum((y.data * p).sum() for y, p in zip(results, pulls, strict=False))

    slope = (value(1e-6) - value(-1e-6)) / 2e-6
    pairs = zip(tensors, directions, strict=True)
    return outputs, slope, sum((x.grad * d).sum() for x, d in pairs if x.grad is not None)


def test_gradients_and_captured_calls_of_every_operator(cases, rng):
    """Along a random direction, by central differences; captured with the bits of the eager call."""
    checked, captured = Counter(), Counter()
    for case in cases:
        operator = OPERATORS.get(case.model.graph.node[0].op_type)
        if len(case.model.graph.node) != 1 or operator is None or operator.gradient == "none":
            continue
        if any(part in case.name for part in WITHOUT_DERIVATIVE) or conformance.why_excluded(case):
            continue
        name = case.model.graph.node[0].op_type
        if name in BELOW:
            continue
        proto, given = in_float64(case)
        if not given:
            continue
        model = module_of(proto)
        for attempts_left in (2, 1, 0):  # a maximum may change hands between the two points of the difference
            inputs = [x + rng.uniform(1e-3, 2e-3, x.shape) for x in given]  # away from ties and corners
            outputs, slope, expected = slopes(model, inputs, rng)
            if slope is None:  # no gradient, or no number
                break
            # The differences lose half of the digits, and the curvature of 1 / x near 0 some more.
            if abs(slope - expected) <= 1e-4 * max(1, abs(slope)):
                checked[name] += 1
                break
            assert attempts_left, (case.name, slope, expected)
        if operator.gradient == "yes" and min((x.size for x in outputs), default=0):
            with pynn.no_grad():
                step = pynn.capture(model)
                eager = floats(model(*inputs))
                for _ in range(2):
                    for y, again in zip(eager, floats(step(*inputs)), strict=True):
                        np.testing.assert_array_equal(again.data, y.data, err_msg=case.name)
            captured[name] += 1
    with_gradient = {name for name, operator in OPERATORS.items() if operator.gradient != "none"} - BELOW
    always = {name for name, operator in OPERATORS.items() if operator.gradient == "yes"} - BELOW
    assert not with_gradient - set(checked), f"no case checked the gradient of {sorted(with_gradient - set(checked))}"
    assert not always - set(captured), f"no case captured {sorted(always - set(captured))}"


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (onnx.helper.make_node("Cast", ["x"], ["y"], to=TensorProto.DOUBLE), [[1, 1], [1, 1]]),
        (onnx.helper.make_node("CastLike", ["x", "like"], ["y"]), [[1, 1], [1, 1]]),
        (onnx.helper.make_node("Trilu", ["x"], ["y"], upper=0), [[1, 0], [1, 1]]),
    ],
    ids=lambda v: v.op_type if isinstance(v, onnx.NodeProto) else "",
)
def test_gradients_that_no_case_checks(node, expected):
    kind = TensorProto.FLOAT if node.op_type == "Trilu" else TensorProto.DOUBLE
    x = onnx.helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 2])
    y = onnx.helper.make_tensor_value_info("y", kind, [2, 2])
    like = [numpy_helper.from_array(np.zeros(1), "like")] if "like" in node.input else []
    proto = onnx.helper.make_model(onnx.helper.make_graph([node], "test", [x], [y], like))
    tensor = pynn.ones(2, 2, requires_grad=True)
    model = module_of(proto)
    model(tensor).sum().backward()
    assert tensor.grad.tolist() == expected
    if OPERATORS[node.op_type].gradient == "yes":
        assert pynn.capture(model)(np.ones((2, 2), np.float32)).data.tolist() == expected


def test_the_guide_lists_every_operator():
    text = (Path(__file__).parents[1] / "docs" / "onnx.md").read_text()
    for gradient, heading in (("yes", "Differentiable"), ("eager", "Differentiable, not in"), ("none", "Without")):
        rows = [row for row in text.splitlines() if row.startswith(f"| {heading}")]
        listed = re.findall(r"`(\w+)`", rows[0])
        assert listed == sorted(name for name, operator in OPERATORS.items() if operator.gradient == gradient), heading
