"""Softmax and the losses. Each loss computes its gradient in the same pass as its value."""

from __future__ import annotations

from collections.abc import Callable

from pynn import _core
from pynn.functional._args import Array, Gradients, Input, as_tensor, axis_index, flag, int64, integer, number, one_of
from pynn.functional.shape import reshape, transpose
from pynn.grad_mode import mode
from pynn.tape import _record as record
from pynn.tape import is_one
from pynn.tensor import Tensor

__all__ = [
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "hinge_loss",
    "kl_div",
    "l1_loss",
    "log_softmax",
    "mse_loss",
    "nll_loss",
    "smooth_l1_loss",
    "softmax",
]

REDUCTIONS = ("mean", "sum", "none")


def _scaled(dx1: Array | None, dloss: Array) -> Array:
    """`dx1`, the gradient of the loss itself, times that of what followed the loss."""
    assert dx1 is not None  # the forward computed it, since a backward comes
    return dx1.view() if is_one(dloss) else _core.mul(dx1, dloss)


def _along(rows: Callable[[Tensor], Tensor], name: str, x: Input, dim: int) -> Tensor:
    """Apply an operation on the last axis along axis `dim`."""
    x = as_tensor(x)
    axis = axis_index(name, dim, x.ndim)
    if axis == x.ndim - 1:
        return rows(x)
    order = list(range(x.ndim))
    order[axis], order[-1] = order[-1], order[axis]  # an exchange is its own inverse
    return transpose(rows(transpose(x, order)), order)


def softmax(x: Input, dim: int = -1) -> Tensor:
    """Return exp(x) / sum(exp(x)) along `dim`, without overflow.

    >>> import pynn
    >>> pynn.functional.softmax(pynn.tensor([[1.0, 1.0]]))
    Tensor([[0.5, 0.5]], dtype=float32)
    """
    return _along(_softmax_rows, "softmax", x, dim)


def _softmax_rows(x: Tensor) -> Tensor:
    y = _core.softmax(x.data)

    def backward(dy: Array) -> Gradients:
        return (_core.softmax_backward(dy, y),)

    return record("softmax", y, (x,), backward, saves_output=True)


def log_softmax(x: Input, dim: int = -1) -> Tensor:
    """Return log(softmax(x)) along `dim`, without overflow or loss of precision.

    >>> import pynn
    >>> pynn.functional.log_softmax(pynn.tensor([[1.0, 1.0]])).exp()
    Tensor([[0.5, 0.5]], dtype=float32)
    """
    return _along(_log_softmax_rows, "log_softmax", x, dim)


def _log_softmax_rows(x: Tensor) -> Tensor:
    y = _core.log_softmax(x.data)

    def backward(dy: Array) -> Gradients:
        return (_core.log_softmax_backward(dy, y),)

    return record("log_softmax", y, (x,), backward, saves_output=True)


