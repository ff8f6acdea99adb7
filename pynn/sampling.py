"""Random choices by probabilities or logits, from the generator that `pynn.seed` sets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pynn._checks import flag, real, whole
from pynn.random import generator
from pynn.tensor import Tensor

__all__ = ["categorical", "multinomial"]


def multinomial(probabilities: npt.ArrayLike | Tensor, num_samples: int = 1, replacement: bool = False) -> Tensor:
    """Return `num_samples` indices, int64 [num_samples] or [N, num_samples], drawn by the probabilities of each row.

    Parameters
    ----------
    probabilities
        Shape [C] or [N, C]: not negative, of any positive sum.
    num_samples
        Without replacement at most the number of probabilities above 0.
    replacement
        Whether an index may be drawn more than once.

    Raises
    ------
    ValueError
        If a probability is negative or not finite, a row has the sum 0, or there are too few to draw.
    TypeError
        For what are no real numbers.

    Examples
    --------
    >>> import pynn
    >>> pynn.multinomial([0.0, 0.5, 0.0, 2.5], 2).numpy().sum()  # 1 and 3 in either order
    np.int64(4)
    """
    p = _numbers("multinomial: probabilities", probabilities)
    count = whole("multinomial: num_samples", num_samples)
    replacement = flag("multinomial", "replacement", replacement)
    if p.ndim not in (1, 2) or p.shape[-1] < 1:
        raise ValueError(f"multinomial: probabilities are {list(p.shape)}, need [C] or [N, C] with C at least 1")
    if not (np.isfinite(p).all() and (p >= 0).all() and p.any(-1).all()):
        raise ValueError("multinomial: probabilities must be finite, not negative, and of positive sum in each row")
    fewest = int((p > 0).sum(-1).min(initial=p.shape[-1]))
    if count < 1 or (not replacement and count > fewest):
        raise ValueError(f"multinomial: num_samples is {count}, needs 1 to {fewest}, or replacement")
    # Else sums would overflow. A power of two rounds nothing, so that the draws are the same for any scale.
    scaled = np.ldexp(p, -np.frexp(p.max(-1, keepdims=True, initial=0))[1])
    if replacement or count == 1:
        return Tensor(_choices(scaled.reshape(-1, p.shape[-1]), count).reshape(*p.shape[:-1], count))
    # The order in which exponential clocks of these rates ring.
    with np.errstate(divide="ignore", over="ignore"):
        rings = generator().standard_exponential(p.shape) / scaled
    # Before those of probability 0, however late they ring.
    rings = np.where(p > 0, np.minimum(rings, np.finfo(np.float64).max), np.inf)
    return Tensor(np.argsort(rings, axis=-1)[..., :count])


def categorical(logits: npt.ArrayLike | Tensor, temperature: float = 1.0, top_k: int | None = None) -> Tensor:
    """Return one index for each row of `logits`, drawn with the probabilities softmax(logits / temperature).

    Parameters
    ----------
    logits
        Shape [..., C].
    temperature
        Below 1 favours the likely ones; 0 takes the first maximum.
    top_k
        Draw among the k largest logits only; ties for the last place all stay.

    Returns
    -------
    Tensor
        int64 [...].

    Raises
    ------
    ValueError
        If a row has a NaN, an infinity or no entry above -inf, or an option is out of range.
    TypeError
        For what are no real numbers.

    Examples
    --------
    >>> import pynn
    >>> pynn.categorical([[0.0, 9.0, -9.0], [1.0, 0.0, 0.0]], temperature=0)
    Tensor([1, 0], dtype=int64)
    """
    x = _numbers("categorical: logits", logits)
    if x.ndim < 1 or x.shape[-1] < 1:
        raise ValueError(f"categorical: logits are {list(x.shape)}, need [..., C] with C at least 1")
    temperature = real("categorical: temperature", temperature, 0)
    top_k = None if top_k is None else whole("categorical: top_k", top_k, 1)
    highest = x.max(-1, keepdims=True)
    if not np.isfinite(highest).all():  # a NaN is the maximum, too
        raise ValueError("categorical: logits need a finite maximum in each row")
    if temperature == 0:
        return Tensor(np.asarray(x.argmax(-1)))
    if top_k is not None and top_k < x.shape[-1]:
        x = np.where(x < np.partition(x, -top_k, axis=-1)[..., -top_k, None], -np.inf, x)
    with np.errstate(over="ignore"):  # to -inf: far below the maximum
        p = np.exp((x - highest) / temperature)
    return Tensor(_choices(p.reshape(-1, p.shape[-1]), 1).reshape(x.shape[:-1]))


def _numbers(what: str, values: npt.ArrayLike | Tensor) -> npt.NDArray[np.float64]:
    try:
        array = np.asarray(values.data if isinstance(values, Tensor) else values)
    except ValueError as error:  # nested lists of unequal lengths
        raise ValueError(f"{what} are not a rectangular array: {error}") from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{what} are {array.dtype}, need real numbers")
    return np.asarray(array, np.float64)


def _choices(p: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int64]:
    """Return [N, count] indices by the weights p [N, C]: where a uniform number falls among their running sums."""
    sums = np.cumsum(p, axis=-1)
    x = generator().random((len(p), count)) * sums[:, -1:]
    # Rounded up to the whole sum, x would fall behind the last one.
    x = np.minimum(x, np.nextafter(sums[:, -1:], 0))
    if count <= p.itemsize:  # the booleans of a comparison of all take no more bytes than p, and rows may be many
        return np.asarray((sums[:, None, :] <= x[:, :, None]).sum(-1), np.int64)
    found = [np.searchsorted(row, numbers, side="right") for row, numbers in zip(sums, x, strict=True)]
    return np.asarray(found, np.int64).reshape(x.shape)
