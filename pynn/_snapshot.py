"""Attributes as they were: what somebody who decided something by them compares with what they are."""

from __future__ import annotations

import itertools
from typing import Any

from pynn import _core


class Snapshot:
    """The attributes of an object and of its parts, and the parts' classes, for as long as they are the very same.

    The object itself is not held, so that it may hold its snapshot.
    """

    def __init__(self, whole: object, parts: list[Any]) -> None:
        self._classes = tuple(itertools.chain(*((part, "__class__", type(part)) for part in parts)))
        self._items = tuple(itertools.chain(*((vars(thing), pairs(vars(thing))) for thing in (whole, *parts))))

    def holds(self) -> bool:
        """Whether each has its class and all of its attributes, no other, and each is the same object."""
        return _core.Recording.unchanged(self._classes, (), self._items)


def pairs(entries: dict[Any, Any]) -> tuple[Any, ...]:
    """Return key, value, key, value, ... of a dict."""
    return tuple(itertools.chain.from_iterable(entries.items()))
