"""Optimisers and clipping against formulas in NumPy and against PyTorch."""

import math

import numpy as np
import pytest
from optimizer_tools import each_optimizer, parameters, take_step, values

from pynn import nn, optim

try:
    import torch
except ImportError:
    torch = None
needs_torch = pytest.mark.skipif(torch is None, reason="PyTorch is not installed")

# -- updates -----------------------------------------------------------------------------------------------------------


def expected_after(kind, options, p, grads):
    """Return the value after steps with these gradients, from the formulas of the docstrings."""
    o = {"momentum": 0, "dampening": 0, "weight_decay": 0.01 if kind is optim.AdamW else 0, "nesterov": False}
    o |= {"betas": (0.9, 0.999), "eps": {optim.Adagrad: 1e-10, optim.Adadelta: 1e-6}.get(kind, 1e-8)}
    o |= {"lr": 1.0 if kind is optim.Adadelta else 0.01, "alpha": 0.99, "rho": 0.9, "centered": False, "lr_decay": 0}
    o |= options
    m = v = 0
    if kind is optim.Adagrad:
        v = o.get("initial_accumulator_value", 0)
    for t, g in enumerate(grads, 1):
        if kind is optim.AdamW:
            p = p - o["lr"] * o["weight_decay"] * p
        else:
            g = g + o["weight_decay"] * p
        if kind is optim.SGD:
            v = g if t == 1 else o["momentum"] * v + (1 - o["dampening"]) * g
            p = p - o["lr"] * ((g + o["momentum"] * v if o["nesterov"] else v) if o["momentum"] else g)
        elif kind is optim.RMSprop:
            # v holds the averages of g^2 and of g, m the momentum.
            square, mean = v if t > 1 else (0, 0)
            v = square, mean = (o["alpha"] * square + (1 - o["alpha"]) * g**2, o["alpha"] * mean + (1 - o["alpha"]) * g)
            m = o["momentum"] * m + g / (np.sqrt(square - mean**2 if o["centered"] else square) + o["eps"])
            p = p - o["lr"] * m
        elif kind is optim.Adagrad:
            v = v + g**2
            p = p - o["lr"] / (1 + (t - 1) * o["lr_decay"]) * g / (np.sqrt(v) + o["eps"])
        elif kind is optim.Adadelta:
            v = o["rho"] * v + (1 - o["rho"]) * g**2
            delta = np.sqrt(m + o["eps"]) / np.sqrt(v + o["eps"]) * g
            m = o["rho"] * m + (1 - o["rho"]) * delta**2
            p = p - o["lr"] * delta
        else:
            beta1, beta2 = o["betas"]
            m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
            p = p - o["lr"] * m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + o["eps"])
    return p


@each_optimizer
def test_steps_follow_the_formula(kind, options):
    params = parameters()
    optimizer = kind(params, **options)
    for seed in range(1, 21):
        take_step(optimizer, params, seed)
    for i, start in enumerate(values(0)):
        expected = expected_after(kind, options, start, [values(seed)[i] for seed in range(1, 21)])
        np.testing.assert_allclose(params[i].data, expected, rtol=1e-10, atol=1e-12)


@each_optimizer
def test_a_parameter_that_skips_steps_counts_its_own(kind, options):
    params = parameters()
    optimizer = kind(params, **options)
    seen = [[] for _ in params]
    for t in range(12):
        for i, (p, g) in enumerate(zip(params, values(t + 1), strict=True)):
            p.grad = g if t % (i + 1) == 0 else None  # parameter i has a gradient in every (i + 1)-th step
            seen[i] += [g] if p.grad is not None else []
        optimizer.step()
    for p, start, grads in zip(params, values(0), seen, strict=True):
        np.testing.assert_allclose(p.data, expected_after(kind, options, start, grads), rtol=1e-10, atol=1e-12)


@each_optimizer
@needs_torch
def test_steps_equal_pytorchs(kind, options):
    params = parameters()
    theirs = [torch.from_numpy(value).requires_grad_() for value in values(0)]
    optimizer = kind([{"params": params[:2]}, {"params": params[2:], "lr": 0.03, "weight_decay": 0.1}], **options)
    reference = getattr(torch.optim, kind.__name__)(
        [{"params": theirs[:2]}, {"params": theirs[2:], "lr": 0.03, "weight_decay": 0.1}], **options
    )
    for seed in range(1, 21):
        take_step(optimizer, params, seed)
        for p, g in zip(theirs, values(seed), strict=True):
            p.grad = torch.from_numpy(g)
        reference.step()
    for p, q in zip(params, theirs, strict=True):
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-9, atol=1e-12)


