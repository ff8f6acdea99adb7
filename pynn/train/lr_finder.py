"""Which learning rate to begin with: Smith's range test."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pynn import random
from pynn._checks import whole
from pynn.nn import Module
from pynn.train.best import load_state, state_of
from pynn.train.totals import as_pair

if TYPE_CHECKING:
    from pynn.train.trainer import Batches, Trainer

__all__ = ["LRFinder", "lr_find"]

SMOOTHING = 0.9  # share of the mean so far in the running mean of the losses
WIDTH = 3.0  # steps, of the bell of weights by which the losses are smoothed
LEAST_STEPS = 10


@dataclass(frozen=True)
class LRFinder:
    """What `lr_find` found; `viz.lr_find` draws it.

    Attributes
    ----------
    rates : list of float
        The learning rate of each step, ascending.
    losses : list of float
        The loss of each step, before the step.
    smoothed : list of float
        The mean of each loss and those around it, with weights like a bell three steps wide (its standard deviation).
    suggestion : float or None
        Where the smoothed loss falls fastest over the logarithm of the rate; None if it does not fall.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    suggestion: float | None


def lr_find(
    trainer: Trainer,
    loader: Batches,
    *,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    num_steps: int = 100,
    early_stop_threshold: float = 4.0,
) -> LRFinder:
    """Train for some steps with a rate that grows from step to step, and see where the loss falls fastest.

    The range test of Smith, "Cyclical learning rates for training neural networks" (2017), arXiv:1506.01186, section
    3.3, with rates in geometric progression. Model, loss, optimiser, random numbers and the loader are afterwards
    as they were.

    Parameters
    ----------
    trainer : Trainer
        All groups of its optimiser get the same rate; its scheduler is not stepped.
    loader : iterable of (inputs, targets)
        Begun again when it ends. One that has `state_dict`, such as `DataLoader`, gets its position back.
    min_lr, max_lr : float
        First and last rate.
    num_steps : int
        At least 10.
    early_stop_threshold : float
        Stop once the running mean of the loss has risen from its lowest value by more than so many times what it fell
        from the first loss, or what the first ten losses differ by if that is more; or if a loss is not finite. So a
        constant that is added to the loss, or a loss below 0, makes no difference.

    Raises
    ------
    ValueError
        If a number is out of range, or the loader has no batches.
    TypeError
        If `num_steps` is no integer, the loader is an iterator, which could not be put back, or a batch is not a pair.

    Examples
    --------
    >>> import pynn
    >>> from pynn import data, nn, optim
    >>> from pynn.train import Trainer, lr_find
    >>> pynn.seed(0)
    >>> x, y = data.make_moons(200)
    >>> model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))
    >>> trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), verbose=False)
    >>> found = lr_find(trainer, data.DataLoader(x, y, batch_size=50, shuffle=True), max_lr=100.0)
    >>> found.rates[0], 0.001 < found.suggestion < 100
    (1e-07, True)
    """
    if not 0 < min_lr < max_lr < math.inf:
        raise ValueError(f"lr_find: rates from {min_lr} to {max_lr}, needs 0 < min_lr < max_lr")
    num_steps = whole("lr_find: num_steps", num_steps, LEAST_STEPS)
    if not early_stop_threshold > 1:
        raise ValueError(f"lr_find: early_stop_threshold is {early_stop_threshold}, needs more than 1")
    if isinstance(loader, Iterator):
        raise TypeError(f"lr_find: the loader is a {type(loader).__name__}, which cannot begin again")
    rates: list[float] = []
    losses: list[float] = []
    mean, lowest = 0.0, math.inf
    with _everything_back(trainer, loader):
        trainer.model.train()
        for step, batch in enumerate(islice(_repeated(loader), num_steps)):
            rate = min_lr * (max_lr / min_lr) ** (step / (num_steps - 1))
            for group in trainer.optimizer.param_groups:
                group["lr"] = rate
            try:
                inputs, targets = as_pair("lr_find", batch)
                result = trainer._run(
                    trainer._train_step, trainer.model, trainer.loss, trainer.optimizer, inputs, targets
                )
            except FloatingPointError:
                break
            loss = result[0].item()
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
            rates.append(rate)
            losses.append(loss)
            running = mean / (1 - SMOOTHING ** (step + 1))
            lowest = min(lowest, running)
            first = losses[:LEAST_STEPS]
            scale = max(losses[0] - lowest, max(first) - min(first))
            if step >= LEAST_STEPS and running - lowest > early_stop_threshold * scale:
                break
    smoothed = _smoothed(losses)
    return LRFinder(rates, losses, smoothed, _steepest(rates, smoothed))


def _repeated(loader: Batches) -> Iterator[tuple[Any, Any]]:
    while True:
        batch = None
        for batch in loader:
            yield batch
        if batch is None:
            raise ValueError("lr_find: the loader has no batches")


def _smoothed(losses: list[float]) -> list[float]:
    """Return means around each loss: a running mean would lag behind, and its slope belong to a rate long past."""
    steps = np.arange(len(losses))
    weights = np.exp(-0.5 * ((steps[:, None] - steps) / WIDTH) ** 2)
    means: list[float] = (weights @ np.array(losses, np.float64) / weights.sum(1)).tolist()
    return means


def _steepest(rates: list[float], smoothed: list[float]) -> float | None:
    """Return the rate where the loss falls fastest before its minimum; the first steps are noise."""
    end = int(np.argmin(smoothed)) + 1 if smoothed else 0
    if end < LEAST_STEPS:
        return None
    slopes = np.gradient(smoothed[:end], np.log(rates[:end]))
    at = int(np.argmin(slopes))
    return rates[at] if slopes[at] < 0 else None


@contextmanager
def _everything_back(trainer: Trainer, loader: Any) -> Iterator[None]:
    model, loss, optimizer = trainer.model, trainer.loss, trainer.optimizer
    trained = [model, loss] if isinstance(loss, Module) else [model]
    weights, random_state = state_of(model, loss), random.get_rng_state()
    position = loader.state_dict() if hasattr(loader, "state_dict") else None
    modes = [(module, module.training) for top in trained for module in top.modules()]
    gradients: list[tuple[Any, npt.NDArray[Any] | None]] = [
        (p, None if p.grad is None else p.grad.copy()) for top in trained for p in top.parameters()
    ]
    groups, states = optimizer.param_groups, optimizer.state
    try:
        optimizer.load_state_dict(optimizer.state_dict())  # copies, which the steps change
        yield
    finally:
        optimizer.param_groups, optimizer.state = groups, states
        load_state(model, loss, weights)
        for p, gradient in gradients:
            p.grad = gradient
        for module, training in modes:
            module.training = training
        if position is not None:
            loader.load_state_dict(position)
        random.set_rng_state(random_state)
