"""What cannot be captured is refused, with the line at fault, and leaves everything as it was."""

import contextlib
import copy
from types import SimpleNamespace

import numpy as np
import pytest
from captured_steps import OPTIMIZERS, X, Y, cnn, make, mlp

import pynn
from pynn import CaptureError, _core, intercept, nn, optim, tape
from pynn import functional as F
from pynn._changes import Changes
from pynn.intercept import IN_PLACE, OPERATIONS, UPDATES


def read_item(x, model):
    return model(x) * model(x).sum().item()


def branch(x, model):
    y = model(x)
    return y if y.sum() > 0 else -y


def numpy_on_value(x, model):
    return pynn.tensor(np.exp(model(x).detach().numpy()))


def numpy_in_python(x, model):
    return np.argsort(model(x))  # a function of NumPy's that asks for the array by itself


def index(x, model):
    return model(x).data[0]


def index_by_values(x, model):
    return model[0].weight[F.argmax(x[:, :2], axis=1)]


def new_parameter(x, model):
    return nn.Linear(6, 2)(x)


def format_value(x, model):
    return f"{model(x).sum().data:.2f}"


def flatten_value(x, model):
    return model(x).data.flatten()


def reshape_value(x, model):
    return pynn.Tensor(model(x).data.T.reshape(-1))


def ravel_value(x, model):
    return pynn.Tensor(model(x).data.ravel(order="F"))


def swap_bytes(x, model):
    return pynn.Tensor(model(x).data.byteswap())


def put_value(x, model):
    y = model(x)
    y.data.put([0], 7.0)
    return y


def copy_value(x, model):
    return copy.deepcopy(model(x).detach())


def made_again(x, model):
    return pynn.Tensor(model(x).data).data.sum()


def set_item(x, model):
    with pynn.no_grad():
        model[0].weight[0] = model(x).sum()


def add_in_place(x, model):
    with pynn.no_grad():
        weight = model[0].weight
        weight -= 0.1 * weight


def hooked(x, model):
    model[0].register_forward_hook(lambda *args: None)
    return model(x)


def leaf_from_before(x, model):
    F.sum(model(x)).backward()


def noise(x, model):
    return model(x) + pynn.randn(3)


def compare_scores(x, model):
    return (model(x) == 0).sum()


def compare_shapes(x, model):
    return model(x).argmax(1) == np.zeros((2, 5), np.int64)


def sum_of_labels(x, model):
    return model(x).argmax(1).data.sum()


def hits_of_rows(x, model):
    return (model(x).argmax(1) == 0).sum(axis=0)


def convert(x, model):
    return (model(x) * 3).astype(np.int64)


def turned_gradient(x, model):
    model.zero_grad()
    model(x).sum().backward()
    model[0].weight.grad = model[0].weight.grad.reshape(6, 8).T


def change_attribute(x, model):
    model.extra = getattr(model, "extra", 0) + 1
    return model(x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (format_value, "is read, at .*test_capture_refusals.py"),
        (flatten_value, "is read, at .*test_capture_refusals.py"),
        (reshape_value, "is read, at .*test_capture_refusals.py"),
        (ravel_value, "is read, at .*test_capture_refusals.py"),
        (swap_bytes, "is read, at .*test_capture_refusals.py"),
        (put_value, "is read, at .*test_capture_refusals.py"),
        (copy_value, "is read, at"),
        (made_again, "is read, at .*test_capture_refusals.py"),
        (set_item, "setitem writes a tensor in place, at .*test_capture_refusals.py"),
        (add_in_place, "sub writes a tensor in place, at .*test_capture_refusals.py"),
        (hooked, "Linear has a hook, at .*test_capture_refusals.py"),
        (read_item, "is read, at .*test_capture_refusals.py"),
        (branch, "is read, at .*test_capture_refusals.py"),
        (numpy_on_value, "is read, at .*test_capture_refusals.py.*; what NumPy makes of an argument, pass"),
        (numpy_in_python, "is read, at .*test_capture_refusals.py"),
        (index, "is read, at .*test_capture_refusals.py"),
        (index_by_values, "index is computed by NumPy here, .* at .*test_capture_refusals.py"),
        (new_parameter, "is made, or begins to require a gradient, inside of .*, at .*test_capture_refusals.py"),
        (leaf_from_before, "already has a gradient from before, .* of a module or optimizer that has this tensor"),
        (noise, "random numbers .* at .*test_capture_refusals.py"),
        (compare_scores, r"a value \[5, 3\] of a captured step is read, at .*test_capture_refusals.py"),
        (compare_shapes, "is read, at .*test_capture_refusals.py"),
        (sum_of_labels, "is read, at .*test_capture_refusals.py"),
        (hits_of_rows, "is read, at .*test_capture_refusals.py"),
        (turned_gradient, r"grad \[\d+, \d+\] is copied by NumPy to lie in order, at .*test_capture_refusals.py"),
        (convert, r"astype \[5, 3\] is converted from float32 to int64, at .*test_capture_refusals.py"),
    ],
)
def test_refuses_what_a_replay_cannot_repeat_and_names_the_line(function, message):
    model = mlp()
    F.sum(model(X)).backward()
    before = [(p.data, p.data.copy(), p.grad) for p in model.parameters()]
    with pytest.raises(CaptureError, match=f"^capture: .*{message}"):
        pynn.capture(lambda x: function(x, model))(X)
    for p, (data, values, grad) in zip(model.parameters(), before, strict=True):
        assert p.data is data
        assert p.grad is grad
        np.testing.assert_array_equal(p.data, values)


