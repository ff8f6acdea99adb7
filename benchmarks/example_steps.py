"""`compare.py --mode examples`: the training steps of the examples, captured as there, beside eager and PyTorch."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import sequences
from example_programs import Array, Library, Model, Program
from timing import alternate, summarize
from workloads import Sequences

import pynn
import pynn.nn
import pynn.optim

BATCHES = 16  # different ones, taken in turn
CHECKED_STEPS = 3
LOSS_TOLERANCE = 1e-5  # of the loss, in the first step


def measure(case: Program | Sequences, others: list[str], repeats: int, seconds: float, seed: int) -> dict[str, Any]:
    """Check and time one program; return its figures."""
    if isinstance(case, Sequences):
        sides, models, tolerance = recurrent_sides(case, others, seed), [], sequences.LATER_LOSS_TOLERANCE
    else:
        sides, models = program_sides(case, others, seed)
        tolerance = case.tolerance
    for model in models:
        silence_dropout(model, True)
    worst = check_agreement(sides, tolerance)
    for model in models:
        silence_dropout(model, False)
    blocks = alternate(sides, itertools.cycle(range(BATCHES)), repeats, seconds)
    return {**summarize(blocks), "loss_difference": worst}


def check_agreement(sides: dict[str, Any], later_tolerance: float) -> float:
    """Return the largest relative difference of the losses over a few steps; SystemExit if it is too large."""
    worst = 0.0
    for step in range(CHECKED_STEPS):
        losses = {name: float(side(step).item()) for name, side in sides.items()}
        for name, loss in losses.items():
            difference = abs(losses["pynn"] - loss) / abs(loss)
            if not difference <= (later_tolerance if step else LOSS_TOLERANCE):
                raise SystemExit(f"step {step}: pynn's loss is {losses['pynn']}, that of {name} {loss}")
            worst = max(worst, difference)
    return worst


def silence_dropout(model: Model, silent: bool) -> None:
    """Have dropout keep everything, or not: no two libraries draw the same numbers."""
    for module in model.modules():
        if type(module).__name__ == "Dropout":
            module.train(not silent)


# -- programs ----------------------------------------------------------------------------------------------------------


def program_sides(case: Program, others: list[str], seed: int) -> tuple[dict[str, Any], list[Model]]:
    """Return a step of each side, and the models, which begin with the same weights."""
    rng = np.random.default_rng(seed)
    batches: list[Any] = [case.batch(rng) for _ in range(BATCHES)]
    pynn.seed(seed)
    model, step = case.make(pynn_library())
    captured, weights = pynn.capture(step), model.state_dict()
    sides, models = {"pynn": lambda i: captured(*batches[i])}, [model]
    if "eager" in others:
        eager_model, eager = case.make(pynn_library())
        eager_model.load_state_dict(weights)
        sides["eager"] = lambda i: eager(*batches[i])
        models.append(eager_model)
    if "torch" in others:
        import torch

        torch_model, theirs = case.make(torch_library())
        torch_model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
        tensors = [tuple(map(torch.from_numpy, batch)) for batch in batches]
        sides["torch"] = lambda i: theirs(*tensors[i])
        models.append(torch_model)
    return sides, models


def pynn_library() -> Library:
    """Return what programs need of pynn."""
    from pynn import functional, nn, no_grad, ones, optim, zeros

    names = {"nn": nn, "optim": optim, "F": functional, "no_grad": no_grad, "ones": ones, "zeros": zeros}
    return SimpleNamespace(**names, amax=functional.max, concatenate=functional.concatenate, clip=optim.clip_grad_norm_)


def torch_library() -> Library:
    """Return the same of PyTorch."""
    from torch import amax, concatenate, nn, no_grad, ones, optim, zeros

    names = {"nn": nn, "optim": optim, "F": nn.functional, "no_grad": no_grad, "ones": ones, "zeros": zeros}
    return SimpleNamespace(**names, amax=amax, concatenate=concatenate, clip=nn.utils.clip_grad_norm_)


# -- char-rnn, whose state is carried from step to step ----------------------------------------------------------------


def recurrent_sides(case: Sequences, others: list[str], seed: int) -> dict[str, Any]:
    """Return a step of each side."""
    rng = np.random.default_rng(seed)
    text = rng.integers(0, case.vocabulary, (BATCHES, case.steps + 1, case.batch))
    batches: list[tuple[Array, Array]] = [(np.ascontiguousarray(t[:-1]), t[1:].reshape(-1)) for t in text]

    def ours() -> sequences.Side:
        pynn.seed(seed)
        return sequences.pynn_side(case, batches)

    captured, eager = pynn.capture(ours().train), ours()
    state = None

    def step(i: int) -> Any:
        nonlocal state
        loss, state = captured(*batches[i], state)
        return loss

    sides: dict[str, Any] = {"pynn": step}
    if "eager" in others:
        sides["eager"] = eager.step
    if "torch" in others:
        sides["torch"] = sequences.torch_side(case, batches, eager).step
    return sides
