"""The learning-rate finder: what it measures, what it suggests, and that nothing is left of it."""

import copy
import math

import numpy as np
import pytest

import pynn
from pynn import nn, optim
from pynn.data import DataLoader
from pynn.functional import cross_entropy
from pynn.train import LRFinder, Trainer, lr_find
from pynn.train.lr_finder import _steepest

CAPTURE = pytest.mark.parametrize("capture", [True, False], ids=["captured", "eager"])


def make(optimizer=optim.Adam, **options):
    pynn.seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))
    made = optimizer(model.parameters(), lr=0.01)
    scheduler = optim.StepLR(made, 2)
    return Trainer(model, nn.CrossEntropyLoss(), made, scheduler, verbose=False, **options)


def everything(trainer, loader):
    optimizer = trainer.optimizer.state_dict()
    return copy.deepcopy(
        (
            {name: array.tobytes() for name, array in trainer.model.state_dict().items()},
            {(n, k): np.asarray(v).tobytes() for n, state in optimizer["state"].items() for k, v in state.items()},
            optimizer["param_groups"],
            trainer.scheduler.state_dict(),
            loader.state_dict(),
            pynn.random.get_rng_state(),
            [module.training for module in trainer.model.modules()],
            [None if p.grad is None else p.grad.tobytes() for p in trainer.model.parameters()],
            trainer.history.epochs,
        )
    )


@CAPTURE
@pytest.mark.parametrize(
    "optimizer",
    [optim.Adam, lambda p, lr: optim.SGD(p, lr=lr, momentum=0.9), optim.RMSprop],
    ids=["adam", "momentum", "rmsprop"],
)
@pytest.mark.parametrize("epochs", [0, 2])
def test_everything_is_as_it_was(blobs, optimizer, capture, epochs):
    def run(with_test):
        trainer = make(optimizer, capture=capture)
        loader = DataLoader(*blobs, batch_size=16, shuffle=True, seed=4)
        if epochs:
            trainer.fit(loader, epochs)
        trainer.model[3].eval()
        if with_test:
            before = everything(trainer, loader)
            groups, state = trainer.optimizer.param_groups, trainer.optimizer.state
            assert len(lr_find(trainer, loader, num_steps=30).rates) > 10
            assert everything(trainer, loader) == before
            assert trainer.optimizer.param_groups is groups
            assert trainer.optimizer.state is state
            assert trainer.capture == capture
        trainer.fit(loader, 3)
        return everything(trainer, loader)[:7]

    assert run(True) == run(False)


def test_losses_are_those_of_a_loop(blobs):
    trainer = make(capture=True)
    loader = DataLoader(*blobs, batch_size=20)
    found = lr_find(trainer, loader, min_lr=1e-4, max_lr=1e-1, num_steps=10)
    np.testing.assert_allclose(found.rates, np.geomspace(1e-4, 1e-1, 10), rtol=1e-12)
    reference = make()
    batches = list(loader)
    losses = []
    for step, rate in enumerate(found.rates):
        x, y = batches[step % 3]
        reference.optimizer.param_groups[0]["lr"] = rate
        reference.optimizer.zero_grad()
        loss = cross_entropy(reference.model(x), y)
        loss.backward()
        reference.optimizer.step()
        losses.append(loss.item())
    assert found.losses == losses
    for i, mean in enumerate(found.smoothed):
        weights = [math.exp(-((i - j) ** 2) / 18) for j in range(10)]
        expected = sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)
        assert mean == pytest.approx(expected, rel=1e-12)


def test_it_stops_where_the_loss_diverges(blobs):
    trainer = make(lambda p, lr: optim.SGD(p, lr=lr))
    found = lr_find(trainer, DataLoader(*blobs, batch_size=20), max_lr=1e30, num_steps=100)
    assert len(found.rates) == len(found.losses) == len(found.smoothed) < 100
    assert all(map(math.isfinite, found.losses))
    more = lr_find(trainer, DataLoader(*blobs, batch_size=20), max_lr=1e30, num_steps=100, early_stop_threshold=1e3)
    assert len(found.rates) < len(more.rates)


