"""Layers with weights, pooling, and the layers that change shape or drop values."""

from __future__ import annotations

import math
from typing import Any

from pynn import functional as F
from pynn._array import check_elements, empty
from pynn._checks import flag, whole
from pynn.functional._args import integer, number, pair
from pynn.nn import init
from pynn.nn.module import Module, Parameter
from pynn.tensor import Tensor

IntPair = int | tuple[int, int]


def check_sizes(operation: str, **sizes: int) -> None:
    """Refuse sizes that are not positive integers, by name."""
    for name, size in sizes.items():
        check_elements(operation, name, [whole(f"{operation}: {name}", size, 1)])


def sizes_pair(operation: str, argument: str, value: IntPair, least: int = 1) -> tuple[int, int]:
    """Return the sizes for height and width."""
    sizes = pair(operation, argument, value)
    if min(sizes) < least:
        raise ValueError(f"{operation}: {argument} is {list(sizes)}, needs at least {least}")
    return sizes


def reset(weight: Parameter, bias: Parameter | None) -> None:
    """Draw U(-1/√fan_in, 1/√fan_in) for both, PyTorch's default (LeCun et al. 1998, "Efficient BackProp", §4.6)."""
    init.kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        bound = 1 / math.sqrt(weight.size // weight.shape[0])
        init.uniform_(bias, -bound, bound)


class Linear(Module):
    """y = x weightᵀ + bias: x [..., in_features] -> y [..., out_features].

    `weight` [out_features, in_features] and `bias` [out_features] start as U(-k, k) with k = 1/√in_features.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> nn.Linear(3, 2)(np.zeros((5, 3), np.float32)).shape
    (5, 2)
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        check_sizes("Linear", in_features=in_features, out_features=out_features)
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(empty("Linear", out_features, in_features))
        self.bias = Parameter(empty("Linear", out_features)) if flag("Linear", "bias", bias) else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        reset(self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., out_features]; ValueError if the last axis of `x` is not `in_features`."""
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class _Convolution(Module):
    """What Conv1d and Conv2d share; they set the attributes declared here, checked, before they call `__init__`."""

    kernel_size: Any
    stride: Any
    padding: Any
    dilation: Any

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, ...], groups: int, bias: bool) -> None:
        name = type(self).__name__
        check_sizes(name, in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"{name}: {in_channels} -> {out_channels} channels do not divide into {groups} groups")
        if isinstance(self.padding, int) and self.padding < 0:
            raise ValueError(f"{name}: padding is {self.padding}, needs at least 0")
        if isinstance(self.padding, str) and self.padding not in ("same", "valid"):
            raise ValueError(f"{name}: padding is {self.padding!r}, needs integers, 'same' or 'valid'")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.groups = groups
        self.weight = Parameter(empty(name, out_channels, in_channels // groups, *kernel))
        self.bias = Parameter(empty(name, out_channels)) if flag(name, "bias", bias) else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        reset(self.weight, self.bias)

    def extra_repr(self) -> str:
        """Return the sizes, and what is not default."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        text += f", padding={self.padding}" if self.padding not in (0, (0, 0), "valid") else ""
        text += f", dilation={self.dilation}" if self.dilation not in (1, (1, 1)) else ""
        text += f", groups={self.groups}" if self.groups != 1 else ""
        return text + (", bias=False" if self.bias is None else "")


class Conv2d(_Convolution):
    """Cross-correlation of x [N, in_channels, H, W] with `weight` [out_channels, in_channels/groups, KH, KW].

    `weight` and `bias` [out_channels] start as U(-k, k) with k = 1/√(in_channels/groups · KH · KW).

    Parameters
    ----------
    in_channels, out_channels : int
        Both divisible by `groups`.
    kernel_size, stride, dilation : int or (int, int)
        For height and width.
    padding : int, (int, int), "same" or "valid"
        Zeros on both sides; "same" keeps H and W and needs stride 1.
    groups : int
        Number of independent groups of channels.
    bias : bool
        False leaves the bias out.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> nn.Conv2d(1, 8, 5, padding=2)(np.zeros((2, 1, 28, 28), np.float32)).shape
    (2, 8, 28, 28)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: IntPair | str = 0,
        dilation: IntPair = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        self.kernel_size = kernel = sizes_pair("Conv2d", "kernel_size", kernel_size)
        self.stride = sizes_pair("Conv2d", "stride", stride)
        self.padding = padding if isinstance(padding, str) else sizes_pair("Conv2d", "padding", padding, least=0)
        self.dilation = sizes_pair("Conv2d", "dilation", dilation)
        super().__init__(in_channels, out_channels, kernel, groups, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, out_channels, OH, OW]; ValueError if `x` does not fit."""
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Conv1d(_Convolution):
    """Cross-correlation of x [N, in_channels, L] with `weight` [out_channels, in_channels/groups, kernel_size].

    `weight` and `bias` [out_channels] start as U(-k, k) with k = 1/√(in_channels/groups · kernel_size).

    Parameters
    ----------
    in_channels, out_channels : int
        Both divisible by `groups`.
    kernel_size, stride, dilation : int
        At least 1.
    padding : int, "same" or "valid"
        Zeros on both sides; "same" keeps L and needs stride 1.
    groups : int
        Number of independent groups of channels.
    bias : bool
        False leaves the bias out.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> nn.Conv1d(1, 8, 5, padding=2)(np.zeros((2, 1, 100), np.float32)).shape
    (2, 8, 100)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int | str = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        check_sizes("Conv1d", kernel_size=kernel_size, stride=stride, dilation=dilation)
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding if isinstance(padding, str) else integer("Conv1d", "padding", padding)
        self.dilation = dilation
        super().__init__(in_channels, out_channels, (kernel_size,), groups, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, out_channels, OL]; ValueError if `x` does not fit."""
        return F.conv1d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Embedding(Module):
    """Rows of `weight` [num_embeddings, embedding_dim], drawn from N(0, 1): integer indices [...] -> [..., dim].

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> nn.Embedding(10, 4)(np.array([[1, 2, 9]])).shape
    (1, 3, 4)
    """

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        check_sizes("Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.weight = Parameter(empty("Embedding", num_embeddings, embedding_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weight anew."""
        init.normal_(self.weight)

    def forward(self, indices: Tensor) -> Tensor:
        """Return [..., embedding_dim]; IndexError if an index is not in 0..num_embeddings-1."""
        return F.embedding(indices, self.weight)

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{self.num_embeddings}, {self.embedding_dim}"


class MaxPool2d(Module):
    """Maximum over windows of x [N, C, H, W]; `stride` defaults to `kernel_size`.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> nn.MaxPool2d(2)(np.zeros((1, 3, 8, 8), np.float32)).shape
    (1, 3, 4, 4)
    """

    def __init__(
        self,
        kernel_size: IntPair,
        stride: IntPair | None = None,
        padding: IntPair = 0,
        dilation: IntPair = 1,
        ceil_mode: bool = False,
    ) -> None:
        self.kernel_size = sizes_pair("MaxPool2d", "kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else sizes_pair("MaxPool2d", "stride", stride)
        self.padding = sizes_pair("MaxPool2d", "padding", padding, least=0)
        self.dilation = sizes_pair("MaxPool2d", "dilation", dilation)
        self.ceil_mode = ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C, OH, OW]."""
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)

    def extra_repr(self) -> str:
        """Return the window."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"ceil_mode={self.ceil_mode}"
        )


class AvgPool2d(Module):
    """Mean over windows of x [N, C, H, W]; `stride` defaults to `kernel_size`.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> nn.AvgPool2d(2)(np.zeros((1, 3, 8, 8), np.float32)).shape
    (1, 3, 4, 4)
    """

    def __init__(
        self,
        kernel_size: IntPair,
        stride: IntPair | None = None,
        padding: IntPair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self.kernel_size = sizes_pair("AvgPool2d", "kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else sizes_pair("AvgPool2d", "stride", stride)
        self.padding = sizes_pair("AvgPool2d", "padding", padding, least=0)
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C, OH, OW]."""
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def extra_repr(self) -> str:
        """Return the window."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class GlobalAvgPool2d(Module):
    """Mean over height and width: x [N, C, H, W] -> [N, C].

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> nn.GlobalAvgPool2d()(np.zeros((2, 3, 8, 8), np.float32)).shape
    (2, 3)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C]."""
        return F.global_avg_pool2d(x)


class Flatten(Module):
    """Merge the axes from `start_dim` to the last into one: [N, C, H, W] -> [N, C·H·W].

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> nn.Flatten()(np.zeros((2, 3, 4, 5), np.float32)).shape
    (2, 60)
    """

    def __init__(self, start_dim: int = 1) -> None:
        self.start_dim = start_dim

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of `start_dim` + 1 axes."""
        return F.flatten(x, self.start_dim)

    def extra_repr(self) -> str:
        """Return the first merged axis."""
        return f"start_dim={self.start_dim}"


class Dropout(Module):
    """In training, zero each value with probability `p` and scale the others by 1/(1-p); else the identity.

    Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> nn.Dropout(0.5).eval()(np.ones(2, np.float32)).numpy()
    array([1., 1.], dtype=float32)
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= number("Dropout", "p", p) <= 1:
            raise ValueError(f"Dropout: p is {p}, needs 0 <= p <= 1")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return an output of the same shape."""
        return F.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        """Return the probability."""
        return f"p={self.p}"


class Identity(Module):
    """Return the input.

    Examples
    --------
    >>> from pynn import nn
    >>> nn.Identity()(3)
    3
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` itself."""
        return x
