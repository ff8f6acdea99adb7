"""Resizing of images, and convolution that enlarges them."""

from __future__ import annotations

import math

import numpy as np

from pynn import _core
from pynn._array import check_elements
from pynn.functional._args import (
    INT64_MAX,
    Array,
    Gradients,
    Input,
    as_tensor,
    flag,
    integer,
    number,
    one_of,
    pair,
    renamed,
    require_floats,
)
from pynn.functional.conv import Size
from pynn.functional.linear import matmul
from pynn.tape import _record as record
from pynn.tape import constant
from pynn.tensor import Tensor

__all__ = ["conv_transpose2d", "interpolate"]


def conv_transpose2d(
    x: Input,
    weight: Input,
    bias: Input | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """Apply the transpose of `conv2d` as a linear map, known as deconvolution (Zeiler et al. 2010).

    Parameters
    ----------
    x, weight, bias
        Shapes [N, C, H, W], [C, O/groups, KH, KW] and [O].
    stride, padding, dilation
        Those of the convolution that it transposes: an integer, or a pair for height and width.
    output_padding
        Rows and columns of the output beyond those that the input decides, at the bottom and right; less than the
        stride. (PyTorch also takes more, less than the dilation.)
    groups
        Number of groups of channels that do not see each other.

    Returns
    -------
    Tensor
        Shape [N, O, OH, OW] with OH = (H - 1) * stride - 2 * padding + dilation * (KH - 1) + output_padding + 1.

    Examples
    --------
    >>> import pynn
    >>> x, weight = pynn.ones(2, 3, 8, 8), pynn.ones(3, 4, 3, 3)
    >>> pynn.functional.conv_transpose2d(x, weight, stride=2, padding=1, output_padding=1).shape
    (2, 4, 16, 16)
    """
    op = "conv_transpose2d"
    x, weight = as_tensor(x), as_tensor(weight)
    parents: tuple[Tensor, ...] = (x, weight) if bias is None else (x, weight, as_tensor(bias))
    require_floats(op, "input", x)
    value, w = x.data, weight.data
    groups = integer(op, "groups", groups)
    strides, dilations = pair(op, "stride", stride), pair(op, "dilation", dilation)
    vertical, horizontal = pair(op, "padding", padding)
    extra = pair(op, "output_padding", output_padding)
    if value.ndim != 4 or w.ndim != 4 or value.shape[1] != w.shape[0]:
        raise ValueError(
            f"{op}: input {list(value.shape)} and weight {list(w.shape)} do not fit; "
            "needs [N, C, H, W] and [C, O/groups, KH, KW]"
        )
    if groups < 1 or value.shape[1] % groups:
        raise ValueError(f"{op}: {value.shape[1]} channels do not divide into {groups} groups")
    if min(*strides, *dilations) < 1 or min(vertical, horizontal) < 0:
        raise ValueError(
            f"{op}: stride {list(strides)}, dilation {list(dilations)} and padding {[vertical, horizontal]} "
            "need at least 1, 1 and 0"
        )
    if not all(0 <= e < s for e, s in zip(extra, strides, strict=True)):
        raise ValueError(
            f"{op}: output_padding {list(extra)} needs at least 0 and less than the stride {list(strides)}"
        )
    channels = w.shape[1] * groups
    size = [
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, s, p, d, k, e in zip(
            value.shape[2:], strides, (vertical, horizontal), dilations, w.shape[2:], extra, strict=True
        )
    ]
    if min(size) < 1:
        raise ValueError(f"{op}: output [{value.shape[0]}, {channels}, {size[0]}, {size[1]}] needs sizes of at least 1")
    check_elements(op, "output", (value.shape[0], channels, *size))
    b = parents[2].data if bias is not None else None
    if b is not None and b.shape != (channels,):
        raise ValueError(f"{op}: bias {list(b.shape)} needs the shape [{channels}]")
    how = (strides, (vertical, vertical, horizontal, horizontal), dilations, groups, "none")
    # The convolution reads images of the output's shape; its gradient for them needs no values of theirs.
    images = _core.empty((value.shape[0], channels, *size), value.dtype)
    try:
        y = _core.conv2d_backward(value, None, images, w, *how, True, False, False)[0]
    except (TypeError, ValueError) as error:
        raise renamed(error, "conv2d_backward", op) from None
    assert y is not None  # asked for
    if b is not None:
        try:
            y = _core.add(y, b.reshape(-1, 1, 1))
        except TypeError as error:
            raise renamed(error, "add: b", f"{op}: bias") from None
    need_x, need_weight = x.requires_grad, weight.requires_grad

    def backward(dy: Array) -> Gradients:
        dx = _core.conv2d(dy, w, None, *how) if need_x else None
        dw = _core.conv2d_backward(value, None, dy, w, *how, False, True, False)[1] if need_weight else None
        return (dx, dw, _core.sum(dy, (0, 2, 3), False))[: len(parents)]

    return record(op, y, parents, backward, (x, weight))


def interpolate(
    x: Input,
    size: Size | None = None,
    scale_factor: float | tuple[float, float] | None = None,
    mode: str = "nearest",
    align_corners: bool = False,
) -> Tensor:
    """Resize images [N, C, H, W] to `size`, or by `scale_factor`.

    Each axis is a product with a matrix that is mostly zeros: one NaN or infinity makes NaN of its plane [H, W], except
    for the pixels that take a part of the infinity.

    Parameters
    ----------
    size
        Height and width of the result: an integer for both, or a pair.
    scale_factor
        In place of `size`: the result has ⌊H · factor⌋ rows; a number, or a pair for height and width.
    mode
        "nearest" copies the pixel that a new one's upper left corner falls on, "bilinear" weights the four pixels
        around its centre; pixels do not grow when an image shrinks (PyTorch's antialias=False).
    align_corners
        For "bilinear": whether the centres of the corner pixels, rather than the image's corners, stay where they are.

    Examples
    --------
    >>> import pynn
    >>> x = pynn.tensor([[[[0.0, 4.0]]]])
    >>> pynn.functional.interpolate(x, (1, 4), mode="bilinear")
    Tensor([[[[0., 1., 3., 4.]]]], dtype=float32)
    """
    one_of("interpolate", "mode", mode, ("nearest", "bilinear"))
    align_corners = flag("interpolate", "align_corners", align_corners)
    if align_corners and mode != "bilinear":
        raise ValueError("interpolate: align_corners needs mode 'bilinear'")
    x = as_tensor(x)
    if x.ndim != 4:
        raise ValueError(f"interpolate: input {list(x.shape)} needs 4 axes [N, C, H, W]")
    require_floats("interpolate", "input", x)
    old = x.shape[2:]
    if size is not None and scale_factor is None:
        new = pair("interpolate", "size", size)
        factors = tuple(n / max(1, o) for n, o in zip(new, old, strict=True))
    elif size is not None or scale_factor is None:
        raise ValueError("interpolate: needs either size or scale_factor")
    else:
        given = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor, scale_factor)
        factors = tuple(number("interpolate", "scale_factor", f) for f in given)
        if len(factors) != 2 or not all(0 < f < math.inf for f in factors):
            raise ValueError(f"interpolate: scale_factor is {scale_factor}, needs one or two numbers above 0")
        new = int(min(old[0] * factors[0], INT64_MAX)), int(min(old[1] * factors[1], INT64_MAX))
    if min(*new, *old) < 1:
        raise ValueError(f"interpolate: {list(old)} to {list(new)} pixels, needs at least 1 along each axis")
    check_elements("interpolate", "result", (*x.shape[:2], *new))  # before the weights, which are large as well
    rows, columns = (
        constant(_weights(o, n, f, mode, align_corners).astype(x.dtype))
        for o, n, f in zip(old, new, factors, strict=True)
    )
    return matmul(matmul(rows, x), columns, transpose_b=True)


def _weights(old: int, new: int, factor: float, mode: str, align_corners: bool) -> Array:
    """[new, old]: the weights of the old pixels along one axis in each new one."""
    at = np.arange(new)
    pixels = np.eye(old)
    if mode == "nearest":
        left = np.minimum((at / factor).astype(int), old - 1)
        return np.asarray(pixels[left])
    if align_corners:
        where = at * ((old - 1) / (new - 1)) if new > 1 else np.zeros(1)
    else:
        where = np.maximum((at + 0.5) / factor - 0.5, 0)
    left = np.minimum(where.astype(int), old - 1)
    share = (where - left)[:, None]
    return np.asarray((1 - share) * pixels[left] + share * pixels[np.minimum(left + 1, old - 1)])
