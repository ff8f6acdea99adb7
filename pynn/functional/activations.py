"""Activations beyond those that stand in `elementwise`."""

from __future__ import annotations

from pynn import _core
from pynn.functional._args import Array, Gradients, Input, as_tensor, number
from pynn.tape import _record as record
from pynn.tensor import Tensor

__all__ = ["elu", "silu", "softplus"]


def silu(x: Input) -> Tensor:
    """Return x * sigmoid(x), also known as swish (Elfwing et al. 2017, arXiv:1702.03118).

    >>> import pynn
    >>> pynn.functional.silu(pynn.tensor([0.0, 20.0]))
    Tensor([ 0., 20.], dtype=float32)
    """
    x = as_tensor(x)
    value = x.data

    def backward(dy: Array) -> Gradients:
        return (_core.silu_backward(dy, value),)

    return record("silu", _core.silu(value), (x,), backward, (x,))


def elu(x: Input, alpha: float = 1.0) -> Tensor:
    """Return x where x > 0, alpha * (exp(x) - 1) elsewhere (Clevert et al. 2015, arXiv:1511.07289).

    >>> import pynn
    >>> pynn.functional.elu(pynn.tensor([-100.0, 2.0]), 0.5)
    Tensor([-0.5,  2. ], dtype=float32)
    """
    x = as_tensor(x)
    value, alpha = x.data, number("elu", "alpha", alpha)

    def backward(dy: Array) -> Gradients:
        return (_core.elu_backward(dy, value, alpha),)

    return record("elu", _core.elu(value, alpha), (x,), backward, (x,))


def softplus(x: Input, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """Return log(1 + exp(beta * x)) / beta without overflow, and x where beta * x > threshold (Dugas et al. 2000).

    Raises ValueError for `beta` 0.

    >>> import pynn
    >>> pynn.functional.softplus(pynn.tensor([-200.0, 0.0, 200.0])).numpy().round(4)
    array([  0.    ,   0.6931, 200.    ], dtype=float32)
    """
    x = as_tensor(x)
    value, beta, threshold = (
        x.data,
        number("softplus", "beta", beta),
        number("softplus", "threshold", threshold),
    )
    if beta == 0:
        raise ValueError("softplus: beta is 0, needs another number")

    def backward(dy: Array) -> Gradients:
        return (_core.softplus_backward(dy, value, beta, threshold),)

    return record("softplus", _core.softplus(value, beta, threshold), (x,), backward, (x,))
