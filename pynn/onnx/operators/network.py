"""Convolution, pooling and normalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pynn import functional as F
from pynn.grad_mode import no_grad
from pynn.onnx.operators.registry import Node, Value, array, operator, reshape
from pynn.tensor import Tensor

Pairs = list[tuple[int, int]]


# -- windows -----------------------------------------------------------------------------------------------------------
def _volume(node: Node) -> str | None:
    axes = len(node.attributes.get("kernel_shape", ()))
    return f"{axes} spatial axes, at most 2" if axes > 2 else None


def _images(x: Value) -> Value:
    """Return [N, C, L] as images one pixel high, [N, C, H, W] as they are."""
    if x.ndim not in (3, 4):
        raise NotImplementedError(f"needs 1 or 2 spatial axes, got the shape {list(x.shape)}")
    return reshape(x, (*x.shape[:2], 1, x.shape[2])) if x.ndim == 3 else x


def _pair(values: Sequence[int] | None, spatial: int) -> tuple[int, int]:
    """Strides or dilations of height and width."""
    first, second = [1] * (2 - spatial) + list(values or [1] * spatial)
    return first, second


def _pads(
    auto_pad: str,
    pads: Sequence[int] | None,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    spatial: int,
) -> Pairs:
    """(before, after) for height and width."""
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        pairs = []
        for n, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
            total = max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
            pairs.append(
                (total // 2, total - total // 2) if auto_pad == "SAME_UPPER" else (total - total // 2, total // 2)
            )
        return pairs
    given = list(pads or [0] * 2 * spatial) if auto_pad == "NOTSET" else [0] * 2 * spatial
    return [(0, 0)] * (2 - spatial) + list(zip(given[:spatial], given[spatial:], strict=True))


def _even(pairs: Pairs) -> bool:
    return all(before == after for before, after in pairs)


def _surround(x: Value, pairs: Pairs, value: float = 0.0) -> Value:
    return F.pad(x, ((0, 0), (0, 0), *pairs), value) if any(map(any, pairs)) else x


def _ends(
    sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], pairs: Pairs
) -> Pairs:
    """The padding of `ceil_mode`: windows that begin within the image or the padding before it may overhang."""
    ends = []
    for n, k, s, d, (before, after) in zip(sizes, kernel, stride, dilation, pairs, strict=True):
        reach = d * (k - 1) + 1
        windows = -(-(n + before + after - reach) // s) + 1
        windows -= (windows - 1) * s >= n + before
        ends.append((before, max(after, (windows - 1) * s + reach - n - before)))
    return ends


@operator("Conv", weights=(1, 2))
def conv(
    x: Value,
    w: Value,
    b: Value | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    spatial = x.ndim - 2
    images, filters = _images(x), _images(w)
    stride, dilation = _pair(strides, spatial), _pair(dilations, spatial)
    pairs = _pads(auto_pad, pads, images.shape[2:], filters.shape[2:], stride, dilation, spatial)
    if _even(pairs):
        y = F.conv2d(images, filters, b, stride, (pairs[0][0], pairs[1][0]), dilation, group)
    else:
        y = F.conv2d(_surround(images, pairs), filters, b, stride, 0, dilation, group)
    return y if spatial == 2 else reshape(y, (*y.shape[:2], y.shape[3]))


@operator("ConvTranspose", weights=(1, 2))
def conv_transpose(
    x: Value,
    w: Value,
    b: Value | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    spatial = x.ndim - 2
    images, filters = _images(x), _images(w)
    stride, dilation = _pair(strides, spatial), _pair(dilations, spatial)
    extra = [0] * (2 - spatial) + list(output_padding or [0] * spatial)
    full = [
        (n - 1) * s + d * (k - 1) + 1
        for n, s, d, k in zip(images.shape[2:], stride, dilation, filters.shape[2:], strict=True)
    ]
    if output_shape is not None or auto_pad.startswith("SAME"):
        wanted = [n * s for n, s in zip(images.shape[2:], stride, strict=True)]
        if output_shape is not None:
            wanted = [1] * (2 - spatial) + list(output_shape)[-spatial:]
        pairs = []
        for size, target, e in zip(full, wanted, extra, strict=True):
            total = size + e - target
            less, more = total // 2, total - total // 2
            pairs.append((less, more) if auto_pad == "SAME_UPPER" else (more, less))
    else:
        given = _pads(auto_pad, pads, (), (), (), (), spatial)
        pairs = given
    even = (
        _even(pairs) and all(0 <= e < s for e, s in zip(extra, stride, strict=True)) and pairs[0][0] >= 0 <= pairs[1][0]
    )
    if even:
        padding = pairs[0][0], pairs[1][0]
        y: Value = F.conv_transpose2d(images, filters, b, stride, padding, (extra[0], extra[1]), group, dilation)
    else:  # the whole, cut or filled up to what is asked for
        y = F.conv_transpose2d(images, filters, None, stride, 0, 0, group, dilation)
        ends = [(max(0, -p), max(0, e - q)) for (p, q), e in zip(pairs, extra, strict=True)]
        y = _surround(y, ends)
        key = [slice(max(0, p), n - max(0, q - e)) for (p, q), n, e in zip(pairs, y.shape[2:], extra, strict=True)]
        y = F.index(y, (slice(None), slice(None), *key))
        y = y if b is None else F.add(y, reshape(b, (-1, 1, 1)))
    return y if spatial == 2 else reshape(y, (*y.shape[:2], y.shape[3]))


def _max_pool_refuses(node: Node) -> str | None:
    return "its second output, the indices, is not kept" if node.has_output(1) else _volume(node)


@operator("MaxPool", refuses=_max_pool_refuses)
def max_pool(
    x: Value,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
) -> Value:
    spatial = x.ndim - 2
    images = _images(x)
    dtype = images.dtype
    if dtype.kind != "f":  # float64 holds the 8 bits that ONNX permits
        images = Tensor(array(images).astype(np.float64))
    kernel, stride, dilation = _pair(kernel_shape, spatial), _pair(strides, spatial), _pair(dilations, spatial)
    pairs = _pads(auto_pad, pads, images.shape[2:], kernel, stride, dilation, spatial)
    fits = all(2 * before <= k for (before, _), k in zip(pairs, kernel, strict=True))
    if _even(pairs) and fits:
        y = F.max_pool2d(images, kernel, stride, (pairs[0][0], pairs[1][0]), dilation, bool(ceil_mode))
    else:
        ends = _ends(images.shape[2:], kernel, stride, dilation, pairs) if ceil_mode else pairs
        y = F.max_pool2d(_surround(images, ends, -math.inf), kernel, stride, 0, dilation)
    if dtype.kind != "f":
        y = Tensor(y.data.astype(dtype))
    return y if spatial == 2 else reshape(y, (*y.shape[:2], y.shape[3]))


@operator("AveragePool", refuses=_volume)
def average_pool(
    x: Value,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    spatial = x.ndim - 2
    images = _images(x)
    kernel, stride, dilation = _pair(kernel_shape, spatial), _pair(strides, spatial), _pair(dilations, spatial)
    pairs = _pads(auto_pad, pads, images.shape[2:], kernel, stride, dilation, spatial)
    fits = all(2 * before <= k for (before, _), k in zip(pairs, kernel, strict=True))
    if _even(pairs) and fits and dilation == (1, 1):
        padding = pairs[0][0], pairs[1][0]
        y = F.avg_pool2d(images, kernel, stride, padding, bool(ceil_mode), bool(count_include_pad))
    else:
        y = _average(images, kernel, stride, dilation, pairs, bool(ceil_mode), bool(count_include_pad))
    return y if spatial == 2 else reshape(y, (*y.shape[:2], y.shape[3]))


def _average(
    x: Value,
    kernel: Sequence[int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    pairs: Pairs,
    ceil_mode: bool,
    count_include_pad: bool,
) -> Tensor:
    """Sums of windows by a convolution, over how many pixels count in each."""
    ends = _ends(x.shape[2:], kernel, stride, dilation, pairs) if ceil_mode else list(pairs)
    ones = Tensor(np.ones((x.shape[1], 1, *kernel), x.dtype))
    sums = F.conv2d(_surround(x, ends), ones, None, stride, 0, dilation, x.shape[1])
    counted: Value = np.ones((1, 1, *x.shape[2:]), x.dtype)
    if count_include_pad:
        counted, ends = _surround(counted, pairs, 1.0), [(0, e - p) for (_, e), (_, p) in zip(ends, pairs, strict=True)]
    counts = F.conv2d(_surround(counted, ends), ones[:1], None, stride, 0, dilation)
    return F.div(sums, counts)


@operator("LpPool", refuses=_volume)
def lp_pool(
    x: Value,
    *,
    kernel_shape: Sequence[int],
    p: int = 2,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    powers = F.abs(x) if p == 1 else F.pow(F.abs(x), p)
    mean = average_pool(
        powers,
        kernel_shape=kernel_shape,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        count_include_pad=1,
        dilations=dilations,
        pads=pads,
        strides=strides,
    )
    sums = F.mul(mean, float(math.prod(kernel_shape)))
    return sums if p == 1 else F.pow(sums, 1 / p)


@operator("GlobalAveragePool")
def global_average_pool(x: Value) -> Value:
    return F.mean(x, tuple(range(2, x.ndim)), True)


@operator("GlobalMaxPool")
def global_max_pool(x: Value) -> Value:
    return F.max(x, tuple(range(2, x.ndim)), True)


# -- normalisation -----------------------------------------------------------------------------------------------------
@operator("BatchNormalization", weights=(1, 2))
def batch_normalization(
    x: Value,
    scale: Value,
    bias: Value,
    running_mean: Value,
    running_var: Value,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Value | tuple[Value, ...]:
    """The graph says whether it uses the batch's statistics: `train()` and `eval()` change nothing."""
    if not training_mode:
        return F.batch_norm(x, running_mean, running_var, scale, bias, eps=epsilon)
    y = F.batch_norm(x, None, None, scale, bias, training=True, eps=epsilon)
    axes = (0, *range(2, x.ndim))
    with no_grad():
        mean = F.mul(running_mean, momentum) + F.mean(x, axes) * (1 - momentum)
        var = F.mul(running_var, momentum) + F.var(x, axes, correction=0) * (1 - momentum)
    return y, mean, var


