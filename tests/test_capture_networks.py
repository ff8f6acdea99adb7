"""Captured and eager runs of whole networks: those of the benchmarks and examples, and random ones."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from captured_steps import step_of
from hypothesis import given, settings
from hypothesis import strategies as st

import pynn
from pynn import functional as F
from pynn import nn, optim
from pynn.data import DataLoader
from pynn.train import Trainer

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
WORKLOADS = {
    w.name: w for group in ("MAIN", "NEIGHBOURS") for w in getattr(importlib.import_module("workloads"), group)
}
sys.path.remove(str(ROOT / "benchmarks"))
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py") if "pynn.capture" in path.read_text())


def losses(model, optimizer, batches, wrap):
    step = wrap(step_of(model, optimizer))
    return [step(x, y).item() for x, y in batches]


def compare_workload(workload, steps):
    rng = np.random.default_rng(0)
    batch = min(workload.batch, 6)
    x = rng.standard_normal((batch, *workload.shape)).astype(np.float32)
    y = rng.integers(0, 10, batch)
    results = []
    for wrap in (lambda f: f, pynn.capture):
        pynn.seed(0)
        model = workload.build(nn)
        optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        results.append(losses(model, optimizer, [(x, y)] * steps, wrap))
    assert np.isfinite(results[0]).all()
    np.testing.assert_array_equal(results[1], results[0])


@pytest.mark.parametrize("order", ["mostly zeros first", "mostly zeros later"])
def test_a_replay_goes_by_the_zeros_of_its_own_batch(order):
    rng = np.random.default_rng(5)
    dense = rng.standard_normal((64, 400)).astype(np.float32)
    batches = [np.where(rng.random(dense.shape) < 0.1, dense, np.float32(0)), dense]
    if order == "mostly zeros later":
        batches.reverse()
    y = rng.integers(0, 10, 64)
    captured = []

    def capture(step):
        captured.append(pynn.capture(step))
        return captured[0]

    results = []
    for wrap in (lambda f: f, capture):
        pynn.seed(0)
        model = nn.Sequential(nn.Linear(400, 100), nn.ReLU(), nn.Linear(100, 10))
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        values = losses(model, optimizer, [(batches[i], y) for i in (0, 1, 1, 0, 1)], wrap)
        results.append([values, *(p.detach().numpy() for p in model.parameters())])
    assert len(captured[0]._plans) == 1  # the other steps were replays
    for got, want in zip(results[1], results[0], strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", WORKLOADS)
def test_benchmarked_networks_have_the_same_losses(name):
    compare_workload(WORKLOADS[name], 4)


@pytest.mark.nightly
@pytest.mark.parametrize("name", WORKLOADS)
def test_benchmarked_networks_have_the_same_losses_for_200_steps(name):
    compare_workload(WORKLOADS[name], 200)


@pytest.mark.nightly
@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_print_the_same_with_and_without_capture(name):
    program = "import runpy, sys, pynn; {}; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    outputs = []
    for patch in ("pass", "pynn.capture = lambda f: f"):
        command = [sys.executable, "-c", program.format(patch), str(ROOT / "examples" / name), "--quick"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "examples")])}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900, check=True)
        outputs.append(re.sub(r"[\d.,]+ (s|ms|µs|seconds|minutes|min)\b", "", done.stdout))
    assert outputs[0] == outputs[1]


# -- random networks ---------------------------------------------------------------------------------------------------

ACTIVATIONS = [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.LeakyReLU]


@st.composite
def networks(draw):
    """Return a function that builds a small network of layers, and the shape of its input."""
    layers, features = [], draw(st.integers(1, 6))
    shape = (features,)
    if draw(st.booleans()):
        channels, size = draw(st.integers(1, 3)), draw(st.sampled_from([4, 6, 9]))
        shape = (channels, size, size)
        for _ in range(draw(st.integers(1, 2))):
            out = draw(st.integers(1, 5))
            layers.append((nn.Conv2d, (channels, out, 3), {"padding": 1, "bias": draw(st.booleans())}))
            channels = out
            if draw(st.booleans()):
                layers.append((nn.BatchNorm2d, (channels,), {}))
            layers.append((draw(st.sampled_from(ACTIVATIONS)), (), {}))
            if size >= 4 and draw(st.booleans()):
                layers.append((draw(st.sampled_from([nn.MaxPool2d, nn.AvgPool2d])), (2,), {}))
                size //= 2
        layers.append((nn.Flatten, (), {}))
        features = channels * size * size
    for _ in range(draw(st.integers(0, 3))):
        out = draw(st.integers(1, 9))
        layers.append((nn.Linear, (features, out), {"bias": draw(st.booleans())}))
        features = out
        layers += draw(st.lists(st.sampled_from([(a, (), {}) for a in ACTIVATIONS]), max_size=2))
        if draw(st.booleans()):
            layers.append((nn.Dropout, (0.3,), {}))
        if draw(st.booleans()):
            layers.append((nn.LayerNorm, (features,), {}))
    layers.append((nn.Linear, (features, 3), {}))
    return shape, layers


@settings(max_examples=60, deadline=None)
@given(networks(), st.sampled_from([optim.SGD, optim.AdamW, optim.RMSprop]), st.integers(2, 5))
def test_random_networks_train_alike(network, optimizer, batch):
    shape, layers = network
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((batch, *shape)).astype(np.float32), rng.integers(0, 3, batch)
    results = []
    for wrap in (lambda f: f, pynn.capture):
        pynn.seed(0)
        model = nn.Sequential(*(layer(*args, **options) for layer, args, options in layers))
        results.append(losses(model, optimizer(model.parameters(), lr=0.01), [(x, y)] * 5, wrap))
    np.testing.assert_array_equal(results[0], results[1])


# -- Trainer -----------------------------------------------------------------------------------------------------------


def make_trainer(forward=None, **options):
    pynn.seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
    if forward is not None:
        model = forward(model)
    return Trainer(model, nn.CrossEntropyLoss(), optim.AdamW(model.parameters(), lr=0.01), verbose=False, **options)


def loader():
    rng = np.random.default_rng(0)
    return DataLoader(
        rng.standard_normal((50, 4)).astype(np.float32), rng.integers(0, 3, 50), batch_size=16, shuffle=True
    )


def figures(history):
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_s")} for row in history.epochs]


def test_trainer_captures_unless_told_not_to():
    captured = make_trainer()
    rows = figures(captured.fit(loader(), 3, val=loader()))
    eager = make_trainer(capture=False)
    assert figures(eager.fit(loader(), 3, val=loader())) == rows
    assert "captured steps" in repr(captured)
    assert "eager steps" in repr(eager)
    assert captured._train_step.plan().calls
    with pytest.raises(RuntimeError, match="nothing was captured"):
        eager._train_step.plan()


class Branching(nn.Module):
    """Looks at its values: it cannot be captured."""

    def __init__(self, inner):
        self.inner = inner

    def forward(self, x):
        y = self.inner(x)
        return y if y.data[0, 0] > 0 else y * 2


def test_trainer_runs_what_cannot_be_captured_as_it_is_written():
    lines = []
    trainer = make_trainer(Branching, log=lines.append)
    trainer.verbose = True
    trainer.fit(loader(), 2)
    assert len([line for line in lines if line.startswith("runs without capture: capture: a value [16, 3]")]) == 1
    assert "eager steps" in repr(trainer)


@pytest.mark.parametrize(
    "loss",
    [lambda out, y: F.cross_entropy(out, y.ravel()), lambda out, y: F.cross_entropy(out, np.add(y, 0, dtype=np.int64))],
    ids=["AttributeError", "TypeError"],
)
def test_trainer_gives_arrays_to_a_loss_that_needs_them(loss):
    lines = []
    model = nn.Linear(3, 2)
    trainer = Trainer(model, loss, optim.SGD(model.parameters()), log=lines.append)
    trainer.fit([(np.ones((4, 3), np.float32), np.array([0, 1, 0, 1]))], epochs=1)
    assert lines[0].startswith("runs without capture: ")


def test_trainer_takes_lists_as_targets():
    batch = next(iter(loader()))
    trainer = make_trainer()
    for _ in range(40):
        trainer.fit([(batch[0], list(np.random.default_rng(0).permutation(batch[1])))], 1)
    assert len(trainer._train_step._plans) == 1


@pytest.mark.parametrize("order", [(True, False), (False, True), (True, True)])
def test_training_goes_on_from_a_state_between_captured_and_eager_runs(order):
    def state(trainer):
        return trainer.model.state_dict(), trainer.optimizer.state_dict()

    whole = make_trainer(capture=False)
    batches = list(loader())
    pynn.seed(1)
    whole.fit(batches, 6)

    first, second = make_trainer(capture=order[0]), make_trainer(capture=order[1])
    pynn.seed(1)  # of the dropout
    first.fit(batches, 3)
    second.model.load_state_dict(state(first)[0])
    second.optimizer.load_state_dict(state(first)[1])
    second.fit(batches, 3)
    for name, value in state(whole)[0].items():
        np.testing.assert_array_equal(second.model.state_dict()[name], value)


def test_an_error_of_the_model_is_not_taken_for_one_of_the_capture():
    lines = []
    model = nn.Linear(3, 2)
    trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1), log=lines.append)
    with pytest.raises(TypeError, match=r"^linear: input is float64"):
        trainer.fit([(np.ones((4, 3)), np.ones((4, 2)))], 1)
    assert lines == []
    trainer.fit([(np.ones((4, 3), np.float32), np.ones((4, 2), np.float32))], 1)
    assert trainer.capture
