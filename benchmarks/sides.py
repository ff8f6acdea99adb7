"""The sides of a comparison of training steps: pynn, PyTorch, JAX and NumPy, on the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from workloads import Workload

import pynn
import pynn.nn
import pynn.optim
from pynn.data import take

Array = npt.NDArray[Any]

LR = {"sgd": 0.01, "adam": 1e-3}
MOMENTUM = 0.9
BETAS, EPS = (0.9, 0.999), 1e-8
SAMPLES = 4096  # of the synthetic data set: beyond the caches, as real data are,
MOST_PIXELS = 1 << 24  # but not more than 64 MB
CHECKED_STEPS = 5
LOSS_TOLERANCE = 1e-5  # of the loss, in the first step;
LATER_LOSS_TOLERANCE = 3e-4  # in the others: Adam makes full steps of the smallest gradients, which rounding decides
# Of the largest gradient of the parameter, in the first step: for the last layer, and for those before a ReLU or a
# maximum. There, a value within rounding of the kink, or of another value, sends one image's gradient another way.
GRADIENT_TOLERANCE, KINK_TOLERANCE = 1e-4, 2e-2


class Side(Protocol):
    """A library's model, optimiser and data."""

    def step(self, rows: Array) -> Any:
        """Train on the samples `rows`: take them, zero_grad, forward, loss, backward, optimiser; return the loss."""


class EagerSide:
    """pynn or PyTorch: they share the names, so that one class serves both. Each has a function that takes rows."""

    def __init__(
        self, workload: Workload, nn: Any, optim: Any, cross_entropy: Any, take: Any, images: Any, labels: Any
    ) -> None:
        self.model = workload.build(nn)
        parameters = self.model.parameters()
        if workload.optimizer == "sgd":
            self.optimizer = optim.SGD(parameters, lr=LR["sgd"], momentum=MOMENTUM)
        else:
            self.optimizer = optim.Adam(parameters, lr=LR["adam"], betas=BETAS, eps=EPS)
        self.cross_entropy = cross_entropy
        self.take, self.images, self.labels = take, images, labels

    def step(self, rows: Array) -> Any:
        """Train on the samples `rows`, and return the loss."""
        x, y = self.take(self.images, rows), self.take(self.labels, rows)
        self.optimizer.zero_grad()
        loss = self.cross_entropy(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss

    def gradients(self) -> dict[str, Array]:
        """Return the gradients of the latest step."""
        return {name: np.asarray(p.grad) for name, p in self.model.named_parameters()}


def pynn_side(workload: Workload, images: Array, labels: Array) -> EagerSide:
    """Return pynn's side."""
    return EagerSide(workload, pynn.nn, pynn.optim, pynn.functional.cross_entropy, take, images, labels)


class TorchSide(EagerSide):
    """PyTorch in eager mode, with pynn's initial weights."""

    def __init__(self, workload: Workload, images: Array, labels: Array, weights: dict[str, Array]) -> None:
        import torch

        super().__init__(
            *(workload, torch.nn, torch.optim, torch.nn.functional.cross_entropy),
            *(lambda array, rows: array[torch.from_numpy(rows)], torch.from_numpy(images), torch.from_numpy(labels)),
        )
        self.model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})


def numpy_side(ours: EagerSide, workload: Workload) -> Side | None:
    """Return a plain NumPy program for the MLPs, and None for the other networks."""
    layers = list(ours.model)
    if not all(isinstance(layer, (pynn.nn.Linear, pynn.nn.ReLU)) for layer in layers):
        return None
    return NumpySide(ours, workload)


