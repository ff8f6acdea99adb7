"""The oracle itself is held against PyTorch, where PyTorch is installed."""

import numpy as np
import oracle
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: the oracle has no second oracle here")
F = torch.nn.functional


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def leaf(a):
    return torch.from_numpy(a.copy()).requires_grad_()


def assert_same(actual, expected):
    expected = expected.detach().numpy() if isinstance(expected, torch.Tensor) else expected
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "out", "kernel", "stride", "padding", "dilation", "groups"),
    [
        ((2, 3, 7, 6), 4, (3, 2), (1, 1), (0, 0), (1, 1), 1),
        ((2, 4, 9, 8), 6, (3, 3), (2, 3), (1, 2), (2, 1), 2),
        ((1, 3, 5, 5), 3, (5, 5), (1, 1), (2, 2), (1, 1), 3),
        ((0, 3, 5, 5), 2, (2, 2), (1, 1), (0, 0), (1, 1), 1),
    ],
)
def test_conv2d(rng, shape, out, kernel, stride, padding, dilation, groups):
    x, weight, bias = (
        rng.normal(size=shape),
        rng.normal(size=(out, shape[1] // groups, *kernel)),
        rng.normal(size=out),
    )
    tx, tw, tb = leaf(x), leaf(weight), leaf(bias)
    ty = F.conv2d(tx, tw, tb, stride, padding, dilation, groups)
    pads = (padding[0], padding[0], padding[1], padding[1])
    y = oracle.conv2d(x, weight, bias, stride, pads, dilation, groups)
    assert_same(y, ty)
    dy = rng.normal(size=y.shape)
    ty.backward(torch.from_numpy(dy))
    grads = oracle.conv2d_backward(dy, None, x, weight, stride, pads, dilation, groups, "none", True, True, True)
    for actual, expected in zip(grads, (tx.grad, tw.grad, tb.grad), strict=True):
        assert_same(actual, expected)


POOLS = [
    ((2, 3, 7, 8), (2, 2), (2, 2), (0, 0)),
    ((2, 3, 7, 8), (3, 2), (2, 1), (1, 1)),
    ((1, 2, 9, 6), (2, 3), (3, 4), (1, 1)),
    ((1, 1, 5, 5), (2, 2), (5, 5), (1, 1)),
    ((1, 1, 4, 4), (3, 3), (1, 1), (1, 0)),
]


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1)])
@pytest.mark.parametrize(("shape", "kernel", "stride", "padding"), POOLS)
def test_max_pool2d(rng, shape, kernel, stride, padding, dilation, ceil_mode):
    x = rng.normal(size=shape).round(1)  # with ties
    x[0, 0, 1, 1] = np.nan
    tx = leaf(x)
    ty = F.max_pool2d(tx, kernel, stride, padding, dilation, ceil_mode)
    y, indices = oracle.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode)
    assert_same(y, ty)
    dy = rng.normal(size=y.shape)
    ty.backward(torch.from_numpy(dy))
    assert_same(oracle.max_pool2d_backward(dy, indices, shape, kernel, stride, padding, dilation), tx.grad)


@pytest.mark.parametrize("count_include_pad", [False, True])
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(("shape", "kernel", "stride", "padding"), POOLS)
def test_avg_pool2d(rng, shape, kernel, stride, padding, ceil_mode, count_include_pad):
    x = rng.normal(size=shape)
    tx = leaf(x)
    ty = F.avg_pool2d(tx, kernel, stride, padding, ceil_mode, count_include_pad)
    y = oracle.avg_pool2d(x, kernel, stride, padding, ceil_mode, count_include_pad)
    assert_same(y, ty)
    dy = rng.normal(size=y.shape)
    ty.backward(torch.from_numpy(dy))
    assert_same(oracle.avg_pool2d_backward(dy, shape, kernel, stride, padding, count_include_pad), tx.grad)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy(rng, weighted, label_smoothing, reduction):
    x, target = rng.normal(size=(7, 5)) * 3, np.array([0, 4, -100, 2, 2, -100, 1])
    weight = rng.uniform(size=5) if weighted else None
    tx, given = leaf(x), None if weight is None else torch.from_numpy(weight)
    options = {"label_smoothing": label_smoothing, "reduction": reduction}
    tloss = F.cross_entropy(tx, torch.from_numpy(target), given, **options)
    loss, dx = oracle.cross_entropy(x, target, -100, label_smoothing, reduction, True, weight)
    assert_same(loss, tloss)
    tloss.sum().backward()
    assert_same(dx, tx.grad)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (oracle.mse_loss, F.mse_loss),
        (oracle.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits),
    ],
    ids=["mse", "bce"],
)
def test_elementwise_loss(rng, ours, theirs, reduction):
    x, target = rng.normal(size=(3, 4)) * 20, rng.uniform(size=(3, 4))
    tx = leaf(x)
    tloss = theirs(tx, torch.from_numpy(target), reduction=reduction)
    loss, dx = ours(x, target, reduction, True)
    assert_same(loss, tloss)
    tloss.sum().backward()
    assert_same(dx, tx.grad)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 4, 5)])
def test_batch_norm(rng, shape, training):
    x, weight, bias = rng.normal(size=shape), rng.normal(size=3), rng.normal(size=3)
    mean, var = rng.normal(size=3), rng.uniform(0.5, 2, size=3)
    tx, tw, tb, tmean, tvar = leaf(x), leaf(weight), leaf(bias), torch.tensor(mean), torch.tensor(var)
    ty = F.batch_norm(tx, tmean, tvar, tw, tb, training, 0.1, 1e-5)
    y, *saved = oracle.batch_norm(x, weight, bias, mean, var, training, 0.1, 1e-5)
    assert_same(y, ty)
    assert_same(mean, tmean)
    assert_same(var, tvar)
    dy = rng.normal(size=shape)
    ty.backward(torch.from_numpy(dy))
    grads = oracle.batch_norm_backward(dy, x, weight, *saved, training)
    for actual, expected in zip(grads, (tx.grad, tw.grad, tb.grad), strict=True):
        assert_same(actual, expected)


