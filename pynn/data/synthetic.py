"""Handwritten-style digits, drawn: a stand-in for MNIST where it cannot be had.

An image is one of several ways to write its digit, given as strokes through a few control points. The points are
jittered and joined by Catmull-Rom splines (Catmull and Rom, 1974), the curve is bent by smooth random waves, mapped
affinely and inked by its distance field, with random pen width, pressure, contrast and noise.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from pynn._checks import whole

F32 = npt.NDArray[np.float32]

# Ways to write each digit: points x,y in hundredths from the centre, y down; "/" ends a stroke. A stroke is smooth;
# strokes that share a point stay joined there, which makes the corners.
_GLYPHS = {
    0: (
        "0,-100 -45,-70 -60,0 -45,70 0,100 45,70 60,0 45,-70 0,-100",  # round
        "10,-100 -30,-60 -42,10 -20,85 10,95 38,40 40,-40 10,-100",  # narrow
        "30,-85 -15,-95 -50,-40 -50,40 -10,95 40,70 55,0 35,-70 -5,-100",  # ends crossing at the top
    ),
    1: (
        "2,-100 0,0 -2,100",  # a stroke
        "-30,-60 8,-100 / 8,-100 6,0 4,100",  # with a flag
        "-32,-65 2,-100 / 2,-100 2,0 2,95 / -38,95 2,95 42,95",  # with flag and foot
    ),
    2: (
        "-55,-55 -30,-92 20,-95 48,-55 28,-5 -20,50 -58,93 / -58,93 0,92 60,90",  # flat foot
        "-50,-65 -10,-98 38,-75 35,-20 -10,50 -45,85 -60,60 -30,50 10,85 65,75",  # looped foot
        "-50,-75 5,-95 50,-70 30,-15 -15,35 -60,80 / -60,80 -10,72 30,90 68,80",  # waved foot
    ),
    3: (
        "-48,-75 -10,-98 38,-80 38,-35 -12,-5 / -12,-5 40,10 50,60 10,98 -55,78",  # two bows
        "-48,-93 0,-94 46,-95 / 46,-95 20,-55 -8,-20 / -8,-20 42,0 48,60 5,97 -52,75",  # flat top
        "-40,-85 10,-100 40,-70 20,-25 -12,-5 -15,-20 25,-5 45,40 20,90 -30,95 -50,70",  # a loop between the bows
    ),
    4: (
        "-35,-95 -45,-40 -55,15 / -55,15 0,13 60,10 / 30,-70 27,15 22,100",  # open
        "25,-100 -20,-35 -60,30 / -60,30 0,30 60,28 / 25,-100 25,0 25,100",  # closed
        "-45,-90 -50,-30 -25,2 15,-5 42,-30 / 48,-95 42,-30 33,35 25,100",  # round, like a y
    ),
    5: (
        "50,-95 10,-95 -35,-93 / -35,-93 -40,-55 -45,-15 / -45,-15 5,-33 48,5 42,70 -5,98 -55,78",  # corners
        "55,-92 0,-98 -42,-70 -30,-25 20,-5 45,40 15,92 -50,85",  # smooth
        "-30,-90 -38,-50 -35,-10 / -35,-10 25,-20 50,30 20,90 -50,90 / -30,-90 15,-92 60,-100",  # the top stroke rises
    ),
    6: (
        "40,-95 -10,-65 -42,0 -42,60 -5,98 40,70 35,25 0,8 -42,40",  # bent back
        "5,-100 -25,-40 -45,30 -30,85 15,95 45,55 20,15 -20,30 -40,65",  # straight back
        "20,-100 -30,-55 -50,10 -40,75 0,95 30,70 15,40 -15,40 -38,70",  # small bowl
    ),
    7: (
        "-55,-90 0,-90 50,-92 / 50,-92 20,0 -10,100",  # plain
        "-50,-88 0,-90 50,-92 / 50,-92 15,5 -15,100 / -25,8 15,5 50,2",  # with a bar
        "-55,-60 -50,-92 / -50,-92 0,-86 52,-92 / 52,-92 15,10 0,100",  # with a serif
        "-55,-75 -20,-95 25,-80 55,-95 / 55,-95 12,-10 2,100",  # bent
    ),
    8: (
        "5,-100 -38,-65 -20,-22 25,12 45,55 0,98 -45,58 -22,12 22,-22 38,-68 5,-100",  # one stroke
        "0,-5 -36,-30 -30,-80 5,-98 36,-75 32,-28 0,-5 / 0,-5 -45,25 -42,75 0,98 44,75 44,25 0,-5",  # two rings
        "42,-82 -5,-100 -40,-65 -10,-20 30,15 38,65 -5,97 -42,65 -20,15 20,-30 50,-75",  # open at the top
    ),
    9: (
        "40,-55 5,-97 -40,-70 -38,-20 2,-2 40,-55 / 40,-55 36,20 30,100",  # straight tail
        "42,-60 5,-97 -40,-65 -30,-15 10,-5 42,-60 / 42,-60 45,0 38,65 0,98 -42,80",  # hooked tail
        "35,-80 -10,-95 -42,-50 -20,-8 20,-25 40,-75 35,-10 15,50 -10,100",  # one stroke
    ),
}

_SIZE = 28
_BLOCK = 256  # images drawn together; part of the definition of "image i of seed s", and small enough for the cache
_SAMPLES = 64  # points on the curve of a glyph: less than a pixel apart
_PIXELS_PER_UNIT = 9.5


def synthetic_digits(n: int, seed: int = 0) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Draw handwritten-style digits.

    Image i of a seed is the same whatever `n` is (with one version of NumPy on one kind of processor).

    Parameters
    ----------
    n : int
        How many images.
    seed : int
        Any integer from 0.

    Returns
    -------
    images : uint8 ndarray ``[n, 28, 28]``
        0 is background, 255 full ink.
    labels : int64 ndarray ``[n]``
        0 to 9, at random.

    Raises
    ------
    TypeError
        `n` or `seed` is not an integer.
    ValueError
        `n` or `seed` is negative.

    Examples
    --------
    >>> images, labels = synthetic_digits(1000, seed=0)
    >>> images.shape, labels.shape
    ((1000, 28, 28), (1000,))
    """
    n, seed = whole("synthetic_digits: n", n, 0), whole("synthetic_digits: seed", seed, 0)
    images = np.empty((n, _SIZE, _SIZE), np.uint8)
    labels = np.empty(n, np.int64)
    for start in range(0, n, _BLOCK):
        # A block is always drawn whole, so that its first images do not depend on how many are asked for.
        rng = np.random.default_rng([seed, start // _BLOCK])
        block_images, block_labels = _draw_block(rng)
        stop = min(start + _BLOCK, n)
        images[start:stop] = block_images[: stop - start]
        labels[start:stop] = block_labels[: stop - start]
    return images, labels


def _draw_block(rng: np.random.Generator) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    control, basis, first, count = _glyph_tables()
    labels = rng.integers(0, 10, _BLOCK)
    glyph = first[labels] + (rng.random(_BLOCK) * count[labels]).astype(np.int64)
    points = control[glyph] + _normal(rng, 0.05, _BLOCK, control.shape[1], 2)  # [B, K, 2]
    curve = basis[glyph] @ points  # [B, S, K] @ [B, K, 2] -> [B, S, 2]
    curve += _bend(rng, curve)
    x, y = _place(rng, curve)
    width = 1 + _uniform(rng, 0, 0.35) * np.sin(  # pressure: one slow wave along the strokes
        np.linspace(0, 2 * np.pi, _SAMPLES, dtype=np.float32) * _uniform(rng, 0.3, 2) + _uniform(rng, 0, 2 * np.pi)
    )
    return _ink(rng, x, y, width), labels


def _bend(rng: np.random.Generator, curve: F32) -> F32:
    """Return a displacement `[B, S, 2]` that varies smoothly over the plane: three plane waves."""
    total = np.zeros_like(curve)
    for _ in range(3):
        direction = _uniform(rng, 0, 2 * np.pi)
        frequency = _uniform(rng, 1.2, 4)
        along = curve[..., 0] * np.cos(direction) + curve[..., 1] * np.sin(direction)
        wave = np.sin(frequency * along + _uniform(rng, 0, 2 * np.pi))  # [B, S]
        total += wave[..., None] * _normal(rng, 0.055, _BLOCK, 1, 2)
    return total


def _place(rng: np.random.Generator, curve: F32) -> tuple[F32, F32]:
    """Rotate, shear, scale and shift; return the pixel coordinates x and y `[B, S]`."""
    angle, shear = _normal(rng, 0.12, _BLOCK, 1), _normal(rng, 0.15, _BLOCK, 1)
    size = _PIXELS_PER_UNIT * _uniform(rng, 0.85, 1.1)
    wide = size * _uniform(rng, 0.85, 1.2)
    x = wide * (curve[..., 0] - shear * curve[..., 1])
    y = size * curve[..., 1]
    x, y = x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)
    for axis in (x, y):
        # Centre the extent; then shift, but never off the page.
        low, high = axis.min(axis=1, keepdims=True), axis.max(axis=1, keepdims=True)
        room = np.maximum((_SIZE - 4 - (high - low)) / 2, 0)
        axis += (_SIZE - 1) / 2 - (low + high) / 2 + np.clip(_normal(rng, 1, _BLOCK, 1), -room, room)
    return x, y


def _ink(rng: np.random.Generator, x: F32, y: F32, width: F32) -> npt.NDArray[np.uint8]:
    """Ink the pixels by their distance to the points x, y `[B, S]` of a pen of relative width `[B, S]`."""
    pixel = np.arange(_SIZE, dtype=np.float32)
    scale = 1 / width[..., None]
    dx2 = np.square((pixel - x[..., None]) * scale)  # [B, S, 28]
    dy2 = np.square((pixel - y[..., None]) * scale)
    nearest = np.full((_BLOCK, _SIZE, _SIZE), np.inf, np.float32)
    squared = np.empty_like(nearest)
    for s in range(_SAMPLES):
        np.add(dy2[:, s, :, None], dx2[:, s, None, :], out=squared)
        np.minimum(nearest, squared, out=nearest)
    distance = np.sqrt(nearest, out=nearest)
    radius, softness = _uniform(rng, 0.7, 1.7)[..., None], _uniform(rng, 0.9, 1.8)[..., None]
    ink: F32 = np.clip((radius - distance) / softness + np.float32(0.5), 0, 1)
    ink *= _uniform(rng, 150, 255)[..., None]
    ink += rng.standard_normal(ink.shape, np.float32) * _uniform(rng, 0, 16)[..., None]
    np.clip(np.rint(ink, out=ink), 0, 255, out=ink)
    return ink.astype(np.uint8)


def _uniform(rng: np.random.Generator, low: float, high: float) -> F32:
    """One number for each image of a block, `[B, 1]`."""
    return np.float32(low) + np.float32(high - low) * rng.random((_BLOCK, 1), np.float32)


def _normal(rng: np.random.Generator, deviation: float, *shape: int) -> F32:
    return np.float32(deviation) * rng.standard_normal(shape, np.float32)


@cache
def _glyph_tables() -> tuple[F32, F32, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return control points `[G, K, 2]`, spline bases `[G, S, K]`, and each digit's first glyph and count `[10]`.

    Sampling a spline is linear in its control points, so the curve of a glyph is one matrix product.
    """
    glyphs = [_parse(glyph) for digit in range(10) for glyph in _GLYPHS[digit]]
    unique = [list(dict.fromkeys(point for stroke in strokes for point in stroke)) for strokes in glyphs]
    most = max(map(len, unique))
    control = np.zeros((len(glyphs), most, 2), np.float32)
    basis = np.zeros((len(glyphs), _SAMPLES, most), np.float32)
    for g, (strokes, points) in enumerate(zip(glyphs, unique, strict=True)):
        control[g, : len(points)] = points
        lengths = [float(np.hypot(*np.diff(np.array(stroke), axis=0).T).sum()) for stroke in strokes]
        ends = np.rint(np.cumsum([0.0, *lengths]) / sum(lengths) * _SAMPLES).astype(int)
        for stroke, begin, end in zip(strokes, ends[:-1], ends[1:], strict=True):
            weights = _spline_basis(np.array(stroke), end - begin)
            for point, column in zip(stroke, weights.T, strict=True):
                basis[g, begin:end, points.index(point)] += column  # twice for the joint of a closed stroke
    count = np.array([len(_GLYPHS[digit]) for digit in range(10)])
    return control, basis, np.cumsum(count) - count, count


def _parse(glyph: str) -> list[list[tuple[float, float]]]:
    """Return the strokes of an entry of _GLYPHS as lists of points."""
    strokes = []
    for stroke in glyph.split("/"):
        pairs = [point.split(",") for point in stroke.split()]
        strokes.append([(int(x) / 100, int(y) / 100) for x, y in pairs])
    return strokes


def _spline_basis(points: npt.NDArray[np.float64], samples: int) -> npt.NDArray[np.float64]:
    """Return the matrix `[samples, k]` that maps the k points to evenly spaced points on their Catmull-Rom spline."""
    k = len(points)
    # Reflected neighbours at the ends: without control points that do not lie on the curve.
    extended = np.zeros((k + 2, k))
    extended[1:-1] = np.eye(k)
    extended[0, :2] = (2, -1)
    extended[-1, -2:] = (-1, 2)
    dense = np.linspace(0, k - 1, 40 * k)
    knot = np.minimum(dense.astype(int), k - 2)
    t = (dense - knot)[:, None]
    weights = np.hstack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2]) / 2
    matrix = sum(weights[:, [i]] * extended[knot + i] for i in range(4))
    travelled = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(matrix @ points, axis=0).T))])
    even = np.searchsorted(travelled, np.linspace(0, travelled[-1], samples)).clip(0, len(dense) - 1)
    return np.asarray(matrix[even])
