"""Models in ONNX Runtime, held against themselves."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import pynn
from pynn import nn

onnx = pytest.importorskip("onnx", reason="the onnx package is not installed")
pytest.importorskip("onnx.reference")

try:
    import onnxruntime
except ImportError:
    onnxruntime, REFUSES, LACKS = None, (), ()
else:
    _errors = onnxruntime.capi.onnxruntime_pybind11_state
    REFUSES = (_errors.InvalidArgument,)
    LACKS = (_errors.NotImplemented, _errors.RuntimeException, _errors.InvalidGraph)
needs_onnxruntime = pytest.mark.skipif(onnxruntime is None, reason="ONNX Runtime is not installed")


def run_onnx(file: Any, inputs: dict[str, np.ndarray], dtype: Any) -> list[np.ndarray]:
    """Return the outputs, of ONNX Runtime; what it has no float64 kernels for, onnx's reference computes."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(file.SerializeToString(), options).run(None, inputs)
    except LACKS as error:
        if dtype != np.float64 or not re.search("NOT_IMPLEMENTED|not support double|Type Error", str(error)):
            raise
        return onnx.reference.ReferenceEvaluator(file).run(None, inputs)


def flat(value: Any) -> list[np.ndarray]:
    """Return the arrays in a result."""
    if isinstance(value, pynn.Tensor):
        return [value.data]
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [] if value is None else [array for item in value for array in flat(item)]


def check(model: Any, file: Any, args: tuple[Any, ...]) -> None:
    """The file computes what the model computes, to 1e-5 of the result's size."""
    args = tuple(pynn.Tensor(arg) if isinstance(arg, np.ndarray) else arg for arg in args)
    arrays = flat(args)
    dtype = next((a.dtype for a in arrays if a.dtype.kind == "f"), np.dtype(np.float32))
    inputs = {info.name: array for info, array in zip(file.graph.input, arrays, strict=True)}
    if isinstance(model, nn.Module):
        model.eval()
    with pynn.no_grad():
        expected = flat(model(*args))
    actual = run_onnx(file, inputs, dtype)
    assert len(actual) == len(expected) == len(file.graph.output)
    for got, wanted in zip(actual, expected, strict=True):
        assert got.dtype == wanted.dtype
        assert got.shape == wanted.shape
        if wanted.size:
            scale = max(float(abs(wanted).max()), 1e-30)
            np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * scale)


def letters(*shape: int) -> np.ndarray:
    return np.random.default_rng(4).integers(0, 27, shape)


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(4).standard_normal(shape).astype(np.float32)