def test_what_the_function_does_wrong_is_no_matter_of_the_capture():
    w = pynn.ones(2, requires_grad=True)

    def write(x):
        y = x * w
        y[0] = 0

    for function in (write, pynn.capture(write)):
        with pytest.raises(RuntimeError, match=r"^setitem: a write is not differentiable") as caught:
            function(np.ones(2, np.float32))
        assert caught.type is RuntimeError


def test_an_argument_that_requires_a_gradient_is_refused():
    x = pynn.tensor([1.0], requires_grad=True)
    with pytest.raises(CaptureError, match=r"^capture: an argument \[1\] requires a gradient"):
        pynn.capture(F.relu)(x)


def test_an_argument_that_is_not_hashable_is_refused():
    with pytest.raises(TypeError, match=r"^capture: an argument is a set, needs arrays or something hashable"):
        pynn.capture(lambda s: s)({1})


class Pair:
    def __init__(self, x):
        self.x = x


@pytest.mark.parametrize(
    "function",
    [Pair, lambda x: (y for y in [x]), lambda x: {"pair": [Pair(x)]}],
    ids=["object", "generator", "nested object"],
)
def test_a_result_that_a_replay_cannot_make_is_refused(function):
    with pytest.raises(CaptureError, match=r"^capture: the function returns a (Pair|generator), which a replay"):
        pynn.capture(function)(np.ones(2, np.float32))


@pytest.mark.parametrize("function", [3, None, np.ones(2)])
def test_only_functions_are_captured(function):
    with pytest.raises(TypeError, match=r"^capture: got .*, needs a function or a module$"):
        pynn.capture(function)


def test_a_result_of_a_class_that_cannot_be_made_anew_leaves_the_model_as_it_was():
    class Pair(tuple):
        def __new__(cls, first, second):
            return super().__new__(cls, (first, second))

    model, optimizer, _, _ = make()
    before = model.state_dict()

    @pynn.capture
    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return Pair(loss, 1)

    with pytest.raises(TypeError, match="second"):
        step(X, Y)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    assert not optimizer.state


def test_plan_before_the_first_call():
    with pytest.raises(RuntimeError, match=r"^plan: nothing was captured yet"):
        pynn.capture(F.relu).plan()


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


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize(
    "function",
    [
        lambda w: w[[0, 1], [2, 3]],
        lambda w: w.reshape(-1)[np.arange(12) > 3],
        lambda w: w.astype(np.float64).sum(),
        lambda w: tape.record("norm", np.abs(w.data).sum(keepdims=True), (w,), lambda dy: (dy * np.sign(w.data),)),
    ],
    ids=["indices", "mask of a view", "astype", "record"],
)
def test_numpy_on_a_parameter_is_refused(function, frozen, grad):
    w = nn.Parameter(np.zeros((3, 4), np.float32)).requires_grad_(not frozen)
    captured = pynn.capture(lambda: function(w))
    with (
        contextlib.nullcontext() if grad else pynn.no_grad(),
        pytest.raises(CaptureError, match=r"of a parameter is computed by NumPy here, .* at .*test_capture_refusals"),
    ):
        captured()


def test_numpy_on_a_constant_and_views_of_a_parameter_are_captured():
    w, c = nn.Parameter(np.zeros((3, 4), np.float32)), pynn.ones(3, 4)
    captured = pynn.capture(lambda: w.reshape(4, 3)[1:] + c[[0, 1, 2], [0, 1, 2]])
    assert captured().data.sum() == 9
    w.data[:] = 1
    assert captured().data.sum() == 18


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


def test_the_recorder_knows_which_functions_write_to_their_arguments():
    writing = {name for name in OPERATIONS if name.endswith("_")} | {"batch_norm"}
    assert set(IN_PLACE) == writing
    assert {name for name in writing if "params" in getattr(_core, name).__doc__} == UPDATES