class NumpySide:
    """What one would write by hand: Linear and ReLU, softmax cross-entropy, SGD or Adam."""

    def __init__(self, ours: EagerSide, workload: Workload) -> None:
        linear = [layer for layer in ours.model if isinstance(layer, pynn.nn.Linear)]
        self.weights = [np.array(layer.weight.data) for layer in linear]  # [out, in]
        self.biases = [np.array(layer.bias.data) for layer in linear if layer.bias is not None]
        self.images, self.labels = ours.images, ours.labels
        self.adam = workload.optimizer == "adam"
        self.steps = 0
        self.state = [(np.zeros_like(p), np.zeros_like(p)) for p in (*self.weights, *self.biases)]

    def step(self, rows: Array) -> Any:
        """Train on the samples `rows`, and return the loss."""
        x, labels = self.images[rows], self.labels[rows]
        inputs = []  # of each Linear layer, [N, in]
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            inputs.append(x)
            x = x @ weight.T + bias
            if i < len(self.weights) - 1:
                x = np.maximum(x, 0)
        each = np.arange(len(x))
        dx = np.exp(x - x.max(axis=1, keepdims=True))
        dx /= dx.sum(axis=1, keepdims=True)
        loss = -np.log(dx[each, labels]).mean()
        dx[each, labels] -= 1
        dx /= np.float32(len(x))
        dweights, dbiases = [], []
        for weight, before in zip(reversed(self.weights), reversed(inputs), strict=True):
            dweights.append(dx.T @ before)
            dbiases.append(dx.sum(axis=0))
            if len(dweights) < len(self.weights):
                dx = (dx @ weight) * (before > 0)
        self.update([*reversed(dweights), *reversed(dbiases)])
        return loss

    def update(self, gradients: list[Array]) -> None:
        """Take a step of the optimiser."""
        self.steps += 1
        parameters = (*self.weights, *self.biases)
        for parameter, gradient, (first, second) in zip(parameters, gradients, self.state, strict=True):
            if not self.adam:
                first *= MOMENTUM
                first += gradient
                parameter -= LR["sgd"] * first
                continue
            first += (1 - BETAS[0]) * (gradient - first)
            second += (1 - BETAS[1]) * (gradient * gradient - second)
            scale = LR["adam"] / (1 - BETAS[0] ** self.steps)
            parameter -= scale * first / (np.sqrt(second / (1 - BETAS[1] ** self.steps)) + EPS)


# -- data and agreement ------------------------------------------------------------------------------------------------


def make_data(workload: Workload, seed: int) -> tuple[Array, Array]:
    """Return normalised images and labels, as many as a data set has or as fit into 64 MB."""
    rng = np.random.default_rng(seed)
    samples = min(SAMPLES, MOST_PIXELS // int(np.prod(workload.shape)))
    pixels = rng.integers(0, 256, (samples, *workload.shape), dtype=np.uint8)
    return (pixels / np.float32(255) - np.float32(0.1307)) / np.float32(0.3081), rng.integers(0, 10, samples)


def row_batches(samples: int, batch: int, seed: int) -> Iterator[Array]:
    """Yield the rows of batch after batch of random permutations, for ever."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(samples)
        yield from (order[i : i + batch] for i in range(0, samples - batch + 1, batch))


def check_agreement(sides: dict[str, Any], rows: Iterator[Array]) -> float:
    """Train all sides for a few steps on the same batches, against "pynn".

    Returns the largest relative difference of the losses. Raises SystemExit if they differ by more than the tolerances
    above, or the first gradients, of a side that has them, by more than theirs.
    """
    worst = 0.0
    ours = sides["pynn"]
    for step in range(CHECKED_STEPS):
        batch = next(rows)
        loss = float(ours.step(batch).item())
        for name, side in sides.items():
            if side is ours:
                continue
            expected = float(side.step(batch).item())
            difference = abs(loss - expected) / abs(expected)
            tolerance = LATER_LOSS_TOLERANCE if step else LOSS_TOLERANCE
            if not difference <= tolerance:
                raise SystemExit(
                    f"step {step}: pynn's loss is {loss}, that of {name} {expected}; they must agree to {tolerance}"
                )
            worst = max(worst, difference)
            if step == 0 and isinstance(side, EagerSide):
                _check_gradients(ours.gradients(), side.gradients())
    return worst


def pads(layer: pynn.nn.Conv2d) -> tuple[int, int]:
    """Return the zeros above (and below) and to the left (and right) of a convolution's input."""
    if isinstance(layer.padding, str):
        raise TypeError(f"padding {layer.padding!r}, needs integers here")
    return layer.padding


def _check_gradients(gradients: dict[str, Array], reference: dict[str, Array]) -> None:
    last = list(gradients)[-1].partition(".")[0] + "."
    for name, gradient in gradients.items():
        tolerance = GRADIENT_TOLERANCE if name.startswith(last) else KINK_TOLERANCE
        error = np.abs(gradient - reference[name]).max() / np.abs(reference[name]).max()
        if not error <= tolerance:
            raise SystemExit(f"gradient of {name}: error {error:.1e}, at most {tolerance:.0e} allowed")
