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


class SiLU(Module):
    """x · sigmoid(x), also known as swish (arXiv:1702.03118).

    Examples
    --------
    >>> from pynn import nn, tensor
    >>> nn.SiLU()(tensor([0.0])).numpy()
    array([0.], dtype=float32)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return an output of the same shape."""
        return F.silu(x)


class ELU(Module):
    """Keep x where x > 0, else `alpha * (exp(x) - 1)` (arXiv:1511.07289).

    Examples
    --------
    >>> from pynn import nn, tensor
    >>> nn.ELU()(tensor([-100.0, 2.0])).numpy()
    array([-1.,  2.], dtype=float32)
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = number("ELU", "alpha", alpha)

    def forward(self, x: Tensor) -> Tensor:
        """Return an output of the same shape."""
        return F.elu(x, self.alpha)

    def extra_repr(self) -> str:
        """Return alpha."""
        return f"alpha={self.alpha}"


class Softplus(Module):
    """log(1 + exp(beta · x)) / beta, and x where beta · x > threshold.

    Examples
    --------
    >>> from pynn import nn, tensor
    >>> nn.Softplus()(tensor([0.0])).numpy().round(4)
    array([0.6931], dtype=float32)
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        self.beta = number("Softplus", "beta", beta)
        self.threshold = number("Softplus", "threshold", threshold)
        if self.beta == 0:
            raise ValueError("Softplus: beta is 0, needs another number")

    def forward(self, x: Tensor) -> Tensor:
        """Return an output of the same shape."""
        return F.softplus(x, self.beta, self.threshold)

    def extra_repr(self) -> str:
        """Return the options."""
        return f"beta={self.beta}, threshold={self.threshold}"


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
