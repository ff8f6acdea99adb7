"""Activations as modules; the formulae are those of `pynn.functional`."""

from __future__ import annotations

from pynn import functional as F
from pynn.functional._args import number
from pynn.nn.module import Module
from pynn.tensor import Tensor


class ReLU(Module):
    """max(x, 0); NaN stays NaN.

    Examples
    --------
    >>> from pynn import nn, tensor
    >>> nn.ReLU()(tensor([-1.0, 2.0])).numpy()
    array([0., 2.], dtype=float32)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return an output of the same shape."""
        return F.relu(x)


class LeakyReLU(Module):
    """Keep x where x > 0, else `negative_slope * x`.

    Examples
    --------
    >>> from pynn import nn, tensor
    >>> nn.LeakyReLU(0.5)(tensor([-1.0, 2.0])).numpy()
    array([-0.5,  2. ], dtype=float32)
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = number("LeakyReLU", "negative_slope", negative_slope)

    def forward(self, x: Tensor) -> Tensor:
        """Return an output of the same shape."""
        return F.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        """Return the slope."""
        return f"negative_slope={self.negative_slope}"


class Sigmoid(Module):
    """1 / (1 + exp(-x)).

    Examples
    --------
    >>> from pynn import nn, tensor
    >>> nn.Sigmoid()(tensor([0.0])).numpy()
    array([0.5], dtype=float32)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return an output of the same shape."""
        return F.sigmoid(x)


class Tanh(Module):
    """Hyperbolic tangent.

    Examples
    --------
    >>> from pynn import nn, tensor
    >>> nn.Tanh()(tensor([0.0])).numpy()
    array([0.], dtype=float32)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return an output of the same shape."""
        return F.tanh(x)


class GELU(Module):
    """x · Φ(x) with the normal distribution function Φ (Hendrycks and Gimpel 2016, arXiv:1606.08415).

    Parameters
    ----------
    approximate : {"none", "tanh"}
        "tanh" is the paper's approximation.

    Examples
    --------
    >>> from pynn import nn, tensor
    >>> nn.GELU()(tensor([0.0])).numpy()
    array([0.], dtype=float32)
    """

    def __init__(self, approximate: str = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise ValueError(f"GELU: approximate is {approximate!r}, needs 'none' or 'tanh'")
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        """Return an output of the same shape."""
        return F.gelu(x, approximate=self.approximate)

    def extra_repr(self) -> str:
        """Return the form."""
        return f"approximate={self.approximate!r}"


class Softmax(Module):
    """exp(x) / sum(exp(x)) along `dim`. `CrossEntropyLoss` wants logits: do not end a classifier with this.

    Examples
    --------
    >>> from pynn import nn, tensor
    >>> nn.Softmax()(tensor([0.0, 0.0])).numpy()
    array([0.5, 0.5], dtype=float32)
    """

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """Return an output of the same shape, whose sums along `dim` are 1."""
        return F.softmax(x, self.dim)

    def extra_repr(self) -> str:
        """Return the axis."""
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """x - log(sum(exp(x))) along `dim`.

    Examples
    --------
    >>> from pynn import nn, tensor
    >>> nn.LogSoftmax()(tensor([0.0])).numpy()
    array([0.], dtype=float32)
    """

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """Return an output of the same shape."""
        return F.log_softmax(x, self.dim)

    def extra_repr(self) -> str:
        """Return the axis."""
        return f"dim={self.dim}"
