"""Memory of tensors and arguments: shared with what a captured step updates, read as in eager mode, or replaced."""

import copy

import numpy as np
import pytest
from captured_steps import X

import pynn
from pynn import CaptureError, nn, optim
from pynn import functional as F
from pynn._core import Recording

SIZES = pytest.mark.parametrize("n", [6, 5000])  # copied, or read where they are


def run(wrap, n, argument, optimizer=optim.SGD):
    """Sums of an argument before and after each of six updates, half of them with another argument; and weights."""
    w = nn.Parameter(np.linspace(-1, 1, n, dtype=np.float32))
    optimizer = optimizer([w], lr=0.01)

    def step(x):
        optimizer.zero_grad()
        before = F.sum(x * w)
        before.backward()
        optimizer.step()
        return before, F.sum(x * x), pynn.tensor(x), x

    step, rows = wrap(step), []
    other = np.full(n, 0.5, np.float32)
    for i in range(6):
        x = argument(w, optimizer) if i % 3 else other
        rows.append([result.data.copy() for result in step(x if wrap is pynn.capture else pynn.Tensor(x))])
    return rows, w.data


@SIZES
@pytest.mark.parametrize("optimizer", [optim.SGD, optim.Adam])
@pytest.mark.parametrize(
    "argument",
    [
        lambda w, optimizer: w.data,
        lambda w, optimizer: w.detach(),
        lambda w, optimizer: w.data.reshape(2, -1).reshape(-1),
        lambda w, optimizer: np.frombuffer(w.data, np.float32),  # which names no owner
        lambda w, optimizer: optimizer.state.get(w, {}).get("exp_avg", w.data),
    ],
    ids=["array", "tensor", "view", "buffer", "state"],
)
def test_an_updated_array_as_an_argument(n, argument, optimizer):
    (eager, weights), (captured, same_weights) = (
        run(wrap, n, argument, optimizer) for wrap in (lambda f: f, pynn.capture)
    )
    for step, (expected, got) in enumerate(zip(eager, captured, strict=True)):
        for a, b in zip(expected, got, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=f"step {step}")
    np.testing.assert_array_equal(weights, same_weights)


@pytest.mark.parametrize("optimizer", [optim.SGD, optim.Adam])
def test_rows_of_a_weight_whose_optimiser_makes_the_gradient(optimizer):
    """The update of each part of the weight must not change the rows that the gradients of others are made from."""

    def run(wrap):
        w = nn.Parameter(np.random.default_rng(0).standard_normal((256, 300), np.float32))
        updates = optimizer([w], lr=0.01)

        def step(x):
            updates.zero_grad()
            loss = F.mean(F.linear(x, w) ** 2)
            loss.backward()
            updates.step()
            return loss

        step = wrap(step)
        losses = [step(pynn.Tensor(w.data[:32])).item() for _ in range(4)]
        return losses, w.data, step

    (losses, weight, _), (same_losses, same_weight, step) = run(lambda f: f), run(pynn.capture)
    assert step.plan().saved["fuse_update"] == 1
    assert same_losses == losses
    np.testing.assert_array_equal(same_weight, weight)


def test_a_part_of_a_parameter_as_an_argument():
    def steps(wrap):
        w = nn.Parameter(np.arange(8, dtype=np.float32).reshape(4, 2))
        optimizer, calls = optim.SGD([w], lr=0.5), []

        def step(x):
            calls.append(1)
            optimizer.zero_grad()
            F.sum(w * w).backward()
            optimizer.step()
            return F.sum(x)

        step = wrap(step)
        return [step(pynn.Tensor(w.data[row : row + 1])).item() for row in (1, 1, 2, 1)], len(calls)

    (eager, _), (captured, plans) = steps(lambda f: f), steps(pynn.capture)
    assert eager == captured
    assert plans == 2  # one for each place


@pytest.mark.parametrize(
    "argument", [lambda w: w.data[::2], lambda w: w.data.view(np.int32)], ids=["strided", "integers"]
)
def test_what_cannot_follow_an_update_is_refused(argument):
    w = nn.Parameter(np.arange(8, dtype=np.float32))
    optimizer = optim.SGD([w], lr=0.5)

    @pynn.capture
    def step(x):
        optimizer.zero_grad()
        F.sum(w * w).backward()
        optimizer.step()
        return x

    with pytest.raises(CaptureError, match=r"^capture: an argument .* shares memory with what is updated, at .*:\d+"):
        step(argument(w))
    assert w.data.tolist() == list(range(8))


def test_running_statistics_as_arguments():
    def steps(wrap):
        norm = nn.BatchNorm1d(6)
        step = wrap(lambda x, mean: (F.sum(norm(x)), mean * 1))
        return [step(pynn.Tensor(X), pynn.Tensor(norm.running_mean))[1].data.tolist() for _ in range(3)]

    assert steps(lambda f: f) == steps(pynn.capture)
    norm = nn.BatchNorm1d(6)
    with pytest.raises(CaptureError, match="shares memory"):
        pynn.capture(lambda x, count: (norm(x), count))(X, norm.num_batches_tracked)
    assert norm.num_batches_tracked == 0


def test_extents_of_arrays_and_what_overlaps_them():
    base = np.zeros((4, 8), np.float32)
    at, nothing = base.ctypes.data, base[:, :0]
    rows = Recording.extents([base[2], base[0], nothing, base[1, ::-1], base[3, 4:]])
    assert (rows - at).tolist() == [[0, 96], [112, 128]]
    arrays = [base, base[3, :4], base[3, 3:], base[3, 4::-1], base[3, 2::-1], nothing, base[::3, 5], base.T]
    assert Recording.overlapping(arrays, rows) == [0, 2, 3, 6, 7]
    assert Recording.overlapping(arrays, Recording.extents([])) == []
    for refused in (rows.astype(np.float64), rows[:, :1], rows[0]):
        with pytest.raises(TypeError, match=r"^Recording\.overlapping: needs extents"):
            Recording.overlapping(arrays, refused)


def test_steps_of_a_recording_that_are_not_there_are_refused():
    for begin, end in ((-1, None), (1, 0), (0, 1)):
        with pytest.raises(ValueError, match=r"^Recording\.run: steps"):
            Recording().run(begin, end)


@pytest.mark.parametrize(
    "function",
    [
        lambda w: lambda x: (x + w.detach(),),
        lambda w: lambda x: (F.add(x, w.data),),
        lambda w: lambda x: (F.add(x, pynn.Tensor(w)),),
        lambda w: lambda x: (F.add(x, copy.copy(w)),),
        lambda w: lambda x: (F.add(x, w.numpy()),),
        lambda w: lambda x: (x, w),
        lambda w: lambda x: {"x": x, "w": [w.detach()]},
    ],
    ids=["detach", "data", "Tensor", "copy", "numpy", "returned", "detached and returned"],
)
def test_an_array_that_no_operation_takes_from_its_tensor_is_guarded(function):
    """It was read where it had been when the function was captured."""
    w, x = pynn.tensor([1.0, 2.0]), np.ones(2, np.float32)
    f = pynn.capture(function(w))
    for value in (3, 4):
        w.data = np.full(2, value, np.float32)
        for n in (0, 10):
            w.data[...] += n
            assert str(f(x)) == str(f.function(pynn.Tensor(x)))
    assert repr(f).endswith("plans=2)")
