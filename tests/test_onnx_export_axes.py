"""What an exported file says: lengths of axes, names, and what is refused."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from exported import REFUSES, check, letters, needs_onnxruntime, numbers, onnx, run_onnx

import pynn
from pynn import functional as F
from pynn import models, nn
from pynn.grad_mode import is_grad_enabled
from pynn.guarded import CaptureError
from pynn.onnx import export, load


# -- dynamic axes ------------------------------------------------------------------------------------------------------
def shapes(file: Any) -> list[list[int | str | None]]:
    """Return the shapes of inputs and outputs."""
    return [
        [d.dim_param or (d.dim_value if d.HasField("dim_value") else None) for d in info.type.tensor_type.shape.dim]
        for info in (*file.graph.input, *file.graph.output)
    ]


@needs_onnxruntime
def test_fixed_shapes(rng):
    model, x = models.lenet(), rng.standard_normal((2, 1, 28, 28)).astype(np.float32)
    file = export(model, x, dynamic_axes={})
    assert shapes(file) == [[2, 1, 28, 28], [2, 10]]
    check(model, file, (x,))
    with pytest.raises(REFUSES, match=r"(?i)dimension"):
        run_onnx(file, {"x": x[:1]}, np.float32)


@needs_onnxruntime
def test_height_and_width(rng):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.MaxPool2d(2), nn.GlobalAvgPool2d(), nn.Linear(4, 2)
    )
    axes = {"x": {0: "batch", 2: "height", 3: "width"}, "output": {0: "batch"}}
    file = export(model, numbers(1, 3, 12, 14), dynamic_axes=axes, output_names=["output"])
    assert shapes(file) == [["batch", 3, "height", "width"], ["batch", 2]]
    for shape in ((1, 3, 12, 14), (2, 3, 9, 30), (5, 3, 31, 8)):
        check(model, file, (rng.standard_normal(shape).astype(np.float32),))


@needs_onnxruntime
def test_lengths_of_several_inputs(rng):
    layer = nn.LSTM(3, 4, num_layers=2)

    def forward(x: pynn.Tensor, state: Any) -> Any:
        return layer(x, state)

    def args(time: int, batch: int) -> Any:
        return tuple(
            rng.standard_normal(s).astype(np.float32) for s in ((time, batch, 3), (2, batch, 4), (2, batch, 4))
        )

    x, h, c = args(5, 2)
    with pytest.raises(ValueError, match=r"^export: 'batch' is 5 along axis 0 of x and 2 along axis 0 of state_0 "):
        export(forward, (x, (h, c)))
    axes = {"x": {0: "time", 1: "batch"}, "state_0": {1: "batch"}, "state_1": {-2: "batch"}}
    file = export(forward, (x, (h, c)), dynamic_axes=axes)
    assert shapes(file) == [
        ["time", "batch", 3],
        *[[2, "batch", 4]] * 2,
        ["time", "batch", 4],
        *[[2, "batch", 4]] * 2,
    ]
    assert [info.name for info in file.graph.output] == ["output_0", "output_1", "output_2"]
    for time, batch in ((5, 2), (1, 1), (9, 4)):
        x, h, c = args(time, batch)
        check(forward, file, (x, (h, c)))


@needs_onnxruntime
def test_products_of_lengths(rng):
    def forward(x: pynn.Tensor) -> Any:
        n, t, _ = x.shape
        return x.reshape(-1, 3), x.transpose(1, 0, 2).reshape(t, n * 3), F.concatenate([x, x], 1).reshape(n, 3, 2 * t)

    file = export(forward, numbers(2, 5, 3), dynamic_axes={"x": [0, 1]})
    assert shapes(file)[0] == ["x_0", "x_1", 3]
    for shape in ((2, 5, 3), (1, 1, 3), (7, 4, 3)):
        check(forward, file, (rng.standard_normal(shape).astype(np.float32),))


def hides(time: int, kind: str) -> np.ndarray | None:
    """Return a mask that hides what comes later."""
    later = np.triu(np.ones((time, time), bool), 1)
    return {"none": None, "bool": later, "numbers": np.where(later, -np.inf, 0).astype(np.float32)}[kind]


@needs_onnxruntime
@pytest.mark.parametrize("kind", ["none", "bool", "numbers"])
def test_masks_of_attention(rng, kind):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()

    def forward(x: pynn.Tensor, mask: Any, padding: Any) -> Any:
        return layer(x, mask, padding)

    def args(batch: int, time: int) -> Any:
        padding = rng.random((batch, time)) < 0.4
        padding[0] = True  # nothing is seen
        return rng.standard_normal((batch, time, 8)).astype(np.float32), hides(time, kind), padding

    axes = {name: {0: "batch", 1: "time"} for name in ("x", "padding")}
    file = export(forward, args(3, 5), dynamic_axes=axes | ({} if kind == "none" else {"mask": {0: "time", 1: "time"}}))
    for batch, time in ((3, 5), (1, 1), (2, 9)):
        check(forward, file, args(batch, time))


@needs_onnxruntime
def test_attention_to_other_keys(rng):
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()

    def forward(query: pynn.Tensor, key: pynn.Tensor, value: pynn.Tensor) -> Any:
        return attention(query, key, value, is_causal=True)

    def args(batch: int, queries: int, keys: int) -> Any:
        shapes = (batch, queries, 8), (batch, keys, 8), (batch, keys, 8)
        return tuple(rng.standard_normal(shape).astype(np.float32) for shape in shapes)

    axes = {"query": {0: "batch", 1: "L"}, "key": {0: "batch", 1: "S"}, "value": {0: "batch", 1: "S"}}
    file = export(forward, args(2, 4, 6), dynamic_axes=axes)
    for lengths in ((2, 4, 6), (1, 5, 3), (3, 1, 1)):
        check(forward, file, args(*lengths))


@needs_onnxruntime
def test_what_follows_the_length_of_a_table(rng):
    # The example is as long as the model permits: shorter ones are recorded.
    positions = nn.Embedding(8, 4)
    file = export(lambda x: x + positions.weight[: x.shape[1]], numbers(2, 8, 4), dynamic_axes={"x": {1: "time"}})
    for time in (8, 3, 1):
        x = rng.standard_normal((2, time, 4)).astype(np.float32)
        check(lambda x: x + positions.weight[: x.shape[1]], file, (x,))


# -- files and names ---------------------------------------------------------------------------------------------------
class Shared(nn.Module):
    def __init__(self) -> None:
        self.table = nn.Embedding(9, 4)
        self.layer = nn.Linear(4, 4)
        self.same = self.layer
        self.output = nn.Parameter(np.ones(4, np.float32))

    def forward(self, tokens: pynn.Tensor, scale: float, *, output: pynn.Tensor) -> pynn.Tensor:
        x = self.same(self.layer(self.table(tokens))) * self.output * scale + output
        return F.linear(x, self.table.weight)


@needs_onnxruntime
def test_names(rng):
    model, tokens, extra = Shared(), letters(2, 5) % 9, rng.standard_normal((2, 1, 4)).astype(np.float32)
    file = export(model, (tokens, 0.5), kwargs={"output": extra})
    assert [info.name for info in file.graph.input] == ["tokens", "output_"]
    assert [info.name for info in file.graph.output] == ["output__"]
    names = [weight.name for weight in file.graph.initializer]
    assert sorted(name for name in names if "." in name) == ["layer.bias", "layer.weight", "table.weight"]
    assert "output" in names
    with pynn.no_grad():
        expected = model(tokens, 0.5, output=pynn.Tensor(extra)).numpy()
    got = run_onnx(file, {"tokens": tokens, "output_": extra}, np.float32)[0]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * abs(expected).max())
    named = export(model, (tokens, 0.5), kwargs={"output": extra}, input_names=["a", "b"], output_names=["c"])
    assert [info.name for info in (*named.graph.input, *named.graph.output)] == ["a", "b", "c"]
    for names, message in (
        ({"input_names": ["a"]}, r"input_names are \['a'\], needs 2, for tokens, output"),
        ({"input_names": ["a", "a"]}, "needs different texts"),
        ({"output_names": ["layer.bias"]}, "two arrays have the name 'layer.bias'"),
        ({"input_names": ["a", "b"], "output_names": ["b"]}, "two arrays have the name 'b'"),
    ):
        with pytest.raises(ValueError, match=f"^export: .*{message}"):
            export(model, (tokens, 0.5), kwargs={"output": extra}, dynamic_axes={}, **names)


@needs_onnxruntime
def test_a_function_of_two_models_and_repeated_outputs(rng):
    encoder, decoder = nn.Sequential(nn.Linear(4, 2), nn.Tanh()), nn.Linear(2, 4)

    def both(x: pynn.Tensor) -> Any:
        code = encoder(x)
        return {"code": code, "again": code, "x": x, "y": decoder(code), "one": decoder.weight, "fixed": pynn.ones(2)}

    file = export(both, numbers(3, 4))
    assert [info.name for info in file.graph.output] == ["code", "again", "x_", "y", "one", "fixed"]
    assert {"0.weight", "0.bias", "1.weight", "1.bias"} <= {weight.name for weight in file.graph.initializer}
    check(both, file, (rng.standard_normal((5, 4)).astype(np.float32),))


def test_names_of_nodes_and_of_captured_and_loaded_models(tmp_path):
    x, path = numbers(1, 1, 28, 28), tmp_path / "model.onnx"
    file = export(models.lenet(), x)
    assert [node.name for node in file.graph.node if node.op_type in ("Conv", "Gemm")] == [
        f"{at}/{op}" for at, op in (("0", "Conv"), ("3", "Conv"), ("7", "Gemm"), ("9", "Gemm"), ("11", "Gemm"))
    ]
    assert export(pynn.capture(models.mlp()), x).graph.input[0].name == "x"
    export(models.mlp(), x, path, input_names=["image"], output_names=["digits"])
    again = export(load(path), x)
    assert [info.name for info in (*again.graph.input, *again.graph.output)] == ["image", "digits"]


def test_the_file(tmp_path):
    path = tmp_path / "model.onnx"
    file = export(models.mlp(), numbers(1, 1, 28, 28), path)
    assert onnx.load(path) == file
    assert (file.ir_version, [(o.domain, o.version) for o in file.opset_import]) == (10, [("", 18)])
    assert (file.producer_name, file.producer_version) == ("pynn", pynn.__version__)
    before = path.read_bytes()
    with pytest.raises(NotImplementedError):
        export(lambda x: F.mse_loss(x, x), numbers(1, 3), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_model_is_left_as_it_was():
    calls: list[str] = []
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    model[1].eval()
    model[3].weight.requires_grad = False
    model[0].register_forward_hook(lambda *args: calls.append("forward"))
    model(numbers(3, 4)).sum().backward()
    before, modes = model.state_dict(), [module.training for module in model.modules()]
    grads, state = [p.grad for p in model.parameters()], repr(pynn.random.get_rng_state())
    calls.clear()
    export(model, numbers(3, 4))
    assert all(np.array_equal(array, before[name]) for name, array in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert all(p.grad is grad for p, grad in zip(model.parameters(), grads, strict=True))
    assert repr(pynn.random.get_rng_state()) == state
    assert is_grad_enabled()
    assert not calls
    for function in (lambda x: F.dropout(model(x)), lambda x: model(x).numpy(), lambda x: pynn.randn(2) * model(x)):
        with pytest.raises((NotImplementedError, CaptureError)):
            export(function, numbers(3, 4))
        assert [module.training for module in model.modules()] == modes
        assert repr(pynn.random.get_rng_state()) == state


# -- errors ------------------------------------------------------------------------------------------------------------
class Head(nn.Module):
    def __init__(self) -> None:
        self.layer = nn.Linear(3, 3)

    def forward(self, x: pynn.Tensor) -> pynn.Tensor:
        return F.cross_entropy(self.layer(x), np.zeros(x.shape[0], np.int64))


def branching(x: pynn.Tensor) -> pynn.Tensor:
    return x if x.shape[0] < 4 else -x


def by_loop(x: pynn.Tensor) -> pynn.Tensor:
    return F.stack([row * 2 for row in x])


@pytest.mark.parametrize(
    ("model", "example", "error", "message"),
    [
        (
            nn.Sequential(Head()),
            numbers(2, 3),
            NotImplementedError,
            r"cross_entropy, in '0' \(Head\), at .*test_onnx_export_axes.py:\d+: there is no rule",
        ),
        (lambda x: F.dropout(x), numbers(2, 3), NotImplementedError, "dropout, at .*: drops elements at random"),
        (
            lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.1),
            numbers(1, 2, 3, 4),
            NotImplementedError,
            "scaled_dot_product_attention, at .*: drops weights at random",
        ),
        (
            lambda x: F.self_attention(x, 2, dropout_p=0.1),
            numbers(1, 3, 12),
            NotImplementedError,
            "self_attention, at .*: drops weights at random",
        ),
        (lambda x: x[x.numpy() > 0], numbers(2, 3), CaptureError, r"a value \[2, 3\] of a captured step is read"),
        (
            lambda x: x if x.sum() > 0 else -x,
            numbers(2, 3),
            CaptureError,
            "a value .* is read, at .*test_onnx_export_axes.py",
        ),
        (lambda x: x * pynn.randn(3), numbers(2, 3), CaptureError, "random numbers are drawn with NumPy"),
        (branching, numbers(2, 3), ValueError, "other things for other lengths of 'batch'; pass dynamic_axes={}"),
        (by_loop, numbers(2, 3), ValueError, "other things for other lengths of 'batch'; pass dynamic_axes={}"),
        (
            lambda x: x.reshape(2, 3),
            numbers(2, 3),
            ValueError,
            r"does not take other lengths of 'batch' .* pass dynamic_axes={} .* reshape: \[3, 3\]",
        ),
        (
            lambda x: x * np.arange(x.size, dtype=np.float32).reshape(x.shape),
            numbers(2, 3),
            NotImplementedError,
            r"mul, at .*: an array \[batch, 3\] that is no parameter, .* pass dynamic_axes={}",
        ),
        (
            lambda x: pynn.tensor(np.arange(x.size, dtype=np.float32)),
            numbers(2, 3),
            NotImplementedError,
            r"what the model returns: an array \[3\*batch\] that is no parameter",
        ),
        (lambda x: F.softplus(x, beta=x.shape[0]), numbers(2, 3), ValueError, "softplus .*: an argument is 2.0 or 9.0"),
        (
            lambda x: F.broadcast_to(x[:1], (x.shape[0] // 2 + 1, 3)),
            numbers(2, 3),
            NotImplementedError,
            "broadcast_to, .*: needs a length that is 2, 2, 5 where the dynamic axes are batch 2; batch 3; batch 9",
        ),
        (lambda x: 3, numbers(2, 3), TypeError, "the model returns a int, needs tensors"),
        (lambda x: None, numbers(2, 3), TypeError, "the model returns no tensor"),
        (lambda x: x, (numbers(2), numbers(2)), TypeError, "the model does not take the example: too many positional"),
        (nn.Linear(3, 2), [[1.0, 2.0, 3.0]], TypeError, "the example has no tensor or array"),
        (3, numbers(2, 3), TypeError, "model is a int, needs a Module or a function"),
        (lambda x: x + 1, np.zeros((0, 3), np.float32), ValueError, r"x \[0, 3\] has nothing along axis 0"),
    ],
)
def test_errors(model, example, error, message):
    with pytest.raises(error, match=f"(?s)^export: .*{message}"):
        export(model, example)


def test_example_and_path_in_the_wrong_order(tmp_path):
    with pytest.raises(
        TypeError, match=r"^export: path, after the example, is a ndarray, needs a str, an os\.PathLike"
    ):
        export(F.relu, tmp_path / "relu.onnx", numbers(2, 3))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"x": 5}, r"dynamic_axes: x has 5, needs axes, as \{0: 'batch'\} or \[0\]"),
        ({"x": "01"}, "dynamic_axes: x has '01', needs axes"),
        ({"x": {"0": "b"}}, "dynamic_axes: x has the axis '0', needs an integer"),
        ({"x": [1.0]}, "dynamic_axes: x has the axis 1.0, needs an integer"),
        (["x"], r"dynamic_axes are \['x'\], needs a dict"),
    ],
)
def test_dynamic_axes_of_another_type(axes, message):
    with pytest.raises(TypeError, match=f"^export: {message}"):
        export(F.relu, numbers(2, 3), dynamic_axes=axes)


def test_a_missing_folder(tmp_path):
    path = tmp_path / "missing" / "x.onnx"
    with pytest.raises(FileNotFoundError) as caught:
        export(F.relu, numbers(2, 3), path)
    assert caught.value.filename == str(path)


def test_a_dynamic_axis_without_a_name():
    with pytest.raises(TypeError, match=r"^export: dynamic_axes: axis 0 of x is called 5, needs a text"):
        export(F.relu, numbers(2, 3), dynamic_axes={"x": {0: 5}})


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"y": {0: "n"}}, "dynamic_axes names 'y', the inputs are x"),
        ({"x": {2: "n"}}, r"dynamic_axes: x \[2, 3\] has nothing along axis 2"),
        ({"x": {0: "n", -2: "m"}}, "dynamic_axes: x has axis 0 twice"),
        ({"x": [1, -1]}, "dynamic_axes: x has axis 1 twice"),
        ({"x": {0: "n", 1: "n"}}, "'n' is 2 along axis 0 of x and 3 along axis 1 of x; name those"),
    ],
)
def test_errors_of_dynamic_axes(axes, message):
    with pytest.raises(ValueError, match=f"^export: {message}"):
        export(lambda x: x + 1, numbers(2, 3), dynamic_axes=axes)


def test_within_a_captured_function():
    with pytest.raises(RuntimeError, match=r"^export: called while a function is captured"):
        pynn.capture(lambda x: export(F.relu, x))(numbers(2, 3))


def test_without_onnx(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"^export: needs the onnx package: pip install 'pynn-cpu\[onnx\]'"):
        export(nn.Linear(3, 3), numbers(2, 3))
