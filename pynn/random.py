"""The one source of randomness: everything random in pynn follows from `seed`."""

from __future__ import annotations

import functools
import operator
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from pynn.grad_mode import mode

__all__ = ["fork_rng", "generator", "generator_or", "get_rng_state", "next_offset", "seed", "set_rng_state"]


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
    _set(_seeded("seed", n))


@contextmanager
def fork_rng(n: int) -> Iterator[None]:
    """Let the random numbers of this thread start from `n`; afterwards they go on from where they were before.

    >>> import pynn
    >>> with fork_rng(1):
    ...     a = pynn.randn(3)
    >>> with fork_rng(1):
    ...     bool((a == pynn.randn(3)).all())
    True
    """
    if mode.recorder is not None:
        mode.recorder.random_starts()
    before, mode.random = mode.random, _seeded("fork_rng", n)
    try:
        yield
    finally:
        mode.random = before


def _seeded(what: str, n: int) -> _State:
    try:
        key = operator.index(n)
    except TypeError:
        raise TypeError(f"{what}: needs an integer, got {type(n).__name__}") from None
    if not 0 <= key < 2**64:
        raise ValueError(f"{what}: needs an integer in 0 … 2**64 - 1, got {key}")
    return _State(key)


def _now() -> _State:
    return mode.random or _state


def _set(state: _State) -> None:
    global _state
    if mode.recorder is not None:
        mode.recorder.random_starts()
    if mode.random is None:
        _state = state
    else:
        mode.random = state


def get_rng_state() -> dict[str, Any]:
    """Return where all random numbers of pynn stand: integers and texts, fit for JSON.

    >>> import pynn
    >>> state = get_rng_state()
    >>> a = pynn.randn(3)
    >>> set_rng_state(state)
    >>> bool((a == pynn.randn(3)).all())
    True
    """
    state = _now()
    return {"key": state.key, "offset": state.offset, "generator": state.generator.bit_generator.state}


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Go on from what `get_rng_state` returned; ValueError if it is something else, and nothing has changed."""
    try:
        fresh = _State(operator.index(state["key"]))
        fresh.offset = operator.index(state["offset"])
        fresh.generator.bit_generator.state = state["generator"]
        if not (0 <= fresh.key < 2**64 and 0 <= fresh.offset < 2**64):
            raise ValueError(f"key {fresh.key}, offset {fresh.offset}")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"set_rng_state: not a state of pynn's random numbers: {error!r}") from error
    _set(fresh)


def generator() -> np.random.Generator:
    """Return the NumPy generator of initialisers and data."""
    if mode.recorder is not None:
        mode.recorder.random()
    return _now().generator


def generator_or(name: str, rng: np.random.Generator | None) -> np.random.Generator:
    """Return `rng`, pynn's own generator for None; TypeError, which begins with `name`, for anything else."""
    if rng is None:
        return generator()
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"{name}: rng is {rng!r}, needs a numpy.random.Generator or None")
    return rng


def next_offset(n: int) -> tuple[int, int]:
    """Reserve `n` counters of the kernels' Philox generator; return its key (the seed) and the first counter."""
    with _lock:
        state = _now()
        offset = state.offset
        state.offset += n
    if mode.recorder is not None:
        mode.recorder.undo(lambda: setattr(state, "offset", offset))
        return mode.recorder.draw(n, (state.key, offset))  # type: ignore[no-any-return]
    return state.key, offset
