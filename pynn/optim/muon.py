"""Muon: momentum whose matrices are made orthogonal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from pynn import _core
from pynn._checks import flag, whole
from pynn.grad_mode import mode
from pynn.optim.optimizer import Array, Group, Optimizer, State, buffers, check_range
from pynn.tensor import Tensor


class Muon(Optimizer):
    """Muon, for the weight matrices of hidden layers (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

    m += (1 - momentum) · (g - m);  u = g + momentum · (m - g) with Nesterov's momentum, else m;
    p -= lr · (weight_decay · p + s · orthogonal(u)). The step u = U S Vᵀ is brought near U Vᵀ by `ns_steps` steps of
    Newton-Schulz, X ← a X + (b A + c A²) X with A = X Xᵀ, from `X = u / |u|`. Give embeddings, the output layer, biases
    and gains to AdamW, as in the example.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        Matrices, or groups such as `{"params": [...], "lr": 0.02}`.
    lr, weight_decay, momentum : float
        As in the formulae.
    nesterov : bool
        As above.
    ns_coefficients : (float, float, float)
        a, b and c; the default ones leave singular values between about 0.7 and 1.2.
    eps : float
        The least `|u|` to divide by.
    ns_steps : int
        1 to 99.
    adjust_lr_fn : {None, "original", "match_rms_adamw"}
        s for a matrix [rows, columns]: √max(1, rows / columns), or 0.2 √max(rows, columns), whose steps are as large
        as AdamW's (Liu et al. 2025, arXiv:2502.16982). None is "original", as in PyTorch.

    Raises
    ------
    ValueError
        If a parameter is not a matrix, an option is out of range, or `params` is empty or has one parameter twice.

    Examples
    --------
    >>> from pynn import nn, optim
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> hidden = [model[2].weight]
    >>> muon = optim.Muon(hidden, lr=0.02)
    >>> adamw = optim.AdamW([p for p in model.parameters() if all(p is not q for q in hidden)])
    """

    _arrays = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        options: Group = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov}
        options |= {"ns_coefficients": ns_coefficients, "eps": eps, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn}
        super().__init__(params, options)

    def _check(self, options: Group) -> None:
        check_range("Muon", 0, **{name: options[name] for name in ("lr", "weight_decay", "momentum", "eps")})
        flag("Muon", "nesterov", options["nesterov"])
        check_range("Muon", 1, 100, ns_steps=whole("Muon: ns_steps", options["ns_steps"]))
        try:
            a, b, c = options["ns_coefficients"]
        except (TypeError, ValueError):
            got = repr(options["ns_coefficients"])
            raise TypeError(f"Muon: ns_coefficients is {got}, needs three numbers") from None
        check_range("Muon", -math.inf, **{f"ns_coefficients[{i}]": value for i, value in enumerate((a, b, c))})
        if options["adjust_lr_fn"] not in (None, "original", "match_rms_adamw"):
            got = repr(options["adjust_lr_fn"])
            raise ValueError(f"Muon: adjust_lr_fn is {got}, needs None, 'original' or 'match_rms_adamw'")
        for p in options["params"]:
            if p.ndim != 2 or p.size == 0:
                raise ValueError(f"Muon: parameter {list(p.shape)}, needs a matrix; give the others to AdamW")

    def _update(self, group: Group, weights: list[Array], grads: list[Array], states: Sequence[State]) -> None:
        if mode.recorder is not None:  # the numbers below are a replay's, too
            mode.recorder.fixed_options(group)
        for p in weights:  # before the first of them changes
            if not p.flags.writeable:
                raise ValueError(f"Muon: parameter {list(p.shape)} is read-only, and a step writes to it")
        lr, momentum = group["lr"], group["momentum"]
        averages = buffers(weights, states, "momentum_buffer")
        # m -= (momentum - 1) (g - m)
        _core.sgd_(averages, grads, [], momentum - 1, 0.0, 0.0, -1.0, False, False)
        for p, g, m in zip(weights, grads, averages, strict=True):
            u = _sum(g, 1 - momentum, m, momentum) if group["nesterov"] else m
            step = _orthogonal(u, group["ns_coefficients"], group["ns_steps"], group["eps"])
            rate = lr * _scale(p.shape, group["adjust_lr_fn"])
            if rate:
                # p -= rate (step + lr weight_decay / rate p)
                _core.sgd_([p], [step], [], rate, 0.0, 0.0, lr * group["weight_decay"] / rate, False, False)


def _scale(shape: tuple[int, ...], adjust_lr_fn: str | None) -> float:
    rows, columns = shape
    if adjust_lr_fn == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1, rows / columns))


def _orthogonal(u: Array, coefficients: tuple[float, float, float], steps: int, eps: float) -> Array:
    """Return u [m, n] with its singular values near 1."""
    a, b, c = coefficients
    tall = u.shape[0] > u.shape[1]  # the smaller of X Xᵀ and Xᵀ X
    norm = _core.sqrt(_core.sum(_core.mul(u, u), (0, 1), True))
    x = _core.div(u, _core.maximum(norm, np.array(eps, u.dtype)))
    for _ in range(steps):
        gram = _core.matmul(x, x, tall, not tall)
        polynomial = _sum(gram, b, _core.matmul(gram, gram), c)
        x = _sum(x, a, _core.matmul(x, polynomial) if tall else _core.matmul(polynomial, x), 1.0)
    return x


def _sum(x: Array, a: float, y: Array, b: float) -> Array:
    """Return a x + b y."""
    x = _core.mul(x, np.array(a, x.dtype))
    return _core.add(x, y if b == 1 else _core.mul(y, np.array(b, y.dtype)))
