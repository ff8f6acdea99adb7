"""Reading of ONNX files: models of PyTorch's and of our own, what is trained, capture, and files that are broken."""

import copy
import importlib.util
import os
import pickle
import secrets
import sys

import numpy as np
import pytest

import pynn
from pynn import functional as F
from pynn import optim

onnx = pytest.importorskip("onnx", reason="the onnx package is not installed")
from exported import flat  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from pynn.onnx.loader import module_of  # noqa: E402

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def value(name, shape, dtype=FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def model_of(nodes, inputs, outputs, arrays=(), opset=18, **more):
    """Return a model of these nodes; `arrays` is a dict of those that are stored."""
    stored = [numpy_helper.from_array(array, name) for name, array in dict(arrays).items()]
    graph = helper.make_graph(nodes, "test", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10, **more)


def load(model, folder, name="model.onnx"):
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return pynn.onnx.load(path)


def network(rng, dtype=np.float32):
    """Return a model of a convolution, batch normalisation and a linear layer: images [n, 2, 6, 6] to [n, 3]."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    def draw(*shape):
        return rng.normal(0, 0.5, shape).astype(dtype)

    arrays = {
        "conv.weight": draw(4, 2, 3, 3),
        "bn.weight": draw(4) + 1,
        "bn.bias": draw(4),
        "bn.running_mean": draw(4),
        "bn.running_var": abs(draw(4)) + dtype(0.5),
        "fc.weight": draw(3, 36),
        "fc.bias": draw(3),
        "scale": dtype(0.5),
        "shape": np.array([0, -1]),
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node(
            "BatchNormalization", ["c", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"], ["b"]
        ),
        helper.make_node("Relu", ["b"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Reshape", ["p", "shape"], ["f"]),
        helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], ["g"], transB=1),
        helper.make_node("Mul", ["g", "scale"], ["y"]),
    ]
    return model_of(nodes, [value("x", ["n", 2, 6, 6], kind)], [value("y", ["n", 3], kind)], arrays)


# -- what a loaded model is --------------------------------------------------------------------------------------------
def test_weights_are_parameters_under_their_names_and_statistics_are_buffers(tmp_path, rng):
    model = load(network(rng), tmp_path)
    names = ["conv.weight", "bn.weight", "bn.bias", "fc.weight", "fc.bias"]
    assert [name for name, _ in model.named_parameters()] == names
    assert [name for name, _ in model.named_buffers()] == ["bn.running_mean", "bn.running_var"]
    assert model.inputs == ("x",)
    assert model.outputs == ("y",)
    assert repr(model) == "GraphModule(x [?, 2, 6, 6] float32 -> y; 7 nodes)"


def test_the_state_goes_to_another_module_of_the_graph(tmp_path, rng):
    first, second = load(network(rng), tmp_path), load(network(rng), tmp_path)
    x = rng.normal(size=(2, 2, 6, 6)).astype(np.float32)
    assert not np.array_equal(first(x).data, second(x).data)
    second.load_state_dict(first.state_dict())
    assert np.array_equal(first(x).data, second(x).data)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_computes_the_same(tmp_path, rng, again):
    model = load(network(rng), tmp_path)
    x = rng.normal(size=(2, 2, 6, 6)).astype(np.float32)
    assert np.array_equal(again(model)(x).data, model(x).data)


def test_values_are_those_of_the_reference_implementation(tmp_path, rng):
    from onnx.reference import ReferenceEvaluator

    proto = network(rng)
    x = rng.normal(size=(5, 2, 6, 6)).astype(np.float32)
    expected = ReferenceEvaluator(proto).run(None, {"x": x})[0]
    np.testing.assert_allclose(load(proto, tmp_path)(x).data, expected, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_central_differences(tmp_path, rng):
    model = load(network(rng, np.float64), tmp_path)
    x = pynn.Tensor(rng.normal(size=(2, 2, 6, 6)), requires_grad=True)
    pull = rng.normal(size=(2, 3))
    (model(x) * pull).sum().backward()
    for leaf in (x, *model.parameters()):
        flat, slopes = leaf.data.reshape(-1), leaf.grad.reshape(-1)
        for i in rng.choice(flat.size, min(6, flat.size), replace=False):
            middle, h = flat[i], 1e-6
            at = []
            for moved in (middle + h, middle - h):
                flat[i] = moved
                at.append((model(x).data * pull).sum())
            flat[i] = middle
            assert abs(slopes[i] - (at[0] - at[1]) / (2 * h)) < 1e-7 * max(1, abs(slopes[i]))


def test_fine_tuning_captured_has_the_bits_of_eager(tmp_path, rng):
    proto = network(rng)
    images, labels = rng.normal(size=(32, 2, 6, 6)).astype(np.float32), rng.integers(0, 3, 32)
    results = []
    for captured in (False, True):
        model = load(proto, tmp_path)
        optimizer = optim.Adam(model.parameters(), lr=1e-2)

        def step(x, y, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        run = pynn.capture(step) if captured else step
        losses = [run(images, labels).item() for _ in range(30)]
        results.append((losses, model.state_dict()))
    (eager, eager_state), (replayed, replayed_state) = results
    assert eager[-1] < 0.5 * eager[0]
    assert eager == replayed
    assert all(np.array_equal(eager_state[name], replayed_state[name]) for name in eager_state)


def test_masks_and_numbers_are_constants_and_shared_weights_are_one_parameter(tmp_path):
    arrays = {
        "w": np.ones((2, 2), np.float32),
        "mask": np.array([[0, -np.inf]], np.float32),
        "half": np.float32(0.5),
        "training": np.ones(2, np.float32),
        "low": np.float32(0),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["b"]),
        helper.make_node("Add", ["b", "mask"], ["c"]),
        helper.make_node("Mul", ["c", "half"], ["d"]),
        helper.make_node("Add", ["d", "training"], ["e"]),
        helper.make_node("Clip", ["e", "low"], ["y"]),
    ]
    model = load(model_of(nodes, [value("x", [1, 2])], [value("y", [1, 2])], arrays), tmp_path)
    # A name that the class has already gets an underscore.
    assert [name for name, _ in model.named_parameters()] == ["w", "training_"]
    assert model.training is True
    assert model(np.ones((1, 2), np.float32)).data.tolist() == [[3.0, 0.0]]


def test_equal_arrays_that_were_stored_once_are_trained_apart(tmp_path):
    nodes = [
        helper.make_node("Identity", ["first"], ["second"]),
        helper.make_node("Mul", ["x", "first"], ["a"]),
        helper.make_node("Mul", ["a", "second"], ["y"]),
    ]
    proto = model_of(nodes, [value("x", [2])], [value("y", [2])], {"first": np.full(2, 3, np.float32)})
    model = load(proto, tmp_path)
    model(np.array([1, 2], np.float32)).sum().backward()
    assert {name: p.grad.tolist() for name, p in model.named_parameters()} == {"first": [3, 6], "second": [3, 6]}


def test_several_inputs_and_outputs_go_by_name_and_in_order(tmp_path):
    nodes = [helper.make_node("Sub", ["a", "b"], ["c"]), helper.make_node("Shape", ["a"], ["s"])]
    outputs = [value("s", [1], INT64), value("c", ["n"])]
    model = load(model_of(nodes, [value("a", ["n"]), value("b", ["n"])], outputs), tmp_path)
    one, two = np.ones(3, np.float32), np.full(3, 2, np.float32)
    for shape, difference in (model(two, one), model(b=one, a=two), model(two, b=one)):
        assert shape.data.tolist() == [3]
        assert difference.data.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "words"),
    [
        ((), {}, TypeError, r"got 0 inputs, needs x \[\?, 2, 6, 6\] float32"),
        ((1, 2), {}, TypeError, "got 2 inputs"),
        ((), {"z": np.zeros(1)}, TypeError, "got 0 inputs and z"),
        ((np.zeros((1, 2, 6, 6)),), {}, TypeError, "x is float64, needs float32"),
        ((np.zeros((1, 3, 6, 6), np.float32),), {}, ValueError, r"x is \[1, 3, 6, 6\], needs x \[\?, 2, 6, 6\]"),
    ],
)
def test_a_wrong_call_says_what_is_needed(tmp_path, rng, args, kwargs, error, words):
    with pytest.raises(error, match=f"GraphModule: {words}"):
        load(network(rng), tmp_path)(*args, **kwargs)


def test_an_error_of_a_node_names_it(tmp_path):
    nodes = [helper.make_node("Add", ["x", "y"], ["z"], name="sum")]
    model = load(model_of(nodes, [value("x", ["n"]), value("y", ["m"])], [value("z", ["n"])]), tmp_path)
    with pytest.raises(ValueError, match=r"Add 'sum': add: .*\[2\].*\[3\]"):
        model(np.zeros(2, np.float32), np.zeros(3, np.float32))


def test_shape_arithmetic_is_captured_and_follows_the_shape(tmp_path, rng):
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "first"], ["n"], axis=0),
        helper.make_node("Cast", ["n"], ["nf"], to=FLOAT),
        helper.make_node("Div", ["nf", "two"], ["half"]),
        helper.make_node("Floor", ["half"], ["floor"]),
        helper.make_node("Cast", ["floor"], ["k"], to=INT64),
        helper.make_node("Range", ["zero", "k", "one"], ["rows"]),
        helper.make_node("Gather", ["x", "rows"], ["y"], axis=0),
    ]
    arrays = {"first": np.int64(0), "two": np.float32(2), "zero": np.int64(0), "one": np.int64(1)}
    model = load(model_of(nodes, [value("x", ["n", 3])], [value("y", ["k", 3])], arrays), tmp_path)
    captured = pynn.capture(model)
    for n in (4, 7, 4):
        x = rng.normal(size=(n, 3)).astype(np.float32)
        assert np.array_equal(model(x).data, x[: n // 2])
        assert np.array_equal(captured(x).data, x[: n // 2])


def test_a_comparison_of_computed_values_is_not_captured(tmp_path):
    nodes = [helper.make_node("ThresholdedRelu", ["x"], ["y"], alpha=1.0)]
    model = load(model_of(nodes, [value("x", ["n"])], [value("y", ["n"])]), tmp_path)
    with pytest.raises(pynn.CaptureError, match="is read"):
        pynn.capture(model)(np.zeros(3, np.float32))


# -- what is refused ---------------------------------------------------------------------------------------------------
def test_everything_that_is_not_supported_is_listed(tmp_path):
    nodes = [
        helper.make_node("Det", ["x"], ["a"], name="determinant"),
        helper.make_node("Relu", ["x"], ["b"]),
        helper.make_node("GridSample", ["x", "x"], ["c"]),
        helper.make_node("LSTM", ["x", "x", "x"], ["d"], name="clipped", clip=1.0, hidden_size=1),
        helper.make_node("Cast", ["x"], ["e"], to=TensorProto.FLOAT16),
        helper.make_node("Mystery", ["x"], ["y"], domain="com.example"),
    ]
    proto = model_of(nodes, [value("x", [2, 2]), value("h", [2], TensorProto.FLOAT16)], [value("y", [1])])
    proto.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(NotImplementedError) as caught:
        load(proto, tmp_path)
    message = str(caught.value)
    for part in (
        "input 'h' (of type float16)",
        "Det 'determinant' (no such operator)",
        "GridSample 'c' (no such operator)",
        "LSTM 'clipped' (clip is not supported)",
        "Cast 'e' (to=10 is a type that pynn does not have)",
        "Mystery 'y' (of the domain com.example)",
    ):
        assert part in message
    assert "Relu" not in message


def test_an_operator_that_onnx_defines_by_others_is_computed_by_them(tmp_path, rng):
    assert "MeanVarianceNormalization" not in pynn.onnx.operators.OPERATORS
    nodes = [helper.make_node("MeanVarianceNormalization", ["x"], ["y"])]  # its axes are left to their default
    x = rng.normal(size=(3, 2, 4, 4)).astype(np.float32)
    y = load(model_of(nodes, [value("x", x.shape)], [value("y", x.shape)]), tmp_path)(x)
    mean, deviation = x.mean((0, 2, 3), keepdims=True), x.std((0, 2, 3), keepdims=True)
    np.testing.assert_allclose(y.data, (x - mean) / deviation, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", [11, 12])
def test_versions_from_before_opset_13_are_refused(tmp_path, opset):
    nodes = [helper.make_node("Squeeze", ["x"], ["a"], axes=[0]), helper.make_node("Not", ["b"], ["c"])]
    inputs = [value("x", [1, 2]), value("b", [1], TensorProto.BOOL)]
    proto = model_of(nodes, inputs, [value("a", [2]), value("c", [1], TensorProto.BOOL)], opset=opset)
    with pytest.raises(NotImplementedError, match=rf"Squeeze 'a' \(version 11 of opset {opset}, .*13 to") as caught:
        load(proto, tmp_path)
    assert "Not" not in str(caught.value)  # still what it was then


def test_an_opset_of_the_future_is_refused(tmp_path):
    proto = model_of([helper.make_node("Relu", ["x"], ["y"])], [value("x", [2])], [value("y", [2])], opset=999)
    with pytest.raises(NotImplementedError, match=r"Relu 'y' \(version \d+ of opset 999, "):
        load(proto, tmp_path)


def test_a_missing_package_names_the_extra(tmp_path, rng, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(network(rng).SerializeToString())
    monkeypatch.setitem(sys.modules, "onnx.checker", None)
    with pytest.raises(ImportError, match=r"load: needs the onnx package: pip install 'pynn-cpu\[onnx\]'"):
        pynn.onnx.load(path)


# -- broken files ------------------------------------------------------------------------------------------------------
def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.onnx"):
        pynn.onnx.load(tmp_path / "nothing.onnx")


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"this is no model", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04" * 9])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"load: .*model\.onnx is not a valid ONNX model"):
        pynn.onnx.load(path)


def test_a_truncated_file_is_refused(tmp_path, rng):
    content = network(rng).SerializeToString()
    path = tmp_path / "model.onnx"
    for length in {*rng.integers(1, len(content), 60).tolist(), len(content) - 1}:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="is not a valid ONNX model"):
            pynn.onnx.load(path)


def test_changed_bytes_are_refused_or_load(tmp_path):
    seed = int(os.environ.get("PYNN_TEST_SEED") or secrets.randbits(32))
    print(f"rng: repeat with PYNN_TEST_SEED={seed}")
    rng = np.random.default_rng(seed)
    content = np.frombuffer(network(rng).SerializeToString(), np.uint8)
    path = tmp_path / "model.onnx"
    refused = 0
    for _ in range(200):
        changed = content.copy()
        changed[rng.integers(0, len(content), 4)] = rng.integers(0, 256, 4)
        path.write_bytes(changed.tobytes())
        try:
            pynn.onnx.load(path)
        except (ValueError, NotImplementedError, FileNotFoundError):
            refused += 1
    assert refused > 0


def broken_models():
    one = {"w": np.ones(2, np.float32)}
    x, y = value("x", [2]), value("y", [2])
    yield "no source", model_of([helper.make_node("Add", ["x", "missing"], ["y"])], [x], [y])
    yield (
        "cycle",
        model_of([helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])], [x], [y]),
    )
    yield (
        "two sources",
        model_of([helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["y"])], [x], [y]),
    )
    yield "no output", model_of([helper.make_node("Relu", ["x"], ["z"])], [x], [y])
    yield "no such operator", model_of([helper.make_node("Nonsense", ["x"], ["y"])], [x], [y])
    yield "attribute", model_of([helper.make_node("Relu", ["x"], ["y"], nonsense=1)], [x], [y])
    short = model_of([helper.make_node("Add", ["x", "w"], ["y"])], [x], [y], one)
    short.graph.initializer[0].raw_data = b"\0\0\0"
    yield "array too short", short
    nowhere = model_of([helper.make_node("Relu", ["x"], ["y"])], [x], [y])
    del nowhere.opset_import[:]
    yield "no opset", nowhere


@pytest.mark.parametrize(("what", "proto"), list(broken_models()), ids=lambda v: v if isinstance(v, str) else "")
def test_a_broken_graph_is_refused(tmp_path, what, proto):
    with pytest.raises(ValueError, match="is not a valid ONNX model"):
        load(proto, tmp_path)


@pytest.mark.parametrize("place", ["../outside.bin", "/etc/hostname", "a/../../outside.bin"])
def test_arrays_outside_of_the_folder_are_refused(tmp_path, place):
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(np.ones(2, np.float32).tobytes())
    proto = model_of(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        [value("x", [2])],
        [value("y", [2])],
        {"w": np.ones(2, np.float32)},
    )
    point_to(proto.graph.initializer[0], place)
    with pytest.raises(ValueError, match="is not a valid ONNX model"):
        load(proto, folder)


def point_to(tensor, place):
    """Let the values of a stored array be in another file."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", place


def test_arrays_in_another_file_are_read_and_a_missing_one_is_not_found(tmp_path):
    arrays = {"w": np.array([1, 2], np.float32)}
    proto = model_of([helper.make_node("Add", ["x", "w"], ["y"])], [value("x", [2])], [value("y", [2])], arrays)
    point_to(proto.graph.initializer[0], "weights.bin")
    with pytest.raises(FileNotFoundError, match=r"weights\.bin"):
        load(proto, tmp_path)
    (tmp_path / "weights.bin").write_bytes(arrays["w"].tobytes())
    assert load(proto, tmp_path)(np.zeros(2, np.float32)).data.tolist() == [1, 2]
    (tmp_path / "weights.bin").write_bytes(arrays["w"].tobytes()[:5])
    with pytest.raises(ValueError, match="is not a valid ONNX model"):
        load(proto, tmp_path)


# -- models of our own, there and back ---------------------------------------------------------------------------------
def exported_layers():
    if importlib.util.find_spec("onnx") is None:
        return {}
    from test_onnx_export import LAYERS

    return LAYERS


@pytest.mark.parametrize("name", exported_layers())
def test_what_pynn_exports_it_loads(name, rng):
    make, shape = exported_layers()[name]
    model = make().eval()
    x = rng.normal(size=(2, *shape)).astype(np.float32)
    loaded = module_of(pynn.onnx.export(model, x))
    for batch in (2, 5):
        x = rng.normal(size=(batch, *shape)).astype(np.float32)
        for got, expected in zip(flat(loaded(x)), flat(model(x)), strict=True):
            scale = max(float(abs(expected).max()), 1e-30)
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * scale)
