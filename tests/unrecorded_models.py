"""Models for the tests of `nn.Sequential` where nothing is recorded, and what they must return."""

import numpy as np
import pytest

import pynn
from pynn import nn


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)).eval()


def lenet():
    return nn.Sequential(
        *(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 3, padding="same"), nn.Tanh()),
        *(nn.Conv2d(4, 2, 3, bias=False), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, 5), nn.LeakyReLU()),
        *(nn.Dropout(), nn.Linear(5, 4, bias=False), nn.Sigmoid(), nn.LayerNorm(4), nn.Linear(4, 2), nn.Flatten()),
    ).eval()


SHAPES = {mlp: (3, 4), lenet: (1, 8, 9)}
MODELS = pytest.mark.parametrize("build", [mlp, lenet])


def images(build, rng, batch=2):
    return rng.normal(size=(batch, *SHAPES[build])).astype(np.float32)


def one_by_one(model, x):
    """What the model is: its layers, each called as a module."""
    for layer in model:
        x = layer(x)
    return x


def check(model, x):
    with pynn.no_grad():
        y, expected = model(x), one_by_one(model, x)
    assert type(y) is pynn.Tensor
    assert y.is_leaf
    assert not y.requires_grad
    assert y.dtype == expected.dtype
    np.testing.assert_array_equal(y.numpy(), expected.numpy())
    return y
