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
        self, workload: Workload, nn: Any, optim: Any, functional: Any, take: Any, images: Any, labels: Any
    ) -> None:
        self.model = workload.build(nn)
        parameters, lr = self.model.parameters(), learning_rate(workload)
        if workload.optimizer == "sgd":
            self.optimizer = optim.SGD(parameters, lr=lr, momentum=workload.momentum)
        else:
            self.optimizer = optim.Adam(parameters, lr=lr, betas=BETAS, eps=EPS)
        self.criterion = getattr(functional, workload.loss)
        self.take, self.images, self.labels = take, images, labels

    def step(self, rows: Array) -> Any:
        """Train on the samples `rows`, and return the loss."""
        x, y = self.take(self.images, rows), self.take(self.labels, rows)
        self.optimizer.zero_grad()
        loss = self.loss(x, y)
        loss.backward()
        self.update()
        return loss

    def loss(self, x: Any, y: Any) -> Any:
        """Return the loss of a batch."""
        return self.criterion(self.model(x), y)

    def update(self) -> None:
        """Take a step of the optimiser."""
        self.optimizer.step()

    def gradients(self) -> dict[str, Array]:
        """Return the gradients of the latest step."""
        return {name: np.asarray(p.grad) for name, p in self.model.named_parameters()}


def pynn_side(workload: Workload, images: Array, labels: Array) -> EagerSide:
    """Return pynn's side."""
    return EagerSide(workload, pynn.nn, pynn.optim, pynn.functional, take, images, labels)


class CapturedSide(EagerSide):
    """pynn under `pynn.capture`: what is replayed takes the rows out of the arrays, too."""

    def __init__(self, workload: Workload, images: Array, labels: Array, weights: dict[str, Array]) -> None:
        super().__init__(workload, pynn.nn, pynn.optim, pynn.functional, take, images, labels)
        self.model.load_state_dict(weights)
        self.captured = pynn.capture(super().step)

    def step(self, rows: Array) -> Any:
        """Replay a step."""
        return self.captured(rows)


class TorchSide(EagerSide):
    """PyTorch in eager mode, with pynn's initial weights."""

    def __init__(self, workload: Workload, images: Array, labels: Array, weights: dict[str, Array]) -> None:
        import torch

        super().__init__(
            *(workload, torch.nn, torch.optim, torch.nn.functional),
            *(lambda array, rows: array[torch.from_numpy(rows)], torch.from_numpy(images), torch.from_numpy(labels)),
        )
        self.model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})


class CompiledSide(TorchSide):
    """PyTorch with `torch.compile` on forward, loss and backward, and on the optimiser."""

    def __init__(self, workload: Workload, images: Array, labels: Array, weights: dict[str, Array]) -> None:
        import torch

        super().__init__(workload, images, labels, weights)
        torch.compiler.reset()  # it counts how often the optimiser was compiled, whichever network's it was
        self.compiled_loss, self.compiled_update = torch.compile(super().loss), torch.compile(super().update)

    def loss(self, x: Any, y: Any) -> Any:
        """Return the loss of a batch."""
        return self.compiled_loss(x, y)

    def update(self) -> None:
        """Take a step of the optimiser."""
        self.compiled_update()


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
        self.adam, self.lr, self.momentum = workload.optimizer == "adam", learning_rate(workload), workload.momentum
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
                first *= self.momentum
                first += gradient
                parameter -= self.lr * first
                continue
            first += (1 - BETAS[0]) * (gradient - first)
            second += (1 - BETAS[1]) * (gradient * gradient - second)
            scale = self.lr / (1 - BETAS[0] ** self.steps)
            parameter -= scale * first / (np.sqrt(second / (1 - BETAS[1] ** self.steps)) + EPS)


# -- data and agreement ------------------------------------------------------------------------------------------------


def learning_rate(workload: Workload) -> float:
    """Return the workload's own learning rate, or its optimiser's."""
    return LR[workload.optimizer] if workload.lr is None else workload.lr


def make_data(workload: Workload, seed: int) -> tuple[Array, Array]:
    """Return normalised images (or indices) and labels, as many as a data set has or as fit into 64 MB."""
    rng = np.random.default_rng(seed)
    inputs: Array
    labels: Array
    samples = min(SAMPLES, MOST_PIXELS // int(np.prod(workload.shape)))
    if workload.symbols:
        inputs = rng.integers(0, workload.symbols, (samples, *workload.shape))
    else:
        pixels = rng.integers(0, 256, (samples, *workload.shape), dtype=np.uint8)
        inputs = (pixels / np.float32(255) - np.float32(0.1307)) / np.float32(0.3081)
    labels = rng.integers(0, workload.classes, samples)
    if workload.loss == "mse_loss":
        labels = 2 * np.eye(workload.classes, dtype=np.float32)[labels] - 1
    return inputs, labels


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
