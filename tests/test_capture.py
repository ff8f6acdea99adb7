"""Captured steps do what the same functions do when they run as they are written."""

import gc
import sys
import threading

import numpy as np
import pytest
from captured_steps import MODELS, OPTIMIZERS, X, Y, assert_same_training, make, mlp, prepare, step_of, train

import pynn
from pynn import _binding, nn, optim
from pynn import functional as F
from pynn._core import arena_stats
from pynn.data import take


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("clip", [False, True])
def test_same_bits_as_eager_over_200_steps(model, clip):
    eager = train(model, "adam", 200, lambda f: f, clip)
    assert_same_training(eager, train(model, "adam", 200, pynn.capture, clip))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers_count_and_follow_schedules(optimizer):
    eager = train("mlp", optimizer, 30, lambda f: f)
    assert_same_training(eager, train("mlp", optimizer, 30, pynn.capture))


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, optim.AdamW, optim.Adagrad, optim.RMSprop])
def test_an_optimizer_that_steps_twice_counts_twice(kind):
    def weights(wrap):
        pynn.seed(1)
        model = nn.Linear(4, 3)
        optimizer = kind(model.parameters(), lr=0.1)

        def step(x):
            for scale in (1.0, 0.5):
                optimizer.zero_grad()
                F.sum(model(x) * model(x) * scale).backward()
                optimizer.step()

        step, x = wrap(step), np.arange(8, dtype=np.float32).reshape(2, 4)
        for _ in range(4):
            step(x)
        return [p.data.tobytes() for p in model.parameters()]

    assert weights(pynn.capture) == weights(lambda step: step)


def test_replays_without_python_and_returns_tensors_of_its_own():
    _, _, step, calls = make()
    losses = [step(X, Y) for _ in range(4)]
    assert len(calls) == 1
    assert losses[0].item() > losses[1].item() > losses[2].item() > losses[3].item()
    assert not losses[0].requires_grad


def test_gradients_are_there_after_a_replay():
    model, _, step, _ = make(lr=0.0)
    step(X, Y)
    before = [p.grad.copy() for p in model.parameters()]
    for p in model.parameters():
        p.grad = None
    step(X, Y)
    for p, grad in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.grad, grad)
        assert type(p.grad) is np.ndarray


def test_a_gradient_that_does_not_outlive_the_step_is_used_where_the_plan_puts_it():
    """Two optimisers in turn, as of adversarial networks: the second backward adds to gradients that the first used."""

    def losses(wrap):
        pynn.seed(0)
        rng = np.random.default_rng(0)
        maker, judge = nn.Linear(4, 6), nn.Linear(6, 1)
        makes, judges = optim.Adam(maker.parameters(), lr=0.01), optim.Adam(judge.parameters(), lr=0.01)
        true = np.ones((3, 1), np.float32)

        def step(x, z):
            made = maker(z)
            judged = F.binary_cross_entropy_with_logits(judge(x), true)
            judges.zero_grad()
            judged.backward()
            judges.step()
            believed = F.binary_cross_entropy_with_logits(judge(made), true)
            makes.zero_grad()
            believed.backward()
            makes.step()
            return judged, believed

        step = wrap(step)
        batches = [rng.standard_normal((3, 10), dtype=np.float32) for _ in range(20)]
        return [tuple(loss.item() for loss in step(batch[:, :6], batch[:, 6:])) for batch in batches]

    assert losses(pynn.capture) == losses(lambda step: step)


def test_the_gradient_of_an_argument():
    model, calls = mlp(), []

    @pynn.capture
    def f(x, y):
        calls.append(1)
        x = x.detach().requires_grad_()
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        return pynn.tensor(x.grad)

    for scale in (1, 2, 3):
        np.testing.assert_array_equal(
            f(X * np.float32(scale), Y).data, f.function(pynn.tensor(X * np.float32(scale)), Y).data
        )
        model.zero_grad()
    assert len(calls) == 4


@pytest.mark.parametrize("n", [5, 5000])  # copied, or read where it is
def test_arguments_of_any_layout(n):
    @pynn.capture
    def f(x):
        return F.exp(x).sum() + x.reshape(2, n).sum() * 3

    rng = np.random.default_rng(0)
    base = rng.standard_normal((4 * n, 3)).astype(np.float32)
    for x in (base[: 2 * n, 0].copy(), base[::2, 1], base.reshape(-1)[: 2 * n], base.reshape(-1)[2 * n : 4 * n]):
        for _ in range(2):
            expected = f.function(pynn.tensor(np.ascontiguousarray(x))).item()
            assert f(x).item() == expected
            assert f(pynn.tensor(x)).item() == expected


