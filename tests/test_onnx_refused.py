"""ONNX files that are not supported, or broken."""

import os
import secrets
import sys

import numpy as np
import pytest
from onnx_models import load, model_of, network, value

import pynn

onnx = pytest.importorskip("onnx", reason="the onnx package is not installed")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


# -- what is refused ---------------------------------------------------------------------------------------------------
def test_everything_that_is_not_supported_is_listed(tmp_path):
    nodes = [
        helper.make_node("Det", ["x"], ["a"], name="determinant"),
        helper.make_node("Relu", ["x"], ["b"]),
        helper.make_node("GridSample", ["x", "x"], ["c"]),
        helper.make_node("LSTM", ["x", "x", "x"], ["d"], name="clipped", clip=1.0, hidden_size=1),
        helper.make_node("Cast", ["x"], ["e"], to=TensorProto.FLOAT16),
        helper.make_node("EyeLike", ["x"], ["f"], dtype=TensorProto.FLOAT16),
        helper.make_node("Constant", [], ["g"], value=numpy_helper.from_array(np.zeros(1, np.float16))),
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
        "EyeLike 'f' (dtype=10 is a type that pynn does not have)",
        "Constant 'g' (attributes value)",
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


def test_an_operator_that_onnx_defines_by_others_takes_a_stored_weight(tmp_path, rng):
    assert "RMSNormalization" not in pynn.onnx.operators.OPERATORS
    nodes = [helper.make_node("RMSNormalization", ["x", "scale"], ["y"])]
    x, scale = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=4).astype(np.float32)
    proto = model_of(nodes, [value("x", ["n", 4])], [value("y", ["n", 4])], {"scale": scale}, opset=23)
    model = load(proto, tmp_path)
    expected = x / np.sqrt((x * x).mean(1, keepdims=True) + 1e-5) * scale
    np.testing.assert_allclose(model(x).data, expected, rtol=1e-5, atol=1e-6)
    assert [name for name, _ in model.named_parameters()] == ["scale"]


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


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], auto_pad="BOGUS"), "auto_pad='BOGUS', needs"),
        (helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[1, 0]), r"strides=\[1, 0\], needs 1"),
        (helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=0), "blocksize=0, needs 1 or more"),
        (helper.make_node("Split", ["x"], ["y"], num_outputs=0), "num_outputs=0, needs 1 or more"),
        (helper.make_node("Transpose", ["x"], ["y"], perm=[0, 1, 2, -1]), "perm=.* is no order of the axes"),
    ],
    ids=lambda v: v.op_type if isinstance(v, onnx.NodeProto) else "",
)
def test_attributes_without_a_meaning_are_refused(tmp_path, node, words):
    with pytest.raises(NotImplementedError, match=rf"{node.op_type} 'y' \({words}"):
        load(model_of([node], [value("x", [1, 4, 4, 4])], [value("y", list("abcd"))]), tmp_path)


# -- broken files ------------------------------------------------------------------------------------------------------
def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.onnx"):
        pynn.onnx.load(tmp_path / "nothing.onnx")


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 64, b"this is no model", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04" * 9],
    ids=["empty", "zeros", "text", "PNG", "zip"],
)
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


def test_a_link_to_outside_of_the_folder_is_refused(tmp_path):
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(np.ones(2, np.float32).tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    proto = model_of(nodes, [value("x", [2])], [value("y", [2])], {"w": np.ones(2, np.float32)})
    point_to(proto.graph.initializer[0], "link.bin")
    with pytest.raises(ValueError, match="is not a valid ONNX model"):
        load(proto, folder)


def point_to(tensor, place):
    """Let the values of a stored array be in another file."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", place


def test_an_array_of_a_negative_length_is_refused(tmp_path):
    (tmp_path / "weights.bin").write_bytes(np.ones(2, np.float32).tobytes())
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    proto = model_of(nodes, [value("x", [2])], [value("y", [2])], {"w": np.ones(2, np.float32)})
    point_to(proto.graph.initializer[0], "weights.bin")
    proto.graph.initializer[0].dims[0] = -1
    with pytest.raises(ValueError, match=r"is not a valid ONNX model: .*'w'"):
        load(proto, tmp_path)


@pytest.mark.parametrize("as_node", [False, True])
def test_arrays_in_another_file_are_read_and_a_missing_one_is_not_found(tmp_path, as_node):
    arrays = {"w": np.array([1, 2], np.float32)}
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    if as_node:
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(arrays["w"])))
    proto = model_of(nodes, [value("x", [2])], [value("y", [2])], {} if as_node else arrays)
    point_to(proto.graph.node[0].attribute[0].t if as_node else proto.graph.initializer[0], "weights.bin")
    with pytest.raises(FileNotFoundError, match=r"weights\.bin"):
        load(proto, tmp_path)
    (tmp_path / "weights.bin").write_bytes(arrays["w"].tobytes())
    assert load(proto, tmp_path)(np.zeros(2, np.float32)).data.tolist() == [1, 2]
    (tmp_path / "weights.bin").write_bytes(arrays["w"].tobytes()[:5])
    with pytest.raises(ValueError, match="is not a valid ONNX model"):
        load(proto, tmp_path)
