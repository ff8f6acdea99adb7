"""RMSprop, Adagrad and Adadelta. The update of all parameters of a group is one call of the core."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pynn import _core
from pynn._checks import flag
from pynn.optim.optimizer import Array, Group, Optimizer, State, buffers, check_range
from pynn.tensor import Tensor


class RMSprop(Optimizer):
    """RMSprop (Hinton 2012, lecture 6e of "Neural Networks for Machine Learning"), in PyTorch's form.

    g += weight_decay · p;  v = α v + (1 - α) g²;  p -= lr · g / (√v + eps). With momentum, b = momentum · b + the
    quotient, and p -= lr · b. Centred (Graves 2013, arXiv:1308.0850), the variance v - m² stands for v, with
    m = α m + (1 - α) g; one that rounding made negative counts as 0.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        Parameters, or groups such as `{"params": [...], "lr": 0.01}`.
    lr : float
        Learning rate.
    alpha : float
        Decay of the averages, at least 0 and less than 1.
    eps : float
        Keeps the division finite.
    weight_decay, momentum : float
        As in the formulae.
    centered : bool
        Whether to divide by the standard deviation of the gradient.

    Raises
    ------
    ValueError
        If an option is out of range, or `params` is empty or has one parameter twice.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn, optim
    >>> p = nn.Parameter([1.0])
    >>> optimizer = optim.RMSprop([p], lr=0.5, alpha=0.0)
    >>> p.grad = np.full(1, 4.0, np.float32)
    >>> optimizer.step()
    >>> round(p.item(), 4)
    0.5
    """

    _arrays = ("square_avg",)
    _optional_arrays = ("grad_avg", "momentum_buffer")

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        options = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(params, {**options, "centered": centered})

    def _check(self, options: Group) -> None:
        check_range("RMSprop", 0, **{name: options[name] for name in ("lr", "eps", "weight_decay", "momentum")})
        check_range("RMSprop", 0, 1, alpha=options["alpha"])
        flag("RMSprop", "centered", options["centered"])

    def _update(self, group: Group, weights: list[Array], grads: list[Array], states: Sequence[State]) -> None:
        self._call(
            _core.rmsprop_,
            states,
            weights,
            grads,
            buffers(weights, states, "square_avg"),
            buffers(weights, states, "grad_avg") if group["centered"] else [],
            buffers(weights, states, "momentum_buffer") if group["momentum"] else [],
            numbers=lambda _: tuple(group[name] for name in ("lr", "alpha", "eps", "weight_decay", "momentum")),
            present=lambda: (bool(group["centered"]), bool(group["momentum"])),
        )


class Adagrad(Optimizer):
    """Adagrad (Duchi et al. 2011, JMLR 12), in PyTorch's form.

    g += weight_decay · p;  s += g²;  p -= lr / (1 + (t - 1) · lr_decay) · g / (√s + eps) at the t-th step.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        Parameters, or groups such as `{"params": [...], "lr": 0.01}`.
    lr, lr_decay, weight_decay : float
        As in the formula.
    initial_accumulator_value : float
        What s starts with.
    eps : float
        Keeps the division finite.

    Raises
    ------
    ValueError
        If an option is out of range, or `params` is empty or has one parameter twice.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn, optim
    >>> p = nn.Parameter([1.0])
    >>> optimizer = optim.Adagrad([p], lr=0.5)
    >>> p.grad = np.full(1, 4.0, np.float32)
    >>> optimizer.step()
    >>> round(p.item(), 4)
    0.5
    """

    _arrays = ("sum",)
    _scalars = ("step",)

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        options = {"lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay, "eps": eps}
        super().__init__(params, {**options, "initial_accumulator_value": initial_accumulator_value})

    def _check(self, options: Group) -> None:
        check_range("Adagrad", 0, **{name: value for name, value in options.items() if name != "params"})

    def _update(self, group: Group, weights: list[Array], grads: list[Array], states: Sequence[State]) -> None:
        self._call(
            _core.adagrad_,
            states,
            weights,
            grads,
            buffers(weights, states, "sum", group["initial_accumulator_value"]),
            numbers=lambda step: (step, *(group[name] for name in ("lr", "lr_decay", "eps", "weight_decay"))),
        )


class Adadelta(Optimizer):
    """Adadelta (Zeiler 2012, arXiv:1212.5701), in PyTorch's form.

    g += weight_decay · p;  v = ρ v + (1 - ρ) g²;  d = √(u + eps) / √(v + eps) · g;  u = ρ u + (1 - ρ) d²;  p -= lr · d.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        Parameters, or groups such as `{"params": [...], "lr": 0.5}`.
    lr : float
        Learning rate, 1 in the paper.
    rho : float
        Decay of the averages, at least 0 and less than 1.
    eps, weight_decay : float
        As in the formulae.

    Raises
    ------
    ValueError
        If an option is out of range, or `params` is empty or has one parameter twice.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn, optim
    >>> p = nn.Parameter([1.0])
    >>> optimizer = optim.Adadelta([p], rho=0.0, eps=0.25)
    >>> p.grad = np.full(1, 4.0, np.float32)
    >>> optimizer.step()
    >>> round(p.item(), 4)
    0.5039
    """

    _arrays = ("square_avg", "acc_delta")

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay})

    def _check(self, options: Group) -> None:
        check_range("Adadelta", 0, **{name: options[name] for name in ("lr", "eps", "weight_decay")})
        check_range("Adadelta", 0, 1, rho=options["rho"])

    def _update(self, group: Group, weights: list[Array], grads: list[Array], states: Sequence[State]) -> None:
        self._call(
            _core.adadelta_,
            states,
            weights,
            grads,
            buffers(weights, states, "square_avg"),
            buffers(weights, states, "acc_delta"),
            numbers=lambda _: tuple(group[name] for name in ("lr", "rho", "eps", "weight_decay")),
        )
