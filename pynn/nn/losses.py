"""Losses as modules. `reduction` is "mean" (default), "sum", or "none" for the loss of each row or element."""

from __future__ import annotations

from typing import Any

from pynn import functional as F
from pynn.nn.module import Module
from pynn.tensor import Tensor


class _Loss(Module):
    def __init__(self, reduction: str = "mean") -> None:
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"{type(self).__name__}: reduction is {reduction!r}, needs 'mean', 'sum' or 'none'")
        self.reduction = reduction


class CrossEntropyLoss(_Loss):
    """Softmax cross-entropy of logits [N, C] and integer targets [N] in 0..C-1.

    Parameters
    ----------
    ignore_index : int
        Rows with this target count neither in the loss nor in its mean.
    label_smoothing : float
        Share of the target spread evenly over the classes (Szegedy et al. 2016, arXiv:1512.00567), 0 to 1.
    reduction : {"mean", "sum", "none"}
        How the losses of the rows are combined.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> round(nn.CrossEntropyLoss()(np.zeros((1, 10), np.float32), np.array([3])).item(), 4)
    2.3026
    """

    def __init__(self, ignore_index: int = -100, label_smoothing: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"CrossEntropyLoss: label_smoothing is {label_smoothing}, needs 0 to 1")
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Any) -> Tensor:
        """Return a scalar, or [N] for reduction "none"."""
        return F.cross_entropy(logits, target, self.ignore_index, self.label_smoothing, self.reduction)


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
