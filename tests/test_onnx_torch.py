"""Models that PyTorch exports, by both of its exporters: values, gradients, captured calls."""

import importlib.util
import logging
import warnings

import numpy as np
import pytest

import pynn

pytest.importorskip("onnx", reason="the onnx package is not installed")
torch = pytest.importorskip("torch", reason="PyTorch is not installed: no models of its exporter")
from torch import nn  # noqa: E402


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8)])
        self.down, self.head = nn.Conv2d(3, 8, 1), nn.Linear(8, 5)

    def forward(self, x):
        y = self.norms[1](self.second(torch.relu(self.norms[0](self.first(x)))))
        return self.head(torch.relu(y + self.down(x)).mean((2, 3)))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, activation="gelu", batch_first=True)
        self.tokens, self.positions = nn.Embedding(20, 16), nn.Parameter(torch.randn(1, 7, 16))
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 20)

    def forward(self, tokens):
        return self.head(self.layers(self.tokens(tokens) + self.positions))


class Causal(nn.Module):
    """A block of a language model whose last layer shares the table of its first."""

    def __init__(self):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(30, 16), nn.Embedding(12, 16)
        self.norm, self.qkv, self.out = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.head = nn.Linear(16, 30, bias=False)
        self.head.weight = self.tokens.weight
        self.register_buffer("hidden", torch.ones(12, 12).triu(1).bool())

    def forward(self, tokens):
        n, length = tokens.shape
        x = self.tokens(tokens) + self.positions(torch.arange(length))
        heads = self.qkv(self.norm(x)).view(n, length, 3, 4, 4).permute(2, 0, 3, 1, 4)
        scores = (heads[0] @ heads[1].transpose(-2, -1) / 2).masked_fill(self.hidden[:length, :length], float("-inf"))
        first = (scores.softmax(-1) @ heads[2]).transpose(1, 2).reshape(n, length, 16)
        second = nn.functional.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(2)
        return self.head(x + self.out(first + second))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.middle = nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect"), nn.Conv2d(4, 8, 3, padding=1)
        self.up, self.out = nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(8, 1, 1)

    def forward(self, x):
        wide = nn.functional.leaky_relu(self.down(x))
        narrow = nn.functional.relu6(self.middle(nn.functional.max_pool2d(wide, 2)))
        up = nn.functional.interpolate(self.up(narrow), size=x.shape[2:], mode="bilinear", align_corners=True)
        return self.out(torch.cat([up, wide], 1))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.layers = kind(5, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        return self.head(self.layers(x)[0][:, -1])


def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.Sigmoid(), nn.Linear(120, 10), nn.LogSoftmax(-1),
    )  # fmt: skip


def mlp():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 3))


def convolutional():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.Hardswish(), nn.Conv2d(8, 8, 3, groups=8),
        nn.GroupNorm(2, 8), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4), nn.Dropout(),
        nn.Softmax(1),
    )  # fmt: skip


def decoder():
    return nn.Sequential(
        nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1), nn.PReLU(4),
        nn.Upsample(scale_factor=2, mode="bilinear"), nn.ELU(), nn.Upsample(scale_factor=2), nn.ZeroPad2d((1, 0, 2, 0)),
    )  # fmt: skip


MODELS = {
    "mlp": (mlp, lambda: torch.randn(4, 8)),
    "lenet": (lenet, lambda: torch.randn(2, 1, 28, 28)),
    "convolutional": (convolutional, lambda: torch.randn(2, 3, 16, 16)),
    "residual": (Residual, lambda: torch.randn(2, 3, 10, 10)),
    "decoder": (decoder, lambda: torch.randn(2, 3, 5, 5)),
    "unet": (UNet, lambda: torch.randn(2, 1, 8, 10)),
    "causal": (Causal, lambda: torch.randint(0, 30, (2, 9))),
    "rnn": (lambda: Recurrent(nn.RNN), lambda: torch.randn(3, 4, 5)),
    "lstm": (lambda: Recurrent(nn.LSTM), lambda: torch.randn(3, 4, 5)),
    "gru": (lambda: Recurrent(nn.GRU), lambda: torch.randn(3, 4, 5)),
    "encoder": (Encoder, lambda: torch.randint(0, 20, (3, 7))),
}


