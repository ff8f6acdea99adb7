"""ONNX models that tests build."""

import numpy as np
import pytest

import pynn

pytest.importorskip("onnx", reason="the onnx package is not installed")
from onnx import TensorProto, helper, numpy_helper

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
