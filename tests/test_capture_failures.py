"""A capture, or a replay, that fails leaves everything as it was; updates wait until nothing can fail any more."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
from captured_steps import OPTIMIZERS, X, Y, cnn, make

import pynn
from pynn import CaptureError, _core, intercept, nn, optim
from pynn import functional as F
from pynn._changes import Changes
from pynn.intercept import OPERATIONS


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_failed_capture_leaves_model_and_optimizer_as_they_were(optimizer):
    pynn.seed(0)
    model = cnn()
    opt = OPTIMIZERS[optimizer](model.parameters())
    x, y = np.ones((4, 1, 8, 8), np.float32), np.zeros(4, np.int64)

    def step(fail):
        model.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        if fail:
            raise KeyError("after everything")

    for first in (True, False):
        state, opt_state = model.state_dict(), opt.state_dict()
        grads = [p.grad for p in model.parameters()]
        with pytest.raises(KeyError, match="after everything"):
            pynn.capture(step)(True)
        for name, value in model.state_dict().items():
            np.testing.assert_array_equal(value, state[name], err_msg=name)
        assert repr(opt.state_dict()) == repr(opt_state)
        assert all(p.grad is g for p, g in zip(model.parameters(), grads, strict=True))
        if first:
            step(False)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_failed_capture_leaves_large_weights_as_they_were(dtype):
    start = np.full((128, 64), 2, dtype)
    start[0, :3] = -0.0, np.finfo(dtype).smallest_subnormal, np.inf
    weight = nn.Parameter(start.copy())
    opt = optim.SGD([weight], lr=0.1)

    def step():
        weight.sum().backward()
        opt.step()
        raise KeyError("after everything")

    with pytest.raises(KeyError, match="after everything"):
        pynn.capture(step)()
    assert weight.numpy().tobytes() == start.tobytes()
    assert weight.grad is None


def two_optimizers(function=lambda first, second: None):
    """Return two weights, their optimisers, and a step that ends with both and `function`."""
    pynn.seed(0)
    weights = [nn.Parameter(pynn.randn(128, 64).data) for _ in range(2)]
    opts = [optim.Adam([weight]) for weight in weights]

    def step():
        for opt in opts:
            opt.zero_grad()
        (weights[0] * weights[1]).sum().backward()
        for opt in opts:
            opt.step()
        return function(*weights)

    return weights, opts, step


def test_updates_at_the_end_of_a_function_need_no_copies(monkeypatch):
    copied = []
    keep = Changes.keep
    monkeypatch.setattr(Changes, "keep", lambda self, arrays: keep(self, [a for a in arrays if not copied.append(a)]))
    (weights, opts, step), (expected, _, eager) = two_optimizers(), two_optimizers()
    pynn.capture(step)()
    eager()
    assert not copied
    for weight, other in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(weight.data, other.data)
    assert all(opt.state[weight]["step"] == 1 for opt, weight in zip(opts, weights, strict=True))
    pynn.capture(two_optimizers(lambda a, b: a.sum())[2])()
    assert len(copied) == 6


@pytest.mark.parametrize(
    "read",
    [
        lambda a, b: (a * b).sum(),
        lambda a, b: float((a.numpy() * np.asarray(b)).sum()),
        lambda a, b: a.reshape(64, 128) @ b,
        lambda a, b: pynn.tensor(a),
        lambda a, b: a,
        lambda a, b: a.tolist(),
        lambda a, b: repr(b),
        lambda a, b: a > 0.001,
        lambda a, b: pynn.nn.init.zeros_(a),
    ],
)
def test_what_follows_an_update_reads_what_it_wrote(read):
    (_, _, step), (_, _, eager) = two_optimizers(read), two_optimizers(read)
    result, expected = pynn.capture(step)(), eager()
    np.testing.assert_array_equal(getattr(result, "data", result), getattr(expected, "data", expected))


@pytest.mark.parametrize(
    "read",
    [lambda average: pynn.Tensor(average)[[0, 1], [2, 3]], lambda average: pynn.Tensor(average, dtype=np.float64)],
    ids=["index", "convert"],
)
def test_numpy_behind_an_update_reads_what_it_wrote(read):
    def first_call(capture):
        weights, opts, _ = two_optimizers()

        def step():
            opts[0].zero_grad()
            (weights[0] * weights[1]).sum().backward()
            opts[0].step()
            return read(opts[0].state[weights[0]]["exp_avg"])

        return capture(step)().data

    np.testing.assert_array_equal(first_call(pynn.capture), first_call(lambda step: step))


@pytest.mark.parametrize("saved", ["state_dict", "state_dict, the optimizer's first", "load_state_dict"])
def test_states_are_read_and_loaded_behind_an_update(saved):
    def one_step(capture):
        pynn.seed(0)
        model = nn.Linear(3, 2)
        opt = optim.Adam(model.parameters())
        first, results = (model.state_dict(), opt.state_dict()), []

        def step(x):
            opt.zero_grad()
            model(x).sum().backward()
            opt.step()
            if saved == "state_dict":
                results.extend([model.state_dict(), opt.state_dict()])
            elif saved != "load_state_dict":
                results.extend([opt.state_dict(), model.state_dict()])
            else:
                model.load_state_dict(first[0])
                opt.load_state_dict(first[1])

        capture(step)(np.ones((4, 3), np.float32))
        return [*results, model.state_dict(), opt.state_dict()]

    np.testing.assert_equal(one_step(pynn.capture), one_step(lambda step: step))


@pytest.mark.parametrize("read", [lambda a, b: {}["key"], lambda a, b: {}[(a * b).sum()]])
def test_a_failed_capture_leaves_what_updates_would_change(read):
    weights, opts, step = two_optimizers(read)
    before = [weight.data.copy() for weight in weights]
    with pytest.raises(KeyError):
        pynn.capture(step)()
    for weight, data, opt in zip(weights, before, opts, strict=True):
        np.testing.assert_array_equal(weight.data, data)
        assert not opt.state


def test_an_update_that_is_refused_leaves_those_before_it_undone():
    weights, opts, step = two_optimizers()
    step()
    opts[1].state[weights[1]]["exp_avg"] = np.ones((64, 128), np.float32)
    before, average = [weight.data.copy() for weight in weights], opts[0].state[weights[0]]["exp_avg"].copy()
    with pytest.raises(ValueError, match=r"^adam_: exp_avgs\[0\] is \[64, 128\]"):
        pynn.capture(step)()
    for weight, data in zip(weights, before, strict=True):
        np.testing.assert_array_equal(weight.data, data)
    np.testing.assert_array_equal(opts[0].state[weights[0]]["exp_avg"], average)
    assert [opt.state[weight]["step"] for opt, weight in zip(opts, weights, strict=True)] == [1, 1]


def test_an_interrupt_before_updates_undoes_the_rest_and_one_behind_them_nothing():
    def interrupt():
        raise KeyboardInterrupt

    undone = []
    for run, expected in ((interrupt, ["first", "second"]), (lambda: None, [])):
        changes = Changes(None)
        changes.undo(lambda: undone.append("second"))
        changes.undo(lambda: undone.append("first"))
        changes._updates = SimpleNamespace(run=run)
        with contextlib.suppress(KeyboardInterrupt):
            changes.commit()
        changes.roll_back()
        assert undone == expected
        undone.clear()


@pytest.mark.parametrize("mean", [np.zeros(16384, np.float32)[::2], np.zeros(8192, np.float16)])
def test_large_averages_that_the_core_does_not_take_are_refused_as_without_capture(mean):
    norm = nn.BatchNorm1d(8192)
    norm.running_mean = mean
    messages = []
    for function in (norm, pynn.capture(norm)):
        with pytest.raises(TypeError) as caught:
            function(np.ones((2, 8192), np.float32))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("state", [np.ones((64, 128), np.float32).T, np.ones((128, 64), np.float16)])
def test_large_states_that_the_core_does_not_take_are_refused_as_without_capture(state):
    weight = nn.Parameter(np.ones((128, 64), np.float32))
    opt = optim.SGD([weight], lr=0.1, momentum=0.9)

    def step():
        opt.zero_grad()
        weight.sum().backward()
        opt.step()

    step()
    opt.state[weight]["momentum_buffer"] = state
    errors = []
    for function in (step, pynn.capture(step)):
        with pytest.raises((TypeError, ValueError), match=r"^sgd_: ") as error:
            function()
        errors.append(str(error.value))
    assert errors[0] == errors[1]


def test_a_failed_capture_draws_no_random_numbers():
    def failing(x):
        return F.dropout(F.dropout(x)).sum().item()

    x = pynn.ones(100)
    pynn.seed(3)
    expected = F.dropout(x).data
    pynn.seed(3)
    with pytest.raises(CaptureError):
        pynn.capture(failing)(x)
    np.testing.assert_array_equal(F.dropout(x).data, expected)


def test_an_interrupt_before_the_function_runs_leaves_the_core_as_it_was(monkeypatch):
    class Interrupted:
        def keys(self):
            raise KeyboardInterrupt

    before = [getattr(_core, name) for name in OPERATIONS]
    with monkeypatch.context() as patch:
        patch.setattr(intercept, "_INTERCEPTORS", Interrupted())
        with pytest.raises(KeyboardInterrupt):
            pynn.capture(F.relu)(X)
    assert not intercept._intercepting.locked()
    assert [getattr(_core, name) for name in OPERATIONS] == before


def test_an_error_in_a_replay_comes_out_and_the_next_replay_works():
    model, _, step, calls = make()
    step(X, Y)
    before = model.state_dict()
    with pytest.raises(IndexError, match=r"^cross_entropy: target\[1\] is 7"):
        step(X, np.array([0, 7, 0, 0, 0]))
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    assert np.isfinite(step(X, Y).item())
    assert len(calls) == 1


def test_require_finite_looks_in_every_replay():
    @pynn.capture
    def f(x):
        return F.require_finite(F.sum(x), "the sum")

    assert f(np.ones(3, np.float32)).item() == 3
    with pytest.raises(FloatingPointError, match=r"^the sum is nan$"):
        f(np.full(3, np.nan, np.float32))
