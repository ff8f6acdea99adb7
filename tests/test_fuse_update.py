"""Optimisers that make the gradients of linear layers' weights themselves: when they do, and that no bit changes."""

import itertools

import numpy as np
import pytest

import pynn
from pynn import _core, nn, optim, passes
from pynn import functional as F
from pynn.plan import Call, memory

OPTIMIZERS = {
    "SGD": lambda p: optim.SGD(p, lr=0.01),
    "SGD momentum": lambda p: optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    "Adam": lambda p: optim.Adam(p, lr=1e-3),
    "AdamW": lambda p: optim.AdamW(p, lr=1e-3, weight_decay=0.1),
    "RMSprop": lambda p: optim.RMSprop(p, lr=1e-3, centered=True, momentum=0.5),
    "Adagrad": optim.Adagrad,
    "Adadelta": optim.Adadelta,
}
WIDTHS = (300, 230, 301, 3)  # two weights that `fuse_update` looks at, whose rows end within vectors
ROWS = 20


def network(optimizer=OPTIMIZERS["Adam"], widths=WIDTHS):
    pynn.seed(0)
    layers = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    return model, optimizer(model.parameters())


def make_step(model, optimizer, between=None, zero_after=False):
    def step(x, y):
        if not zero_after:
            optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        if between is not None:
            between(model)
        optimizer.step()
        if zero_after:
            optimizer.zero_grad()
        return loss

    return step


def batches(count, features=WIDTHS[0], zeros=0.0):
    rng = np.random.default_rng(0)
    for _ in range(count):
        x = rng.standard_normal((ROWS, features)).astype(np.float32)
        yield x * (rng.random(x.shape) >= zeros).astype(np.float32), rng.integers(0, 3, ROWS)


def update_of(plan):
    (update,) = [call for call in plan.calls if call.name in passes.UPDATES]
    return update


def made_by(update):
    """The shapes of the weights whose gradients an update makes."""
    return [p.shape for p, grad in zip(*update.args[:2], strict=True) if isinstance(grad, tuple)]


