"""Gradients that a captured function finds, assigns or drops."""

import numpy as np
import pytest
from captured_steps import X, Y, mlp, step_of

import pynn
from pynn import CaptureError, nn, optim
from pynn import functional as F


@pytest.mark.parametrize("clips", [False, True])
def test_a_gradient_that_another_step_left_is_not_passed_over(clips):
    """The second head has none while the step is recorded; later the step would use the one that it has."""
    pynn.seed(0)
    first, second = nn.Linear(6, 3), nn.Linear(6, 3)
    params = [*first.parameters(), *second.parameters()]
    optimizer = optim.SGD(first.parameters() if clips else params, lr=0.1)

    @pynn.capture
    def step(x, y):
        F.cross_entropy(first(x), y).backward()
        if clips:
            optim.clip_grad_norm_(params, 0.01)
        optimizer.step()

    for _ in range(2):
        step(X, Y)
        optimizer.zero_grad()
    assert repr(step) == "Captured(step, plans=1)"
    F.cross_entropy(second(X), Y).backward()
    before = first.weight.data.copy()
    with pytest.raises(CaptureError, match=r"a gradient \[3, 6\] from before is used, at .*call backward inside"):
        step(X, Y)
    np.testing.assert_array_equal(first.weight.data, before)


@pytest.mark.parametrize("owner", ["module", "optimizer"])
def test_a_refused_capture_leaves_gradients_that_it_would_fill_with_zeros(owner):
    model = mlp()
    zero_grad = (model if owner == "module" else optim.SGD(model.parameters())).zero_grad
    model(pynn.tensor(X)).sum().backward()
    before = [p.grad.copy() for p in model.parameters()]
    with pytest.raises(CaptureError, match=r"zero_grad writes a tensor in place, at .*test_capture_gradients.py"):
        pynn.capture(lambda: zero_grad(set_to_none=False))()
    for p, grad in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.grad, grad)


@pytest.mark.parametrize("given", [None, np.ones(3, np.float32)])
def test_a_failed_capture_leaves_gradients_that_it_assigned(given):
    p = nn.Parameter(np.ones(3, np.float32))
    p.grad = before = np.full(3, 2, np.float32)

    def step():
        p.grad = given
        raise KeyError("afterwards")

    with pytest.raises(KeyError, match="afterwards"):
        pynn.capture(step)()
    assert p.grad is before


def test_gradients_that_the_function_assigns_are_there_after_every_call():
    """Nobody could read the first ones, and replays did not set theirs."""

    def run(wrap):
        pynn.seed(0)
        model = mlp()
        params = list(model.parameters())
        optimizer = optim.Adam(params, lr=0.1)

        def step(x, y):
            loss = F.cross_entropy(model(x), y)
            for p, grad in zip(params, pynn.grad(loss, params), strict=True):
                p.grad = grad
            optimizer.step()
            return loss

        step, rows = wrap(step), []
        for i in range(1, 4):
            rows.append((step(i * X, Y).item(), *(p.grad.tolist() for p in params)))
            model.zero_grad()
        return rows, repr(step)

    rows, shown = run(pynn.capture)
    assert rows == run(lambda step: step)[0]
    assert shown == "Captured(step, plans=1)"


def test_gradients_of_results_and_those_that_backward_starts_with():
    model = mlp()

    def step(x, dy):
        model.zero_grad()
        hidden = model[0](x)
        hidden.retain_grad()
        scores = model[2](hidden)
        (before,) = pynn.grad((scores * scores).sum(), [hidden], retain_graph=True)
        scores.backward(dy)
        return before, hidden.grad

    captured, rng = pynn.capture(step), np.random.default_rng(0)
    for _ in range(3):
        dy = rng.standard_normal((len(X), 3)).astype(np.float32)
        got, got_weight = captured(X, dy), model[0].weight.grad.copy()
        for result, expected in zip(got, step(pynn.Tensor(X), dy), strict=True):
            np.testing.assert_array_equal(result.data, expected)
        np.testing.assert_array_equal(got_weight, model[0].weight.grad)


@pytest.mark.parametrize("trains", [False, True])
def test_gradients_that_the_function_drops_are_none_after_every_call(trains):
    model = mlp()

    @pynn.capture
    def step(x):
        if trains:
            model.zero_grad()
            model(x).sum().backward()
        model.zero_grad()

    for _ in range(3):
        model(pynn.tensor(X)).sum().backward()
        step(X)
        assert [p.grad for p in model.parameters()] == [None] * 4
    assert repr(step) == "Captured(step, plans=1)"


@pytest.mark.parametrize("optimizer", [optim.SGD, optim.Adam])
def test_a_parameter_without_elements_has_a_gradient_as_any_other(optimizer):
    """It was taken for one from before: nothing makes its values, for it has none."""

    def run(wrap):
        pynn.seed(0)
        layer, empty = nn.Linear(6, 3), nn.Parameter(np.zeros((0, 6), np.float32))
        params = optimizer([*layer.parameters(), empty], lr=0.1)

        def step(x, y):
            params.zero_grad()
            for _ in range(2):
                (F.cross_entropy(layer(x), y) + (empty * 2).sum()).backward()
            params.step()

        step = wrap(step)
        for _ in range(3):
            step(X, Y)
        return layer.weight.tolist(), empty.grad.shape

    assert run(pynn.capture) == run(lambda step: step)


@pytest.mark.parametrize("drops", ["at first", "behind the forward", "before each backward", "outside"])
def test_a_replay_that_fails_leaves_the_gradients_of_a_function_that_fails_there(drops):
    """A gradient from before stays until the function would have dropped it."""

    def run(wrap):
        pynn.seed(0)
        first, second = nn.Linear(6, 3), nn.Linear(6, 3)
        params = [*first.parameters(), *second.parameters()]

        def drop(when, params):
            if drops == when:
                for p in params:
                    p.grad = None

        def step(x, y, z):
            drop("at first", params)
            loss = F.cross_entropy(first(x), y)
            drop("behind the forward", params)
            drop("before each backward", first.parameters())
            loss.backward()
            other = F.cross_entropy(second(x), z)
            drop("before each backward", second.parameters())
            other.backward()

        step, rows = wrap(step), []
        for i, (y, z) in enumerate([(Y, Y), (Y, Y), (Y + 1, Y), (Y, Y), (Y, Y + 1), (Y + 1, Y), (Y, Y)]):
            drop("outside", params)
            try:
                step(pynn.Tensor((i + 1) * X), pynn.Tensor(y), pynn.Tensor(z))
            except IndexError as error:
                rows.append(str(error))
            rows.append([None if p.grad is None else p.grad.copy() for p in params])
        return rows

    np.testing.assert_equal(run(pynn.capture), run(lambda step: step))


def test_a_replay_that_fails_at_an_update_has_done_what_comes_before():
    """An option that is no number was found before anything had run: there were neither gradients nor averages."""

    def run(wrap):
        pynn.seed(0)
        model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3))
        optimizer = optim.SGD(model.parameters(), lr=0.1)

        step, rows = wrap(step_of(model, optimizer)), []
        for lr, y in ((0.1, Y), (0.2, Y), ("0.1", Y), (0.1, Y), ("0.1", Y + 1), (0.1, Y)):
            optimizer.param_groups[0]["lr"] = lr
            try:
                rows.append(step(pynn.Tensor(X), pynn.Tensor(y)).item())
            except (TypeError, IndexError) as error:
                rows.append(type(error))
            rows.append((model.state_dict(), [None if p.grad is None else p.grad.copy() for p in model.parameters()]))
        return rows

    np.testing.assert_equal(run(pynn.capture), run(lambda step: step))
