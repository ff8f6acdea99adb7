"""Attributes as they were: what somebody who decided something by them compares with what they are."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from pynn import _core


class Snapshot:
    """The attributes of objects, for as long as they are the very same."""

    def __init__(self, things: Iterable[object]) -> None:
        self._items = tuple(itertools.chain(*((vars(thing), pairs(vars(thing))) for thing in things)))

    def holds(self) -> bool:
        """Whether each has all of its attributes, no other, and each is the same object."""
        return _core.Recording.unchanged((), (), self._items)


def pairs(entries: dict[Any, Any]) -> tuple[Any, ...]:
    """Return key, value, key, value, ... of a dict."""
    return tuple(itertools.chain.from_iterable(entries.items()))