@pytest.mark.parametrize("shift", [-8.0, -2.0, 8.0])
def test_a_constant_in_the_loss_makes_no_difference(blobs, shift):
    def found(shift):
        trainer = make(lambda p, lr: optim.SGD(p, lr=lr))
        trainer.loss = lambda z, y: cross_entropy(z, y) + shift
        return lr_find(trainer, DataLoader(*blobs, batch_size=20), max_lr=1e10, num_steps=100)

    plain, shifted = found(0.0), found(shift)
    assert 20 < len(plain.rates) == len(shifted.rates) < 100
    # Each is rounded to float32 beside the shift, and the gradients are the same.
    np.testing.assert_allclose(np.array(shifted.losses) - shift, plain.losses, rtol=2e-7, atol=1e-6)


def test_losses_that_are_not_finite_from_the_begin(blobs):
    x, y = blobs
    found = lr_find(make(), DataLoader(x * np.float32(np.nan), y, batch_size=20))
    assert found == LRFinder([], [], [], None)


def test_the_suggestion_trains_well(blobs):
    trainer = make(lambda p, lr: optim.SGD(p, lr=lr))
    loader = DataLoader(*blobs, batch_size=20, shuffle=True, seed=0)
    found = lr_find(trainer, loader, max_lr=100.0)
    trainer.scheduler = None
    trainer.optimizer.param_groups[0]["lr"] = found.suggestion
    assert trainer.fit(loader, 10)["accuracy"][-1] > 0.9


def test_the_steepest_place():
    rates = np.geomspace(1e-4, 1, 41).tolist()
    falling = [1 / (1 + math.exp(2 * (math.log(rate) - math.log(1e-2)))) for rate in rates]
    assert _steepest(rates, falling) == pytest.approx(1e-2, rel=1e-9)
    assert _steepest(rates, [*falling[:30], *([2.0] * 11)]) == pytest.approx(1e-2, rel=1e-9)
    assert _steepest(rates, rates) is None
    assert _steepest([], []) is None


def test_bad_arguments(blobs):
    trainer, loader = make(), DataLoader(*blobs, batch_size=20)
    for options, message in (
        ({"min_lr": 0.0}, "lr_find: rates from 0.0 to 10.0, needs 0 < min_lr < max_lr"),
        ({"min_lr": 1.0, "max_lr": 0.1}, "lr_find: rates from 1.0 to 0.1"),
        ({"max_lr": math.inf}, "lr_find: rates from"),
        ({"num_steps": 9}, "lr_find: num_steps is 9, needs at least 10"),
        ({"early_stop_threshold": 1.0}, r"lr_find: early_stop_threshold is 1\.0, needs more than 1"),
    ):
        with pytest.raises(ValueError, match=message):
            lr_find(trainer, loader, **options)
    with pytest.raises(TypeError, match=r"lr_find: num_steps is 20\.5, needs an integer"):
        lr_find(trainer, loader, num_steps=20.5)
    before = everything(trainer, loader)
    with pytest.raises(TypeError, match="lr_find: the loader is a list_iterator, which cannot begin again"):
        lr_find(trainer, iter([blobs]))
    with pytest.raises(ValueError, match="lr_find: the loader has no batches"):
        lr_find(trainer, [])
    with pytest.raises(TypeError, match="lr_find: a batch has 3 entries"):
        lr_find(trainer, [(*blobs, 1)])
    assert everything(trainer, loader) == before


def test_the_picture():
    pytest.importorskip("matplotlib", reason="needs matplotlib to draw")
    from pynn import viz

    found = LRFinder([1e-3, 1e-2, 1e-1], [1.0, 0.8, 5.0], [1.0, 0.9, 1.1], 1e-2)
    axes = viz.lr_find(found)
    assert axes.get_xscale() == "log"
    assert [line.get_ydata().tolist() for line in axes.lines[:2]] == [found.losses, found.smoothed]
    assert axes.get_ylim()[1] < 5  # what diverged is cut off
    again = viz.lr_find(LRFinder([1e-3], [1.0], [1.0], None), axes)
    assert again is axes
    with pytest.raises(ValueError, match=r"viz\.lr_find: there are no losses"):
        viz.lr_find(LRFinder([], [], [], None))
