"""`compare.py --mode inference`, and `captured-inference`: networks applied to batches, beside others."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sides import pads
from timing import Step, alternate, summarize
from workloads import Application

import pynn
from pynn import nn

Array = npt.NDArray[Any]

BATCHES = 16  # different ones, taken in turn
TOLERANCE = 1e-4  # of the largest output
OPSET, IR_VERSION = 17, 8  # of the ONNX file: old enough for every ONNX Runtime of the last years


def measure(
    application: Application,
    others: list[str],
    repeats: int,
    seconds: float,
    seed: int,
    threads: int,
    captured: bool = False,
) -> dict[str, Any]:
    """Check and time one network; return its figures. If `captured`, pynn replays what it has recorded."""
    steps = make_steps(application, others, seed, threads, captured)
    difference = check(steps)
    blocks = alternate(steps, itertools.cycle(range(BATCHES)), repeats, seconds)
    return {**summarize(blocks), "output_difference": difference}


def make_steps(
    application: Application, others: list[str], seed: int, threads: int, captured: bool = False
) -> dict[str, Step]:
    """Return what applies the network to batch i, of pynn and others, with the same weights."""
    rng = np.random.default_rng(seed)
    pynn.seed(seed)
    model = application.build(nn)
    model.eval()
    batches = rng.standard_normal((BATCHES, application.batch, *application.shape)).astype(np.float32)
    steps = {"pynn": _pynn_step(pynn.capture(model) if captured else model, batches)}
    if "eager" in others:
        steps["eager"] = _pynn_step(model, batches)
    if "torch" in others:
        steps["torch"] = _torch_step(application, model, batches)
    if "onnxruntime" in others:
        steps["onnxruntime"] = _onnx_step(model, batches, threads)
    return steps


def _pynn_step(model: Callable[[Array], pynn.Tensor], batches: Array) -> Step:
    def step(i: int) -> Array:
        with pynn.no_grad():
            return model(batches[i]).data

    return step


def _torch_step(application: Application, model: nn.Sequential, batches: Array) -> Step:
    import torch

    theirs = application.build(torch.nn)
    theirs.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in model.state_dict().items()})
    theirs.eval()
    tensors = torch.from_numpy(batches)

    def step(i: int) -> Array:
        with torch.inference_mode():
            y: Array = theirs(tensors[i]).numpy()
            return y

    return step


def _onnx_step(model: nn.Sequential, batches: Array, threads: int) -> Step:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "model.onnx"))
        write_onnx(path, model, batches.shape[1:])
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def step(i: int) -> Array:
        y: Array = session.run(None, {"x": batches[i]})[0]
        return y

    return step


def write_onnx(path: str, model: nn.Sequential, shape: tuple[int, ...]) -> None:
    """Write a Sequential of Linear, Conv2d, ReLU, MaxPool2d and Flatten as an ONNX file for inputs of `shape`."""
    import onnx
    from onnx import helper, numpy_helper

    nodes, constants = [], []
    value = "x"
    for i, layer in enumerate(model):
        inputs, output = [value], f"y{i}"
        for name, parameter in layer.named_parameters():
            inputs.append(f"{i}.{name}")
            constants.append(numpy_helper.from_array(np.ascontiguousarray(parameter.data), inputs[-1]))
        operator, attributes = _onnx_operator(layer)
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        value = output
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, list(shape))
    y = helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, [shape[0], None])
    graph = helper.make_graph(nodes, "model", [x], [y], constants)
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(file)
    onnx.save(file, path)


def _onnx_operator(layer: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(layer, nn.Linear):
        return "Gemm", {"transB": 1}  # weight [out, in]
    if isinstance(layer, nn.Conv2d):
        top, left = pads(layer)
        return "Conv", {"pads": [top, left, top, left], "strides": layer.stride, "group": layer.groups}
    if isinstance(layer, nn.MaxPool2d):
        return "MaxPool", {"kernel_shape": layer.kernel_size, "strides": layer.stride}
    if isinstance(layer, nn.ReLU):
        return "Relu", {}
    if isinstance(layer, nn.Flatten):
        return "Flatten", {}
    raise TypeError(f"write_onnx: no operator for {type(layer).__name__}")


def check(steps: dict[str, Step]) -> float:
    """Return the largest difference of outputs, relative to the largest output; SystemExit if too large."""
    worst = 0.0
    for i in range(2):
        ours = steps["pynn"](i)
        for name, step in steps.items():
            theirs = step(i)
            difference = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
            if not difference <= TOLERANCE:
                raise SystemExit(f"outputs of pynn and {name} differ by {difference:.1e} of the largest")
            worst = max(worst, difference)
    return worst