def randomize(model):
    """Give statistics, scales and shifts values of their own, since exporters store equal arrays once."""
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) * 0.5 + 0.5 if tensor.ndim == 1 else tensor)


def export(model, x, path, dynamo, opset):
    if dynamo and importlib.util.find_spec("onnxscript") is None:
        pytest.skip("onnxscript is not installed: PyTorch's newer exporter needs it")
    more = {"external_data": False, "verbose": False} if dynamo else {"dynamic_axes": {"x": {0: "n"}, "y": {0: "n"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            torch.onnx.export(
                model, (x,), path, dynamo=dynamo, opset_version=opset, input_names=["x"], output_names=["y"], **more
            )
        finally:
            logging.disable(logging.NOTSET)


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("name", MODELS)
def test_an_exported_model_computes_the_same_captured_too(name, dynamo, tmp_path, rng):
    torch.manual_seed(int(rng.integers(2**31)))
    build, draw = MODELS[name]
    model, x = build().eval(), draw()
    randomize(model)
    export(model, x, tmp_path / "model.onnx", dynamo, 18)
    loaded = pynn.onnx.load(tmp_path / "model.onnx")
    with torch.no_grad():
        expected = model(x).numpy()
    y = loaded(x.numpy())
    np.testing.assert_allclose(y.data, expected, rtol=1e-5, atol=1e-5)
    captured = pynn.capture(loaded)
    for _ in range(2):  # recorded, and replayed
        assert np.array_equal(captured(x.numpy()).data, y.data)


@pytest.mark.parametrize("name", ["mlp", "lenet", "residual", "lstm", "encoder"])
def test_gradients_are_those_of_pytorch(name, tmp_path, rng):
    torch.manual_seed(int(rng.integers(2**31)))
    build, draw = MODELS[name]
    model, x = build().eval(), draw()
    randomize(model)
    export(model, x, tmp_path / "model.onnx", False, 18)
    loaded = pynn.onnx.load(tmp_path / "model.onnx")
    pull = rng.normal(size=model(x).shape).astype(np.float32)
    (model(x) * torch.from_numpy(pull)).sum().backward()
    (loaded(x.numpy()) * pull).sum().backward()
    theirs = {key: p.grad.numpy() for key, p in model.named_parameters()}
    shared = [(theirs[key], p.grad) for key, p in loaded.named_parameters() if key in theirs]
    assert len(shared) >= 2  # of the others, the exporter has turned or joined the values, and chosen another name
    for expected, got in shared:
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * max(1, abs(expected).max()))


@pytest.mark.parametrize("opset", [13, 16, 20])
def test_other_opsets_of_the_exporter_load(opset, tmp_path):
    torch.manual_seed(0)
    for name in ("mlp", "residual", "encoder"):
        if opset == 13 and name == "encoder":
            continue  # the exporter needs opset 14 for its attention
        build, draw = MODELS[name]
        model, x = build().eval(), draw()
        export(model, x, tmp_path / "model.onnx", False, opset)
        with torch.no_grad():
            expected = model(x).numpy()
        loaded = pynn.onnx.load(tmp_path / "model.onnx")
        np.testing.assert_allclose(loaded(x.numpy()).data, expected, rtol=1e-5, atol=1e-5)


def test_another_batch_size_than_that_of_the_export(tmp_path):
    torch.manual_seed(0)
    model = Encoder().eval()
    export(model, torch.randint(0, 20, (3, 7)), tmp_path / "model.onnx", False, 18)
    loaded = pynn.onnx.load(tmp_path / "model.onnx")
    x = torch.randint(0, 20, (5, 7))
    with torch.no_grad():
        expected = model(x).numpy()
    np.testing.assert_allclose(loaded(x.numpy()).data, expected, rtol=1e-5, atol=1e-5)
