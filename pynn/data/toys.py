"""Toy data: small problems that one can draw, made anew from a seed.

All points are float32 and all labels int64. `rng` is the generator that they come from; by default pynn's own, which
`pynn.seed` sets.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pynn._checks import real, whole
from pynn.random import generator_or

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]


def make_moons(n: int = 100, noise: float = 0.1, rng: np.random.Generator | None = None) -> tuple[F32, I64]:
    """Return points [n, 2] on two interleaving half circles, and labels [n] of 0 and 1, in random order.

    The upper moon (0) is the upper half of the unit circle around (0, 0), the lower one (1) the lower half of that
    around (1, 0.5); `noise` is the standard deviation of what is added to both coordinates.

    Examples
    --------
    >>> points, labels = make_moons(100)
    >>> points.shape, labels.sum()
    ((100, 2), np.int64(50))
    """
    _require("make_moons", "noise", noise, n=n)
    rng = generator_or("make_moons", rng)
    labels = rng.permutation(np.arange(n) % 2)
    angles = np.pi * rng.random(n)
    x = np.where(labels == 0, np.cos(angles), 1 - np.cos(angles))
    y = np.where(labels == 0, np.sin(angles), 0.5 - np.sin(angles))
    points = np.stack([x, y], axis=1) + rng.normal(0, noise, (n, 2))
    return points.astype(np.float32), labels


def make_spiral(
    n_per_arm: int = 100, arms: int = 3, noise: float = 0.2, rng: np.random.Generator | None = None
) -> tuple[F32, I64]:
    """Return the spiral of Stanford's cs231n: points [arms · n_per_arm, 2] and the arm [arms · n_per_arm] of each.

    Points of an arm lie at equal distances 0 … 1 from the centre, at angles that grow by 4 radians, with normal noise
    of standard deviation `noise` radians. https://cs231n.github.io/neural-networks-case-study/

    Examples
    --------
    >>> points, labels = make_spiral(100)
    >>> points.shape, labels.max()
    ((300, 2), np.int64(2))
    """
    _require("make_spiral", "noise", noise, n_per_arm=n_per_arm, arms=arms)
    rng = generator_or("make_spiral", rng)
    labels = np.repeat(np.arange(arms), n_per_arm)
    share = np.tile(np.linspace(0, 1, n_per_arm), arms)
    angles = 4 * (labels + share) + rng.normal(0, noise, len(labels))
    return (share[:, None] * np.stack([np.sin(angles), np.cos(angles)], axis=1)).astype(np.float32), labels


def make_blobs(
    n: int = 100,
    centers: int | npt.ArrayLike = 3,
    std: float = 1.0,
    rng: np.random.Generator | None = None,
) -> tuple[F32, I64]:
    """Return points [n, d] around `centers`, normal with standard deviation `std`, and the centre [n] of each.

    `centers` is an array [k, d], or the number k of centres in the plane, which are drawn from [-10, 10]². Every centre
    has ⌊n / k⌋ points or one more, in random order.

    Examples
    --------
    >>> points, labels = make_blobs(6, centers=[[0.0, 0.0], [100.0, 0.0]])
    >>> bool(((points[:, 0] > 50) == (labels == 1)).all())
    True
    """
    _require("make_blobs", "std", std, n=n)
    rng = generator_or("make_blobs", rng)
    if isinstance(centers, (int, np.integer)):
        where = rng.uniform(-10, 10, (whole("make_blobs: centers", centers, 1), 2))
    else:
        try:
            where = np.asarray(centers, np.float64)
        except (TypeError, ValueError) as error:
            raise type(error)(f"make_blobs: centers is {centers!r}, needs numbers [k, d]: {error}") from None
        if where.ndim != 2 or where.size == 0:
            raise ValueError(f"make_blobs: centers is {list(where.shape)}, needs [k, d]")
    labels = rng.permutation(np.arange(n) % len(where))
    return (where[labels] + rng.normal(0, std, (n, where.shape[1]))).astype(np.float32), labels


def make_sine(n: int = 100, noise: float = 0.1, rng: np.random.Generator | None = None) -> tuple[F32, F32]:
    """Return x [n, 1], uniform in [-π, π] and ascending, and y [n, 1] = sin(x) with normal noise of this deviation.

    Examples
    --------
    >>> x, y = make_sine(100, noise=0.0)
    >>> bool(np.allclose(y, np.sin(x), atol=1e-6))
    True
    """
    _require("make_sine", "noise", noise, n=n)
    rng = generator_or("make_sine", rng)
    x = np.sort(rng.uniform(-np.pi, np.pi, (n, 1)), axis=0)
    return x.astype(np.float32), (np.sin(x) + rng.normal(0, noise, (n, 1))).astype(np.float32)


def _require(op: str, deviation: str, value: float, **counts: int) -> None:
    for name, count in counts.items():
        whole(f"{op}: {name}", count, 1)
    real(f"{op}: {deviation}", value, 0)