@operator("LayerNormalization", weights=(1, 2))
def layer_normalization(
    x: Value,
    scale: Value,
    bias: Value | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    node: Node,
) -> Value | tuple[Value, ...]:
    last = x.shape[axis:] if axis < 0 else x.shape[axis - x.ndim :]
    if scale.shape == last and (bias is None or bias.shape == last):
        y = F.layer_norm(x, last, scale, bias, epsilon)
    else:
        y = F.layer_norm(x, last, eps=epsilon) * scale
        y = y if bias is None else y + bias
    if len(node.outputs) == 1:
        return y
    axes = tuple(range(x.ndim - len(last), x.ndim))
    inverse = F.div(1.0, F.sqrt(F.var(x, axes, True, correction=0) + epsilon))
    return y, F.mean(x, axes, True), inverse


@operator("InstanceNormalization", weights=(1, 2))
def instance_normalization(x: Value, scale: Value, bias: Value, *, epsilon: float = 1e-5) -> Value:
    return F.group_norm(x, x.shape[1], scale, bias, epsilon)


@operator("GroupNormalization", weights=(1, 2))
def group_normalization(
    x: Value, scale: Value, bias: Value, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1, node: Node
) -> Value:
    if node.opset >= 21:  # scale and bias of each channel; before, of each group
        return F.group_norm(x, num_groups, scale, bias, epsilon)
    y = F.reshape(F.group_norm(x, num_groups, eps=epsilon), (x.shape[0], num_groups, -1))
    y = y * F.reshape(scale, (-1, 1)) + F.reshape(bias, (-1, 1))
    return reshape(y, x.shape)
