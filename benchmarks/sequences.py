"""`compare.py --mode sequences`: training steps of recurrent networks on characters, beside PyTorch eager."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
from timing import alternate, summarize
from workloads import Sequences

import pynn
import pynn.nn
import pynn.optim

Array = npt.NDArray[Any]

LR, ALPHA, MOST_NORM = 2e-3, 0.95, 5.0  # char-rnn's, with RMSprop
BATCHES = 16  # different ones, taken in turn
CHECKED_STEPS = 3
LOSS_TOLERANCE = 1e-5  # of the loss, in the first step;
LATER_LOSS_TOLERANCE = 1e-3  # in the others: RMSprop makes full steps of the smallest gradients, as Adam does
GRADIENT_TOLERANCE = 1e-4  # of the largest gradient of a parameter, in the first step


class Side:
    """A recurrent network and a Linear layer; pynn and PyTorch share the names, so that one class serves both."""

    def __init__(self, case: Sequences, nn: Any, optim: Any, clip: Any, cross_entropy: Any, batches: Any) -> None:
        self.recurrent = getattr(nn, case.kind)(case.vocabulary, case.hidden, num_layers=case.layers)
        self.head = nn.Linear(case.hidden, case.vocabulary)
        self.parameters = [*self.recurrent.parameters(), *self.head.parameters()]
        self.optimizer = optim.RMSprop(self.parameters, lr=LR, alpha=ALPHA)
        self.clip, self.cross_entropy, self.batches = clip, cross_entropy, batches
        self.hidden, self.state = case.hidden, None

    def step(self, i: int) -> Any:
        """Train on a batch, beginning with the state that the step before ended with; return the loss."""
        loss, state = self.train(*self.batches[i], self.state)
        self.state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        return loss

    def train(self, x: Any, y: Any, state: Any) -> tuple[Any, Any]:
        """Train on a batch; return the loss, and the state behind it."""
        out, state = self.recurrent(self.one_hot(x), state)
        self.optimizer.zero_grad()
        loss = self.cross_entropy(self.head(out.reshape(-1, self.hidden)), y)
        loss.backward()
        self.clip(self.parameters, MOST_NORM)
        self.optimizer.step()
        return loss, state

    def one_hot(self, x: Any) -> Any:
        """Return what the recurrent layer takes: pynn's takes the characters themselves."""
        return x


def pynn_side(case: Sequences, batches: list[tuple[Array, Array]]) -> Side:
    """Return pynn's side."""
    from pynn import functional, nn, optim

    return Side(case, nn, optim, optim.clip_grad_norm_, functional.cross_entropy, batches)


def torch_side(case: Sequences, batches: list[tuple[Array, Array]], ours: Side) -> Side:
    """Return PyTorch's side, with pynn's initial weights."""
    import torch

    tensors = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in batches]
    functional = torch.nn.functional
    side = Side(case, torch.nn, torch.optim, torch.nn.utils.clip_grad_norm_, functional.cross_entropy, tensors)
    for theirs, mine in ((side.recurrent, ours.recurrent), (side.head, ours.head)):
        theirs.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in mine.state_dict().items()})
    side.one_hot = lambda x: functional.one_hot(x, case.vocabulary).float()  # type: ignore[method-assign]
    return side


def check_agreement(ours: Side, theirs: Side) -> float:
    """Return the largest relative difference of the losses over a few steps; SystemExit if it is too large."""
    worst = 0.0
    for step in range(CHECKED_STEPS):
        loss, expected = float(ours.step(step).item()), float(theirs.step(step).item())
        difference = abs(loss - expected) / abs(expected)
        tolerance = LATER_LOSS_TOLERANCE if step else LOSS_TOLERANCE
        if not difference <= tolerance:
            raise SystemExit(f"step {step}: pynn's loss is {loss}, that of torch {expected}, beyond {tolerance}")
        worst = max(worst, difference)
        if step == 0:
            for i, (mine, other) in enumerate(zip(ours.parameters, theirs.parameters, strict=True)):
                reference = other.grad.numpy()
                error = np.abs(mine.grad - reference).max() / np.abs(reference).max()
                if not error <= GRADIENT_TOLERANCE:
                    raise SystemExit(f"gradient of parameter {i}: error {error:.1e}, beyond {GRADIENT_TOLERANCE:.0e}")
    return worst


def make_sides(case: Sequences, others: list[str], seed: int) -> dict[str, Side]:
    """Return the sides, with the same batches and initial weights."""
    rng = np.random.default_rng(seed)
    text = rng.integers(0, case.vocabulary, (BATCHES, case.steps + 1, case.batch))
    batches = [(np.ascontiguousarray(t[:-1]), t[1:].reshape(-1)) for t in text]
    pynn.seed(seed)
    sides = {"pynn": pynn_side(case, batches)}
    if "torch" in others:
        sides["torch"] = torch_side(case, batches, sides["pynn"])
    return sides


def measure(case: Sequences, others: list[str], repeats: int, seconds: float, seed: int) -> dict[str, Any]:
    """Check and time one network; return its figures."""
    sides = make_sides(case, others, seed)
    difference = {}
    if "torch" in others:
        difference["loss_difference"] = check_agreement(sides["pynn"], sides["torch"])
    blocks = alternate({n: side.step for n, side in sides.items()}, itertools.cycle(range(BATCHES)), repeats, seconds)
    return {**summarize(blocks), **difference}
