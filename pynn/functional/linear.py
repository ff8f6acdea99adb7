"""Matrix products."""

from __future__ import annotations

import math

from pynn import _core
from pynn.functional._args import Array, Gradients, Input, as_tensor, flag, one_of
from pynn.functional.elementwise import _fit
from pynn.functional.shape import reshape
from pynn.grad_mode import mode
from pynn.tape import _record as record
from pynn.tensor import Tensor

__all__ = ["linear", "matmul"]

ACTIVATIONS = ("none", "relu", "leaky_relu", "sigmoid", "tanh")


def matmul(a: Input, b: Input, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    """Return the matrix product [..., M, K] @ [..., K, N] -> [..., M, N]; batch axes broadcast.

    A 1-D operand is a row (left) or a column (right) whose axis of length 1 is dropped from the result. `transpose_a`
    and `transpose_b` read a matrix with its last two axes exchanged, without a copy.

    >>> import pynn
    >>> pynn.functional.matmul(pynn.ones(2, 3), pynn.ones(4, 3), transpose_b=True).shape
    (2, 4)
    """
    a, b = as_tensor(a), as_tensor(b)
    if transpose_a is not False:
        transpose_a = flag("matmul", "transpose_a", transpose_a)
    if transpose_b is not False:
        transpose_b = flag("matmul", "transpose_b", transpose_b)
    if a.data.ndim == 1 or b.data.ndim == 1:
        return _matmul_vector(a, b, transpose_a, transpose_b)
    x, w, need_a, need_b = a.data, b.data, a.requires_grad, b.requires_grad
    has_batches = x.ndim > 2 or w.ndim > 2

    def backward(dy: Array) -> Gradients:
        da = db = None
        if need_a:
            da = _core.matmul(w, dy, transpose_b, True) if transpose_a else _core.matmul(dy, w, False, not transpose_b)
            if has_batches:
                da = _fit(da, x.shape)
        if need_b:
            left, right = x, dy
            if has_batches and w.ndim == 2 and not transpose_a:  # one product over all rows, not a sum of a batch
                rows = math.prod(x.shape[:-1])  # with a -1 in its place, an empty array would not tell it
                left, right = x.reshape(rows, x.shape[-1]), dy.reshape(rows, dy.shape[-1])
            if transpose_b:
                db = _core.matmul(right, left, True, transpose_a)
            else:
                db = _core.matmul(left, right, not transpose_a, False)
            if has_batches:
                db = _fit(db, w.shape)
        return da, db

    return record("matmul", _core.matmul(x, w, transpose_a, transpose_b), (a, b), backward, (a, b))


def _matmul_vector(a: Tensor, b: Tensor, transpose_a: bool, transpose_b: bool) -> Tensor:
    a_is_row, b_is_column = a.ndim == 1, b.ndim == 1
    if (a_is_row and transpose_a) or (b_is_column and transpose_b):
        raise ValueError("matmul: a 1-D operand cannot be transposed")
    y = matmul(
        reshape(a, (1, a.size)) if a_is_row else a,
        reshape(b, (b.size, 1)) if b_is_column else b,
        transpose_a,
        transpose_b,
    )
    shape = y.shape[:-2] + (() if a_is_row else y.shape[-2:-1]) + (() if b_is_column else y.shape[-1:])
    return reshape(y, shape)


def linear(x: Input, weight: Input, bias: Input | None = None, activation: str = "none") -> Tensor:
    """Return activation(x @ weight.T + bias) in one pass.

    Parameters
    ----------
    x, weight, bias
        Shapes [..., in], [out, in] and [out].
    activation
        "none", "relu", "leaky_relu" (slope 0.01), "sigmoid" or "tanh".

    Returns
    -------
    Tensor
        Shape [..., out].

    Examples
    --------
    >>> import pynn
    >>> pynn.functional.linear(pynn.ones(5, 3), pynn.ones(2, 3), pynn.zeros(2), "relu").shape
    (5, 2)
    """
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        one_of("linear", "activation", activation, ACTIVATIONS)
    if not isinstance(x, Tensor):
        x = Tensor(x)
    if not isinstance(weight, Tensor):
        weight = Tensor(weight)
    value, w = x.data, weight.data
    parents: tuple[Tensor, ...] = (x, weight)
    b, need_bias = None, False
    if bias is not None:
        if not isinstance(bias, Tensor):
            bias = Tensor(bias)
        parents = (x, weight, bias)
        b, need_bias = bias.data, bias.requires_grad
    need_weight = weight.requires_grad
    y = _core.linear(value, w, b, activation, need_weight and mode.enabled)
    rest = (y, value, w, activation, x.requires_grad, need_weight, need_bias)  # of the arguments
    n = len(parents)

    def backward(dy: Array) -> Gradients:
        return _core.linear_backward(dy, *rest)[:n]

    return record("linear", y, parents, backward, (x, weight), activation != "none")
