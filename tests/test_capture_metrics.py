"""Metrics inside of a captured step, and labels of every integer dtype; the functions of the core behind them."""

import numpy as np
import pytest
from captured_steps import X, Y, make, mlp

import pynn
from pynn import _core, nn, optim
from pynn import functional as F

INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]


def steps(capture):
    """A training step that returns loss, hits and accuracy."""
    pynn.seed(3)
    model = mlp()
    optimizer = optim.SGD(model.parameters(), lr=0.5)

    def step(x, y):
        optimizer.zero_grad()
        scores = model(x)
        loss = F.cross_entropy(scores, y)
        loss.backward()
        optimizer.step()
        hits = scores.argmax(1) == y
        return loss, hits, hits.sum(), (y == scores.argmax(1)).mean(), (scores.argmax(1) == 2).sum()

    return pynn.capture(step) if capture else step


@pytest.mark.parametrize("dtype", INTEGERS)
def test_a_step_returns_its_accuracy(dtype):
    captured, eager = steps(True), steps(False)
    hits = []
    for i in range(6):
        x, y = np.roll(X, i, axis=0), Y.astype(dtype)
        got, want = captured(x, y), eager(pynn.Tensor(x), pynn.Tensor(y))
        for a, b in zip(got, want, strict=True):
            a, b = (np.asarray(value.data if isinstance(value, pynn.Tensor) else value) for value in (a, b))
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
        hits.append(got[2].item())
    assert len(set(hits)) > 1, "the accuracy has to change for this test to mean anything"
    assert len(captured._plans) == 1


def test_labels_out_of_range_are_refused_in_a_replay():
    captured = steps(True)
    for _ in range(2):
        captured(X, Y.astype(np.int32))
    with pytest.raises(IndexError, match=r"^cross_entropy: "):
        captured(X, np.full(len(Y), 7, np.int32))
    with pytest.raises(IndexError, match=r"^as_int64: x has 9223372036854775808"):
        captured(X, np.full(len(Y), 1 << 63, np.uint64))


def test_indices_of_an_embedding_may_be_narrow():
    table = nn.Embedding(9, 2)
    f = pynn.capture(lambda rows: table(rows))
    for rows in (np.array([1, 8], np.uint8), np.array([0, 2], np.uint8)):
        np.testing.assert_array_equal(f(rows).data, table.weight.data[rows])


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (7, 3)])
def test_as_int64(dtype, shape):
    limits = np.iinfo(dtype)
    x = np.resize(np.array([limits.min, min(limits.max, 2**63 - 1), 1], dtype), shape)
    y = _core.as_int64(x)
    assert (y.dtype, y.shape) == (np.int64, shape)
    np.testing.assert_array_equal(y, x.astype(np.int64))


def test_equal_count_and_share():
    rng = np.random.default_rng(7)
    for shape in ((), (1,), (5,), (3, 4), (0, 2), (1000,)):
        a, b = (np.asarray(rng.integers(0, 3, shape)) for _ in range(2))
        for other in (b, np.array(1)):
            y = _core.equal(a, other)
            np.testing.assert_array_equal(y, a == other)
            assert y.shape == shape
            assert (_core.count(y), _core.count(y).dtype) == (np.count_nonzero(y), np.int64)
            if y.size:
                assert (_core.share(y), _core.share(y).dtype) == (y.mean(), np.float64)
    assert np.isnan(_core.share(np.zeros(0, bool)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: _core.as_int64(X), TypeError, "as_int64: x is float32, needs integers"),
        (lambda: _core.as_int64(np.zeros(3, ">i4")), TypeError, "as_int64: x is >i4, needs integers"),
        (lambda: _core.as_int64(np.zeros((3, 3), np.int32)[:, 1]), TypeError, r"as_int64: x \[3\] is not C-contiguous"),
        (lambda: _core.as_int64(np.array(1 << 63, np.uint64)), IndexError, "as_int64: x has 9223372036854775808"),
        (lambda: _core.equal(Y, Y.astype(np.int32)), TypeError, "equal: b is int32, needs int64"),
        (lambda: _core.equal(Y, Y[:1]), ValueError, r"equal: b is \[1\], needs \[5\]"),
        (lambda: _core.equal(np.array(1), Y), ValueError, r"equal: b is \[5\], needs \[\]"),
        (lambda: _core.count(Y), TypeError, "count: x is int64, needs bool"),
        (lambda: _core.share(Y), TypeError, "share: x is int64, needs bool"),
    ],
)
def test_the_core_refuses_other_arrays(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()


def test_a_model_of_make_still_trains_on_narrow_labels():
    _, _, step, calls = make()
    losses = [step(X, Y.astype(np.uint8)).item() for _ in range(5)]
    assert losses[-1] < losses[0]
    assert len(calls) == 1
