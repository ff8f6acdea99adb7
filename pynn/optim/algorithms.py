"""SGD, Adam and AdamW. The update of all parameters of a group is one call of the core."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pynn import _core
from pynn._checks import flag
from pynn.optim.optimizer import Array, Group, Optimizer, State, buffers, check_range
from pynn.tensor import Tensor


class SGD(Optimizer):
    """Stochastic gradient descent, with PyTorch's form of momentum (Sutskever et al. 2013, ICML).

    g += weight_decay · p;  v = momentum · v + (1 - dampening) · g, the first time v = g;  p -= lr · v.
    With Nesterov's momentum the step is lr · (g + momentum · v), without momentum it is lr · g.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        Parameters, or groups such as `{"params": [...], "lr": 0.01}`.
    lr : float
        Learning rate.
    momentum, dampening, weight_decay : float
        As in the formulae.
    nesterov : bool
        Needs momentum > 0 and dampening 0.

    Raises
    ------
    ValueError
        If an option is out of range, or `params` is empty or has one parameter twice.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn, optim
    >>> p = nn.Parameter([1.0])
    >>> optimizer = optim.SGD([p], lr=0.5)
    >>> p.grad = np.ones(1, np.float32)
    >>> optimizer.step()
    >>> p.item()
    0.5
    """

    _arrays = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        super().__init__(params, {**options, "nesterov": nesterov})

    def _check(self, options: Group) -> None:
        check_range("SGD", 0, **{name: options[name] for name in ("lr", "momentum", "dampening", "weight_decay")})
        if flag("SGD", "nesterov", options["nesterov"]) and (options["momentum"] == 0 or options["dampening"] != 0):
            raise ValueError("SGD: nesterov needs momentum > 0 and dampening 0")

    def _update(self, group: Group, weights: list[Array], grads: list[Array], states: Sequence[State]) -> None:
        first = not states[0]
        self._call(
            _core.sgd_,
            states,
            weights,
            grads,
            buffers(weights, states, "momentum_buffer") if group["momentum"] else [],
            numbers=lambda _: (
                group["lr"],
                group["momentum"],
                group["dampening"],
                group["weight_decay"],
                group["nesterov"],
                first,
            ),
            present=lambda: bool(group["momentum"]),
        )
        first = False  # in each replay


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, arXiv:1412.6980); weight decay is added to the gradient.

    m = β₁ m + (1 - β₁) g;  v = β₂ v + (1 - β₂) g²;  p -= lr · m̂ / (√v̂ + eps) with
    m̂ = m / (1 - β₁ᵗ) and v̂ = v / (1 - β₂ᵗ) at the t-th step.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        Parameters, or groups such as `{"params": [...], "lr": 0.01}`.
    lr : float
        Learning rate.
    betas : (float, float)
        Decay of the averages of gradient and squared gradient, each at least 0 and less than 1.
    eps : float
        Keeps the division finite.
    weight_decay : float
        L2 penalty.

    Raises
    ------
    ValueError
        If an option is out of range, or `params` is empty or has one parameter twice.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn, optim
    >>> p = nn.Parameter([1.0])
    >>> optimizer = optim.Adam([p], lr=0.25)
    >>> p.grad = np.ones(1, np.float32)
    >>> optimizer.step()
    >>> round(p.item(), 4)
    0.75
    """

    _arrays = ("exp_avg", "exp_avg_sq")
    _scalars = ("step",)
    _decoupled = False

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def _check(self, options: Group) -> None:
        check_range(self._name, 0, **{name: options[name] for name in ("lr", "eps", "weight_decay")})
        try:
            beta1, beta2 = options["betas"]
        except (TypeError, ValueError):
            raise TypeError(f"{self._name}: betas is {options['betas']!r}, needs a pair of numbers") from None
        check_range(self._name, 0, 1, beta1=beta1, beta2=beta2)

    def _update(self, group: Group, weights: list[Array], grads: list[Array], states: Sequence[State]) -> None:
        self._call(
            _core.adam_,
            states,
            weights,
            grads,
            buffers(weights, states, "exp_avg"),
            buffers(weights, states, "exp_avg_sq"),
            numbers=lambda step: (
                step,
                group["lr"],
                *group["betas"],
                group["eps"],
                group["weight_decay"],
                self._decoupled,
            ),
        )


class AdamW(Adam):
    """Adam with weight decay apart from the gradient: first p -= lr · weight_decay · p (Loshchilov and Hutter 2019).

    arXiv:1711.05101. Parameters are those of `Adam`; the default decay is 0.01, as in PyTorch.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn, optim
    >>> p = nn.Parameter([1.0])
    >>> optimizer = optim.AdamW([p], lr=0.25, weight_decay=0.5)
    >>> p.grad = np.ones(1, np.float32)
    >>> optimizer.step()
    >>> round(p.item(), 4)
    0.625
    """

    _decoupled = True

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