@pytest.mark.parametrize("n", [5, 5000])
def test_arguments_that_are_returned(n):
    f = pynn.capture(lambda x: (x, x.reshape(1, n), x.sum()))
    for value in (0.0, 1.0, 2.0):
        same, reshaped, total = f(np.full(n, value, np.float32))
        assert (same.data[-1], reshaped.data[0, -1], total.item()) == (value, value, n * value)


@pytest.mark.parametrize("n", [5, 5000])
def test_arguments_of_another_byte_order(n):
    f = pynn.capture(lambda x: F.exp(x).sum())
    for value in (0.0, 0.0, 1.0):
        assert f(np.full(n, value, ">f4")).item() == pytest.approx(n * np.exp(value), rel=1e-6)


def test_an_interrupt_while_an_argument_is_bound_is_no_matter_of_the_next_call(monkeypatch):
    """Some of the steps that read it had been told of the new array, and went on reading it."""
    f = pynn.capture(lambda x: x.sum() + F.exp(x).sum())
    x = np.ones(5000, np.float32)
    expected = [f(x).item(), f(x).item()]
    record, calls = _binding.Step.record, []

    def interrupted(step, recording):
        calls.append(step)
        if len(calls) == 2:
            raise KeyboardInterrupt
        record(step, recording)

    with monkeypatch.context() as patched:
        patched.setattr(_binding.Step, "record", interrupted)
        with pytest.raises(KeyboardInterrupt):
            f(x * 3)
    assert [f(x).item(), f(x).item()] == expected


def test_empty_arguments():
    """Nothing is read of them, so that there is nothing to refuse: not even a result of values that differ."""
    w = nn.Parameter(np.ones((0, 3), np.float32))

    def step(x):
        w.grad = None
        y, leaf = w * x, x.detach().requires_grad_()
        y.retain_grad()
        total = (y * y).sum() + leaf.sum()
        total.backward()
        optim.clip_grad_norm_([w], 1.0)
        return [pynn.Tensor(a).data.shape for a in (total, x - total, y.grad, w.grad, leaf.grad)], total

    f, x = pynn.capture(step), np.empty((0, 3), np.float32)
    for _ in range(3):
        shapes, total = f(x)
        assert (shapes, total.item()) == ([(), (0, 3), (0, 3), (0, 3), (0, 3)], 0)
        assert w.grad.shape == (0, 3)
    assert repr(f).endswith("plans=1)")


def test_an_argument_of_objects_holds_its_own_references():
    """The plan has a copy: of the references, too, not only of their bytes."""
    f = pynn.capture(lambda x, names: F.exp(x))
    thing = object()
    before = sys.getrefcount(thing)
    for _ in range(4):
        f(np.ones(2, np.float32), np.array([thing], object))
    assert sys.getrefcount(thing) == before + 1
    f(np.ones(2, np.float32), np.zeros(1, object))
    assert sys.getrefcount(thing) == before


def test_tensors_made_of_values_follow_them():
    """`pynn.tensor` copies: of an argument, a result and a gradient, each replay anew."""
    p = nn.Parameter(np.ones(3, np.float32))

    @pynn.capture
    def f(x):
        p.grad = None
        F.sum(x * x * p).backward()
        return pynn.tensor(x), pynn.tensor((x * 2).data), pynn.tensor(p.grad), pynn.Tensor(p.grad)

    for value in (1.0, 2.0, 3.0):
        copied, doubled, squared, shared = f(np.full(3, value, np.float32))
        assert [t.data[0] for t in (copied, doubled, squared, shared)] == [value, 2 * value, value**2, value**2]


def test_an_argument_in_the_memory_of_the_plan():
    w = nn.Parameter(np.linspace(0, 1, 8192, dtype=np.float32))

    def step(x):
        w.grad = None
        loss = F.sum(w * w * x)
        loss.backward()
        return F.sum(x)

    captured = pynn.capture(step)
    for f in (step, captured):
        w.grad = None
        f(np.ones(8192, np.float32))
        f(np.ones(8192, np.float32))
        sums = [f(w.grad).item() for _ in range(2)]
        if f is step:
            expected = sums
    assert sums == expected


def test_a_step_takes_its_batch_out_of_arrays():
    """Loss and weights as in eager mode; rows that do not exist are refused by the replay, which changes nothing."""
    rng = np.random.default_rng(0)
    samples, labels = rng.standard_normal((40, 6)).astype(np.float32), rng.integers(0, 3, 40)
    batches = rng.integers(-40, 40, (20, 5))

    def run(wrap):
        pynn.seed(0)
        model, calls = mlp(), []
        optimizer = optim.Adam(model.parameters())

        def step(rows):
            calls.append(1)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(take(samples, rows)), take(labels, rows))
            loss.backward()
            optimizer.step()
            return loss

        step = wrap(step)
        losses = [step(rows).item() for rows in batches]
        before = model.state_dict()
        for refused in (40, -41):
            with pytest.raises(IndexError, match=rf"^take: row {refused} at position 2 is not one of the 40 rows"):
                step(np.array([0, 39, refused, 1, 2]))
        after = model.state_dict()
        assert all(np.array_equal(after[name], before[name]) for name in before)
        return losses, step(batches[0]).item(), after, len(calls)

    eager, captured = run(lambda f: f), run(pynn.capture)
    assert eager[:2] == captured[:2]
    assert captured[3] == 1
    for name, value in eager[2].items():
        np.testing.assert_array_equal(captured[2][name], value)


