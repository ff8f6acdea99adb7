"""Resizing, one axis after the other: old pixels are gathered and, but for the nearest, weighted and summed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pynn import functional as F
from pynn.onnx.operators.registry import (
    Array,
    Value,
    array,
    axis_of,
    integers,
    is_dynamic,
    operator,
)
from pynn.onnx.operators.shape import along_axis


@operator("Resize")
def resize(
    x: Value,
    roi: Value | None = None,
    scales: Value | None = None,
    sizes: Value | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Value:
    along = [axis_of(i, x.ndim) for i in (axes if axes is not None else range(x.ndim))]
    old = [x.shape[i] for i in along]
    if sizes is not None and sizes.size:
        new = integers(sizes)
        factors = [n / o for n, o in zip(new, old, strict=True)]
        if keep_aspect_ratio_policy != "stretch":
            factors = [min(factors) if keep_aspect_ratio_policy == "not_larger" else max(factors)] * len(old)
            new = [math.floor(f * o + 0.5) for f, o in zip(factors, old, strict=True)]
    elif scales is not None and scales.size:
        factors = array(scales).reshape(-1).tolist()
        if not all(factor > 0 for factor in factors):
            raise ValueError(f"scales are {factors}, need to be above 0")
        new = [math.floor(f * o) for f, o in zip(factors, old, strict=True)]
    else:
        raise ValueError("needs scales or sizes")
    corners = array(roi).reshape(2, -1).T.tolist() if roi is not None and roi.size else [(0.0, 1.0)] * len(old)
    y = x
    covered: Array | None = None  # where no coordinate lies outside, for tf_crop_and_resize
    for i, (axis, o, n, factor) in enumerate(zip(along, old, new, factors, strict=True)):
        if o == n and factor == 1 and coordinate_transformation_mode != "tf_crop_and_resize":
            continue
        at, outside = _coordinates(o, n, factor, coordinate_transformation_mode, corners[i])
        if mode == "nearest":
            y = along_axis(y, _nearest(at, nearest_mode, o), axis)
        else:
            scale = min(factor, 1.0) if antialias else 1.0
            y = _blend(y, *_window(at, o, mode, scale, cubic_coeff_a, bool(exclude_outside)), axis)
        if outside is not None:
            inside = ~outside.reshape([-1 if j == axis else 1 for j in range(x.ndim)])
            covered = inside if covered is None else covered & inside
    if covered is None or covered.all():
        return y
    covered = np.array(np.broadcast_to(covered, y.shape))
    return (
        F.where(covered, y, extrapolation_value) if is_dynamic(y) else np.where(covered, array(y), extrapolation_value)
    )


def _coordinates(old: int, new: int, factor: float, how: str, roi: Sequence[float]) -> tuple[Array, Array | None]:
    """Where each new pixel lies among the old ones, and which lie outside of what is cropped."""
    at = np.arange(new, dtype=np.float64)
    length = factor * old  # what the old pixels become, before it was rounded
    if how == "align_corners":
        return (np.zeros(new) if length == 1 else at * (old - 1) / (length - 1)), None
    if how == "asymmetric":
        return at / factor, None
    if how == "tf_crop_and_resize":
        start, end = roi
        if length == 1:
            at = np.full(new, (end - start) * (old - 1) / 2)
        else:
            at = at * (end - start) * (old - 1) / (length - 1)
        at = at + start * (old - 1)
        return at, (at < 0) | (at > old - 1)
    centre = (at + 0.5) / factor - 0.5
    if how == "pytorch_half_pixel":
        return (np.full(new, -0.5) if length == 1 else centre), None
    if how == "half_pixel_symmetric":
        return old / 2 * (1 - new / length) + centre, None
    if how != "half_pixel":
        raise ValueError(f"coordinate_transformation_mode {how!r} is unknown")
    return centre, None


def _nearest(at: Array, how: str, old: int) -> Array:
    rules = {
        "round_prefer_floor": lambda: np.ceil(at - 0.5),
        "round_prefer_ceil": lambda: np.floor(at + 0.5),
        "floor": lambda: np.floor(at),
        "ceil": lambda: np.ceil(at),
    }
    if how not in rules:
        raise ValueError(f"nearest_mode {how!r} is unknown")
    return np.clip(rules[how](), 0, old - 1).astype(np.int64)


def _window(at: Array, old: int, mode: str, scale: float, a: float, exclude_outside: bool) -> tuple[Array, Array]:
    """The old pixels near each new one, and their weights: both [taps, new]; a `scale` below 1 widens to blur."""
    reach = {"linear": 1, "cubic": 2}.get(mode)
    if reach is None:
        raise ValueError(f"mode {mode!r} is unknown")
    taps = np.arange(math.floor(-reach / scale) + 1, math.ceil(reach / scale) + 1)
    pixels = np.floor(at).astype(np.int64) + taps[:, None]
    distance = np.abs(pixels - at) * scale
    if mode == "linear":
        weights = np.clip(1 - distance, 0, 1)
    else:
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
        weights = np.where(distance <= 1, near, np.where(distance < 2, far, 0))
    if exclude_outside:
        weights = np.where((pixels >= 0) & (pixels < old), weights, 0)
    return np.clip(pixels, 0, old - 1), weights / weights.sum(0)


def _blend(x: Value, pixels: Array, weights: Array, axis: int) -> Value:
    """Sum pixels [taps, new] of one axis with their weights."""
    taken = along_axis(x, pixels, axis)
    weights = weights.reshape(*weights.shape, *[1] * (x.ndim - axis - 1))
    if is_dynamic(x):
        return F.sum(F.mul(taken, weights.astype(x.dtype)), axis)
    y = (array(taken) * weights).sum(axis)
    return np.asarray(np.rint(y) if x.dtype.kind != "f" else y, x.dtype)
