"""How far a kernel may be from the exact value: errors are counted in units of rounding, never guessed.

An error is held against `ulps * eps * scale`, elementwise. `scale` is the size of what was rounded on the way to the
element: the value itself where nothing cancels, or the sum of the absolute terms where a sum may cancel.
"""

import math

import numpy as np


def sum_ulps(terms):
    """Return the units a sum of `terms` products may lose, in any order of summation.

    Rounding errors of a sum grow like the square root of its length, relative to the sum of the absolute terms, except
    with a probability that falls like exp(-c^2 / 2) in the factor c (Higham & Mary, A new approach to probabilistic
    rounding error analysis, 2019). c = 2 suffices since half an ulp is the worst of one rounding; 4 covers short sums.
    """
    return 4 + 2 * math.sqrt(terms)


def assert_close(actual, expected, ulps, scale, what, flushed_times=1):
    """Assert |actual - expected| <= ulps * eps * scale, with eps of the dtype of `actual`; NaN equals NaN.

    `expected` and `scale` come in float64. What the dtype cannot hold must be infinite, or vanish: unless `ulps` is 0,
    the smallest normal number is added to the bound, since kernels flush what is below it to zero; `flushed_times` is
    what such a number may have been multiplied with on the way.
    """
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    info = np.finfo(actual.dtype)
    with np.errstate(all="ignore"):
        rounded = expected.astype(actual.dtype)
        bound = ulps * info.eps * np.broadcast_to(scale, expected.shape) + (flushed_times * info.tiny if ulps else 0)
        error = np.abs(actual.astype(np.float64) - expected)
        wrong = np.where(np.isfinite(rounded), ~(error <= bound), ~same(actual, rounded))
    if wrong.any():
        excess = np.where(wrong, np.nan_to_num(error / bound, nan=np.inf), 0)
        worst = np.unravel_index(np.argmax(excess), error.shape)
        raise AssertionError(
            f"{what}: {wrong.sum()} of {error.size} elements are off; at {[int(i) for i in worst]} "
            f"got {actual[worst]!r}, expected {expected[worst]!r}, error {error[worst]:.3g}, bound {bound[worst]:.3g}"
        )


def same(actual, expected):
    """Return where two arrays hold equal numbers, or both NaN."""
    return (actual == expected) | (np.isnan(actual) & np.isnan(expected))
