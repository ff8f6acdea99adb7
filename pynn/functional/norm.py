"""Normalisation, dropout and embedding."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pynn import _core, random
from pynn.functional._args import (
    Array,
    Gradients,
    Input,
    as_tensor,
    flag,
    int64,
    integer,
    integers,
    number,
    require_floats,
)
from pynn.functional.shape import reshape
from pynn.tape import _record as record
from pynn.tensor import Tensor

__all__ = ["batch_norm", "dropout", "embedding", "group_norm", "layer_norm"]


def _affine(name: str, weight: Input | None, bias: Input | None) -> tuple[Tensor, ...]:
    """(), or weight and bias; the core takes both or none, a bias that is left out is 0."""
    if weight is None:
        if bias is not None:
            raise ValueError(f"{name}: a bias needs a weight")
        return ()
    weight = as_tensor(weight)
    return weight, Tensor(np.zeros_like(weight.data)) if bias is None else as_tensor(bias)


def batch_norm(
    x: Input,
    running_mean: Input | None,
    running_var: Input | None,
    weight: Input | None = None,
    bias: Input | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel of [N, C, ...] to mean 0 and variance 1, then scale and shift (Ioffe and Szegedy 2015).

    Parameters
    ----------
    running_mean, running_var
        Statistics [C] that are used if not `training`, else *written*: they move by `momentum` towards the batch's mean
        and unbiased variance. None: do not track.
    weight, bias
        Scale and shift [C].
    training
        Use the statistics of the batch.

    Examples
    --------
    >>> import pynn
    >>> y = pynn.functional.batch_norm(pynn.randn(64, 3), None, None, training=True)
    >>> bool((abs(y.mean(0).data) < 1e-6).all())
    True
    """
    if training is not True:
        training = flag("batch_norm", "training", training)
    if not training and (running_mean is None or running_var is None):
        raise ValueError("batch_norm: needs running_mean and running_var unless training")
    x, affine = as_tensor(x), _affine("batch_norm", weight, bias)
    w, b = (affine[0].data, affine[1].data) if affine else (None, None)
    value = x.data
    momentum, eps = number("batch_norm", "momentum", momentum), number("batch_norm", "eps", eps)
    running = [s.data if isinstance(s, Tensor) else s for s in (running_mean, running_var)]
    for given in running:
        if given is not None and not isinstance(given, np.ndarray):
            raise TypeError(f"batch_norm: running_mean and running_var must be tensors, arrays or None, got {given!r}")
    y, mean, rstd = _core.batch_norm(value, w, b, running[0], running[1], training, momentum, eps)
    if training:
        for s in (running_mean, running_var):
            if isinstance(s, Tensor):
                s._bump_version()

    def backward(dy: Array) -> Gradients:
        return _core.batch_norm_backward(dy, value, w, mean, rstd, training)[: 1 + len(affine)]

    return record("batch_norm", y, (x, *affine), backward, (x, *affine[:1]))


