"""Losses as modules. `reduction` is "mean" (default), "sum", or "none" for the loss of each row or element."""

from __future__ import annotations

from typing import Any

from pynn import functional as F
from pynn.functional._args import Array, Input, number
from pynn.nn.module import Module
from pynn.tensor import Tensor


class _Loss(Module):
    def __init__(self, reduction: str = "mean") -> None:
        if not isinstance(reduction, str) or reduction not in ("mean", "sum", "none"):
            raise ValueError(f"{type(self).__name__}: reduction is {reduction!r}, needs 'mean', 'sum' or 'none'")
        self.reduction = reduction


class _ClassLoss(_Loss):
    """A loss of integer targets, of which each class can count differently."""

    def __init__(self, weight: Input | list[float] | None, ignore_index: int, reduction: str) -> None:
        super().__init__(reduction)
        self.ignore_index = ignore_index
        self.weight: Array | None
        if weight is None:
            self.weight = None
        else:
            self.register_buffer("weight", (weight if isinstance(weight, Tensor) else Tensor(weight)).data)


class CrossEntropyLoss(_ClassLoss):
    """Softmax cross-entropy of logits [N, C] and integer targets [N] in 0..C-1.

    Parameters
    ----------
    weight : array, optional
        What each class counts, [C]: a buffer, as in PyTorch. "mean" divides by the sum of the targets' weights.
    ignore_index : int
        Rows with this target count neither in the loss nor in its mean.
    reduction : {"mean", "sum", "none"}
        How the losses of the rows are combined.
    label_smoothing : float
        Share of the target spread evenly over the classes (Szegedy et al. 2016, arXiv:1512.00567), 0 to 1.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> round(nn.CrossEntropyLoss()(np.zeros((1, 10), np.float32), np.array([3])).item(), 4)
    2.3026
    """

    def __init__(
        self,
        weight: Input | list[float] | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight, ignore_index, reduction)
        if not 0 <= number("CrossEntropyLoss", "label_smoothing", label_smoothing) <= 1:
            raise ValueError(f"CrossEntropyLoss: label_smoothing is {label_smoothing}, needs 0 to 1")
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Any) -> Tensor:
        """Return a scalar, or [N] for reduction "none"."""
        return F.cross_entropy(logits, target, self.weight, self.ignore_index, self.reduction, self.label_smoothing)


class NLLLoss(_ClassLoss):
    """-log_probs[target], for log-probabilities [N, C] and integer targets [N] in 0..C-1: behind a `LogSoftmax`.

    Parameters
    ----------
    weight : array, optional
        What each class counts, [C], as in `CrossEntropyLoss`.
    ignore_index : int
        Rows with this target count neither in the loss nor in its mean.
    reduction : {"mean", "sum", "none"}
        How the losses of the rows are combined.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> nn.NLLLoss()(np.array([[-1.0, -2.0]], np.float32), np.array([1])).item()
    2.0
    """

    def __init__(
        self, weight: Input | list[float] | None = None, ignore_index: int = -100, reduction: str = "mean"
    ) -> None:
        super().__init__(weight, ignore_index, reduction)

    def forward(self, log_probs: Tensor, target: Any) -> Tensor:
        """Return a scalar, or [N] for reduction "none"."""
        return F.nll_loss(log_probs, target, self.weight, self.ignore_index, self.reduction)


class MSELoss(_Loss):
    """(x - target)², for x and target of one shape.

    Examples
    --------
    >>> from pynn import nn, tensor
    >>> nn.MSELoss()(tensor([1.0, 2.0]), tensor([1.0, 4.0])).item()
    2.0
    """

    def forward(self, x: Tensor, target: Any) -> Tensor:
        """Return a scalar, or the shape of `x` for reduction "none"."""
        return F.mse_loss(x, target, self.reduction)


class L1Loss(_Loss):
    """`|x - target|`, for x and target of one shape.

    Examples
    --------
    >>> from pynn import nn, tensor
    >>> nn.L1Loss()(tensor([1.0, 2.0]), tensor([1.0, 4.0])).item()
    1.0
    """

    def forward(self, x: Tensor, target: Any) -> Tensor:
        """Return a scalar, or the shape of `x` for reduction "none"."""
        return F.l1_loss(x, target, self.reduction)


class SmoothL1Loss(_Loss):
    """(x - target)² / (2 beta) where `|x - target|` < beta, else `|x - target|` - beta / 2 (arXiv:1504.08083).

    Examples
    --------
    >>> from pynn import nn, tensor
    >>> nn.SmoothL1Loss()(tensor([0.0]), tensor([3.0])).item()
    2.5
    """

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        if not number("SmoothL1Loss", "beta", beta) >= 0:
            raise ValueError(f"SmoothL1Loss: beta is {beta}, needs at least 0")
        self.beta = beta

    def forward(self, x: Tensor, target: Any) -> Tensor:
        """Return a scalar, or the shape of `x` for reduction "none"."""
        return F.smooth_l1_loss(x, target, self.reduction, self.beta)


class KLDivLoss(_Loss):
    """target · (log(target) - x), for log-probabilities x and probabilities of one shape.

    Parameters
    ----------
    reduction : {"mean", "batchmean", "sum", "none"}
        "batchmean", the sum over the length of the first axis, is the divergence.
    log_target : bool
        Whether targets are logarithms of probabilities.

    Examples
    --------
    >>> from pynn import nn, tensor
    >>> nn.KLDivLoss("batchmean")(tensor([[-2.0, -0.5]]), tensor([[1.0, 0.0]])).item()
    2.0
    """

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__("sum" if reduction == "batchmean" else reduction)
        self.reduction = reduction
        self.log_target = log_target

    def forward(self, x: Tensor, target: Any) -> Tensor:
        """Return a scalar, or the shape of `x` for reduction "none"."""
        return F.kl_div(x, target, self.reduction, self.log_target)


class BCEWithLogitsLoss(_Loss):
    """Binary cross-entropy of sigmoid(x) and targets in 0..1, computed stably from the logits x of the same shape.

    Examples
    --------
    >>> from pynn import nn, tensor
    >>> round(nn.BCEWithLogitsLoss()(tensor([0.0]), tensor([1.0])).item(), 4)
    0.6931
    """

    def forward(self, x: Tensor, target: Any) -> Tensor:
        """Return a scalar, or the shape of `x` for reduction "none"."""
        return F.binary_cross_entropy_with_logits(x, target, self.reduction)


class HingeLoss(_Loss):
    """max(0, 1 - target · x), for targets -1 or 1 and scores x of one shape.

    Examples
    --------
    >>> from pynn import nn, tensor
    >>> nn.HingeLoss()(tensor([0.5, 2.0]), tensor([1.0, 1.0])).item()
    0.25
    """

    def forward(self, x: Tensor, target: Any) -> Tensor:
        """Return a scalar, or the shape of `x` for reduction "none"."""
        return F.hinge_loss(x, target, self.reduction)
