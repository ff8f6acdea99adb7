"""nn.summary."""

import numpy as np
import pytest
from small_models import Tied, mlp

from pynn import nn


def test_summary_of_lenet():
    model = nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5, groups=2)),
        *(nn.Flatten(), nn.Sequential(nn.Linear(1600, 10), nn.ReLU())),
    )
    model[2].eval()
    before = model.state_dict()
    result = model.summary((1, 28, 28))
    assert [layer.name for layer in result.layers] == ["0", "1", "2", "3", "4", "5", "6.0", "6.1"]
    assert [layer.output_shape for layer in result.layers][4:6] == [(1, 16, 10, 10), (1, 1600)]
    assert [layer.parameters for layer in result.layers] == [156, 12, 0, 0, 1216, 0, 16010, 0]
    assert [layer.multiply_adds for layer in result.layers if layer.multiply_adds] == [117_600, 120_000, 16_000]
    assert result.parameters == 156 + 12 + 1216 + 16010
    assert result.multiply_adds == 117_600 + 120_000 + 16_000
    assert [module.training for module in model.modules()] == [True, True, True, False, *[True] * 6]
    assert all((before[name] == array).all() for name, array in model.state_dict().items())
    lines = str(result).splitlines()
    assert lines[2].split() == ["0", "Conv2d", "[N,", "6,", "28,", "28]", "156", "117,600"]
    assert lines[-1].split() == ["total", "17,394", "253,600"]
    assert len({len(line) for line in lines}) == 1


def test_summary_of_shared_and_integer_models():
    assert nn.summary(nn.Conv1d(2, 4, 3), (2, 10)).multiply_adds == 4 * 8 * 2 * 3
    result = nn.summary(nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2)), (6,), dtype=np.int64)
    assert (result.parameters, result.multiply_adds) == (50, 6 * 4 * 2)
    tied = nn.summary(Tied().astype(np.float64), (3,))
    assert tied.parameters == 9 + 3 + 3


def test_summary_counts_recurrent_layers_and_attention():
    lstm = nn.LSTM(5, 4, num_layers=2, bidirectional=True, batch_first=True)
    row = nn.summary(lstm, (7, 5)).layers[0]
    assert row.output_shape == (1, 7, 8)
    assert row.multiply_adds == 7 * 2 * 4 * 4 * ((5 + 4) + (8 + 4))
    of_letters = nn.summary(lstm, (7,), dtype=np.int64)  # the columns that letters choose are not multiplied
    assert of_letters.multiply_adds == 7 * 2 * 4 * 4 * (4 + (8 + 4))
    assert nn.summary(nn.GRU(5, 4, batch_first=True), (7, 5)).multiply_adds == 7 * 3 * 4 * (5 + 4)
    assert nn.summary(nn.RNNCell(5, 4), 5).multiply_adds == 4 * (5 + 4)
    assert nn.summary(nn.ConvTranspose2d(2, 3, 4), (2, 5, 5)).multiply_adds == 2 * 5 * 5 * 3 * 4 * 4
    block = nn.summary(nn.TransformerEncoderLayer(8, 2, 32, batch_first=True), (6, 8))
    attention = next(layer for layer in block.layers if layer.type == "MultiheadAttention")
    assert attention.output_shape == (1, 6, 8)
    assert attention.multiply_adds == 3 * 6 * 8 * 8 + 2 * 6 * 6 * 8  # out_proj has a line of its own
    assert block.multiply_adds == attention.multiply_adds + 6 * 8 * 8 + 2 * 6 * 8 * 32
    assert nn.summary(nn.MultiheadAttention(8, 2), (6, 8)).multiply_adds == 6 * 4 * 8 * 8 + 2 * 6 * 8


def test_summary_of_vectors():
    model = nn.Sequential(nn.Linear(3, 2))
    assert model.summary(3) == model.summary((3,))


@pytest.mark.parametrize("shape", [np.ones((1, 3)), "3", 2.5, None])
def test_summary_needs_a_shape(shape):
    with pytest.raises(TypeError, match=r"^summary: input_shape is a \w+, needs the sizes of one example"):
        nn.summary(nn.Linear(3, 2), shape)


def test_summary_needs_sizes_and_a_dtype():
    with pytest.raises(ValueError, match=r"^summary: input_shape is \[3, -1\], needs sizes of at least 0$"):
        nn.summary(nn.Linear(3, 2), (3, -1))
    with pytest.raises(TypeError, match=r"^summary: dtype is 'foo', needs float32"):
        nn.summary(nn.Linear(3, 2), 3, "foo")


@pytest.mark.parametrize("model", [None, nn.Linear, np.ones(2)])
def test_summary_needs_a_module(model):
    with pytest.raises(TypeError, match=r"^summary: model is a \w+, needs a Module$"):
        nn.summary(model, (3,))


def test_summary_restores_the_model_after_an_error():
    model = mlp()
    with pytest.raises(ValueError, match="linear"):
        nn.summary(model, (7,))
    assert all(module.training and not module._forward_hooks for module in model.modules())