@pytest.mark.parametrize("zero_after", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_captured_steps_have_the_bits_of_eager_ones(name, zero_after):
    runs = []
    for wrap in (lambda f: f, pynn.capture):
        model, optimizer = network(OPTIMIZERS[name])
        step = wrap(make_step(model, optimizer, zero_after=zero_after))
        losses = [step(x, y).item() for x, y in batches(6)]
        runs.append((losses, [p.data.tobytes() for p in model.parameters()], [p.grad for p in model.parameters()]))
    assert made_by(update_of(step.plan())) == [(230, 300), (301, 230)]
    (losses, values, grads), (captured_losses, captured_values, captured_grads) = runs
    assert captured_losses == losses
    assert captured_values == values
    for grad, captured in zip(grads, captured_grads, strict=True):
        assert (captured is None) == zero_after
        assert zero_after or captured.tobytes() == grad.tobytes()


@pytest.mark.parametrize("zeros", [0.0, 0.9])
def test_threads_change_no_bit(zeros):
    """Columns in groups; an input that is mostly zeros, whose gradient is made at once."""
    results, before = set(), pynn.info()["num_threads"]
    try:
        for threads in (1, 2, 3):
            pynn.set_num_threads(threads)
            model, optimizer = network(widths=(4300, 30, 3))
            step = pynn.capture(make_step(model, optimizer))
            losses = [step(x, y).item() for x, y in batches(3, 4300, zeros)]
            results.add((*losses, *(p.data.tobytes() for p in model.parameters())))
    finally:
        pynn.set_num_threads(before)
    assert len(results) == 1


def test_a_plan_shows_what_an_optimizer_makes():
    model, optimizer = network(widths=(600, 120, 3))
    step = pynn.capture(make_step(model, optimizer, zero_after=True))
    for x, y in batches(2, 600):
        step(x, y)
    text = str(step.plan())
    assert "adam_(4 arrays, linear_backward([20, 120], [20, 120], [20, 600], 'relu') and 3 arrays, 4 arrays" in text
    assert "fuse_update 1" in text  # nothing is left of the first layer's call
    assert step.plan().bytes_planned < 4 * 600 * 120  # where the gradient of its weight would lie


@pytest.mark.parametrize("clip", [optim.clip_grad_norm_, optim.clip_grad_value_])
def test_gradients_that_are_clipped_are_not_made_by_the_optimizer(clip):
    model, optimizer = network()
    step = pynn.capture(make_step(model, optimizer, between=lambda model: clip(model.parameters(), 0.1)))
    (batch,) = batches(1)
    try:
        step(*batch)
    except pynn.CaptureError:  # clipped by NumPy
        return
    assert made_by(update_of(step.plan())) == []


def calls_of(rows=4, out=300, features=300, dtype=np.float32, needs_dx=True, needs_dbias=True):
    """`linear_backward` of a layer, and the optimiser's call."""
    dy, y, x = (np.zeros((rows, n), dtype) for n in (out, out, features))
    weight, bias, dweight, dbias = (np.zeros(shape, dtype) for shape in ((out, features), (out,)) * 2)
    outputs = [np.zeros_like(x)] * needs_dx + [dweight] + [dbias] * needs_dbias
    args = (dy, y, x, weight, "relu", needs_dx, True, needs_dbias)
    params, grads = ([weight, bias], [dweight, dbias]) if needs_dbias else ([weight], [dweight])
    return Call("linear_backward", args, outputs), Call("sgd_", (params, grads, [], 0.1), [], params)


@pytest.mark.parametrize("needs_dx", [False, True])
@pytest.mark.parametrize("needs_dbias", [False, True])
@pytest.mark.parametrize("is_kept", [False, True])
def test_what_is_left_of_linear_backward(needs_dx, needs_dbias, is_kept):
    backward, update = calls_of(needs_dx=needs_dx, needs_dbias=needs_dbias)
    dweight, *dbias = backward.outputs[needs_dx:]
    *left, fused = passes.fuse_update([backward, update], {memory(dweight)} if is_kept else set())
    made = fused.args[1][0]
    assert [made[:4], made[4] is dweight, made[5] is None] == [(*backward.args[:3], "relu"), is_kept, not needs_dbias]
    assert [*map(memory, fused.outputs)] == [*map(memory, [*([dweight] * is_kept), *dbias])]
    assert [(call.args[5:], len(call.outputs)) for call in left] == [((True, False, False), 1)] * needs_dx


@pytest.mark.parametrize(
    "why", ["small", "medium", "many rows", "read", "bias read", "x written", "x updated", "a view"]
)
def test_what_keeps_a_gradient_in_its_array(why):
    out = {"small": 200, "medium": 600}.get(why, 300)
    backward, update = calls_of(out=out, rows=65 if why == "many rows" else 4)
    calls = [backward, update]
    _, dweight, dbias = backward.outputs
    x = backward.args[2]
    if why in ("read", "bias read"):
        calls.insert(1, Call("exp", (dweight if why == "read" else dbias,), [np.zeros(3)]))
    elif why == "x written":
        calls.insert(1, Call("scale_", ([x], 2.0), [], [x]))
    elif why == "x updated":
        calls[1] = Call("sgd_", ([*update.args[0], x], [*update.args[1], np.zeros_like(x)], [], 0.1), [], [x])
    elif why == "a view":
        flat = [backward.args[3].reshape(-1)], [dweight.reshape(-1)]
        calls[1] = Call("sgd_", (*flat, [], 0.1), [], flat[0])
    assert passes.fuse_update(calls, set()) == calls


def gradient_of(dweight=None, dbias=None):
    dy, y, x = (np.full((4, n), 0.5, np.float32) for n in (3, 3, 5))
    return dy, y, x, "tanh", dweight, dbias


def sgd(grad):
    weight = np.zeros((3, 5), np.float32)
    _core.sgd_([weight], [grad], [], 1.0, 0.0, 0.0, 0.0, False, True)
    return weight


def test_an_optimizer_writes_the_gradients_that_it_is_asked_for():
    dweight, dbias = np.zeros((3, 5), np.float32), np.zeros(3, np.float32)
    weight = sgd(gradient_of(dweight, dbias))
    _, wanted, wanted_bias = _core.linear_backward(*gradient_of()[:3], weight, "tanh", False, True, True)
    np.testing.assert_array_equal(dweight, wanted)
    np.testing.assert_array_equal(dbias, wanted_bias)
    np.testing.assert_array_equal(weight, -wanted)


@pytest.mark.parametrize(
    ("at", "value", "error", "text"),
    [
        (0, np.zeros((4, 2), np.float32), ValueError, r"sgd_: dy .*\[4, 2\].*\[4, 3\]"),
        (1, np.zeros((4, 3)), TypeError, "sgd_: y .*float64.*float32"),
        (2, np.zeros((4, 6), np.float32), ValueError, r"sgd_: x \[4, 6\] has 6 features, weight \[3, 5\] expects 5"),
        (2, [[0.0] * 5] * 4, TypeError, "sgd_: item 2 of a gradient is no array"),
        (3, "swish", ValueError, "sgd_: activation"),
        (3, None, TypeError, "sgd_: item 3 of a gradient"),
        (4, np.zeros((5, 3), np.float32), ValueError, r"sgd_: dweight .*\[5, 3\].*\[3, 5\]"),
        (5, np.broadcast_to(np.zeros(3, np.float32), (3,)), ValueError, "sgd_: dbias"),
    ],
)
def test_gradients_that_do_not_fit_are_refused(at, value, error, text):
    gradient = list(gradient_of())
    gradient[at] = value
    with pytest.raises(error, match=text):
        sgd(tuple(gradient))
    with pytest.raises(TypeError, match="a gradient is a tuple of 5"):
        sgd(tuple(gradient[:5]))