def cross_entropy(
    logits: Input,
    target: Input,
    weight: Input | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the cross-entropy between softmax(logits) and integer classes.

    Parameters
    ----------
    logits
        Shape [N, C], [N, C, d1, …] or [C]; not normalised.
    target
        Classes 0 … C-1 of any integer dtype, shape [N], [N, d1, …] or [].
    weight
        What each class counts, shape [C], of the dtype of `logits`; 1 each if None. It multiplies the loss, the mean is
        divided by the sum of the targets' weights, as in PyTorch. It takes no gradient.
    ignore_index
        Targets of this value count neither in the loss nor in the mean.
    reduction
        "mean" over the targets that count, "sum", or "none" (the shape of `target`).
    label_smoothing
        Weight in 0 … 1 of the uniform distribution mixed into the target (Szegedy et al. 2016).

    Raises
    ------
    TypeError
        If target does not hold integers, or weight is of another dtype.
    ValueError
        If shapes do not fit, or an option is none of its values.
    IndexError
        If a class is out of range.

    Examples
    --------
    >>> import pynn, numpy as np
    >>> loss = pynn.functional.cross_entropy(pynn.tensor([[0.0, 0.0]]), np.array([1]))
    >>> round(loss.item(), 4)  # log(2)
    0.6931
    """
    options = (
        integer("cross_entropy", "ignore_index", ignore_index),
        number("cross_entropy", "label_smoothing", label_smoothing),
    )
    weights = () if weight is None else _class_weights("cross_entropy", weight)
    return _loss_of_rows("cross_entropy", "logits", _core.cross_entropy, options, weights, logits, target, reduction)


def nll_loss(
    log_probs: Input,
    target: Input,
    weight: Input | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Return the negative log-likelihood -log_probs[target] of integer classes: `cross_entropy` after `log_softmax`.

    Shapes, options and errors are those of `cross_entropy`, which is quicker for both steps in one.

    >>> import pynn, numpy as np
    >>> log_probs = pynn.functional.log_softmax(pynn.tensor([[0.0, 0.0]]))
    >>> round(pynn.functional.nll_loss(log_probs, np.array([1])).item(), 4)
    0.6931
    """
    options = (integer("nll_loss", "ignore_index", ignore_index),)
    weights = () if weight is None else _class_weights("nll_loss", weight)
    return _loss_of_rows("nll_loss", "log_probs", _core.nll_loss, options, weights, log_probs, target, reduction)


def _class_weights(op: str, weight: Input) -> tuple[Array]:
    """The core's last argument."""
    weight = as_tensor(weight)
    if weight.requires_grad:
        raise ValueError(f"{op}: weight takes no gradient; pass weight.detach()")
    return (weight.data,)


def _loss_of_rows(
    op: str,
    name: str,
    forward: Callable[..., tuple[Array, Array | None]],
    options: tuple[float, ...],
    weights: tuple[Array, ...],
    given: Input,
    target: Input,
    reduction: str,
) -> Tensor:
    """Apply a loss of rows [N, C] and classes [N] to [N, C, d1, …] and [N, d1, …], or to [C] and []."""
    one_of(op, "reduction", reduction, REDUCTIONS)
    x, classes = as_tensor(given), int64(op, "target", target)
    shape = x.data.shape
    ndim = len(shape)
    if classes.shape != (shape[:1] if ndim == 2 else shape[: ndim > 1] + shape[2:]) or ndim == 0:
        raise ValueError(
            f"{op}: {name} {list(x.shape)} and target {list(classes.shape)} do not fit; "
            "needs [N, C] and [N], or [N, C, d1, ...] and [N, d1, ...]"
        )
    labels = classes
    if ndim != 2:  # one row for each target
        if ndim > 2:
            x = transpose(x, (0, *range(2, ndim), 1))
        x, labels = reshape(x, (classes.size, x.shape[-1])), classes.reshape(-1)
    loss, dx1 = forward(x.data, labels, *options, reduction, x.requires_grad and mode.enabled, *weights)
    each = reduction == "none"

    def backward(dloss: Array) -> Gradients:
        return (_scaled(dx1, dloss.reshape(-1, 1) if each else dloss),)

    y = record(op, loss, (x,), backward)
    return reshape(y, classes.shape) if each and classes.ndim != 1 else y


def mse_loss(x: Input, target: Input, reduction: str = "mean") -> Tensor:
    """Return the mean squared error (x - target)^2 of two tensors of one shape; both can have gradients.

    `reduction` is "mean", "sum", or "none" for the loss of each element.

    >>> import pynn
    >>> pynn.functional.mse_loss(pynn.tensor([1.0, 3.0]), pynn.tensor([1.0, 1.0]))
    Tensor(2., dtype=float32)
    """
    return _loss_of_difference("mse_loss", _core.mse_loss, x, target, (), reduction)


def l1_loss(x: Input, target: Input, reduction: str = "mean") -> Tensor:
    """Return the mean absolute error `|x - target|` of two tensors of one shape; both can have gradients.

    `reduction` is "mean", "sum", or "none" for the loss of each element.

    >>> import pynn
    >>> pynn.functional.l1_loss(pynn.tensor([1.0, 3.0]), pynn.tensor([1.0, 1.0]))
    Tensor(1., dtype=float32)
    """
    return _loss_of_difference("l1_loss", _core.l1_loss, x, target, (), reduction)


def smooth_l1_loss(x: Input, target: Input, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """Return (x - target)² / (2 beta) where `|x - target|` < beta, else `|x - target|` - beta / 2 (Girshick 2015).

    Both tensors, of one shape, can have gradients; `beta` 0 is `l1_loss`. arXiv:1504.08083.
    `reduction` is "mean", "sum", or "none" for the loss of each element.

    >>> import pynn
    >>> pynn.functional.smooth_l1_loss(pynn.tensor([0.5, 3.0]), pynn.tensor([0.0, 0.0]), "none")
    Tensor([0.125, 2.5  ], dtype=float32)
    """
    beta = number("smooth_l1_loss", "beta", beta)
    return _loss_of_difference("smooth_l1_loss", _core.smooth_l1_loss, x, target, (beta,), reduction)


def _loss_of_difference(
    name: str,
    forward: Callable[..., tuple[Array, Array | None]],
    x: Input,
    target: Input,
    options: tuple[float, ...],
    reduction: str,
) -> Tensor:
    """Apply a loss of x - target, whose two gradients differ in their sign."""
    one_of(name, "reduction", reduction, REDUCTIONS)
    x, target = as_tensor(x), as_tensor(target)
    need_x, need_target = x.requires_grad, target.requires_grad
    need_grad = (need_x or need_target) and mode.enabled
    loss, dx1 = forward(x.data, target.data, *options, reduction, need_grad)

    def backward(dloss: Array) -> Gradients:
        dx = _scaled(dx1, dloss)
        return dx if need_x else None, _core.neg(dx) if need_target else None

    return record(name, loss, (x, target), backward)


def kl_div(x: Input, target: Input, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """Return target · (log(target) - x) for log-probabilities `x`, each element on its own; 0 where the target is 0.

    `target` holds probabilities, or with `log_target` their logarithms, and takes no gradient. "mean" is over the
    elements; "batchmean", the sum over the length of the first axis, is the divergence (Kullback and Leibler 1951).

    >>> import pynn
    >>> x, target = pynn.tensor([[0.5, 0.5]]).log(), pynn.tensor([[1.0, 0.0]])
    >>> round(pynn.functional.kl_div(x, target, "batchmean").item(), 4)  # log(2)
    0.6931
    """
    one_of("kl_div", "reduction", reduction, (*REDUCTIONS, "batchmean"))
    log_target = flag("kl_div", "log_target", log_target)
    x = as_tensor(x)
    if reduction == "batchmean":
        rows = x.shape[0] if x.ndim else 1
        return kl_div(x, target, "sum", log_target) / rows

    def forward(x: Array, target: Array, reduction: str, need_grad: bool) -> tuple[Array, Array | None]:
        return _core.kl_div(x, target, log_target, reduction, need_grad)

    return _loss("kl_div", forward, x, target, reduction)


def binary_cross_entropy_with_logits(x: Input, target: Input, reduction: str = "mean") -> Tensor:
    """Return -(t log s + (1 - t) log(1 - s)) with s = sigmoid(x), computed without overflow.

    `target` is of the shape and dtype of `x`, usually in 0 … 1, and takes no gradient.
    `reduction` is "mean", "sum", or "none" for the loss of each element.

    >>> import pynn
    >>> loss = pynn.functional.binary_cross_entropy_with_logits(pynn.tensor([100.0]), pynn.tensor([1.0]))
    >>> round(loss.item(), 6)
    0.0
    """
    return _loss("binary_cross_entropy_with_logits", _core.binary_cross_entropy_with_logits, x, target, reduction)


def hinge_loss(x: Input, target: Input, reduction: str = "mean") -> Tensor:
    """Return max(0, 1 - target * x) for targets -1 and 1 of the shape and dtype of `x`, which take no gradient.

    `reduction` is "mean", "sum", or "none" for the loss of each element.

    >>> import pynn
    >>> pynn.functional.hinge_loss(pynn.tensor([0.5, 3.0]), pynn.tensor([1.0, -1.0]), "none")
    Tensor([0.5, 4. ], dtype=float32)
    """
    return _loss("hinge_loss", _core.hinge_loss, x, target, reduction)


def _loss(
    name: str, forward: Callable[..., tuple[Array, Array | None]], x: Input, target: Input, reduction: str
) -> Tensor:
    one_of(name, "reduction", reduction, REDUCTIONS)
    x, target = as_tensor(x), as_tensor(target)
    if target.requires_grad:
        raise ValueError(f"{name}: target takes no gradient; pass target.detach()")
    loss, dx1 = forward(x.data, target.data, reduction, x.requires_grad and mode.enabled)

    def backward(dloss: Array) -> Gradients:
        return (_scaled(dx1, dloss),)

    return record(name, loss, (x,), backward)
