"""Whether operations are recorded: on by default, and each thread has its own switch."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class _Mode(threading.local):
    enabled = True
    recorder: Any = None  # while `pynn.capture` records
    is_scheduling = False  # within a schedule's step, which is one entry of the recording
    random: Any = None  # the state of `pynn.random` inside of `fork_rng`
    watcher: Any = None  # the `pynn.graph.Graph` that keeps results


mode = _Mode()

# The recorders and graphs at work in any thread: where there is none, nobody looks for that of this thread, which takes
# longer than to look at this list.
observers: list[object] = []


def catch_up() -> None:
    """Let updates that a recorder keeps waiting be made: NumPy is about to read or write what they write."""
    if observers and mode.recorder is not None:
        mode.recorder.catch_up()


def switches(thing: object, name: str) -> None:
    """Let a recorder see how `training` of a module, or `requires_grad` of a tensor, is before it is set."""
    if observers and mode.recorder is not None:
        mode.recorder.switches(thing, name)


def is_grad_enabled() -> bool:
    """Whether this thread records operations (False inside `no_grad`)."""
    return mode.enabled


class no_grad:  # noqa: N801 - a name that users know
    """Switch recording off in this thread: a context manager, and a decorator, `@pynn.no_grad()`.

    >>> import pynn
    >>> x = pynn.tensor([1.0], requires_grad=True)
    >>> with pynn.no_grad():
    ...     y = x * 2
    >>> y.requires_grad
    False
    """

    _before: tuple[bool, Any] | None = None  # whether it was on, and what was here: one object may be entered again

    def __enter__(self) -> None:
        self._before = mode.enabled, self._before
        mode.enabled = False

    def __exit__(self, *exc: object) -> None:
        mode.enabled, self._before = self._before  # type: ignore[misc]  # __enter__ came first

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def without_grad(*args: P.args, **kwargs: P.kwargs) -> R:
            with no_grad():
                return function(*args, **kwargs)

        return without_grad
