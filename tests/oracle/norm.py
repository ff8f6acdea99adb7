"""Batch normalisation over all axes but the second, layer normalisation over the last."""

import numpy as np

from oracle.like import like


def _per_channel(v, x):
    return v.reshape(-1, *[1] * (x.ndim - 2))  # [C] against [N, C, ...]


def batch_norm(x, weight, bias, running_mean, running_var, training, momentum, eps):
    axes = (0, *range(2, x.ndim))
    if training:
        mean, var = np.mean(x, axis=axes), np.var(x, axis=axes)
        if running_mean is not None:
            count = x.size // x.shape[1]
            running_mean += momentum * (mean - running_mean)
            running_var += momentum * (var * (count / (count - 1)) - running_var)
    else:
        mean, var = running_mean, running_var
    rstd = 1 / np.sqrt(var + eps)
    y = (x - _per_channel(mean, x)) * _per_channel(rstd, x)
    if weight is not None:
        y = y * _per_channel(weight, x) + _per_channel(bias, x)
    return like(y, x), like(mean, x), like(rstd, x)


def batch_norm_backward(dy, x, weight, mean, rstd, training):
    axes = (0, *range(2, x.ndim))
    xhat = (x - _per_channel(mean, x)) * _per_channel(rstd, x)
    dweight, dbias = np.sum(dy * xhat, axis=axes), np.sum(dy, axis=axes)
    dxhat = dy if weight is None else dy * _per_channel(weight, x)
    dx = _normalise_backward(dxhat, xhat, axes) if training else dxhat
    return like(dx * _per_channel(rstd, x), x), like(dweight, x), like(dbias, x)


def layer_norm(x, weight, bias, eps):
    mean, var = np.mean(x, axis=-1), np.var(x, axis=-1)
    rstd = 1 / np.sqrt(var + eps)
    y = (x - mean[..., None]) * rstd[..., None]
    if weight is not None:
        y = y * weight + bias
    return like(y, x), like(mean, x), like(rstd, x)


def layer_norm_backward(dy, x, weight, mean, rstd):
    axes = tuple(range(x.ndim - 1))
    xhat = (x - mean[..., None]) * rstd[..., None]
    dxhat = dy if weight is None else dy * weight
    dx = _normalise_backward(dxhat, xhat, (-1,)) * rstd[..., None]
    return like(dx, x), like(np.sum(dy * xhat, axis=axes), x), like(np.sum(dy, axis=axes), x)


def _normalise_backward(dxhat, xhat, axes):
    """Return dx / rstd: what is left of dxhat after its parts along 1 and xhat, which mean and rstd absorb."""
    along_one = np.mean(dxhat, axis=axes, keepdims=True)
    along_xhat = np.mean(dxhat * xhat, axis=axes, keepdims=True)
    return dxhat - along_one - xhat * along_xhat
