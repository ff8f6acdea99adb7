"""Facts about operations that central differences and tolerances cannot show: kinks, ties, NaN, infinity, state."""

import numpy as np
import pytest

import pynn
from pynn import functional as F

nan, inf = np.nan, np.inf


def value_and_gradient(function, *xs, dy=None):
    tensors = [pynn.Tensor(np.array(x, np.float32), requires_grad=True) for x in xs]
    y = function(*tensors)
    y.backward(np.ones(y.shape, np.float32) if dy is None else np.array(dy, np.float32))
    return [y.data.tolist(), *(t.grad.tolist() for t in tensors)]


@pytest.mark.parametrize(
    ("function", "x", "y", "dx"),
    [
        (F.relu, [-1, 0, 2, inf, -inf], [0, 0, 2, inf, 0], [0, 0, 1, 1, 0]),
        (F.abs, [-1, 0, 2, inf, -inf], [1, 0, 2, inf, inf], [-1, 0, 1, 1, -1]),
        (F.leaky_relu, [0, inf], [0, inf], None),
        (lambda x: F.clip(x, -1, 1), [-1, 1, -2, 2, inf], [-1, 1, -1, 1, 1], [1, 1, 0, 0, 0]),
        (lambda x: F.clip(x, nan, 1), [0, 5], [nan, nan], [0, 0]),
        (lambda x: F.clip(x, high=nan), [0, 5], [nan, nan], [0, 0]),
        (F.sqrt, [0, 4, inf], [0, 2, inf], [inf, 0.25, 0]),
        (F.sigmoid, [-inf, 0, inf, -1000, 1000], [0, 0.5, 1, 0, 1], [0, 0.25, 0, 0, 0]),
        (F.tanh, [-inf, 0, inf, -1000, 1000], [-1, 0, 1, -1, 1], [0, 1, 0, 0, 0]),
        (F.exp, [-inf, 0, inf], [0, 1, inf], [0, 1, inf]),
        (F.log, [0, 1, inf], [-inf, 0, inf], [inf, 1, 0]),
        (lambda x: x**2, [0, -3], [0, 9], [0, -6]),
        (lambda x: x**0, [0, -3, inf], [1, 1, 1], [0, 0, 0]),
        (lambda x: x**1, [0, -3], [0, -3], [1, 1]),
        (lambda x: x**0.5, [4, inf, -inf], [2, inf, inf], [0.25, 0, 0]),
        (F.max, [1, 3, 3, 2], 3, [0, 0.5, 0.5, 0]),
        (F.min, [1, 3, 1, 1], 1, [1 / 3, 0, 1 / 3, 1 / 3]),
        (F.max, [-inf, -inf], -inf, [0.5, 0.5]),
        (F.softmax, [1000, 1000], [0.5, 0.5], [0, 0]),
        (F.softmax, [-inf, 0], [0, 1], [0, 0]),
        (F.log_softmax, [0, 0, -inf], [-np.log(2), -np.log(2), -inf], None),
    ],
)
def test_kinks_and_limits(function, x, y, dx):
    actual, gradient = value_and_gradient(function, x)
    np.testing.assert_allclose(actual, y, rtol=1e-6)
    if dx is not None:
        np.testing.assert_allclose(gradient, dx, rtol=1e-6)


def test_maximum_and_minimum_halve_ties():
    assert value_and_gradient(F.maximum, [1, 2, 3], [2, 2, 2]) == [[2, 2, 3], [0, 0.5, 1], [1, 0.5, 0]]
    assert value_and_gradient(F.minimum, [1, 2, 3], [2, 2, 2]) == [[1, 2, 2], [1, 0.5, 0], [0, 0.5, 1]]


def test_pow_of_zero():
    a, b = pynn.tensor([0.0, 0.0, 2.0], requires_grad=True), pynn.tensor([0.0, 2.0, 0.0], requires_grad=True)
    y = F.pow(a, b)
    y.backward(np.ones(3, np.float32))
    assert y.tolist() == [1, 0, 1]
    assert a.grad.tolist() == [0, 0, 0]
    np.testing.assert_allclose(b.grad, [0, 0, np.log(2)], rtol=1e-6)