@each_optimizer
def test_float32_and_float64_in_one_group(kind, options):
    singles, doubles = parameters(dtype=np.float32), parameters()
    optimizer = kind([*singles, *doubles], **options)
    for seed in range(1, 4):
        for p, g in zip([*singles, *doubles], [*values(seed, np.float32), *values(seed)], strict=True):
            p.grad = g
        optimizer.step()
    for single, double in zip(singles, doubles, strict=True):
        assert single.dtype == np.float32
        np.testing.assert_allclose(single.data, double.data, rtol=1e-4, atol=1e-5)  # three steps of float32 rounding


@pytest.mark.parametrize("late", [0, 1])
def test_options_that_change_while_a_parameter_is_frozen(late):
    """Both have two arrays then, but not the same ones; each goes on as it would alone."""
    together, alone = ([nn.Parameter(np.ones(3)) for _ in range(2)] for _ in range(2))
    optimizers = [optim.RMSprop(together, centered=True), *(optim.RMSprop([p], centered=True) for p in alone)]

    def step(*trained):
        for i, pair in enumerate(zip(together, alone, strict=True)):
            for p in pair:
                p.grad = np.full(3, 1.0 + i) if i in trained else None
        for optimizer in optimizers:
            optimizer.step()

    step(1 - late)
    for optimizer in optimizers:
        optimizer.param_groups[0].update(centered=False, momentum=0.9)
    for trained in ([late], [late], [0, 1], [0, 1]):
        step(*trained)
    for p, q in zip(together, alone, strict=True):
        np.testing.assert_array_equal(p.data, q.data)


def test_a_step_counts_as_a_write():
    w = nn.Parameter([2.0])
    y = (w * w).sum()
    w.grad = np.ones(1, np.float32)
    optim.SGD([w], lr=0.1).step()
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_step_without_gradients_does_nothing():
    params = parameters()
    optimizer = optim.Adam(params)
    optimizer.step()
    assert optimizer.state == {}
    assert all((p.data == value).all() for p, value in zip(params, values(0), strict=True))


def test_a_failed_step_leaves_no_state():
    p = nn.Parameter([1.0, 2.0, 3.0])
    p.grad = np.ones(3, np.float32)
    p.data = p.data[:2]  # which the gradient does not fit
    optimizer = optim.Adam([p])
    with pytest.raises(ValueError, match="adam"):
        optimizer.step()
    assert optimizer.state == {}
    assert p.tolist() == [1.0, 2.0]


@each_optimizer
def test_an_option_that_was_set_to_no_number_is_named(kind, options):
    params = parameters()
    optimizer = kind(params, **options)
    take_step(optimizer, params, 1)
    before = [p.data.copy() for p in params]
    optimizer.param_groups[0]["lr"] = None
    with pytest.raises(TypeError, match=rf"^{kind.__name__}: lr is None, needs a number$"):
        take_step(optimizer, params, 2)
    for p, value in zip(params, before, strict=True):
        np.testing.assert_array_equal(p.data, value)


def test_training_a_line():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 1)).astype(np.float32)
    model = nn.Linear(1, 1)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        nn.MSELoss()(model(x), 3 * x - 1).backward()
        optimizer.step()
    # The problem is exact and well conditioned, so that the error is float32 rounding.
    np.testing.assert_allclose([model.weight.item(), model.bias.item()], [3, -1], atol=1e-5)


# -- groups and arguments ----------------------------------------------------------------------------------------------


def test_groups_have_defaults_and_options_of_their_own():
    a, b, c, _ = parameters()
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.5}], lr=0.1, momentum=0.9)
    optimizer.add_param_group({"params": iter([c]), "momentum": 0.0})
    assert [(g["lr"], g["momentum"]) for g in optimizer.param_groups] == [(0.1, 0.9), (0.5, 0.9), (0.1, 0.0)]
    assert [g["params"][0] is p for g, p in zip(optimizer.param_groups, (a, b, c), strict=True)] == [True] * 3
    assert "lr=0.5" in repr(optimizer)


def test_zero_grad():
    params = parameters()
    optimizer = optim.SGD(params)
    take_step(optimizer, params, 1)
    optimizer.zero_grad(set_to_none=False)
    assert all((p.grad == 0).all() for p in params)
    optimizer.zero_grad()
    assert all(p.grad is None for p in params)


