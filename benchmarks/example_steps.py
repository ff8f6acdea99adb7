"""`compare.py --mode examples`: the training steps of three examples, captured as there, beside eager and PyTorch."""

from __future__ import annotations

import itertools
from typing import Any

import attention
import numpy as np
import numpy.typing as npt
import sequences
from timing import alternate, summarize
from workloads import AutoEncoder, Sequences, Transformer

import pynn
import pynn.nn
import pynn.optim

Array = npt.NDArray[Any]

BATCHES = 16  # different ones, taken in turn
CHECKED_STEPS = 3
LOSS_TOLERANCE = 1e-5  # of the loss, in the first step;
LATER_LOSS_TOLERANCE = 1e-3  # in the others: Adam and RMSprop make full steps of the smallest gradients


def measure(
    case: Sequences | Transformer | AutoEncoder, others: list[str], repeats: int, seconds: float, seed: int
) -> dict[str, Any]:
    """Check and time one program; return its figures."""
    make = {Sequences: recurrent_sides, Transformer: gpt_sides, AutoEncoder: vae_sides}[type(case)]
    sides = make(case, others, seed)  # type: ignore[operator]
    worst = check_agreement(sides)
    blocks = alternate(sides, itertools.cycle(range(BATCHES)), repeats, seconds)
    return {**summarize(blocks), "loss_difference": worst}


def check_agreement(sides: dict[str, Any]) -> float:
    """Return the largest relative difference of the losses over a few steps; SystemExit if it is too large."""
    worst = 0.0
    for step in range(CHECKED_STEPS):
        losses = {name: float(side(step).item()) for name, side in sides.items()}
        for name, loss in losses.items():
            difference = abs(losses["pynn"] - loss) / abs(loss)
            if not difference <= (LATER_LOSS_TOLERANCE if step else LOSS_TOLERANCE):
                raise SystemExit(f"step {step}: pynn's loss is {losses['pynn']}, that of {name} {loss}")
            worst = max(worst, difference)
    return worst


def tensors_of(batches: list[tuple[Array, ...]]) -> list[tuple[Any, ...]]:
    """Return the same for PyTorch."""
    import torch

    return [tuple(map(torch.from_numpy, batch)) for batch in batches]


def torch_weights(model: Any) -> dict[str, Any]:
    """Return the weights of a model of pynn's for one of PyTorch's."""
    import torch

    return {name: torch.from_numpy(np.array(value)) for name, value in model.state_dict().items()}


# -- char-rnn ----------------------------------------------------------------------------------------------------------


def recurrent_sides(case: Sequences, others: list[str], seed: int) -> dict[str, Any]:
    """Return a step of each side."""
    rng = np.random.default_rng(seed)
    text = rng.integers(0, case.vocabulary, (BATCHES, case.steps + 1, case.batch))
    batches = [(np.ascontiguousarray(t[:-1]), t[1:].reshape(-1)) for t in text]

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


# -- nanoGPT -----------------------------------------------------------------------------------------------------------


def gpt_sides(case: Transformer, others: list[str], seed: int) -> dict[str, Any]:
    """Return a step of each side."""
    rng = np.random.default_rng(seed)
    text = rng.integers(0, case.vocabulary, (BATCHES, case.batch, case.length + 1))
    batches = [(np.ascontiguousarray(t[:, :-1]), t[:, 1:].reshape(-1)) for t in text]
    models = [attention.gpt(case, pynn.nn, pynn.functional) for _ in range(2)]
    pynn.seed(seed)
    for parameter in models[0].parameters():
        if parameter.ndim > 1:
            pynn.nn.init.normal_(parameter, std=0.02)
    models[1].load_state_dict(models[0].state_dict())
    how = pynn.optim.AdamW, pynn.optim.clip_grad_norm_, pynn.functional.cross_entropy
    captured, eager = pynn.capture(attention.Side(models[0], *how).step), attention.Side(models[1], *how).step
    sides = {"pynn": lambda i: captured(*batches[i])}
    if "eager" in others:
        sides["eager"] = lambda i: eager(*batches[i])
    if "torch" in others:
        import torch

        model = attention.gpt(case, torch.nn, torch.nn.functional)
        model.load_state_dict(torch_weights(models[0]))
        clip, cross_entropy = torch.nn.utils.clip_grad_norm_, torch.nn.functional.cross_entropy
        theirs, tensors = attention.Side(model, torch.optim.AdamW, clip, cross_entropy).step, tensors_of(batches)
        sides["torch"] = lambda i: theirs(*tensors[i])
    return sides


# -- the variational auto-encoder --------------------------------------------------------------------------------------


def vae_sides(case: AutoEncoder, others: list[str], seed: int) -> dict[str, Any]:
    """Return a step of each side."""
    rng = np.random.default_rng(seed)
    batches = [
        tuple(
            f((case.batch, n), dtype=np.float32)
            for f, n in ((rng.random, case.inputs), (rng.standard_normal, case.code))
        )
        for _ in range(BATCHES)
    ]
    pynn.seed(seed)
    models = [vae(case, pynn.nn) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    captured, eager = (vae_step(model, pynn.optim, pynn.functional) for model in models)
    captured = pynn.capture(captured)
    sides = {"pynn": lambda i: captured(*batches[i])}
    if "eager" in others:
        sides["eager"] = lambda i: eager(*batches[i])
    if "torch" in others:
        import torch

        model = vae(case, torch.nn)
        model.load_state_dict(torch_weights(models[0]))
        theirs, tensors = vae_step(model, torch.optim, torch.nn.functional), tensors_of(batches)
        sides["torch"] = lambda i: theirs(*tensors[i])
    return sides


def vae(case: AutoEncoder, nn: Any) -> Any:
    """Return the networks of the variational auto-encoder on the modules of pynn or PyTorch."""

    class VAE(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(case.inputs, case.hidden), nn.ReLU())
            self.mean, self.log_var = nn.Linear(case.hidden, case.code), nn.Linear(case.hidden, case.code)
            self.decoder = nn.Sequential(
                nn.Linear(case.code, case.hidden), nn.ReLU(), nn.Linear(case.hidden, case.inputs)
            )

    return VAE()


def vae_step(model: Any, optim: Any, functional: Any) -> Any:
    """Return its training step, of digits [N, inputs] and noise [N, code]."""
    optimizer = optim.Adam(model.parameters(), lr=1e-3)

    def step(x: Any, noise: Any) -> Any:
        hidden = model.encoder(x)
        mean, log_var = model.mean(hidden), model.log_var(hidden)
        logits = model.decoder(mean + (0.5 * log_var).exp() * noise)
        error = functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        loss = error - 0.5 * (1 + log_var - mean * mean - log_var.exp()).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step
