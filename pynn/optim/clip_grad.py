"""Limits on the size of gradients."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from pynn import _core
from pynn.grad_mode import mode
from pynn.optim.optimizer import Array, check_range
from pynn.tape import constant
from pynn.tensor import Tensor

__all__ = ["clip_grad_norm_", "clip_grad_value_"]


def clip_grad_norm_(params: Tensor | Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients in place so that their joint L2 norm is at most `max_norm` (Pascanu et al. 2013).

    Parameters
    ----------
    params : Tensor or iterable of Tensor
        Those without a gradient do not count, and one that comes twice, such as a shared weight, counts once.
    max_norm : float
        The largest norm allowed, arXiv:1211.5063.

    Returns
    -------
    float
        The norm before; inside of a captured function a tensor that holds it. If it is infinite or NaN, the gradients
        are left as they are: test for it.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> p = nn.Parameter([0.0, 0.0])
    >>> p.grad = np.array([3.0, 4.0], np.float32)
    >>> clip_grad_norm_([p], 1.0), p.grad.round(3)
    (5.0, array([0.6, 0.8], dtype=float32))
    """
    check_range("clip_grad_norm_", 0, max_norm=max_norm)
    tensors = _tensors("clip_grad_norm_", params)
    by_dtype: dict[Any, list[Array]] = defaultdict(list)
    for grad in {id(p._grad): p._grad for p in tensors}.values():  # two threads would scale one array
        if grad is not None:
            by_dtype[grad.dtype].append(grad)
    if len(by_dtype) == 1:
        (grads,) = by_dtype.values()
        total = _core.clip_norm_(grads, max_norm)
        return float(total) if mode.recorder is None else constant(total)  # type: ignore[return-value]
    norm = math.hypot(*(_core.l2_norm(grads) for grads in by_dtype.values()))
    if max_norm < norm < math.inf:
        for grads in by_dtype.values():
            _core.scale_(grads, max_norm / norm)
    return norm


def clip_grad_value_(params: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Limit every element of the gradients to -clip_value … clip_value; NaN stays.

    Parameters
    ----------
    params : Tensor or iterable of Tensor
        Those without a gradient do not count.
    clip_value : float
        At least 0.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> p = nn.Parameter([0.0, 0.0])
    >>> p.grad = np.array([3.0, -0.5], np.float32)
    >>> clip_grad_value_([p], 1.0)
    >>> p.grad
    array([ 1. , -0.5], dtype=float32)
    """
    check_range("clip_grad_value_", 0, clip_value=clip_value)
    for p in _tensors("clip_grad_value_", params):
        if p._grad is not None:
            p._grad = _core.clip(p._grad, -clip_value, clip_value)


def _tensors(operation: str, params: Tensor | Iterable[Tensor]) -> list[Tensor]:
    """Return the tensors as a list; TypeError for anything else, such as a module."""
    tensors = [params] if isinstance(params, Tensor) or not isinstance(params, Iterable) else list(params)
    for p in tensors:
        if not isinstance(p, Tensor):
            raise TypeError(f"{operation}: got a {type(p).__name__}, needs tensors, such as model.parameters()")
        if mode.recorder is not None:
            mode.recorder.uses_gradient(p)
    return tensors