def test_layer_norm(rng):
    x, weight, bias = rng.normal(size=(2, 3, 5)), rng.normal(size=5), rng.normal(size=5)
    tx, tw, tb = leaf(x), leaf(weight), leaf(bias)
    ty = F.layer_norm(tx, (5,), tw, tb)
    y, *saved = oracle.layer_norm(x, weight, bias, 1e-5)
    assert_same(y, ty)
    dy = rng.normal(size=x.shape)
    ty.backward(torch.from_numpy(dy))
    grads = oracle.layer_norm_backward(dy, x, weight, *saved)
    for actual, expected in zip(grads, (tx.grad, tw.grad, tb.grad), strict=True):
        assert_same(actual, expected)


UNARY = {
    "relu": (oracle.relu, oracle.relu_backward, F.relu, "y"),
    "leaky_relu": (
        lambda x: oracle.leaky_relu(x, 0.2),
        lambda dy, x: oracle.leaky_relu_backward(dy, x, 0.2),
        lambda x: F.leaky_relu(x, 0.2),
        "x",
    ),
    "sigmoid": (oracle.sigmoid, oracle.sigmoid_backward, torch.sigmoid, "y"),
    "tanh": (oracle.tanh, oracle.tanh_backward, torch.tanh, "y"),
    "gelu": (lambda x: oracle.gelu(x, False), lambda dy, x: oracle.gelu_backward(dy, x, False), F.gelu, "x"),
    "gelu_tanh": (
        lambda x: oracle.gelu(x, True),
        lambda dy, x: oracle.gelu_backward(dy, x, True),
        lambda x: F.gelu(x, approximate="tanh"),
        "x",
    ),
    "softmax": (oracle.softmax, oracle.softmax_backward, lambda x: torch.softmax(x, -1), "y"),
    "log_softmax": (oracle.log_softmax, oracle.log_softmax_backward, lambda x: torch.log_softmax(x, -1), "y"),
    "clip": (
        lambda x: oracle.clip(x, -1, 2),
        lambda dy, x: oracle.clip_backward(dy, x, -1, 2),
        lambda x: torch.clip(x, -1, 2),
        "x",
    ),
    "max": (
        lambda x: oracle.max(x, (1,), True),
        lambda dy, x: oracle.extremum_backward(dy, x, oracle.max(x, (1,), True), (1,)),
        lambda x: torch.amax(x, 1, keepdim=True),
        "x",
    ),
    "var": (
        lambda x: oracle.var(x, (0,), 1, True),
        lambda dy, x: oracle.var_backward(dy, x, (0,), 1),
        lambda x: torch.var(x, 0, correction=1, keepdim=True),
        "x",
    ),
}


@pytest.mark.parametrize("name", UNARY)
def test_unary(rng, name):
    forward, backward, theirs, saved = UNARY[name]
    x = np.append(rng.normal(size=(5, 7)) * 4, [[0.0, 1.0, 1.0, 30.0, 30.0, -30.0, -9.0]], axis=0)
    tx = leaf(x)
    y, ty = forward(x), theirs(tx)
    assert_same(y, ty)
    dy = rng.normal(size=y.shape)
    ty.backward(torch.from_numpy(dy))
    assert_same(backward(dy, x if saved == "x" else y), tx.grad)


@pytest.mark.parametrize("name", ["pow", "maximum", "minimum"])
def test_binary(rng, name):
    a, b = np.array([0.0, 0.0, 2.0, 3.0, 1.5, 2.0]), np.array([0.0, 2.0, 0.0, 1.5, -2.0, 2.0])
    ta, tb = leaf(a), leaf(b)
    y, ty = getattr(oracle, name)(a, b), getattr(torch, name)(ta, tb)
    assert_same(y, ty)
    dy = rng.normal(size=6)
    ty.backward(torch.from_numpy(dy))
    backward = getattr(oracle, f"{name}_backward")
    with np.errstate(divide="ignore", invalid="ignore"):
        da, db = backward(dy, a, b, y) if name == "pow" else backward(dy, a, b)
    assert_same(da, ta.grad)
    assert_same(db, tb.grad)


@pytest.mark.parametrize(
    "options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}], ids=str
)
def test_sgd(rng, options):
    p, buffer = rng.normal(size=5), np.zeros(5)
    tp = leaf(p)
    optimizer = torch.optim.SGD([tp], lr=0.1, **options)
    options = {"momentum": 0.0, "weight_decay": 0.0, "nesterov": False} | options
    for step in range(3):
        grad = rng.normal(size=5)
        tp.grad = torch.from_numpy(grad.copy())
        optimizer.step()
        oracle.sgd_([p], [grad], [buffer], lr=0.1, dampening=0.0, first=step == 0, **options)
        assert_same(p, tp)


@pytest.mark.parametrize("decoupled", [False, True])
def test_adam(rng, decoupled):
    p, m, v = rng.normal(size=5), np.zeros(5), np.zeros(5)
    tp = leaf(p)
    optimizer = (torch.optim.AdamW if decoupled else torch.optim.Adam)([tp], lr=0.1, weight_decay=0.1)
    for step in range(1, 4):
        grad = rng.normal(size=5)
        tp.grad = torch.from_numpy(grad.copy())
        optimizer.step()
        oracle.adam_([p], [grad], [m], [v], step, 0.1, 0.9, 0.999, 1e-8, 0.1, decoupled)
        assert_same(p, tp)
