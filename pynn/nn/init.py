"""Initial values, written in place and drawn from pynn's generator, which `pynn.seed` seeds.

Every function returns the tensor that it was given. Values are drawn in float64 and rounded, so that a float32 and a
float64 model of one seed agree. `fan_in` and `fan_out` of a weight [out, in, ...] are in · k and out · k, where k is
the product of the axes after the second.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from pynn._checks import real
from pynn.functional._args import number
from pynn.grad_mode import catch_up
from pynn.random import generator
from pynn.tensor import Tensor


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Fill with values from U(a, b).

    Examples
    --------
    >>> import pynn
    >>> bool((uniform_(pynn.tensor([0.0, 0.0]), 2.0, 3.0).numpy() >= 2).all())
    True
    """
    _check_floats(tensor)
    if not real("uniform_: a", a) <= real("uniform_: b", b):
        raise ValueError(f"uniform_: needs a <= b, got {a} and {b}")
    return _fill(tensor, generator().uniform(a, b, tensor.shape))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Fill with values from N(mean, std²).

    Examples
    --------
    >>> from pynn import nn
    >>> nn.init.normal_(nn.Parameter([0.0]), mean=3.0, std=0.0).item()
    3.0
    """
    _check_floats(tensor)
    real("normal_: mean", mean)
    real("normal_: std", std, 0)
    return _fill(tensor, generator().normal(mean, std, tensor.shape))


def trunc_normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Tensor:
    """Fill with values from N(mean, std²) within a..b, by drawing again those outside.

    Raises
    ------
    ValueError
        If less than 1 % of the distribution lies within a..b.

    Examples
    --------
    >>> from pynn import nn
    >>> abs(nn.init.trunc_normal_(nn.Parameter([5.0])).item()) <= 2
    True
    """
    _check_floats(tensor)
    real("trunc_normal_: mean", mean)
    real("trunc_normal_: std", std, 0)
    a, b = number("trunc_normal_", "a", a), number("trunc_normal_", "b", b)  # one may be infinite
    inside = (math.erf((b - mean) / std / math.sqrt(2)) - math.erf((a - mean) / std / math.sqrt(2))) / 2 if std else 0
    if not inside >= 0.01:
        raise ValueError(f"trunc_normal_: N({mean}, {std}²) has {inside:.2%} within {a}..{b}, needs at least 1 %")
    values = generator().normal(mean, std, tensor.shape)
    while (outside := (values < a) | (values > b)).any():
        values[outside] = generator().normal(mean, std, int(outside.sum()))
    return _fill(tensor, values)


def constant_(tensor: Tensor, value: float) -> Tensor:
    """Fill with `value`.

    Examples
    --------
    >>> from pynn import nn
    >>> nn.init.constant_(nn.Parameter([0.0]), 2.0).item()
    2.0
    """
    return _fill(tensor, number("constant_", "value", value))


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with zeros.

    Examples
    --------
    >>> from pynn import nn
    >>> nn.init.zeros_(nn.Parameter([5.0])).item()
    0.0
    """
    return _fill(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with ones.

    Examples
    --------
    >>> from pynn import nn
    >>> nn.init.ones_(nn.Parameter([5.0])).item()
    1.0
    """
    return _fill(tensor, 1.0)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Fill with U(-a, a), a = gain · √(6 / (fan_in + fan_out)) (Glorot and Bengio 2010, AISTATS).

    Examples
    --------
    >>> from pynn import nn
    >>> bool((abs(nn.init.xavier_uniform_(nn.Linear(3, 3).weight).data) <= 1).all())
    True
    """
    bound = real("xavier_uniform_: gain", gain, 0) * math.sqrt(6 / sum(_fans("xavier_uniform_", tensor)))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Fill with N(0, std²), std = gain · √(2 / (fan_in + fan_out)) (Glorot and Bengio 2010, AISTATS).

    Examples
    --------
    >>> from pynn import nn
    >>> nn.init.xavier_normal_(nn.Linear(3, 3).weight, gain=5 / 3).shape
    (3, 3)
    """
    std = real("xavier_normal_: gain", gain, 0) * math.sqrt(2 / sum(_fans("xavier_normal_", tensor)))
    return normal_(tensor, 0.0, std)


def kaiming_uniform_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Fill with U(-b, b), b = gain · √(3 / fan) (He et al. 2015, arXiv:1502.01852).

    Parameters
    ----------
    tensor : Tensor
        The weight [out, in, ...].
    a : float
        Slope of leaky ReLU for negative values.
    mode : {"fan_in", "fan_out"}
        Which variance is kept: of the outputs in the forward pass, or of the gradients in the backward pass.
    nonlinearity : str
        What follows; see `calculate_gain`.

    Examples
    --------
    >>> from pynn import nn
    >>> bool((abs(nn.init.kaiming_uniform_(nn.Linear(6, 9).weight, nonlinearity="relu").data) <= 1).all())
    True
    """
    bound = math.sqrt(3) * _kaiming_std("kaiming_uniform_", tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Fill with N(0, std²), std = gain / √fan; parameters as for `kaiming_uniform_` (He et al. 2015).

    Examples
    --------
    >>> from pynn import nn
    >>> nn.init.kaiming_normal_(nn.Conv2d(3, 8, 5).weight, mode="fan_out").shape
    (8, 3, 5, 5)
    """
    return normal_(tensor, 0.0, _kaiming_std("kaiming_normal_", tensor, a, mode, nonlinearity))


def orthogonal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Fill so that the weight, as a matrix [out, rest], has orthonormal rows or columns, times `gain`.

    Saxe, McClelland and Ganguli 2013, arXiv:1312.6120; uniform over such matrices (Mezzadri 2007, math-ph/0609050).

    Examples
    --------
    >>> from pynn import nn
    >>> w = nn.init.orthogonal_(nn.Linear(2, 2, bias=False).weight).data
    >>> (w @ w.T).round(3) + 0.0
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    _check_floats(tensor)
    real("orthogonal_: gain", gain)
    if tensor.ndim < 2:
        raise ValueError(f"orthogonal_: tensor {list(tensor.shape)}, needs 2 axes or more")
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    q, r = np.linalg.qr(generator().normal(size=(max(rows, columns), min(rows, columns))))
    q *= np.where(np.diag(r) < 0, -1.0, 1.0)  # QR leaves the signs open; with these q is uniformly distributed
    return _fill(tensor, gain * (q if rows >= columns else q.T).reshape(tensor.shape))


def sinusoidal_(tensor: Tensor, base: float = 10000.0) -> Tensor:
    """Fill [L, E] with the positions of Vaswani et al. 2017: sin(l / base^(2i / E)) in column 2i, the cosine in 2i + 1.

    Raises
    ------
    ValueError
        If `tensor` does not have two axes, or `base` is not positive.

    Examples
    --------
    >>> from pynn import nn
    >>> positions = nn.Embedding(50, 8).requires_grad_(False)
    >>> sinusoidal_(positions.weight).numpy()[0]
    array([0., 1., 0., 1., 0., 1., 0., 1.], dtype=float32)
    """
    _check_floats(tensor)
    if real("sinusoidal_: base", base) <= 0:
        raise ValueError(f"sinusoidal_: base is {base}, needs more than 0")
    if tensor.ndim != 2:
        raise ValueError(f"sinusoidal_: needs two axes, positions and features, got {list(tensor.shape)}")
    length, features = tensor.shape
    columns = np.arange(features)
    angles = np.arange(length)[:, None] / base ** (columns // 2 * 2 / max(1, features))
    return _fill(tensor, np.where(columns % 2, np.cos(angles), np.sin(angles)))


def calculate_gain(nonlinearity: str, a: float = 0.01) -> float:
    """Return the factor by which the standard deviation must grow to make up for what follows.

    Parameters
    ----------
    nonlinearity : {"linear", "conv2d", "sigmoid", "tanh", "relu", "leaky_relu"}
        1, 1, 1, 5/3, √2 and √(2 / (1 + a²)).
    a : float
        Slope of leaky ReLU for negative values.

    Examples
    --------
    >>> calculate_gain("tanh")
    1.6666666666666667
    """
    real("calculate_gain: a", a)
    gains = {
        "linear": 1.0,
        "conv2d": 1.0,
        "sigmoid": 1.0,
        "tanh": 5 / 3,
        "relu": math.sqrt(2),
        "leaky_relu": math.sqrt(2 / (1 + a**2)),
    }
    if nonlinearity not in gains:
        raise ValueError(f"calculate_gain: nonlinearity is {nonlinearity!r}, needs one of {', '.join(gains)}")
    return gains[nonlinearity]


def _check_tensor(tensor: object) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"nn.init: got a {type(tensor).__name__}, needs a Tensor")


def _check_floats(tensor: Tensor) -> None:
    """Refuse what cannot hold the values, before they are drawn."""
    _check_tensor(tensor)
    if tensor.dtype.kind != "f":
        raise TypeError(f"nn.init: got a tensor of {tensor.dtype}, needs float32 or float64")


def _fill(tensor: Tensor, values: npt.NDArray[Any] | float) -> Tensor:
    _check_tensor(tensor)
    catch_up()
    tensor.data[...] = values
    tensor._bump_version()
    return tensor


def _fans(operation: str, tensor: Tensor) -> tuple[int, int]:
    """Return fan_in and fan_out."""
    _check_tensor(tensor)
    if tensor.ndim < 2 or tensor.size == 0:
        raise ValueError(f"{operation}: tensor {list(tensor.shape)}, needs 2 axes or more and no empty one")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def _kaiming_std(operation: str, tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    real(f"{operation}: a", a)
    fans = dict(zip(("fan_in", "fan_out"), _fans(operation, tensor), strict=True))
    if mode not in fans:
        raise ValueError(f"{operation}: mode is {mode!r}, needs 'fan_in' or 'fan_out'")
    return calculate_gain(nonlinearity, a) / math.sqrt(fans[mode])
