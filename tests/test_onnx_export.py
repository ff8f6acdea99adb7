"""Exported models compute the same in ONNX Runtime, at the example's batch size and at others."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from exported import check, flat, letters, needs_onnxruntime, numbers, onnx, run_onnx

import pynn
from pynn import functional as F
from pynn import models, nn
from pynn.intercept import CHECKS, OPERATIONS
from pynn.onnx import export, load
from pynn.onnx.export_rules import RULES

EXAMPLES = Path(__file__).parents[1] / "examples"
BATCHES = (1, 3, 8)


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Linear": (lambda: nn.Linear(5, 3), (5,)),
    "Linear without bias": (lambda: nn.Linear(5, 3, bias=False), (5,)),
    "Linear of 3 axes": (lambda: nn.Linear(5, 3), (4, 5)),
    "Linear, ReLU": (lambda: nn.Sequential(nn.Linear(5, 3), nn.ReLU()), (5,)),
    "Linear, LeakyReLU": (lambda: nn.Sequential(nn.Linear(5, 3), nn.LeakyReLU()), (5,)),
    "Linear, Sigmoid": (lambda: nn.Sequential(nn.Linear(5, 3), nn.Sigmoid()), (4, 5)),
    "Linear, Tanh": (lambda: nn.Sequential(nn.Linear(5, 3), nn.Tanh()), (5,)),
    "Conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2), (4, 11)),
    "Conv1d same": (lambda: nn.Conv1d(4, 6, 4, padding="same", bias=False), (4, 11)),
    "Conv1d, Conv1d": (lambda: nn.Sequential(nn.Conv1d(4, 6, 3), nn.ReLU(), nn.Conv1d(6, 2, 1)), (4, 11)),
    "Conv2d": (lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2), (4, 9, 8)),
    "Conv2d same": (lambda: nn.Conv2d(3, 2, 4, padding="same"), (3, 6, 7)),
    "Conv2d depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4, bias=False), (4, 6, 6)),
    "Conv2d, ReLU": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (3, 6, 6)),
    "Conv2d, MaxPool2d": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)), (3, 7, 8)),
    "Conv2d, ReLU, MaxPool2d": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2)), (3, 9, 8)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), (4, 5, 6)),
    "ConvTranspose2d groups": (
        lambda: nn.ConvTranspose2d(4, 6, (3, 2), stride=(2, 3), output_padding=(0, 2), groups=2, dilation=(2, 1)),
        (4, 5, 6),
    ),
    "MaxPool2d": (lambda: nn.MaxPool2d(3, stride=2, padding=1), (2, 8, 9)),
    "MaxPool2d dilated": (lambda: nn.MaxPool2d((2, 3), stride=1, dilation=2), (2, 8, 9)),
    "MaxPool2d ceil": (lambda: nn.MaxPool2d(3, stride=2, ceil_mode=True), (2, 8, 9)),
    "MaxPool2d ceil, padding": (lambda: nn.MaxPool2d(3, stride=3, padding=1, ceil_mode=True), (2, 7, 6)),
    "MaxPool2d ceil, dilated": (lambda: nn.MaxPool2d((2, 1), stride=(3, 2), dilation=2, ceil_mode=True), (2, 10, 13)),
    "AvgPool2d": (lambda: nn.AvgPool2d(3, stride=2, padding=1), (2, 8, 9)),
    "AvgPool2d without padding": (lambda: nn.AvgPool2d(3, 2, padding=1, count_include_pad=False), (2, 8, 9)),
    "AvgPool2d ceil": (lambda: nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True), (2, 8, 7)),
    "AvgPool2d ceil, not padding": (
        lambda: nn.AvgPool2d(2, stride=2, padding=1, ceil_mode=True, count_include_pad=False),
        (2, 8, 7),
    ),
    "GlobalAvgPool2d": (lambda: nn.GlobalAvgPool2d(), (3, 4, 5)),
    "BatchNorm1d": (lambda: trained(nn.BatchNorm1d(4)), (4,)),
    "BatchNorm1d of sequences": (lambda: trained(nn.BatchNorm1d(4)), (4, 5)),
    "BatchNorm2d": (lambda: trained(nn.BatchNorm2d(4)), (4, 5, 3)),
    "BatchNorm2d not affine": (lambda: trained(nn.BatchNorm2d(4, affine=False)), (4, 5, 3)),
    "BatchNorm2d of the batch": (lambda: trained(nn.BatchNorm2d(4, track_running_stats=False)), (4, 5, 3)),
    "BatchNorm2d of the batch, not affine": (
        lambda: nn.BatchNorm2d(4, affine=False, track_running_stats=False),
        (4, 5, 3),
    ),
    "LayerNorm": (lambda: trained(nn.LayerNorm(6)), (5, 6)),
    "LayerNorm of two axes": (lambda: trained(nn.LayerNorm((5, 6))), (2, 5, 6)),
    "LayerNorm without bias": (lambda: trained(nn.LayerNorm(6, bias=False)), (5, 6)),
    "LayerNorm not affine": (lambda: nn.LayerNorm(6, elementwise_affine=False), (6,)),
    "GroupNorm": (lambda: trained(nn.GroupNorm(2, 4)), (4, 5, 3)),
    "GroupNorm not affine": (lambda: nn.GroupNorm(4, 4, affine=False), (4, 5)),
    "Dropout": (lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2)), (4,)),
    "ReLU": (nn.ReLU, (6,)),
    "LeakyReLU": (lambda: nn.LeakyReLU(0.3), (6,)),
    "ELU": (lambda: nn.ELU(0.7), (6,)),
    "GELU": (nn.GELU, (60,)),
    "GELU tanh": (lambda: nn.GELU("tanh"), (60,)),
    "SiLU": (nn.SiLU, (6,)),
    "Sigmoid": (nn.Sigmoid, (6,)),
    "Softplus": (nn.Softplus, (6,)),
    "Softplus beta, threshold": (lambda: nn.Softplus(beta=2.5, threshold=1.5), (6,)),
    "Tanh": (nn.Tanh, (6,)),
    "Softmax": (lambda: nn.Softmax(-1), (4, 6)),
    "Softmax of axis 1": (lambda: nn.Softmax(1), (4, 6)),
    "LogSoftmax": (lambda: nn.LogSoftmax(-1), (6,)),
    "Flatten": (nn.Flatten, (2, 3, 4)),
    "Unflatten": (lambda: nn.Unflatten(1, (2, 3)), (6, 4)),
    "Identity": (nn.Identity, (3,)),
    "Upsample nearest": (lambda: nn.Upsample(scale_factor=2), (2, 3, 5)),
    "Upsample bilinear": (lambda: nn.Upsample(size=(7, 4), mode="bilinear"), (2, 3, 5)),
    "Upsample aligned": (lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), (2, 3, 5)),
    "RNN": (lambda: nn.RNN(3, 4, num_layers=2, batch_first=True), (5, 3)),
    "RNN relu": (lambda: nn.RNN(3, 4, nonlinearity="relu", bias=False, batch_first=True), (5, 3)),
    "LSTM": (lambda: nn.LSTM(3, 4, num_layers=2, batch_first=True), (5, 3)),
    "LSTM bidirectional": (lambda: nn.LSTM(3, 4, num_layers=2, batch_first=True, bidirectional=True), (5, 3)),
    "LSTM without bias": (lambda: nn.LSTM(3, 4, bias=False, batch_first=True), (5, 3)),
    "GRU": (lambda: nn.GRU(3, 4, num_layers=2, batch_first=True), (5, 3)),
    "GRU bidirectional": (lambda: nn.GRU(3, 4, batch_first=True, bidirectional=True), (5, 3)),
    "RNNCell": (lambda: nn.RNNCell(3, 4), (3,)),
    "LSTMCell": (lambda: nn.LSTMCell(3, 4), (3,)),
    "GRUCell": (lambda: nn.GRUCell(3, 4), (3,)),
    "MultiheadAttention": (lambda: nn.MultiheadAttention(8, 2, batch_first=True), (5, 8)),
    "TransformerEncoderLayer": (
        lambda: trained(nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)),
        (5, 8),
    ),
    "TransformerEncoderLayer gelu": (
        lambda: nn.TransformerEncoderLayer(8, 4, 16, activation="gelu", norm_first=True, bias=False, batch_first=True),
        (5, 8),
    ),
}


ONLY_FLOAT32 = {"ConvTranspose2d groups", "RNN relu"}


def trained(module: nn.Module) -> nn.Module:
    """Fill parameters and buffers with numbers that differ."""
    rng = np.random.default_rng(5)
    module.load_state_dict(
        {
            name: rng.uniform(0.5, 1.5, array.shape).astype(array.dtype) if array.dtype.kind == "f" else array
            for name, array in module.state_dict().items()
        }
    )
    return module


@needs_onnxruntime
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer(rng, name, dtype):
    make, shape = LAYERS[name]
    model = make().astype(dtype)
    file = export(model, 2 * rng.standard_normal((2, *shape)).astype(dtype))
    if dtype == np.float64 and name in ONLY_FLOAT32:
        pytest.skip("neither ONNX Runtime nor onnx's reference computes this in float64")
    for batch in (2, *BATCHES):
        check(model, file, (2 * rng.standard_normal((batch, *shape)).astype(dtype),))
    state = model.state_dict()
    for weight in file.graph.initializer:
        if weight.name in state:
            np.testing.assert_array_equal(onnx.numpy_helper.to_array(weight), state[weight.name])
    stored = {weight.name for weight in file.graph.initializer}
    assert {name for name in state if not name.endswith("num_batches_tracked")} <= stored


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_is_loaded_again(rng, tmp_path, name, dtype):
    make, shape = LAYERS[name]
    model = make().astype(dtype).eval()
    export(model, 2 * rng.standard_normal((2, *shape)).astype(dtype), tmp_path / "model.onnx")
    loaded = load(tmp_path / "model.onnx")
    assert sorted(n for n, _ in loaded.named_parameters()) == sorted(n for n, _ in model.named_parameters())
    for key, array in loaded.state_dict().items():
        np.testing.assert_array_equal(array, model.state_dict()[key])
    for batch in BATCHES:
        x = 2 * rng.standard_normal((batch, *shape)).astype(dtype)
        with pynn.no_grad():
            for got, wanted in zip(flat(loaded(x)), flat(model(x)), strict=True):
                assert got.dtype == wanted.dtype
                np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * float(abs(wanted).max()))


def test_every_class_of_nn_is_exported_somewhere():
    used = {type(module).__name__ for make, _ in LAYERS.values() for module in make().modules()}
    of_nn = {name for name, value in vars(nn).items() if isinstance(value, type) and issubclass(value, nn.Module)}
    assert {name for name in of_nn - used if not name.endswith("Loss")} == {"Embedding", "Module", "ModuleList"}


# -- functions ---------------------------------------------------------------------------------------------------------
W = np.random.default_rng(3).standard_normal((4, 6)).astype(np.float32)
ATTENTION = nn.MultiheadAttention(8, 2, batch_first=True)
FUNCTIONS: dict[str, tuple[Callable[[pynn.Tensor], Any], tuple[int, ...]]] = {
    "arithmetic": (lambda x: (x + 2) * x - 3 / (x * x + 1) - -x, (4, 6)),
    "with a constant": (lambda x: x * W + W[0], (4, 6)),
    "exp, log, sqrt, abs": (lambda x: (x.abs() + 1).log() + x.exp() - (x * x).sqrt(), (6,)),
    "pow": (lambda x: x**2 + (x.abs() + 1) ** 1.5 + (x.abs() + 1) ** x, (6,)),
    "maximum, minimum": (lambda x: F.maximum(x, 0.2) + F.minimum(x, W), (4, 6)),
    "clip": (lambda x: x.clip(-0.5, 0.7) + x.clip(low=0.1) + x.clip(high=0.1), (6,)),
    "where": (lambda x: F.where(W > 0, x, -x), (4, 6)),
    "several results": (lambda x: {"sum": x.sum(1), "rest": (x.mean(1), x)}, (4, 6)),
    "sums": (
        lambda x: (x.abs().sum(), x.sum(0), (x * x).sum((1, 2), keepdims=True), x.mean(-1), x.exp().mean()),
        (4, 6),
    ),
    "extrema": (lambda x: (x.max(), x.min(1), x.max((0, 2)), x.min(keepdims=True)), (4, 6)),
    "var": (lambda x: (x.var(), x.var(0, correction=0), x.var((1, 2), keepdims=True)), (4, 6)),
    "argmax": (lambda x: (x.argmax(), x.argmax(1), x.argmax(0)), (4, 6)),
    "over no axis": (lambda x: x.sum(()) + x.max(()), (4,)),
    "matmul": (lambda x: (x @ W.T, F.matmul(x, W, transpose_b=True), F.matmul(x, x, transpose_a=True)), (4, 6)),
    "matmul of matrices": (lambda x: (F.matmul(x, x, transpose_b=True), F.matmul(x, x, transpose_a=True)), (6,)),
    "matmul of vectors": (lambda x: (W @ x[0], x[0].exp() @ x[1].exp(), x @ W[0]), (6,)),
    "concatenate, stack": (lambda x: (F.concatenate([x, x * 2], 1), F.stack([x, -x]), F.concatenate([x, x])), (4, 6)),
    "pad": (lambda x: (F.pad(x, (1, 2)), F.pad(x, (1, 0, 2, 3), -1.0), F.pad(x, ((0, 0), (1, 1), (0, 2)))), (4, 6)),
    "broadcast_to": (lambda x: F.broadcast_to(x.mean(1, keepdims=True), x.shape), (4, 6)),
    "transpose": (lambda x: (x.T, x.transpose(1, 0, 2)), (4, 6)),
    "reshape": (lambda x: (x.reshape(-1), x.reshape(-1, 12), x.reshape(2, -1), x.reshape(6, -1, 2)), (4, 6)),
    "flatten": (lambda x: (x.flatten(), x.flatten(1)), (4, 6)),
    "batch in the middle": (lambda x: x.transpose(1, 0, 2).reshape(2, 2, -1, 6).transpose(2, 0, 1, 3), (4, 6)),
    "two lengths that vary": (
        lambda x: (x.reshape(-1, 2).reshape(x.shape[0], 3, 4, 2), x.reshape(x.shape[0] * 2, 12)),
        (4, 6),
    ),
    "twice the batch": (lambda x: F.concatenate([x, x]).reshape(2 * x.shape[0], 3, 8)[x.shape[0] :], (4, 6)),
    "basic indices": (
        lambda x: (x[:, 1], x[0], x[-1], x[:, :, ::2], x[:, -2:, None], x[..., ::-1], x[:, 1:3, 2:5]),
        (4, 6),
    ),
    "slices of the batch": (lambda x: (x[1:], x[:-1], x[::-1], x[::-2, 1:2], x[-1:], x[1 : x.shape[0] - 1]), (4, 6)),
    "slices from the end": (lambda x: (x[-3:], x[:-3:-1], x[:-2], x[-3:-1], x[2:], x[-2]), (4,)),
    "rows by an array": (lambda x: (x[:, np.array([2, 0, 2])], x[np.array([1, 0])]), (4, 6)),
    "a table": (lambda x: pynn.tensor(W)[np.array([[1, 2], [0, 3]])] + x, (2, 2, 6)),
    "a scalar": (lambda x: pynn.tensor(3.0) * x, (6,)),
    "initial state of zeros": (lambda x: F.rnn_cell(x, pynn.zeros(x.shape[0], 4), W, W[:, :4]), (6,)),
    "positions": (lambda x: x + F.embedding(np.arange(x.shape[0]), np.tile(W, (30, 1)))[:, None], (4, 6)),
    "softplus": (lambda x: F.softplus(x, threshold=0.5), (6,)),
    "group_norm": (lambda x: F.group_norm(x, 2), (4, 6)),
    "layer_norm of all": (lambda x: F.layer_norm(x.reshape(1, -1), x.size), (4, 6)),
    "cast": (lambda x: (x.astype(np.float64), (x * 3).astype(np.int64), x.astype(np.int64).astype(np.float32)), (6,)),
    "finite": (lambda x: F.require_finite(x) + 1, (6,)),
    "attention": (lambda x: F.scaled_dot_product_attention(x, x * 2, x + 1), (2, 4, 6)),
    "attention, causal": (lambda x: F.scaled_dot_product_attention(x, x * 2, x + 1, is_causal=True), (2, 4, 6)),
    "attention, past": (
        lambda x: F.scaled_dot_product_attention(x[:, :, 2:], x, x, is_causal=True, past=2, scale=0.3),
        (2, 4, 6),
    ),
    "attention, hidden keys": (
        lambda x: F.scaled_dot_product_attention(
            x, x, x, attn_mask=np.tri(4, dtype=bool) & (np.arange(4) < 3)[:, None]
        ),
        (2, 4, 6),
    ),
    "attention, bias": (
        lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=W[:, :4], is_causal=True),
        (2, 4, 6),
    ),
    "rotary_embedding": (lambda x: F.rotary_embedding(x, start=3), (2, 5, 8)),
    "weights of attention": (
        lambda x: nn.MultiheadAttention.forward(ATTENTION, x, need_weights=True, is_causal=True),
        (4, 8),
    ),
    "self_attention, hidden keys": (
        lambda x: F.self_attention(x, 2, attn_mask=np.array([[[[True]]], [[[False]]]])[:1], is_causal=True),
        (4, 12),
    ),
}


@needs_onnxruntime
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function(rng, name):
    function, shape = FUNCTIONS[name]
    file = export(function, rng.standard_normal((3, *shape)).astype(np.float32))
    for batch in (3, 2, 8):
        check(function, file, (rng.standard_normal((batch, *shape)).astype(np.float32),))


# -- integers ----------------------------------------------------------------------------------------------------------
TABLE = nn.Embedding(7, 3)
OF_INTEGERS: dict[str, Callable[[pynn.Tensor], Any]] = {
    "Embedding": TABLE,
    "transposed": lambda i: TABLE(i.T),
    "a column": lambda i: TABLE(i[:, 1]),
    "joined": lambda i: TABLE(F.concatenate([i, i[:, ::2], i[:, None, -1]], axis=1)),
    "reshaped": lambda i: i.reshape(-1, 2)[1:, None],
    "table by index": lambda i: TABLE.weight[i],
    "along axis 1": lambda i: F.transpose(TABLE.weight)[:, i],
    "one-hot vectors": nn.LSTM(7, 4, batch_first=True),
    "cast": lambda i: i.astype(np.float32) / 255,
}


@needs_onnxruntime
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize("name", OF_INTEGERS)
def test_integers(rng, name, dtype):
    function = OF_INTEGERS[name]
    file = export(function, rng.integers(0, 7, (3, 4)).astype(dtype))
    assert file.graph.input[0].type.tensor_type.elem_type == onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    for batch in (3, 1, 6):
        indices = rng.integers(0, 7, (batch, 4))
        expected = flat(function(pynn.Tensor(indices)))
        got = run_onnx(file, {file.graph.input[0].name: indices.astype(dtype)}, np.float32)
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


# -- models ------------------------------------------------------------------------------------------------------------
@needs_onnxruntime
@pytest.mark.parametrize("name", models.MODELS)
def test_every_model_of_the_command_line(rng, name):
    model = models.build(name)
    file = export(model, rng.standard_normal((64, 1, 28, 28)).astype(np.float32))
    for batch in (64, *BATCHES):
        check(model, file, (rng.standard_normal((batch, 1, 28, 28)).astype(np.float32),))


@dataclass(frozen=True)
class Network:
    """A network of an example."""

    example: str
    build: Callable[[ModuleType], Any]
    batch: Callable[[int], Any]  # of this many
    size: int  # of a batch in the example
    dynamic_axes: dict[str, dict[int, str]] | None = None


NETWORKS = [
    Network("02", lambda of: of.build_model(), lambda n: numbers(n, 2), 100),
    Network("05", lambda of: of.build_model(), lambda n: numbers(n, 784), 128),
    Network("07", lambda of: of.build_model(), lambda n: numbers(n, 1, 28, 28), 128),
    Network("08", lambda of: of.build_model(), lambda n: numbers(n, 1, 28, 28), 64),
    Network("09", lambda of: of.build_model(), lambda n: numbers(n, 1, 28, 28), 512),
    Network("10", lambda of: of.Network(modern=False), lambda n: numbers(n, 1, 16, 16), 1),
    Network("10", lambda of: of.Network(modern=True), lambda n: numbers(n, 1, 16, 16), 1),
    Network("13", lambda of: of.Network(), lambda n: letters(n, 3), 32),
    Network("15", lambda of: of.build_model(), lambda n: letters(8 * n), 32),
    *[
        Network(
            "16",
            lambda of, kind=kind: of.CharRNN(kind, 27),
            lambda n: letters(50, n),
            50,
            {"letters": {0: "time", 1: "batch"}},
        )
        for kind in ("lstm", "gru", "rnn")
    ],
    Network("17", lambda of: of.Forecast(), lambda n: numbers(n, 32, 1), 64),
    Network("19", lambda of: of.GPT(27), lambda n: letters(n, 64), 12, {"tokens": {0: "batch", 1: "time"}}),
    Network("20", lambda of: of.GPT2(27, 16, 32, 2, 4), lambda n: letters(n, 9), 1),
    Network("21", lambda of: of.VAE(), lambda n: (numbers(n, 784), numbers(n, 20)), 128),
    Network("22", lambda of: of.build_models()[0], lambda n: numbers(n, 128), 64),
    Network("22", lambda of: of.build_models()[1], lambda n: numbers(n, 784), 64),
    Network("23", lambda of: of.build_model(), lambda n: numbers(n, 4), 1),
]


@needs_onnxruntime
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.example)
def test_networks_of_the_examples(network, tmp_path):
    spec = importlib.util.spec_from_file_location("example", next(EXAMPLES.glob(f"{network.example}_*.py")))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = network.build(module)
    path = tmp_path / "model.onnx"
    file = export(model, network.batch(network.size), path, dynamic_axes=network.dynamic_axes)
    loaded = load(path)
    for size in {network.size, 2, 5}:
        args = network.batch(size) if isinstance(network.batch(size), tuple) else (network.batch(size),)
        check(model, file, args)
        with pynn.no_grad():
            for got, wanted in zip(flat(loaded(*args)), flat(model(*args)), strict=True):
                np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * float(abs(wanted).max()))


def test_every_function_of_the_core_has_a_rule_or_a_reason():
    without = {name for name in OPERATIONS if name not in RULES} - CHECKS  # which have no result
    backward = {name for name in without if name.endswith("_backward")} | {"sum_to"}
    optimisers = {name for name in without if name.endswith("_")} | {"l2_norm"}
    losses = {
        "cross_entropy",
        "nll_loss",
        "mse_loss",
        "binary_cross_entropy_with_logits",
        "hinge_loss",
        "l1_loss",
        "kl_div",
        "smooth_l1_loss",
        *("equal", "count", "share"),  # metrics
    }
    estimators = {"packed_linear"}  # only while pynn.sklearn trains
    assert without == backward | optimisers | losses | estimators
