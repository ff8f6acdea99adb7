"""Reductions over axes, and the pair sum_to / broadcast_to."""

import math

import numpy as np

from oracle.like import like


def _count(x, axes):
    return math.prod(x.shape[axis] for axis in axes)


def sum(x, axes, keepdims):
    return like(np.sum(x, axis=tuple(axes), keepdims=keepdims), x)


def mean(x, axes, keepdims):
    return like(np.divide(np.sum(x, axis=tuple(axes), keepdims=keepdims), _count(x, axes)), x)


def max(x, axes, keepdims):
    return like(np.max(x, axis=tuple(axes), keepdims=keepdims), x)


def min(x, axes, keepdims):
    return like(np.min(x, axis=tuple(axes), keepdims=keepdims), x)


def var(x, axes, correction, keepdims):
    squares = np.sum((x - mean(x, axes, True)) ** 2, axis=tuple(axes), keepdims=keepdims)
    return like(np.divide(squares, np.maximum(_count(x, axes) - correction, 0)), x)


def argmax(x, axis):
    return np.array(np.argmax(x, axis=axis), np.int64)  # the first of ties; NaN counts as the largest


def sum_to(x, shape):
    lead = x.ndim - len(shape)
    axes = tuple(range(lead)) + tuple(lead + i for i, n in enumerate(shape) if n == 1)
    return like(np.sum(x, axis=axes, keepdims=True).reshape(shape), x)


def broadcast_to(x, shape):
    return like(np.broadcast_to(x, tuple(shape)), x)


def extremum_backward(dy, x, y, axes):
    chosen = (x == y) | (np.isnan(x) & np.isnan(y))
    return like(np.where(chosen, dy / np.sum(chosen, axis=tuple(axes), keepdims=True), 0), dy)


def var_backward(dy, x, axes, correction):
    return like(dy * 2 * (x - mean(x, axes, True)) / np.maximum(_count(x, axes) - correction, 0), dy)
