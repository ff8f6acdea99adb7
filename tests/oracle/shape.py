"""Operations that move elements without changing them."""

import numpy as np

from oracle.like import like


def transpose(x, axes):
    return like(np.transpose(x, axes), x)


def concatenate(arrays, axis):
    return like(np.concatenate(arrays, axis), arrays[0])


def pad(x, widths, value):
    return like(np.pad(x, widths, constant_values=value) if x.ndim else x, x)


def take_rows(x, rows, out=None):
    if out is None:
        return x[rows]
    out[...] = x[rows]
    return out


def as_int64(x):
    return x.astype(np.int64)


def equal(a, b):
    return np.asarray(a == b)


def count(x):
    return np.array(np.count_nonzero(x), np.int64)


def share(x):
    return np.array(x.mean())


def _grid(starts, steps, sizes):
    return np.ix_(*(start + step * np.arange(size) for start, step, size in zip(starts, steps, sizes, strict=True)))


def slice(x, starts, steps, sizes):
    return like(x[_grid(starts, steps, sizes)] if x.ndim else x, x)


def slice_backward(dy, x_shape, starts, steps):
    dx = np.zeros(x_shape, dy.dtype)
    np.add.at(dx, _grid(starts, steps, dy.shape) if dy.ndim else (), dy)
    return dx
