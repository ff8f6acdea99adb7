"""`compare.py --mode attention`: attention alone, and the training step of a small GPT, beside PyTorch eager."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
from timing import alternate, summarize
from workloads import Attention, Transformer

import pynn
import pynn.nn
import pynn.optim

Array = npt.NDArray[Any]

LR, BETAS, WEIGHT_DECAY, MOST_NORM = 1e-3, (0.9, 0.99), 0.1, 1.0  # nanoGPT's, with AdamW
BATCHES = 16  # different ones, taken in turn
CHECKED_STEPS = 3
LOSS_TOLERANCE = 1e-5  # of the loss, in the first step;
LATER_LOSS_TOLERANCE = 3e-4  # in the others: Adam makes full steps of the smallest gradients
TOLERANCE = 1e-5  # of attention's results and gradients, of the largest


def measure(case: Attention | Transformer, others: list[str], repeats: int, seconds: float, seed: int) -> Any:
    """Check and time one case; return its figures."""
    how = measure_attention if isinstance(case, Attention) else measure_transformer
    return how(case, others, repeats, seconds, seed)  # type: ignore[operator]


# -- attention alone ---------------------------------------------------------------------------------------------------


def measure_attention(case: Attention, others: list[str], repeats: int, seconds: float, seed: int) -> dict[str, Any]:
    """Check and time attention forward and backward."""
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal((1, case.heads, case.length, case.features)).astype(np.float32) for _ in range(4)]
    q, k, v = (pynn.Tensor(a, requires_grad=True) for a in arrays[:3])

    def ours(_: int) -> Any:
        y = pynn.functional.scaled_dot_product_attention(q, k, v, is_causal=case.is_causal)
        return y.data, *pynn.grad(y, [q, k, v], arrays[3])

    sides = {"pynn": ours}
    if "torch" in others:
        import torch

        tensors = [torch.from_numpy(a).requires_grad_(i < 3) for i, a in enumerate(arrays)]

        def theirs(_: int) -> Any:
            y = torch.nn.functional.scaled_dot_product_attention(*tensors[:3], is_causal=case.is_causal)
            return y.detach(), *torch.autograd.grad(y, tensors[:3], tensors[3])

        sides["torch"] = theirs
        for what, mine, other in zip(("y", "dquery", "dkey", "dvalue"), ours(0), theirs(0), strict=True):
            error = np.abs(mine - other.numpy()).max() / np.abs(other.numpy()).max()
            if not error <= TOLERANCE:
                raise SystemExit(f"{case.name}: {what} differs by {error:.1e}, beyond {TOLERANCE:.0e}")
    return summarize(alternate(sides, itertools.cycle(range(BATCHES)), repeats, seconds))


# -- a small GPT -------------------------------------------------------------------------------------------------------


def gpt(case: Transformer, nn: Any, functional: Any) -> Any:
    """Return nanoGPT's network, without biases and dropout, on the modules of pynn or PyTorch."""

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            width = case.width
            self.ln_1, self.ln_2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
            self.c_attn, self.c_proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
            self.fc, self.proj = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

        def forward(self, x: Any) -> Any:
            x = x + self.c_proj(attend(self.c_attn(self.ln_1(x))))
            return x + self.proj(functional.gelu(self.fc(self.ln_2(x))))

    def attend(qkv: Any) -> Any:
        if nn is pynn.nn:
            return functional.self_attention(qkv, case.heads, is_causal=True)
        n, length, width = *qkv.shape[:2], case.width
        heads = [x.view(n, length, case.heads, -1).transpose(1, 2) for x in qkv.split(width, dim=2)]
        y = functional.scaled_dot_product_attention(*heads, is_causal=True)
        return y.transpose(1, 2).contiguous().view(n, length, width)

    class GPT(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.wte, self.wpe = nn.Embedding(case.vocabulary, case.width), nn.Embedding(case.length, case.width)
            self.h = nn.ModuleList([Block() for _ in range(case.layers)])
            self.ln_f = nn.LayerNorm(case.width, bias=False)
            self.head = nn.Linear(case.width, case.vocabulary, bias=False)
            self.head.weight = self.wte.weight

        def forward(self, tokens: Any) -> Any:
            x = self.wte(tokens) + self.wpe.weight
            for block in self.h:
                x = block(x)
            return self.head(self.ln_f(x)).reshape(-1, case.vocabulary)

    return GPT()


class Side:
    """A GPT and its optimiser; pynn and PyTorch share the names, so that one class serves both."""

    def __init__(self, model: Any, adamw: Any, clip: Any, cross_entropy: Any) -> None:
        self.model, self.clip, self.cross_entropy = model, clip, cross_entropy
        self.parameters = list(model.parameters())
        groups = [
            {"params": [p for p in self.parameters if (p.ndim > 1) == matrix], "weight_decay": WEIGHT_DECAY * matrix}
            for matrix in (True, False)
        ]
        self.optimizer = adamw(groups, lr=LR, betas=BETAS)

    def step(self, x: Any, y: Any) -> Any:
        """Train on a batch; return the loss."""
        loss = self.cross_entropy(self.model(x), y)
        self.optimizer.zero_grad()
        loss.backward()
        self.clip(self.parameters, MOST_NORM)
        self.optimizer.step()
        return loss


def measure_transformer(
    case: Transformer, others: list[str], repeats: int, seconds: float, seed: int
) -> dict[str, Any]:
    """Check and time training steps; pynn's are captured, as in the example."""
    rng = np.random.default_rng(seed)
    text = rng.integers(0, case.vocabulary, (BATCHES, case.batch, case.length + 1))
    batches = [(np.ascontiguousarray(t[:, :-1]), t[:, 1:].reshape(-1)) for t in text]
    pynn.seed(seed)
    model = gpt(case, pynn.nn, pynn.functional)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            pynn.nn.init.normal_(parameter, std=0.02)
    ours = Side(model, pynn.optim.AdamW, pynn.optim.clip_grad_norm_, pynn.functional.cross_entropy)
    captured = pynn.capture(ours.step)
    sides = {"pynn": lambda i: captured(*batches[i])}
    difference = {}
    if "torch" in others:
        import torch

        theirs = Side(
            *(gpt(case, torch.nn, torch.nn.functional), torch.optim.AdamW, torch.nn.utils.clip_grad_norm_),
            torch.nn.functional.cross_entropy,
        )
        weights = {name: torch.from_numpy(np.array(value)) for name, value in model.state_dict().items()}
        theirs.model.load_state_dict(weights)
        tensors = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in batches]
        sides["torch"] = lambda i: theirs.step(*tensors[i])
        difference["loss_difference"] = check_agreement(sides)
    return {**summarize(alternate(sides, itertools.cycle(range(BATCHES)), repeats, seconds)), **difference}


def check_agreement(sides: dict[str, Any]) -> float:
    """Return the largest relative difference of the losses over a few steps; SystemExit if it is too large."""
    worst = 0.0
    for step in range(CHECKED_STEPS):
        loss, expected = (float(sides[name](step).item()) for name in ("pynn", "torch"))
        difference = abs(loss - expected) / abs(expected)
        tolerance = LATER_LOSS_TOLERANCE if step else LOSS_TOLERANCE
        if not difference <= tolerance:
            raise SystemExit(f"step {step}: pynn's loss is {loss}, that of torch {expected}, beyond {tolerance}")
        worst = max(worst, difference)
    return worst
