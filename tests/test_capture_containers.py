"""Layers that a captured function takes out of a container, which is not called itself."""

import numpy as np
import pytest

import pynn
from pynn import CaptureError, nn
from pynn import functional as F


def in_turn(layers, x):
    for layer in layers:
        x = layer(x)
    return x


class Holder:
    def __init__(self, layers):
        self.layers = layers


def of_two():
    return nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Tanh()), nn.ReLU())


@pytest.mark.parametrize(
    ("layers", "function", "change"),
    [
        (of_two(), lambda m: lambda x: m[0](x), lambda m: m.__setitem__(0, nn.Linear(2, 3))),
        (of_two(), lambda m: lambda x: m[0][0](x), lambda m: m[0].__setitem__(0, nn.Linear(2, 3))),
        (of_two(), lambda m: lambda x: F.linear(x, m[0][0].weight), lambda m: m[0].add_module("0", nn.Linear(2, 3))),
        (
            of_two(),
            lambda m: lambda x: F.linear(x, m[0][0].weight),
            lambda m: setattr(m[0][0], "weight", nn.Parameter(pynn.ones(3, 2))),
        ),
        (nn.ModuleList([nn.Linear(2, 2)]), lambda m: lambda x: in_turn(m, x), lambda m: m.append(nn.Tanh())),
        (
            Holder(nn.ModuleList([nn.Linear(2, 2)])),
            lambda h: lambda x: in_turn(h.layers, x),
            lambda h: h.layers.__setitem__(0, nn.Tanh()),
        ),
    ],
    ids=["item", "nested", "weight of an item", "weight", "all", "attribute"],
)
def test_layers_that_the_function_takes_out_of_a_container_are_guarded(layers, function, change):
    f, x = pynn.capture(function(layers)), pynn.ones(2, 2)
    for plans in (1, 2):
        for _ in range(2):
            np.testing.assert_array_equal(f(x).data, f.function(x).data)
        assert repr(f).endswith(f"plans={plans})")
        change(layers)


def test_a_container_whose_layers_the_function_replaces_is_refused_and_left_as_it_was():
    layers, other = of_two(), nn.Linear(2, 2)
    children = [*layers.children()]

    def swaps(x):
        before, layers[1] = layers[1], other
        return before(x)

    with pytest.raises(CaptureError, match=r"^capture: the function replaces modules of Sequential, which it has"):
        pynn.capture(swaps)(pynn.ones(2, 2))
    assert [*layers.children()] == children
