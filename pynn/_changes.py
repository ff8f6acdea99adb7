"""What a function changes while it is recorded: how to undo it, and updates that wait until nothing can fail."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from pynn import _core
from pynn._array import FLOATS
from pynn.plan import Array

LARGE = 1 << 14  # bytes of an array that the core copies


class Changes:
    """Made while a function runs, and undone if it fails.

    What an optimiser does is checked at once, and done when the function has returned, or when the core is asked for
    something else: as a rule the function ends with it, and then nothing was copied for an undo.
    """

    def __init__(self, copy: Callable[..., Any]) -> None:
        """`copy` is the core's `broadcast_to`."""
        self._copy = copy
        self._undo: list[Callable[[], None]] = []
        self._updates: _core.Recording | None = None  # that wait,
        self._updated: list[Array] = []  # and what they write

    def undo(self, action: Callable[[], None]) -> None:
        """Do this if the function fails."""
        self._undo.append(action)

    def keep(self, arrays: Iterable[Array]) -> None:
        """Copy arrays that are about to change."""
        for array in arrays:
            self.undo(functools.partial(np.copyto, array, self._copied(array)))

    def update(self, function: Callable[..., None], args: tuple[Any, ...], arrays: list[Array]) -> None:
        """Let an update wait, which writes these arrays; raise what it would raise."""
        if self._updates is None:
            self._updates = _core.Recording()
        self._updates.record(len(self._updates), function, args, [])
        self._updated += arrays

    def catch_up(self) -> None:
        """Make the updates that wait: what comes next may read what they write."""
        if self._updates is not None:
            self.keep(self._updated)
            self._updates.run()
            self._updates, self._updated = None, []

    def commit(self) -> None:
        """Make the updates that wait, without a way back."""
        if self._updates is not None:  # in one call of the core: an interrupt comes before it or behind it
            _core.Recording.finish((self._updates.run,), (self, "_undo", []))

    def roll_back(self) -> None:
        """Undo everything, the latest first, and forget the updates that wait."""
        self._updates, self._updated = None, []
        while self._undo:
            self._undo.pop()()

    def _copied(self, array: Array) -> Array:
        """Return a copy, by the threads that have a large array in their caches and will write to it."""
        if array.nbytes < LARGE or array.dtype not in FLOATS or not array.flags.c_contiguous:
            return array.copy()
        copy: Array = self._copy(array, array.shape)
        return copy
