"""conv2d and pooling, as a sum (or maximum) over the taps of the window."""

import numpy as np

from oracle.like import like


def _span(size, out, kernel, stride, pads, dilation):
    """Return the padded length: the input with its padding, and what a last partial window reaches beyond it."""
    return max(size + pads[0] + pads[1], (out - 1) * stride + (kernel - 1) * dilation + 1)


def _pad(x, out, kernel, stride, pads, dilation, value):
    top, bottom, left, right = pads
    height = _span(x.shape[2], out[0], kernel[0], stride[0], (top, bottom), dilation[0])
    width = _span(x.shape[3], out[1], kernel[1], stride[1], (left, right), dilation[1])
    padded = np.full((*x.shape[:2], height, width), value, x.dtype)
    padded[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x
    return padded


def _taps(padded, out, kernel, stride, dilation):
    """Yield (i, j, view): the view [N, C, OH, OW] holds what tap (i, j) of each window sees."""
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            rows = slice(i * dilation[0], i * dilation[0] + (out[0] - 1) * stride[0] + 1, stride[0])
            columns = slice(j * dilation[1], j * dilation[1] + (out[1] - 1) * stride[1] + 1, stride[1])
            yield i, j, padded[:, :, rows, columns]


def _crop(padded, x_shape, top, left):
    return np.array(padded[:, :, top : top + x_shape[2], left : left + x_shape[3]], order="C")


def _grouped(x, groups):
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])  # [N, G, C/G, H, W]


def conv2d(x, weight, bias, stride, padding, dilation, groups, activation="none"):
    kernel, (top, bottom, left, right) = weight.shape[2:], padding
    out = (
        (x.shape[2] + top + bottom - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1,
        (x.shape[3] + left + right - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1,
    )
    w = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])  # [G, O/G, C/G, KH, KW]
    y = np.zeros((x.shape[0], groups, w.shape[1], *out), x.dtype)
    padded = _pad(x, out, kernel, stride, padding, dilation, 0)
    for i, j, tap in _taps(padded, out, kernel, stride, dilation):
        y += np.einsum("goc,ngchw->ngohw", w[:, :, :, i, j], _grouped(tap, groups))
    y = y.reshape(x.shape[0], weight.shape[0], *out)
    y = y if bias is None else y + bias[:, None, None]
    return like(np.where(y < 0, 0, y) if activation == "relu" else y, x)


def conv2d_backward(dy, y, x, weight, stride, padding, dilation, groups, activation, need_dx, need_dweight, need_dbias):
    dy = np.where(y <= 0, 0, dy) if activation == "relu" else dy
    kernel, out = weight.shape[2:], dy.shape[2:]
    w = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    dy_grouped = _grouped(dy, groups)
    padded = _pad(x, out, kernel, stride, padding, dilation, 0)
    dpadded, dw = np.zeros_like(padded), np.zeros_like(w)
    dtaps = _taps(dpadded, out, kernel, stride, dilation)
    for (i, j, tap), (_, _, dtap) in zip(_taps(padded, out, kernel, stride, dilation), dtaps, strict=True):
        dw[:, :, :, i, j] = np.einsum("ngohw,ngchw->goc", dy_grouped, _grouped(tap, groups))
        dtap += np.einsum("goc,ngohw->ngchw", w[:, :, :, i, j], dy_grouped).reshape(dtap.shape)
    return (
        _crop(dpadded, x.shape, padding[0], padding[2]) if need_dx else None,
        like(dw.reshape(weight.shape), weight) if need_dweight else None,
        like(dy.sum(axis=(0, 2, 3)), dy) if need_dbias else None,
    )


def _pooled_size(size, kernel, stride, padding, dilation, ceil_mode):
    slack = stride - 1 if ceil_mode else 0
    out = (size + 2 * padding - dilation * (kernel - 1) - 1 + slack) // stride + 1
    # PyTorch's rule: the last window must start inside the input or its left padding.
    return out - 1 if ceil_mode and (out - 1) * stride >= size + padding else out


def _pooled(x, kernel, stride, padding, dilation, ceil_mode):
    return tuple(
        _pooled_size(x.shape[2 + axis], kernel[axis], stride[axis], padding[axis], dilation[axis], ceil_mode)
        for axis in (0, 1)
    )


