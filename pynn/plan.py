"""A recorded step as a value: what it computes, in which order, and where its results lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pynn import _core
from pynn._dot import label

Array: TypeAlias = npt.NDArray[Any]
memory, _memory_of_call = _core.Recording.memory, _core.Recording.memory_of_call


@dataclass
class Repeat:
    """The numbers of a call that change from replay to replay: its arguments from position `first`."""

    first: int
    numbers: Callable[[], tuple[Any, ...]]
    latest: tuple[Any, ...] | None = None  # of the latest replay


class Value(int):
    """Number of an array of a chain: its arguments, then its results."""


Link: TypeAlias = tuple[str, tuple[Any, ...]]  # a call of a chain: name, and arguments with a `Value` for each array


@dataclass(eq=False, slots=True)
class Call:
    """A call of the core. Most fields are as a rule empty: tuples, which are not made anew for each."""

    name: str
    args: tuple[Any, ...]
    outputs: list[Array]
    written: Sequence[Array] = ()  # arguments that it changes in place
    repeat: Repeat | None = None
    done: tuple[Callable[[], None], ...] = ()  # what Python does once it has run
    checks: bool = False  # it may raise, which ends a replay
    python: Callable[[], None] | None = None  # what Python does at this place, where there is no call of the core
    links: tuple[Link, ...] = ()  # the calls that it is a chain of, each with one of the results
    scratch: Sequence[Array] = ()  # results that threads keep for themselves: never written
    number: int = 0  # its position among those that were recorded
    # Numbers of the memory of the arrays among the arguments, and of the results', as they are when it is made, with
    # the results' bytes in whole cache lines.
    read_memory: list[int] = field(init=False)
    made_memory: list[int] = field(init=False)
    made_bytes: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.read_memory, self.made_memory, self.made_bytes = _memory_of_call(self.args, self.outputs)

    def replaced(
        self, name: str | None = None, args: tuple[Any, ...] | None = None, outputs: list[Array] | None = None
    ) -> Call:
        """Return the call with these in place of its own (`dataclasses.replace` takes four times as long)."""
        return Call(
            self.name if name is None else name,
            self.args if args is None else args,
            self.outputs if outputs is None else outputs,
            self.written,
            self.repeat,
            self.done,
            self.checks,
            self.python,
            self.links,
            self.scratch,
            self.number,
        )

    @property
    def reads(self) -> list[Array]:
        """The arrays among the arguments."""
        return arrays_in(self.args)

    def __str__(self) -> str:
        """Name, shapes of the arrays it reads, other arguments, shapes of the results."""
        text = f"{self.name}({', '.join(_describe(arg) for arg in self.args)})"
        inside = {id(array) for array in self.scratch}
        results = [str(list(output.shape)) for output in self.outputs if id(output) not in inside]
        return text + (f" -> {', '.join(results)}" if results else "")


def arrays_in(value: Any) -> list[Array]:
    """Return the arrays in nested lists and tuples."""
    return _core.Recording.arrays_in(value)[0]


class Plan:
    """The calls of a captured step after the passes, and the memory that they share.

    Attributes
    ----------
    recorded
        How many calls of the core were recorded.
    calls
        The calls that are replayed.
    saved
        How many calls each pass did away with, by its name.
    barriers
        How often threads waited for each other in the latest replay, None before the first. Small calls run on one.
    """

    def __init__(self, calls: list[Call], kept: set[int]) -> None:
        """`kept` is the memory that is read from outside of the plan."""
        self.recorded, self.calls = len(calls), calls
        self.saved: dict[str, int] = {}
        self.barriers: int | None = None
        for number, call in enumerate(calls):
            call.number = number
        for rewrite in passes.REWRITES:
            before = len(self.calls)
            self.calls = rewrite(self.calls, kept)
            self.saved[rewrite.__name__] = before - len(self.calls)
            _core.keep_awake()
        self._offsets, self._block_bytes = passes.place(self.calls, kept)
        self._kept, self._made = kept, [(call.made_memory, call.made_bytes) for call in calls]

    @property
    def bytes_recorded(self) -> int:
        """Memory of the results that only later calls read, one after the other."""
        return _total(self._made, self._kept)

    @property
    def bytes_planned(self) -> int:
        """Memory of such results of the calls that are left, as they share it."""
        if self._offsets:
            return self._block_bytes
        untouched = {memory(array) for call in self.calls for array in call.scratch}
        return _total([(call.made_memory, call.made_bytes) for call in self.calls], self._kept | untouched)

    def share_memory(self) -> None:
        """Put the results of the calls where the plan has them in one block, and let go of those of the recording."""
        if not self._offsets:
            return
        block = _core.empty((self._block_bytes // 4 + 1,), np.float32)
        for call in self.calls:
            fields = call.args, call.outputs, call.written
            call.args, call.outputs, call.written = _core.Recording.place(fields, self._offsets, block)

    def __str__(self) -> str:
        """One line for each call, then what the passes did."""
        lines = [f"{i:3} {call}" for i, call in enumerate(self.calls)]
        saved = ", ".join(f"{name} {n}" for name, n in self.saved.items())
        lines.append(f"{len(self.calls)} calls of {self.recorded} recorded; saved by passes: {saved}")
        lines.append(f"{self.bytes_planned:,} bytes between calls, {self.bytes_recorded:,} before they shared memory")
        if self.barriers is not None:
            lines.append(f"barriers: {self.barriers}")
        return "\n".join(lines)

    def dot(self) -> str:
        """Return a picture of the plan in the language of Graphviz: boxes are calls, arrows the arrays between them."""
        lines = ["digraph plan {", "  node [shape=box, fontname=monospace]"]
        makers: dict[int, int] = {}
        for i, call in enumerate(self.calls):
            lines.append(f'  c{i} [label="{label(call.name)}"]')
            lines += [
                f'  c{makers[at]} -> c{i} [label="{list(array.shape)}"]'
                for array, at in zip(call.reads, call.read_memory, strict=True)
                if at in makers
            ]
            makers.update((at, i) for at in call.made_memory)
        return "\n".join([*lines, "}"])


def _total(made: list[tuple[list[int], list[int]]], outside: set[int]) -> int:
    """Bytes of memory by its number, as calls make it, without that `outside`."""
    sizes = {at: nbytes for numbers, each in made for at, nbytes in zip(numbers, each, strict=True)}
    return sum(sizes[at] for at in sizes.keys() - outside)


def _describe(arg: Any) -> str:
    if isinstance(arg, np.ndarray):
        return str(list(arg.shape))
    if isinstance(arg, list) and any(isinstance(item, tuple) for item in arg):  # gradients that an optimiser makes
        made = [f"linear_backward({', '.join(map(_describe, item[:4]))})" for item in arg if isinstance(item, tuple)]
        arrays = [item for item in arg if isinstance(item, np.ndarray)]
        return " and ".join([*made, *([_describe(arrays)] if arrays else [])])
    if isinstance(arg, list) and arg and isinstance(arg[0], np.ndarray):
        return f"{len(arg)} arrays" if len(arg) > 1 else f"[{_describe(arg[0])}]"
    return repr(arg)


# Passes are built on Plan's calls, and it runs them: one of the two has to be imported last.
from pynn import passes  # noqa: E402