@pytest.mark.parametrize(
    "function",
    [
        F.relu,
        F.leaky_relu,
        F.abs,
        F.neg,
        F.exp,
        F.log,
        F.sqrt,
        F.sigmoid,
        F.tanh,
        F.gelu,
        F.max,
        F.min,
        F.sum,
        F.mean,
        F.var,
        F.softmax,
        F.log_softmax,
        pytest.param(lambda x: F.gelu(x, "tanh"), id="gelu by tanh"),
        pytest.param(lambda x: F.clip(x, -1, 1), id="clip"),
        pytest.param(lambda x: F.maximum(x, 0.0), id="maximum"),
        pytest.param(lambda x: F.minimum(0.0, x), id="minimum"),
    ],
)
@pytest.mark.parametrize("size", [1, 40])
def test_nan_stays_nan(function, size):
    for at in {0, size // 2, size - 1}:
        x = np.zeros(size, np.float32)
        x[at] = nan
        y = function(pynn.Tensor(x)).data
        if size > 1 or y.size == 1:
            assert np.isnan(y[at] if y.shape == x.shape else y).all()


@pytest.mark.parametrize("pool", [F.max_pool2d, F.avg_pool2d])
def test_pools_propagate_nan_to_their_windows_alone(pool):
    for at in range(4):
        x = np.ones((1, 1, 8, 40), np.float32)
        x[0, 0, 2 + at // 2, 4 + at % 2] = nan
        y = pool(x, 2).data[0, 0]
        assert np.isnan(y[1, 2])
        assert np.isnan(y).sum() == 1


def test_max_pool2d_sends_the_gradient_to_the_first_of_ties():
    x = pynn.tensor([[[[1.0, 1.0], [1.0, 1.0]]]], requires_grad=True)
    F.max_pool2d(x, 2).backward(np.ones((1, 1, 1, 1), np.float32))
    assert x.grad.tolist() == [[[[1, 0], [0, 0]]]]


def test_max_pool2d_never_chooses_padding():
    x = pynn.Tensor(np.full((1, 1, 2, 2), -inf, np.float32), requires_grad=True)
    y = F.max_pool2d(x, 3, 1, 1)
    assert (y.data == -inf).all()
    y.backward(np.ones(y.shape, np.float32))
    assert x.grad.sum() == 4


def test_argmax_takes_the_first_of_ties_and_nan_first_of_all():
    assert F.argmax(np.array([1.0, 3.0, 3.0])).item() == 1
    assert F.argmax(np.array([1.0, nan, 3.0, nan])).item() == 1


def test_mean_over_nothing_is_nan_and_sum_is_zero():
    assert np.isnan(F.mean(np.zeros(0, np.float32)).data)
    assert F.sum(np.zeros(0, np.float32)).item() == 0
    assert F.sum(np.zeros((3, 0), np.float32), 1).tolist() == [0, 0, 0]


def test_cross_entropy_over_nothing():
    x = pynn.Tensor(np.ones((2, 3), np.float32), requires_grad=True)
    loss = F.cross_entropy(x, np.array([-100, -100]))
    assert np.isnan(loss.data)  # as in PyTorch
    loss = F.cross_entropy(x, np.array([-100, -100]), reduction="sum")
    loss.backward()
    assert loss.item() == 0
    assert (x.grad == 0).all()


def test_nan_targets_reach_the_loss():
    x, target = pynn.Tensor(np.zeros(3, np.float32), requires_grad=True), np.array([0, nan, 1], np.float32)
    for loss in (F.mse_loss, F.binary_cross_entropy_with_logits, F.hinge_loss):
        assert np.isnan(loss(x, target).data), loss


def test_extreme_logits():
    loss, dx = value_and_gradient(lambda x: F.cross_entropy(x, np.array([0, 1])), [[1e4, 0], [1e4, 0]])
    assert loss == 5e3
    assert dx == [[0, 0], [0.5, -0.5]]
    target = np.array([0, 1, 1], np.float32)
    loss, dx = value_and_gradient(lambda x: F.binary_cross_entropy_with_logits(x, target, "none"), [1e4, 1e4, -1e4])
    assert loss == [1e4, 0, 1e4]
    assert dx == [1, 0, -1]


def test_infinite_logits_have_the_limits_of_large_ones():
    x, target = [inf, inf, inf, -inf, -inf, -inf], np.array([0, 0.5, 1, 0, 0.5, 1], np.float32)
    loss, dx = value_and_gradient(lambda x: F.binary_cross_entropy_with_logits(x, target, "none"), x)
    assert loss == [inf, inf, 0, 0, inf, inf]
    assert dx == [1, 0.5, 0, 0, -0.5, -1]


def test_hinge_loss_is_flat_beyond_the_margin():
    target = np.array([1, 1, -1], np.float32)
    loss, dx = value_and_gradient(lambda x: F.hinge_loss(x, target, "none"), [2, 0.5, 0.5])
    assert loss == [0, 0.5, 1.5]
    assert dx == [0, -1, 1]


def test_batch_norm_moves_the_running_statistics():
    x = np.array([[1.0], [3.0]], np.float32)
    mean, var = np.array([10.0], np.float32), np.array([4.0], np.float32)
    F.batch_norm(x, mean, var, training=True, momentum=0.5)
    assert mean.tolist() == [6.0]
    assert var.tolist() == [3.0]  # the unbiased variance is 2
    before = mean.copy(), var.copy()
    F.batch_norm(x, mean, var)
    assert (mean, var) == before


def test_astype_converts_the_gradient_back():
    x = pynn.Tensor(np.ones(2, np.float64), requires_grad=True)
    y = F.astype(x, np.float32)
    assert y.dtype == np.float32
    y.backward(np.array([1.0, 2.0], np.float32))
    assert x.grad.dtype == np.float64
    assert x.grad.tolist() == [1, 2]
    assert not F.astype(x, np.int64).requires_grad


def test_dropout_drops_a_share_and_repeats_after_seed():
    x = pynn.Tensor(np.ones(100_000, np.float32), requires_grad=True)
    pynn.seed(3)
    a, b = F.dropout(x, 0.25), F.dropout(x, 0.25)
    pynn.seed(3)
    assert (F.dropout(x, 0.25).data == a.data).all()
    assert (a.data != b.data).any()
    assert set(np.unique(a.data)) == {np.float32(0), np.float32(1 / 0.75)}
    # Five standard deviations of a binomial distribution.
    assert abs((a.data == 0).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / x.size)
    a.backward(np.ones(x.shape, np.float32))
    assert (x.grad == a.data).all()


def test_embedding_adds_the_gradients_of_repeated_indices():
    weight = pynn.Tensor(np.zeros((3, 2), np.float32), requires_grad=True)
    F.embedding(np.array([1, 1, 0]), weight).backward(np.array([[1, 2], [10, 20], [5, 6]], np.float32))
    assert weight.grad.tolist() == [[5, 6], [11, 22], [0, 0]]


@pytest.mark.parametrize("operator", ["+", "-", "*", "/", "**"])
def test_operators(operator):
    name = {"+": "add", "-": "sub", "*": "mul", "/": "div", "**": "pow"}[operator]
    a, b = np.array([1.0, 2.0], np.float32), np.array([3.0, 0.5], np.float32)
    scope = {"a": pynn.Tensor(a), "b": pynn.Tensor(b)}
    for left, right in (("a", "b"), ("a", "2.5"), ("2.5", "b"), ("a", "b.data"), ("a.data", "b")):
        y = eval(f"{left} {operator} {right}", scope)
        assert isinstance(y, pynn.Tensor)
        want = getattr(F, name)(eval(left, scope), eval(right, scope))
        assert (y.data == want.data).all()
        assert y.dtype == np.float32


METHODS = [
    "exp",
    "log",
    "sqrt",
    "abs",
    "relu",
    "sigmoid",
    "tanh",
    "clip",
    "softmax",
    "log_softmax",
    "sum",
    "mean",
    "max",
    "min",
    "var",
    "argmax",
    "flatten",
    "transpose",
]


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_the_functions(name):
    x = pynn.Tensor(np.array([[1.0, 2.0, 0.5], [3.0, 0.25, 4.0]], np.float32))
    assert (getattr(x, name)().data == getattr(F, name)(x).data).all()
    if name in ("sum", "mean", "max", "min", "var", "argmax", "softmax", "log_softmax", "flatten"):
        assert (getattr(x, name)(1).data == getattr(F, name)(x, 1).data).all()


def test_methods_with_shapes():
    x = pynn.Tensor(np.arange(6, dtype=np.float32).reshape(2, 3))
    assert x.reshape(3, 2).tolist() == x.reshape((3, 2)).tolist() == [[0, 1], [2, 3], [4, 5]]
    assert x.T.tolist() == x.transpose(1, 0).tolist() == x.transpose((1, 0)).tolist() == [[0, 3], [1, 4], [2, 5]]
    assert (x @ x.T).tolist() == F.matmul(x, x, transpose_b=True).tolist()
    assert x[0, 1:].tolist() == [1, 2]
    assert (-x).tolist() == (x * -1).tolist()
    assert abs(-x).tolist() == x.tolist()
