"""Changes to images that keep what they show."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pynn._checks import whole
from pynn.random import generator_or

Array = npt.NDArray[Any]


def random_shift(images: Array, pixels: int = 1, fill: float = 0, rng: np.random.Generator | None = None) -> Array:
    """Return a copy of `images` with each image shifted by up to `pixels` down or up, right or left.

    Parameters
    ----------
    images : ndarray
        [N, H, W], or [N, C, H, W] whose channels move together.
    pixels : int
        Every shift from -pixels to pixels is equally likely along each axis.
    fill : float
        What moves in at the edges: the value of the background, such as -MNIST_MEAN / MNIST_STD after normalisation.
        Images of integers need one that their dtype holds.
    rng : numpy.random.Generator, optional
        By default pynn's own, which `pynn.seed` sets.

    Raises
    ------
    ValueError
        If the number of axes does not fit, `pixels` is negative, or `fill` has no place in the dtype.

    Examples
    --------
    >>> random_shift(np.ones((100, 28, 28), np.uint8), 2).shape
    (100, 28, 28)
    """
    images = np.asarray(images)
    if images.ndim not in (3, 4):
        raise ValueError(f"random_shift: images {list(images.shape)}, need [N, H, W] or [N, C, H, W]")
    pixels, rng = whole("random_shift: pixels", pixels, 0), generator_or("random_shift", rng)
    if images.dtype.kind in "iu":
        limits = np.iinfo(images.dtype)
        if not (limits.min <= fill <= limits.max and fill == int(fill)):
            raise ValueError(
                f"random_shift: fill is {fill}, needs a number that {images.dtype} holds, as the images do"
            )
    height, width = images.shape[-2:]
    edges = [(0, 0)] * (images.ndim - 2) + [(pixels, pixels)] * 2
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(images, edges, constant_values=fill), (height, width), (-2, -1)
    )
    rows, columns = rng.integers(0, 2 * pixels + 1, (2, len(images)))
    each = np.arange(len(images))
    return np.asarray(windows[each, ..., rows, columns, :, :] if images.ndim == 4 else windows[each, rows, columns])
