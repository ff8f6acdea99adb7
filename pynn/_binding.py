"""Calls of a plan as they are recorded in the core, and arguments that they read where the caller has them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np

from pynn import _core
from pynn.chains import run_links
from pynn.plan import Array, Call, Repeat, memory

LEAST_BOUND = 1 << 14  # bytes of an argument that is read where the caller has it: smaller ones are quicker copied


class Step:
    """A call of the plan, as it is recorded in the core."""

    __slots__ = ("args", "at", "function", "outputs", "scratch")

    def __init__(self, at: int, call: Call, functions: dict[str, Any]) -> None:
        self.at, self.args, self.outputs = at, call.args, call.outputs  # which keep the memory alive
        self.scratch = call.scratch if call.links else None
        self.function: Callable[..., Any] = _nothing_to_run
        if call.links:
            self.function = functools.partial(run_links, functions, call.links)
        elif call.python is None:
            self.function = functions[call.name]

    def record(self, recording: Any) -> None:
        recording.record(self.at, self.function, self.args, self.outputs, self.scratch)

    def renumber(self, repeat: Repeat, recording: Any) -> None:
        """Record it anew if its numbers have changed."""
        numbers = repeat.numbers()
        if numbers != repeat.latest:
            repeat.latest = None
            self.args = self.args[: repeat.first] + numbers
            self.record(recording)
            repeat.latest = numbers


def _nothing_to_run() -> None:
    """Stands for what Python does between the calls."""


class Input:
    """An argument: memory of the plan that it is copied to, or the steps that read it where the caller has it."""

    def __init__(self, own: Array, steps: list[Step], copied: Collection[int]) -> None:
        self.own = own
        self.readers: list[tuple[Step, tuple[int, ...]]] = []  # steps, and where in their arguments it is
        if own.nbytes >= LEAST_BOUND and memory(own) not in copied:
            at = memory(own)
            reading = [step for step in steps if at in _core.Recording.arrays_in(step.args)[1]]
            uses = [(step, path) for step in reading for path in _paths(step.args, at)]
            if all(_is_whole(_item(step.args, path), own) for step, path in uses):
                self.readers = uses
        self.bound: Array | None = own

    def bind(self, array: Array, plan_memory: Collection[int], recording: Any) -> None:
        """Let the steps read this array; it must live until they have run."""
        if (
            not self.readers
            or not array.flags.c_contiguous
            or array.dtype != self.own.dtype
            or not array.flags.aligned
            or (isinstance(array.base, np.ndarray) and memory(array) in plan_memory)
        ):
            np.copyto(self.own, array)
            array = self.own
        if array is not self.bound:
            self.bound = None  # some steps may read one array, some another, until all are recorded
            for step, path in self.readers:
                step.args = _with_item(step.args, path, array.reshape(_item(step.args, path).shape))
                step.record(recording)
            self.bound = array


def _paths(value: Any, at: int) -> Iterator[tuple[int, ...]]:
    """Yield where the arrays of this memory lie in nested lists and tuples."""
    if isinstance(value, np.ndarray):
        if memory(value) == at:
            yield ()
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            for path in _paths(item, at):
                yield i, *path


def _item(value: Any, path: tuple[int, ...]) -> Any:
    for i in path:
        value = value[i]
    return value


def _with_item(value: Any, path: tuple[int, ...], array: Array) -> Any:
    """The same nested lists and tuples with this array at a path."""
    if not path:
        return array
    i = path[0]
    return type(value)([*value[:i], _with_item(value[i], path[1:], array), *value[i + 1 :]])


def _is_whole(array: Array, own: Array) -> bool:
    return array.size == own.size and array.dtype == own.dtype
