"""The one source of randomness: everything random in pynn follows from `seed`."""

from __future__ import annotations

import functools
import operator
import threading

import numpy as np

from pynn.grad_mode import mode

__all__ = ["generator", "next_offset", "seed"]


class _State:
    """Generator for initialisers and data; key and position of the counter-based generator (Philox) of the kernels."""

    def __init__(self, key: int) -> None:
        self.key = key
        self.offset = 0

    @functools.cached_property
    def generator(self) -> np.random.Generator:  # made on first use: `import numpy` leaves numpy.random out
        return np.random.default_rng(self.key)


_state = _State(0)
_lock = threading.Lock()


def seed(n: int) -> None:
    """Restart all random numbers of pynn from `n`, an integer in 0 … 2^64 - 1. A fresh import starts from 0.

    >>> import pynn
    >>> pynn.seed(1)
    >>> a = pynn.randn(3)
    >>> pynn.seed(1)
    >>> bool((a == pynn.randn(3)).all())
    True
    """
    global _state
    try:
        key = operator.index(n)
    except TypeError:
        raise TypeError(f"seed: needs an integer, got {type(n).__name__}") from None
    if not 0 <= key < 2**64:
        raise ValueError(f"seed: needs an integer in 0 … 2**64 - 1, got {key}")
    _state = _State(key)


def generator() -> np.random.Generator:
    """Return the NumPy generator of initialisers and data."""
    if mode.recorder is not None:
        mode.recorder.random()
    return _state.generator


def next_offset(n: int) -> tuple[int, int]:
    """Reserve `n` counters of the kernels' Philox generator; return its key (the seed) and the first counter."""
    with _lock:
        state = _state
        offset = state.offset
        state.offset += n
    if mode.recorder is not None:
        return mode.recorder.draw(n, (state.key, offset))  # type: ignore[no-any-return]
    return state.key, offset