def layer_norm(
    x: Input,
    normalized_shape: int | Sequence[int],
    weight: Input | None = None,
    bias: Input | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise over the last axes, those of `normalized_shape`, then scale and shift (Ba et al. 2016).

    `weight` and `bias` have the shape `normalized_shape`.

    >>> import pynn
    >>> pynn.functional.layer_norm(pynn.tensor([[1.0, 3.0]]), 2).numpy().round(3)
    array([[-1.,  1.]], dtype=float32)
    """
    x = as_tensor(x)
    shape = x.shape
    last = tuple(normalized_shape) if isinstance(normalized_shape, Sequence) else (normalized_shape,)
    if set(map(type, last)) - {int}:
        last = integers("layer_norm", "normalized_shape", last)
    if not last or shape[-len(last) :] != last:
        raise ValueError(f"layer_norm: input {list(shape)} does not end in normalized_shape {list(last)}")
    affine = _affine("layer_norm", weight, bias)
    for parameter in affine:
        if parameter.shape != last:
            raise ValueError(f"layer_norm: weight or bias {list(parameter.shape)} needs the shape {list(last)}")
    if len(last) > 1:  # [..., D]: what the core takes
        size = math.prod(last)
        rows = reshape(x, (*shape[: -len(last)], size))
        flat: list[Tensor | None] = [reshape(parameter, size) for parameter in affine]
        flat += [None] * (2 - len(flat))
        return reshape(layer_norm(rows, size, flat[0], flat[1], eps), shape)
    value = x.data
    w, b = (affine[0].data, affine[1].data) if affine else (None, None)
    y_value, mean, rstd = _core.layer_norm(value, w, b, number("layer_norm", "eps", eps))

    def backward(dy: Array) -> Gradients:
        return _core.layer_norm_backward(dy, value, w, mean, rstd)[: 1 + len(affine)]

    return record("layer_norm", y_value, (x, *affine), backward, (x, *affine[:1]))


def group_norm(
    x: Input, num_groups: int, weight: Input | None = None, bias: Input | None = None, eps: float = 1e-5
) -> Tensor:
    """Normalise each group of C / num_groups channels of each sample of [N, C, ...] (Wu and He 2018, arXiv:1803.08494).

    `weight` and `bias` [C] scale and shift the channels.

    >>> import pynn
    >>> pynn.functional.group_norm(pynn.tensor([[1.0, 3.0, -2.0, 2.0]]), 2).numpy().round(3)
    array([[-1.,  1., -1.,  1.]], dtype=float32)
    """
    x, groups = as_tensor(x), integer("group_norm", "num_groups", num_groups)
    shape = x.shape
    if x.ndim < 2 or groups < 1 or shape[1] % groups or x.size == 0:
        raise ValueError(f"group_norm: input {list(shape)} needs [N, C, ...] with C divisible into {groups} groups")
    require_floats("group_norm", "x", x)
    affine = _affine("group_norm", weight, bias)
    for parameter in affine:
        if parameter.shape != shape[1:2]:
            raise ValueError(f"group_norm: weight or bias {list(parameter.shape)} needs the shape [{shape[1]}]")
        if parameter.data.dtype != x.data.dtype:
            got, needs = x.data.dtype, parameter.data.dtype
            raise TypeError(
                f"group_norm: input is {got}, weight is {needs}; convert the input with .astype(np.{needs}) or the "
                f"module with .astype(np.{got})"
            )
    if not 0 <= number("group_norm", "eps", eps) < math.inf:
        raise ValueError(f"group_norm: eps is {eps}, needs a finite number of at least 0")
    size = x.size // (shape[0] * groups)
    y = reshape(layer_norm(reshape(x, (shape[0], groups, size)), size, eps=eps), shape)
    if not affine:
        return y
    w, b = (reshape(parameter, (-1, *[1] * (x.ndim - 2))) for parameter in affine)
    return y * w + b


def dropout(x: Input, p: float = 0.5, training: bool = True) -> Tensor:
    """Set each element to 0 with probability `p`, scale the others by 1 / (1 - p) (Srivastava et al. 2014).

    Not training, it returns `x` itself. What falls follows from `pynn.seed`, not from the number of threads.

    >>> import pynn
    >>> pynn.functional.dropout(pynn.ones(3), p=0.5, training=False)
    Tensor([1., 1., 1.], dtype=float32)
    """
    if not 0 <= number("dropout", "p", p) <= 1:
        raise ValueError(f"dropout: p must be a probability in 0 … 1, got {p}")
    x = as_tensor(x)
    if p == 0 or (training is not True and not flag("dropout", "training", training)):
        return x
    value = x.data
    at = random.next_offset((x.size + 3) // 4)  # a counter of Philox gives four numbers

    def backward(dy: Array) -> Gradients:
        return (_core.dropout(dy, p, *at),)

    return record("dropout", _core.dropout(value, p, *at), (x,), backward)


def embedding(indices: Input, weight: Input) -> Tensor:
    """Return rows of `weight` [V, D]: integer indices [...] in 0 … V-1 to [..., D].

    Raises TypeError for indices that are not integers, IndexError for those out of range.

    >>> import pynn, numpy as np
    >>> pynn.functional.embedding(np.array([1, 1, 0]), pynn.tensor([[1.0], [2.0]]))
    Tensor([[2.],
            [2.],
            [1.]], dtype=float32)
    """
    weight, rows = as_tensor(weight), int64("embedding", "indices", indices)
    num_embeddings = weight.shape[0] if weight.ndim else 0

    def backward(dy: Array) -> Gradients:
        return (_core.embedding_backward(dy, rows, num_embeddings),)

    saved = (indices,) if isinstance(indices, Tensor) else ()
    return record("embedding", _core.embedding(weight.data, rows), (weight,), backward, saved)
