"""Normalisation layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pynn import functional as F
from pynn._checks import flag, real
from pynn.functional._args import as_tensor
from pynn.grad_mode import mode
from pynn.nn.layers import check_sizes
from pynn.nn.module import Module, Parameter
from pynn.tensor import Tensor


class _BatchNorm(Module):
    """Batch normalisation over axis 1; subclasses say how many axes the input has.

    With statistics over all axes but the channel's: y = (x - mean) / √(var + eps) · weight + bias (Ioffe and Szegedy
    2015, arXiv:1502.03167). In training the statistics are the batch's, and `running_mean` and `running_var` (the
    unbiased variance) move towards them by `momentum`; in evaluation the running ones are used.
    """

    _ndims: tuple[int, ...]
    running_mean: npt.NDArray[Any] | None
    running_var: npt.NDArray[Any] | None
    num_batches_tracked: npt.NDArray[np.int64]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        name = type(self).__name__
        check_sizes(name, num_features=num_features)
        self.num_features = num_features
        self.eps = real(f"{name}: eps", eps, 0)
        self.momentum = None if momentum is None else real(f"{name}: momentum", momentum)
        self.track_running_stats = flag(name, "track_running_stats", track_running_stats)
        affine = flag(name, "affine", affine)
        self.weight = Parameter(np.ones(num_features, np.float32)) if affine else None
        self.bias = Parameter(np.zeros(num_features, np.float32)) if affine else None
        if self.track_running_stats:
            self.register_buffer("running_mean", np.zeros(num_features, np.float32))
            self.register_buffer("running_var", np.ones(num_features, np.float32))
            self.register_buffer("num_batches_tracked", np.array(0, np.int64))
        else:
            self.running_mean = self.running_var = None

    def forward(self, x: Tensor) -> Tensor:
        """Return an output of the same shape.

        Raises
        ------
        ValueError
            If the number of axes or channels does not fit, or in training if a channel has a single value.
        """
        name, x = type(self).__name__, as_tensor(x)
        if x.ndim not in self._ndims or x.shape[1] != self.num_features:
            axes = " or ".join(str(n) for n in self._ndims)
            raise ValueError(f"{name}: input {list(x.shape)}, needs {axes} axes and {self.num_features} channels")
        training = self.training or self.running_mean is None
        if training and x.size < 2 * self.num_features:
            raise ValueError(f"{name}: input {list(x.shape)}, training needs two values per channel or more")
        momentum = self.momentum
        if momentum is None:  # the mean of all batches so far
            momentum = 0.0
            if self.training and self.track_running_stats:
                if mode.recorder is not None:
                    mode.recorder.averages(name)
                momentum = 1 / (int(self.num_batches_tracked) + 1)
        y = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training, momentum, self.eps)
        if self.training and self.track_running_stats:
            self.num_batches_tracked += 1
            if mode.recorder is not None:
                mode.recorder.counts(self)
        return y

    def extra_repr(self) -> str:
        """Return the sizes and options."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.weight is not None}, "
            f"track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of x [N, C] or [N, C, L]; see Ioffe and Szegedy 2015, arXiv:1502.03167.

    Parameters
    ----------
    num_features : int
        C.
    eps : float
        Added to the variance.
    momentum : float, optional
        Weight of the new batch in the running statistics; None: they are the means of all batches so far, whose number
        a captured step would have to know, so that capture refuses it in training.
    affine : bool
        Whether there are `weight` [C] (ones) and `bias` [C] (zeros).
    track_running_stats : bool
        False uses the statistics of the batch in evaluation too.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> nn.BatchNorm1d(1)(np.array([[-1.0], [1.0]], np.float32)).numpy().round(3).ravel()
    array([-1.,  1.], dtype=float32)
    """

    _ndims = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of x [N, C, H, W]; parameters as for `BatchNorm1d`.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> nn.BatchNorm2d(3)(np.zeros((2, 3, 4, 4), np.float32)).shape
    (2, 3, 4, 4)
    """

    _ndims = (4,)


class LayerNorm(Module):
    """Normalise over the last axes: y = (x - mean) / √(var + eps) · weight + bias (Ba et al. 2016, arXiv:1607.06450).

    Parameters
    ----------
    normalized_shape : int or sequence of int
        Sizes of the last axes, which are normalised together; the shape of `weight` (ones) and `bias` (zeros).
    eps : float
        Added to the variance.
    elementwise_affine, bias : bool
        Whether there are weight and bias; `bias=False` leaves only the bias out.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> nn.LayerNorm(2)(np.array([[1.0, 3.0]], np.float32)).numpy().round(3)
    array([[-1.,  1.]], dtype=float32)
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        shape = tuple(normalized_shape) if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
        if not shape:
            raise ValueError("LayerNorm: normalized_shape is [], needs sizes of at least 1")
        for size in shape:
            check_sizes("LayerNorm", normalized_shape=size)
        self.normalized_shape = shape
        self.eps = real("LayerNorm: eps", eps, 0)
        elementwise_affine = flag("LayerNorm", "elementwise_affine", elementwise_affine)
        bias = flag("LayerNorm", "bias", bias)
        self.weight = Parameter(np.ones(shape, np.float32)) if elementwise_affine else None
        self.bias = Parameter(np.zeros(shape, np.float32)) if elementwise_affine and bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Return an output of the same shape; ValueError if the last axes are not `normalized_shape`."""
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Return the shape and options."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.weight is not None}"


class GroupNorm(Module):
    """Normalise each of `num_groups` groups of channels of each sample of x [N, num_channels, ...] (arXiv:1803.08494).

    Parameters
    ----------
    num_groups, num_channels : int
        The channels divide into the groups.
    eps : float
        Added to the variance.
    affine : bool
        Whether there are `weight` (ones) and `bias` (zeros) [num_channels].

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> nn.GroupNorm(2, 6)(np.zeros((4, 6, 5, 5), np.float32)).shape
    (4, 6, 5, 5)
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        check_sizes("GroupNorm", num_groups=num_groups, num_channels=num_channels)
        if num_channels % num_groups:
            raise ValueError(f"GroupNorm: {num_channels} channels do not divide into {num_groups} groups")
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = real("GroupNorm: eps", eps, 0)
        affine = flag("GroupNorm", "affine", affine)
        self.weight = Parameter(np.ones(num_channels, np.float32)) if affine else None
        self.bias = Parameter(np.zeros(num_channels, np.float32)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        """Return an output of the same shape.

        Raises
        ------
        ValueError
            If the number of channels does not fit.
        """
        x = as_tensor(x)
        if x.ndim < 2 or x.shape[1] != self.num_channels:
            raise ValueError(f"GroupNorm: input {list(x.shape)}, needs [N, {self.num_channels}, ...]")
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Return the sizes and options."""
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.weight is not None}"
