"""Convolution of images [N, C, H, W] and sequences [N, C, L], and pooling of images."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pynn import _core
from pynn.functional._args import Array, Gradients, Input, as_tensor, flag, integer, one_of, pair, require_floats
from pynn.functional.reduction import mean
from pynn.grad_mode import mode
from pynn.tape import _record as record
from pynn.tensor import Tensor

__all__ = ["avg_pool2d", "conv1d", "conv2d", "conv2d_max_pool2d", "global_avg_pool2d", "max_pool2d"]

Size = int | Sequence[int]  # of height and width, or a pair of them


ACTIVATIONS = ("none", "relu")


def conv2d(
    x: Input,
    weight: Input,
    bias: Input | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    activation: str = "none",
) -> Tensor:
    """Cross-correlate images with filters.

    Parameters
    ----------
    x, weight, bias
        Shapes [N, C, H, W], [O, C/groups, KH, KW] and [O].
    stride, dilation
        Integer, or a pair for height and width.
    padding
        Zeros on each side: an integer, a pair, "valid" (none), or "same" (output as large as the input; stride 1 only;
        where the zeros do not split evenly, the extra one is at the bottom or right).
    groups
        Number of groups of channels that do not see each other.
    activation
        "none" or "relu", applied in the same pass.

    Returns
    -------
    Tensor
        Shape [N, O, OH, OW] with OH = (H + pads - dilation * (KH - 1) - 1) // stride + 1.

    Examples
    --------
    >>> import pynn
    >>> pynn.functional.conv2d(pynn.ones(2, 3, 8, 8), pynn.ones(4, 3, 3, 3), padding="same").shape
    (2, 4, 8, 8)
    """
    parents, b, needs = _operands("conv2d", x, weight, bias, activation)
    x, weight = parents[:2]
    value, w = x.data, weight.data
    how = (*_geometry("conv2d", w, stride, padding, dilation, groups), activation)
    y = _core.conv2d(value, w, b, *how)
    has_relu = activation == "relu"

    def backward(dy: Array) -> Gradients:
        return _core.conv2d_backward(dy, y if has_relu else None, value, w, *how, *needs)[: len(parents)]

    return record("conv2d", y, parents, backward, (x, weight), saves_output=has_relu)


def conv1d(
    x: Input,
    weight: Input,
    bias: Input | None = None,
    stride: int = 1,
    padding: int | str = 0,
    dilation: int = 1,
    groups: int = 1,
    activation: str = "none",
) -> Tensor:
    """Cross-correlate sequences with filters: `conv2d` of images one pixel high.

    Parameters
    ----------
    x, weight, bias
        Shapes [N, C, L], [O, C/groups, K] and [O].
    stride, dilation
        Integers.
    padding
        Zeros on each side: an integer, "valid" (none), or "same" (output as long as the input; stride 1 only; where the
        zeros do not split evenly, the extra one is at the end).
    groups
        Number of groups of channels that do not see each other.
    activation
        "none" or "relu", applied in the same pass.

    Returns
    -------
    Tensor
        Shape [N, O, OL] with OL = (L + pads - dilation * (K - 1) - 1) // stride + 1.

    Examples
    --------
    >>> import pynn
    >>> pynn.functional.conv1d(pynn.ones(2, 3, 16), pynn.ones(4, 3, 5), stride=2).shape
    (2, 4, 6)
    """
    parents, b, needs = _operands("conv1d", x, weight, bias, activation)
    x, weight = parents[:2]
    for name, tensor, axes in (("input", x, "[N, C, L]"), ("weight", weight, "[O, C/groups, K]")):
        if tensor.ndim != 3:
            raise ValueError(f"conv1d: {name} {list(tensor.shape)} needs 3 axes, {axes}")
    value, w = (a.reshape(a.shape[0], a.shape[1], 1, a.shape[2]) for a in (x.data, weight.data))
    strides, dilations = (1, integer("conv1d", "stride", stride)), (1, integer("conv1d", "dilation", dilation))
    if not isinstance(padding, str):
        padding = integer("conv1d", "padding", padding)
    try:
        pads = _pads("conv1d", padding if isinstance(padding, str) else (0, padding), w.shape, strides, dilations)
        how = (strides, pads, dilations, integer("conv1d", "groups", groups), activation)
        y = _core.conv2d(value, w, b, *how)
    except (TypeError, ValueError) as error:
        raise type(error)(_without_height(str(error))) from None
    has_relu = activation == "relu"

    def backward(dy: Array) -> Gradients:
        dx, dw, db = _core.conv2d_backward(dy.reshape(y.shape), y if has_relu else None, value, w, *how, *needs)
        dx, dw = None if dx is None else dx.reshape(x.shape), None if dw is None else dw.reshape(weight.shape)
        return (dx, dw, db)[: len(parents)]

    flat = y.reshape(y.shape[0], y.shape[1], y.shape[3])
    return record("conv1d", flat, parents, backward, (x, weight), saves_output=has_relu)


def _without_height(message: str) -> str:
    """What `conv2d` says of images one pixel high, in the sizes that the caller of `conv1d` gave."""
    message = message.replace("conv2d", "conv1d", 1)
    message = re.sub(r"((?:input|weight) \[\d+, \d+), 1,", r"\1,", message)
    message = re.sub(r"(padding (?:is )?\[)0, 0, ", r"\1", message)
    return re.sub(r"((?:kernel|stride|dilation) (?:is )?|stride 1, got )\[1, (-?\d+)\]", r"\1\2", message)


def conv2d_max_pool2d(
    x: Input,
    weight: Input,
    bias: Input | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    activation: str = "none",
) -> Tensor:
    """Return `max_pool2d(conv2d(...), 2)` in one pass, whose backward never makes the gradient between the two.

    At most one element in four of that gradient differs from zero: only these are multiplied. Parameters are those of
    `conv2d`; the result has the bits of the two calls, the gradients differ by rounding. `nn.Sequential` chooses this
    for Conv2d, (ReLU,) MaxPool2d(2).

    Returns
    -------
    Tensor
        Shape [N, O, OH // 2, OW // 2] with OH and OW as in `conv2d`; ValueError if one of them is below 2.

    Examples
    --------
    >>> import pynn
    >>> images, weight = pynn.ones(2, 1, 28, 28), pynn.ones(6, 1, 5, 5)
    >>> pynn.functional.conv2d_max_pool2d(images, weight, padding=2, activation="relu").shape
    (2, 6, 14, 14)
    """
    parents, b, needs = _operands("conv2d_max_pool2d", x, weight, bias, activation)
    x, weight = parents[:2]
    value, w = x.data, weight.data
    how = (*_geometry("conv2d_max_pool2d", w, stride, padding, dilation, groups), activation)
    need_indices = mode.enabled and any(parent.requires_grad for parent in parents)
    y, indices = _core.conv2d_max_pool2d(value, w, b, *how, need_indices)

    def backward(dy: Array) -> Gradients:
        return _core.conv2d_max_pool2d_backward(dy, y, indices, value, w, *how, *needs)[: len(parents)]

    return record("conv2d_max_pool2d", y, parents, backward, (x, weight), saves_output=activation != "none")


def _operands(
    op: str, x: Input, weight: Input, bias: Input | None, activation: str
) -> tuple[tuple[Tensor, ...], Array | None, tuple[bool, bool, bool]]:
    """The parents, the bias as an array, and which of x, weight and bias need a gradient."""
    one_of(op, "activation", activation, ACTIVATIONS)
    x, weight = as_tensor(x), as_tensor(weight)
    if bias is None:
        return (x, weight), None, (x.requires_grad, weight.requires_grad, False)
    bias = as_tensor(bias)
    return (x, weight, bias), bias.data, (x.requires_grad, weight.requires_grad, bias.requires_grad)


def _geometry(
    op: str, weight: Array, stride: Size, padding: Size | str, dilation: Size, groups: int
) -> tuple[tuple[int, int], tuple[int, int, int, int], tuple[int, int], int]:
    """Stride, zeros at top, bottom, left and right, dilation, and groups, as the core takes them."""
    strides, dilations = pair(op, "stride", stride), pair(op, "dilation", dilation)
    return strides, _pads(op, padding, weight.shape, strides, dilations), dilations, integer(op, "groups", groups)


def _pads(
    op: str, padding: Size | str, weight_shape: tuple[int, ...], stride: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int, int, int]:
    if not isinstance(padding, str):
        vertical, horizontal = pair(op, "padding", padding)
        return vertical, vertical, horizontal, horizontal
    if padding == "valid":
        return 0, 0, 0, 0
    if padding != "same":
        raise ValueError(f"{op}: padding must be integers, 'same' or 'valid', got {padding!r}")
    if stride != (1, 1):
        raise ValueError(f"{op}: padding='same' needs stride 1, got {list(stride)}")
    if len(weight_shape) != 4:
        raise ValueError(f"{op}: weight {list(weight_shape)} needs 4 axes [O, C/groups, KH, KW]")
    height, width = (d * (k - 1) for d, k in zip(dilation, weight_shape[2:], strict=True))
    return height // 2, height - height // 2, width // 2, width - width // 2


def max_pool2d(
    x: Input,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """Return the maximum of each window of [N, C, H, W]; NaN wins, padding never does.

    `stride` is `kernel_size` by default. `ceil_mode` keeps windows that overhang at the bottom and right. The gradient
    goes to the first maximum of a window.

    >>> import pynn
    >>> pynn.functional.max_pool2d(pynn.ones(1, 1, 4, 6), 2).shape
    (1, 1, 2, 3)
    """
    x = as_tensor(x)
    value = x.data
    kernel = pair("max_pool2d", "kernel_size", kernel_size)
    strides = kernel if stride is None else pair("max_pool2d", "stride", stride)
    pads, dilations = pair("max_pool2d", "padding", padding), pair("max_pool2d", "dilation", dilation)
    if ceil_mode is not False:
        ceil_mode = flag("max_pool2d", "ceil_mode", ceil_mode)
    y, indices = _core.max_pool2d(value, kernel, strides, pads, dilations, ceil_mode)
    shape = value.shape

    def backward(dy: Array) -> Gradients:
        return (_core.max_pool2d_backward(dy, indices, shape, kernel, strides, pads, dilations),)

    return record("max_pool2d", y, (x,), backward)


def avg_pool2d(
    x: Input,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """Return the mean of each window of [N, C, H, W].

    `stride` is `kernel_size` by default. `count_include_pad` divides by the window's size even where it covers padding.

    >>> import pynn
    >>> pynn.functional.avg_pool2d(pynn.ones(1, 1, 4, 6), 2).shape
    (1, 1, 2, 3)
    """
    x = as_tensor(x)
    shape = x.data.shape
    kernel = pair("avg_pool2d", "kernel_size", kernel_size)
    strides = kernel if stride is None else pair("avg_pool2d", "stride", stride)
    pads = pair("avg_pool2d", "padding", padding)
    ceil_mode = flag("avg_pool2d", "ceil_mode", ceil_mode)
    count_include_pad = flag("avg_pool2d", "count_include_pad", count_include_pad)
    y = _core.avg_pool2d(x.data, kernel, strides, pads, ceil_mode, count_include_pad)

    def backward(dy: Array) -> Gradients:
        return (_core.avg_pool2d_backward(dy, shape, kernel, strides, pads, count_include_pad),)

    return record("avg_pool2d", y, (x,), backward)


def global_avg_pool2d(x: Input) -> Tensor:
    """Return the mean of each channel: [N, C, H, W] to [N, C] (Lin et al. 2013).

    >>> import pynn
    >>> pynn.functional.global_avg_pool2d(pynn.ones(2, 3, 4, 4)).shape
    (2, 3)
    """
    x = as_tensor(x)
    if x.ndim != 4:
        raise ValueError(f"global_avg_pool2d: input {list(x.shape)} needs 4 axes [N, C, H, W]")
    require_floats("global_avg_pool2d", "input", x)
    return mean(x, (2, 3))
