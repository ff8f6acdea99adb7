"""Layers that enlarge images, and that give an axis a shape."""

from __future__ import annotations

from pynn import functional as F
from pynn._array import empty
from pynn.functional._args import as_tensor, axis_index, flag, integer, integers
from pynn.nn.layers import IntPair, check_sizes, reset, sizes_pair
from pynn.nn.module import Module, Parameter
from pynn.tensor import Tensor


class ConvTranspose2d(Module):
    """The transpose of `Conv2d`: x [N, in_channels, H, W], `weight` [in_channels, out_channels/groups, KH, KW].

    `weight` and `bias` [out_channels] start as U(-k, k) with k = 1/√(out_channels/groups · KH · KW), as in PyTorch.

    Parameters
    ----------
    in_channels, out_channels : int
        Both divisible by `groups`.
    kernel_size, stride, dilation : int or (int, int)
        Of the convolution that it transposes, for height and width.
    padding : int or (int, int)
        What that convolution pads; here rows and columns fall away.
    output_padding : int or (int, int)
        Rows and columns added at the bottom and right, less than the stride.
    groups : int
        Number of independent groups of channels.
    bias : bool
        False leaves the bias out.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> nn.ConvTranspose2d(8, 1, 4, stride=2, padding=1)(np.zeros((2, 8, 7, 7), np.float32)).shape
    (2, 1, 14, 14)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: IntPair = 0,
        output_padding: IntPair = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: IntPair = 1,
    ) -> None:
        check_sizes("ConvTranspose2d", in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"ConvTranspose2d: {in_channels} -> {out_channels} channels do not divide into {groups} groups"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = sizes_pair("ConvTranspose2d", "kernel_size", kernel_size)
        self.stride = sizes_pair("ConvTranspose2d", "stride", stride)
        self.padding = sizes_pair("ConvTranspose2d", "padding", padding, least=0)
        self.output_padding = sizes_pair("ConvTranspose2d", "output_padding", output_padding, least=0)
        self.groups = groups
        self.dilation = sizes_pair("ConvTranspose2d", "dilation", dilation)
        self.weight = Parameter(empty("ConvTranspose2d", in_channels, out_channels // groups, *self.kernel_size))
        has_bias = flag("ConvTranspose2d", "bias", bias)
        self.bias = Parameter(empty("ConvTranspose2d", out_channels)) if has_bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        reset(self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, out_channels, OH, OW]; ValueError if `x` does not fit."""
        return F.conv_transpose2d(
            x, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )

    def extra_repr(self) -> str:
        """Return the sizes, and what is not default."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        text += f", padding={self.padding}" if self.padding != (0, 0) else ""
        text += f", output_padding={self.output_padding}" if self.output_padding != (0, 0) else ""
        text += f", dilation={self.dilation}" if self.dilation != (1, 1) else ""
        text += f", groups={self.groups}" if self.groups != 1 else ""
        return text + (", bias=False" if self.bias is None else "")


class Upsample(Module):
    """Resize images [N, C, H, W]; arguments are those of `functional.interpolate`.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> nn.Upsample(scale_factor=2)(np.zeros((1, 3, 4, 4), np.float32)).shape
    (1, 3, 8, 8)
    """

    def __init__(
        self,
        size: IntPair | None = None,
        scale_factor: float | tuple[float, float] | None = None,
        mode: str = "nearest",
        align_corners: bool = False,
    ) -> None:
        self.size = size
        self.scale_factor = scale_factor
        self.mode = mode
        self.align_corners = flag("Upsample", "align_corners", align_corners)

    def forward(self, x: Tensor) -> Tensor:
        """Return the resized images."""
        return F.interpolate(x, self.size, self.scale_factor, self.mode, self.align_corners)

    def extra_repr(self) -> str:
        """Return the options."""
        text = f"size={self.size}" if self.size is not None else f"scale_factor={self.scale_factor}"
        return f"{text}, mode={self.mode!r}"


class Unflatten(Module):
    """Give axis `dim` the shape `unflattened_size`: the inverse of `Flatten`. One size may be -1.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> nn.Unflatten(1, (3, 4, 5))(np.zeros((2, 60), np.float32)).shape
    (2, 3, 4, 5)
    """

    def __init__(self, dim: int, unflattened_size: tuple[int, ...] | list[int]) -> None:
        self.dim = integer("Unflatten", "dim", dim)
        self.unflattened_size = integers("Unflatten", "unflattened_size", unflattened_size)
        if not self.unflattened_size:
            raise ValueError("Unflatten: unflattened_size is [], needs at least one size")

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with more axes; ValueError if the sizes do not multiply to that of the axis."""
        x = as_tensor(x)
        dim = axis_index("Unflatten", self.dim, x.ndim)
        return x.reshape((*x.shape[:dim], *self.unflattened_size, *x.shape[dim + 1 :]))

    def extra_repr(self) -> str:
        """Return axis and sizes."""
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
