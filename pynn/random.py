"""The one source of randomness: everything random in pynn follows from `seed`."""

from __future__ import annotations

import functools
import operator
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from pynn.grad_mode import mode

__all__ = ["generator", "get_rng_state", "next_offset", "seed", "set_rng_state"]


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


def get_rng_state() -> dict[str, Any]:
    """Return where all random numbers of pynn stand: integers and texts, fit for JSON.

    >>> import pynn
    >>> state = get_rng_state()
    >>> a = pynn.randn(3)
    >>> set_rng_state(state)
    >>> bool((a == pynn.randn(3)).all())
    True
    """
    return {"key": _state.key, "offset": _state.offset, "generator": _state.generator.bit_generator.state}


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Go on from what `get_rng_state` returned; ValueError if it is something else, and nothing has changed."""
    global _state
    try:
        fresh = _State(operator.index(state["key"]))
        fresh.offset = operator.index(state["offset"])
        fresh.generator.bit_generator.state = state["generator"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"set_rng_state: not a state of pynn's random numbers: {error!r}") from error
    _state = fresh


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
        mode.recorder.undo(lambda: setattr(state, "offset", offset))
        return mode.recorder.draw(n, (state.key, offset))  # type: ignore[no-any-return]
    return state.key, offset
