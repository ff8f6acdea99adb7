"""What cannot be captured is refused, with the line at fault, and leaves everything as it was."""

import contextlib
import copy

import numpy as np
import pytest
from captured_steps import X, Y, make, mlp

import pynn
from pynn import CaptureError, _core, nn, tape
from pynn import functional as F
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


def test_the_recorder_knows_which_functions_write_to_their_arguments():
    writing = {name for name in OPERATIONS if name.endswith("_")} | {"batch_norm"}
    assert set(IN_PLACE) == writing
    assert {name for name in writing if "params" in getattr(_core, name).__doc__} == UPDATES