P, M = nn.Parameter([1.0]), nn.Parameter([[1.0]])
BAD = {
    "empty": (lambda: optim.SGD([]), ValueError, "SGD: params is empty"),
    "empty group": (lambda: optim.SGD([{"params": []}]), ValueError, "SGD: a parameter group is empty"),
    "one tensor": (lambda: optim.Adam(P), TypeError, "Adam: params is one tensor"),
    "a module": (lambda: optim.SGD(nn.Linear(1, 1)), TypeError, r"SGD: params is a Linear, .*model\.parameters\(\)"),
    "not a tensor": (lambda: optim.Adam([np.ones(1)]), TypeError, "Adam: got a ndarray"),
    "a module in a group": (lambda: optim.SGD([{"params": nn.Linear(1, 1)}]), TypeError,
                            r"SGD: params of a group is a Linear, .*model\.parameters\(\)"),
    "a set": (lambda: optim.SGD({P, M}), TypeError, "SGD: params is a set, needs an order"),
    "a set in a group": (lambda: optim.SGD([{"params": {P, M}}]), TypeError, "SGD: params is a set, needs an order"),
    "mixed": (lambda: optim.Adam([{"params": [P]}, P]), TypeError, "Adam: a parameter group needs to be a dict"),
    "integer": (lambda: optim.SGD([nn.Parameter([1.0]).astype(np.int64)]), TypeError, "SGD: got a int64 tensor"),
    "not a leaf": (lambda: optim.SGD([P * 2]), ValueError, r"SGD: tensor \[1\] is the result of an operation"),
    "twice": (lambda: optim.SGD([P, P]), ValueError, r"SGD: parameter \[1\] appears twice"),
    "in two groups": (lambda: optim.SGD([{"params": [P]}, {"params": [P]}]), ValueError, "appears twice"),
    "unknown option": (lambda: optim.SGD([{"params": [P], "rate": 1}]), ValueError, "unknown options .*rate"),
    "lr": (lambda: optim.SGD([P], lr=-0.1), ValueError, "SGD: lr is -0.1, needs a finite number of at least 0"),
    "lr bool": (lambda: optim.SGD([P], lr=True), TypeError, "SGD: lr is True, needs a number"),
    "lr type": (lambda: optim.SGD([P], lr="0.1"), TypeError, "SGD: lr is '0.1', needs a number"),
    "lr nan": (lambda: optim.AdamW([P], lr=math.nan), ValueError, "AdamW: lr is nan"),
    "lr huge": (lambda: optim.SGD([P], lr=10**400), ValueError, "SGD: lr is 1000+, needs a finite number"),
    "group lr": (lambda: optim.Adam([{"params": [P], "lr": math.inf}]), ValueError, "Adam: lr is inf"),
    "momentum": (lambda: optim.SGD([P], momentum=-1), ValueError, "SGD: momentum is -1"),
    "nesterov": (lambda: optim.SGD([P], nesterov=True), ValueError, "SGD: nesterov needs momentum > 0"),
    "beta1": (lambda: optim.Adam([P], betas=(1.0, 0.9)), ValueError, "Adam: beta1 is 1.0"),
    "beta2": (lambda: optim.Adam([P], betas=(0.9, -0.1)), ValueError, "Adam: beta2 is -0.1"),
    "betas": (lambda: optim.Adam([P], betas=0.9), TypeError, "Adam: betas is 0.9, needs a pair"),
    "one beta": (lambda: optim.Adam([P], betas=(0.9,)), TypeError, "Adam: betas is .*, needs a pair"),
    "dampening": (lambda: optim.SGD([P], dampening=math.nan), ValueError, "SGD: dampening is nan"),
    "eps": (lambda: optim.Adam([P], eps=-1), ValueError, "Adam: eps is -1"),
    "weight_decay": (lambda: optim.AdamW([P], weight_decay=-1), ValueError, "AdamW: weight_decay is -1"),
    "alpha": (lambda: optim.RMSprop([P], alpha=1.0), ValueError, "RMSprop: alpha is 1.0"),
    "rmsprop momentum": (lambda: optim.RMSprop([P], momentum=-1), ValueError, "RMSprop: momentum is -1"),
    "lr_decay": (lambda: optim.Adagrad([P], lr_decay=-1), ValueError, "Adagrad: lr_decay is -1"),
    "accumulator": (lambda: optim.Adagrad([P], initial_accumulator_value=-1), ValueError,
                    "Adagrad: initial_accumulator_value is -1"),
    "rho": (lambda: optim.Adadelta([P], rho=1.5), ValueError, "Adadelta: rho is 1.5"),
    "muon vector": (lambda: optim.Muon([P]), ValueError, r"Muon: parameter \[1\], needs a matrix"),
    "muon steps": (lambda: optim.Muon([M], ns_steps=0), ValueError, "Muon: ns_steps is 0, needs a finite number of"),
    "muon steps type": (lambda: optim.Muon([M], ns_steps=5.0), TypeError, "Muon: ns_steps is 5.0, needs an integer"),
    "muon coefficients": (lambda: optim.Muon([M], ns_coefficients=(1, 2)), TypeError, "Muon: ns_coefficients is"),
    "muon nan": (lambda: optim.Muon([M], ns_coefficients=(1, math.nan, 2)), ValueError,
                 r"Muon: ns_coefficients\[1\] is nan"),
    "muon rate": (lambda: optim.Muon([M], adjust_lr_fn="adam"), ValueError, "Muon: adjust_lr_fn is 'adam'"),
    "clip_value": (lambda: optim.clip_grad_value_([P], -1), ValueError, "clip_grad_value_: clip_value is -1"),
    "clip module": (lambda: optim.clip_grad_norm_(nn.Linear(1, 1), 1), TypeError, "clip_grad_norm_: got a Linear"),
    "clip array": (lambda: optim.clip_grad_value_([np.ones(1)], 1), TypeError, "clip_grad_value_: got a ndarray"),
    "max_norm": (lambda: optim.clip_grad_norm_([P], -1), ValueError, "clip_grad_norm_: max_norm is -1"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), BAD.values(), ids=BAD)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