def _symmetric(padding):
    return padding[0], padding[0], padding[1], padding[1]


def max_pool2d(x, kernel, stride, padding, dilation, ceil_mode):
    out = _pooled(x, kernel, stride, padding, dilation, ceil_mode)
    padded = _pad(x, out, kernel, stride, _symmetric(padding), dilation, -np.inf)
    inside = _pad(np.ones(x.shape, bool), out, kernel, stride, _symmetric(padding), dilation, False)
    y = np.full((*x.shape[:2], *out), -np.inf, x.dtype)
    indices = np.zeros(y.shape, np.uint8 if kernel[0] * kernel[1] <= 256 else np.int32)
    found = np.zeros(y.shape, bool)
    insides = _taps(inside, out, kernel, stride, dilation)
    for (i, j, tap), (_, _, valid) in zip(_taps(padded, out, kernel, stride, dilation), insides, strict=True):
        # The first of ties and the first NaN win; padding never does.
        better = valid & (~found | (tap > y) | (np.isnan(tap) & ~np.isnan(y)))
        y[better], indices[better] = tap[better], i * kernel[1] + j
        found |= valid
    return y, indices


def conv2d_max_pool2d(x, weight, bias, stride, padding, dilation, groups, activation, need_indices=True):
    y = conv2d(x, weight, bias, stride, padding, dilation, groups, activation)
    maxima, indices = max_pool2d(y, (2, 2), (2, 2), (0, 0), (1, 1), False)
    return maxima, indices if need_indices else None


def conv2d_max_pool2d_backward(
    dy, y, indices, x, weight, stride, padding, dilation, groups, activation, need_dx, need_dweight, need_dbias
):
    dy = np.where(y <= 0, 0, dy) if activation == "relu" else dy
    before = conv2d(x, weight, None, stride, padding, dilation, groups).shape
    dy = max_pool2d_backward(dy, indices, before, (2, 2), (2, 2), (0, 0), (1, 1))
    needs = need_dx, need_dweight, need_dbias
    return conv2d_backward(dy, None, x, weight, stride, padding, dilation, groups, "none", *needs)


def max_pool2d_backward(dy, indices, x_shape, kernel, stride, padding, dilation):
    dx = _pad(np.zeros(x_shape, dy.dtype), dy.shape[2:], kernel, stride, _symmetric(padding), dilation, 0)
    for i, j, dtap in _taps(dx, dy.shape[2:], kernel, stride, dilation):
        dtap += np.where(indices == i * kernel[1] + j, dy, 0)
    return _crop(dx, x_shape, *padding)


def _divisor(x_shape, out, kernel, stride, padding, count_include_pad):
    """Return [OH, OW]: how many elements each window averages; what lies beyond the padding never counts."""
    counts = []
    for axis in (0, 1):
        size, pad = x_shape[2 + axis], padding[axis]
        start = np.arange(out[axis]) * stride[axis] - pad
        stop = np.minimum(start + kernel[axis], size + pad)
        counts.append(stop - start if count_include_pad else np.minimum(stop, size) - np.maximum(start, 0))
    return np.outer(*counts)


def avg_pool2d(x, kernel, stride, padding, ceil_mode, count_include_pad):
    out = _pooled(x, kernel, stride, padding, (1, 1), ceil_mode)
    padded = _pad(x, out, kernel, stride, _symmetric(padding), (1, 1), 0)
    y = np.zeros((*x.shape[:2], *out), x.dtype)
    for _, _, tap in _taps(padded, out, kernel, stride, (1, 1)):
        y += tap
    return like(y / _divisor(x.shape, out, kernel, stride, padding, count_include_pad), x)


def avg_pool2d_backward(dy, x_shape, kernel, stride, padding, count_include_pad):
    out = dy.shape[2:]
    share = like(dy / _divisor(x_shape, out, kernel, stride, padding, count_include_pad), dy)
    dx = _pad(np.zeros(x_shape, dy.dtype), out, kernel, stride, _symmetric(padding), (1, 1), 0)
    for _, _, dtap in _taps(dx, out, kernel, stride, (1, 1)):
        dtap += share
    return _crop(dx, x_shape, *padding)
