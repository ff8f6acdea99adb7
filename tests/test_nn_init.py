"""Initialisers."""

import math

import numpy as np
import pytest
from small_models import mlp

import pynn
from pynn import nn

N = 200 * 50 * 2 * 2  # values of the weight below


@pytest.fixture
def weight():
    pynn.seed(5)
    return nn.Parameter(np.empty((200, 50, 2, 2), np.float32))


@pytest.mark.parametrize(
    ("fill", "std"),
    [
        (lambda w: nn.init.normal_(w, 0.0, 0.3), 0.3),
        (lambda w: nn.init.uniform_(w, -2.0, 2.0), 2 / math.sqrt(3)),
        (nn.init.xavier_uniform_, math.sqrt(2 / (200 + 800))),
        (lambda w: nn.init.xavier_normal_(w, 2.0), 2 * math.sqrt(2 / (200 + 800))),
        (nn.init.kaiming_uniform_, math.sqrt(2 / 200)),
        (lambda w: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="tanh"), 5 / 3 / math.sqrt(800)),
        (lambda w: nn.init.kaiming_uniform_(w, a=math.sqrt(5)), 1 / math.sqrt(3 * 200)),
        # The variance of N(0, 1) within ±2 is 1 - 4 φ(2) / (2 Φ(2) - 1).
        (nn.init.trunc_normal_, math.sqrt(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2)))),
    ],
)
def test_moments_of_initialisers(weight, fill, std):
    assert fill(weight) is weight
    # Standard errors: std/√N of the mean and at most std/√(2N) of the standard deviation; 6 of them are one in 10⁹.
    assert abs(weight.data.mean(dtype=np.float64)) < 6 * std / math.sqrt(N)
    assert abs(weight.data.std(dtype=np.float64) / std - 1) < 6 / math.sqrt(2 * N)


def test_initialisers_with_bounds(weight):
    assert abs(nn.init.trunc_normal_(weight, 1.0, 2.0, 0.5, 1.5).data - 1).max() <= 0.5
    assert abs(nn.init.xavier_uniform_(weight).data).max() <= np.float32(math.sqrt(6 / 1000))
    assert (nn.init.ones_(weight).data == 1).all()
    assert (nn.init.zeros_(weight).data == 0).all()
    assert (nn.init.constant_(weight, 0.5).data == 0.5).all()


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (5, 5), (3, 2, 2, 2)])
def test_orthogonal(shape):
    pynn.seed(1)
    w = nn.init.orthogonal_(nn.Parameter(np.empty(shape)), gain=2.0).data.reshape(shape[0], -1) / 2
    product = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(product, np.eye(len(product)), atol=1e-14)


def test_orthogonal_has_both_signs():
    pynn.seed(1)
    signs = {float(np.sign(nn.init.orthogonal_(nn.Parameter(np.empty((1, 1)))).item())) for _ in range(40)}
    assert signs == {-1.0, 1.0}


@pytest.mark.parametrize("layer", [nn.Linear(64, 100), nn.Conv2d(16, 100, 2)], ids=["linear", "conv2d"])
def test_default_init_is_pytorchs(layer):
    pynn.seed(2)
    layer.reset_parameters()
    for p in layer.parameters():
        assert 0.9 / 8 < abs(p.data).max() <= np.float32(1 / 8)  # U(-1/√64, 1/√64)


def test_seed_gives_the_same_model():
    states = []
    for _ in range(2):
        pynn.seed(9)
        states.append(mlp().state_dict())
    assert all((states[0][name] == states[1][name]).all() for name in states[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: nn.init.uniform_(w, 1, 0), "uniform_: needs a <= b, got 1 and 0"),
        (lambda w: nn.init.normal_(w, 0, -1), "normal_: std is -1"),
        (lambda w: nn.init.normal_(w, math.nan), "normal_: mean is nan, needs a finite number"),
        (lambda w: nn.init.uniform_(w, 0, math.inf), "uniform_: b is inf, needs a finite number"),
        (lambda w: nn.init.xavier_uniform_(w, -1), "xavier_uniform_: gain is -1, needs"),
        (lambda w: nn.init.xavier_normal_(w, -1), "xavier_normal_: gain is -1, needs"),
        (lambda w: nn.init.sinusoidal_(w, 0), "sinusoidal_: base is 0, needs more than 0"),
        (lambda w: nn.init.trunc_normal_(w, 0, 1, math.nan), "trunc_normal_: .* needs at least 1 %"),
        (lambda w: nn.init.trunc_normal_(w, 0, 1, 5, 6), "trunc_normal_"),
        (lambda w: nn.init.trunc_normal_(w, 0, 0), "trunc_normal_"),
        (lambda w: nn.init.kaiming_normal_(w, mode="in"), "kaiming_normal_: mode is 'in'"),
        (lambda w: nn.init.kaiming_normal_(w, nonlinearity="swish"), "nonlinearity is 'swish'"),
        (lambda w: nn.init.xavier_normal_(nn.Parameter([1.0])), r"xavier_normal_: tensor \[1\], needs 2 axes"),
        (lambda w: nn.init.orthogonal_(nn.Parameter([1.0])), r"orthogonal_: tensor \[1\], needs 2 axes"),
    ],
)
def test_bad_initialisers(weight, call, message):
    with pytest.raises(ValueError, match=message):
        call(weight)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda w: nn.init.uniform_(w, "0"), "uniform_: a"),
        (lambda w: nn.init.normal_(w, 0, "0"), "normal_: std"),
        (lambda w: nn.init.trunc_normal_(w, 0, 1, "0"), "trunc_normal_: a"),
        (lambda w: nn.init.constant_(w, "0"), "constant_: value"),
        (lambda w: nn.init.xavier_uniform_(w, "0"), "xavier_uniform_: gain"),
        (lambda w: nn.init.kaiming_normal_(w, "0"), "kaiming_normal_: a"),
        (lambda w: nn.init.orthogonal_(w, "0"), "orthogonal_: gain"),
        (lambda w: nn.init.sinusoidal_(w, "0"), "sinusoidal_: base"),
        (lambda w: nn.init.calculate_gain("leaky_relu", "0"), "calculate_gain: a"),
    ],
)
def test_what_is_no_number_is_named(weight, call, name):
    with pytest.raises(TypeError, match=f"^{name} is '0', needs a number$"):
        call(weight)


def test_only_tensors_are_filled():
    for fill in (getattr(nn.init, name) for name in dir(nn.init) if name.endswith("_") and name[0] != "_"):
        options = (0.0,) if fill is nn.init.constant_ else ()
        array = np.ones((2, 2), np.float32)
        for other, name in ((array, "ndarray"), (nn.Linear(2, 2), "Linear"), ([1.0], "list"), (None, "NoneType")):
            with pytest.raises(TypeError, match=rf"^nn.init: got a {name}, needs a Tensor$"):
                fill(other, *options)


@pytest.mark.parametrize("fill", [nn.init.uniform_, nn.init.kaiming_normal_, nn.init.orthogonal_])
def test_integers_do_not_hold_what_is_drawn(fill):
    x = pynn.tensor([[1, 2], [3, 4]])
    with pytest.raises(TypeError, match=r"^nn.init: got a tensor of int64, needs float32 or float64$"):
        fill(x)
    assert nn.init.ones_(x).tolist() == [[1, 1], [1, 1]]


def test_initialiser_counts_as_a_write():
    w = nn.Parameter([[2.0]])
    y = (w * w).sum()
    nn.init.ones_(w)
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()