def test_a_gathered_batch_of_bytes_and_indices():
    words, table = np.arange(12, dtype=np.int64).reshape(6, 2) % 4, np.linspace(0, 1, 8, dtype=np.float32).reshape(4, 2)
    pixels = np.arange(6, dtype=np.uint8)
    f = pynn.capture(lambda rows: (F.embedding(take(words, rows), table), take(pixels, rows)))
    for rows in ([0, 1], [5, 3], [-1, 2]):
        vectors, taken = f(np.array(rows))
        np.testing.assert_array_equal(vectors.data, table[words[rows]])
        np.testing.assert_array_equal(taken.data, pixels[rows], strict=True)


def test_structures_in_and_out():
    @pynn.capture
    def f(batch, options):
        return {"sum": batch["a"] + batch["b"][0], "n": options, "none": None}

    a, b = np.ones(2, np.float32), np.full(2, 2.0, np.float32)
    for scale in (1, 2):
        result = f({"a": a * scale, "b": [b]}, (1, "x"))
        assert result["sum"].data.tolist() == [scale + 2.0] * 2
        assert (result["n"], result["none"]) == ((1, "x"), None)


# -- threads and memory ------------------------------------------------------------------------------------------------


def test_two_threads_replay_and_capture_at_once():
    kinds = [("mlp", "adam"), ("residual", "sgd")]  # without dropout, which would take random numbers in turn
    expected = [train(*kind, 40, lambda f: f) for kind in kinds]
    runs, results = [prepare(*kind, pynn.capture) for kind in kinds], {}

    def train_in_thread(i):
        results[i] = runs[i](40)

    threads = [threading.Thread(target=train_in_thread, args=(i,)) for i in range(len(kinds))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, eager in enumerate(expected):
        assert_same_training(eager, results[i])


def test_one_captured_step_called_by_two_threads():
    @pynn.capture
    def f(x):
        return F.sum(F.exp(x) * 2)

    wrong = []

    def run(value):
        x = np.full(100, value, np.float32)
        expected = f.function(pynn.tensor(x)).item()
        wrong.extend(1 for _ in range(300) if f(x).item() != expected)

    threads = [threading.Thread(target=run, args=(value,)) for value in (0.0, 1.0, 2.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_plan_does_not_keep_the_arrays_of_its_recording():
    @pynn.capture
    def chain(x):
        for _ in range(50):
            x = F.exp(x) * 0.1
        return F.sum(x)

    x = np.zeros(100_000, np.float32)
    before = arena_stats()["bytes_in_use"]
    chain(x)
    gc.collect()
    plan = chain.plan()
    assert plan.bytes_recorded > 90 * x.nbytes
    assert arena_stats()["bytes_in_use"] - before < plan.bytes_planned + x.nbytes
    str(plan), plan.dot()


def test_a_thousand_captures_do_not_keep_memory():
    model, optimizer, _, _ = make()

    def capture_once():
        step = pynn.capture(step_of(model, optimizer))
        step(X, Y)
        step(X, Y)

    def in_use():
        gc.collect()
        return arena_stats()["bytes_in_use"], len(gc.get_objects())

    for _ in range(20):
        capture_once()
    before = in_use()
    for _ in range(1000):
        capture_once()
    after = in_use()
    assert after[0] <= before[0]
    assert after[1] <= before[1] + 50


def test_replays_take_no_memory():
    _, _, step, _ = make()
    loss = step(X, Y)
    loss = step(X, Y)
    before = arena_stats()
    for _ in range(50):
        loss = step(X, Y)
    after = arena_stats()
    assert loss.item() > 0
    assert after["bytes_in_use"] == before["bytes_in_use"]
    assert after["bytes_reserved"] == before["bytes_reserved"]


def test_repr_names_the_function_and_counts_its_plans():
    @pynn.capture
    def double(x):
        return pynn.Tensor(x) * 2

    assert repr(double) == "Captured(double, plans=0)"
    for n in (1, 2, 1):
        double(np.ones(n, np.float32))
    assert repr(double) == "Captured(double, plans=2)"
    assert repr(pynn.capture(nn.Linear(2, 3))) == "Captured(Linear, plans=0)"