# -- clipping ----------------------------------------------------------------------------------------------------------


def test_clip_grad_norm():
    params = [*parameters(), *parameters(dtype=np.float32), nn.Parameter([1.0])]
    grads = [*values(1), *values(1, np.float32)]
    for p, g in zip(params, grads, strict=False):
        p.grad = g.copy()
    expected = math.sqrt(2 * sum(float((g**2).sum()) for g in values(1)))
    assert optim.clip_grad_norm_(params, 100.0) == pytest.approx(expected, rel=1e-6)
    for p, g in zip(params, grads, strict=False):
        np.testing.assert_array_equal(p.grad, g)
    assert optim.clip_grad_norm_(iter(params), 0.5) == pytest.approx(expected, rel=1e-6)
    for p, g in zip(params, grads, strict=False):
        np.testing.assert_allclose(p.grad, g * (0.5 / expected), rtol=1e-6)
    assert optim.clip_grad_norm_(params, 1.0) == pytest.approx(0.5, rel=1e-6)
    assert params[-1].grad is None


def test_clip_scales_a_gradient_that_comes_twice_once():
    p, q = (nn.Parameter(np.zeros(300_000, np.float32)) for _ in range(2))
    p.grad = q.grad = np.full(300_000, 2.0, np.float32)  # threads share it
    norm = 2.0 * math.sqrt(300_000)
    assert optim.clip_grad_norm_([p, q, p], norm / 4) == pytest.approx(norm, rel=1e-6)
    np.testing.assert_array_equal(p.grad, p.grad[0])
    assert p.grad[0] == pytest.approx(0.5, rel=1e-6)


def test_clip_of_nothing_and_of_what_is_not_finite():
    p = nn.Parameter([1.0, 2.0])
    assert optim.clip_grad_norm_(p, 1.0) == 0
    for bad in (math.nan, math.inf):
        p.grad = np.array([1.0, bad], np.float32)
        assert not math.isfinite(optim.clip_grad_norm_(p, 1.0))
        np.testing.assert_array_equal(p.grad, [1.0, bad])


def test_clip_grad_value():
    params = [*parameters(), *parameters(dtype=np.float32), nn.Parameter([1.0])]
    grads = [*values(1), *values(1, np.float32)]
    for p, g in zip(params, grads, strict=False):
        p.grad = g.copy()
    params[0].grad[0, 0] = math.nan
    optim.clip_grad_value_(iter(params), 0.5)
    assert math.isnan(params[0].grad[0, 0])
    params[0].grad[0, 0] = np.clip(grads[0][0, 0], -0.5, 0.5)
    for p, g in zip(params, grads, strict=False):
        np.testing.assert_array_equal(p.grad, np.clip(g, -0.5, 0.5))
        assert p.grad.dtype == g.dtype
    optim.clip_grad_value_(params[1], 0)
    assert not params[1].grad.any()
    assert params[-1].grad is None
