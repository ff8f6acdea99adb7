"""A recorded step as a value: what it computes, in which order, and where its results lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]


@dataclass
class Repeat:
    """The numbers of a call that change from replay to replay: its arguments from position `first`."""

    first: int
    numbers: Callable[[], tuple[Any, ...]]
    done: Callable[[], None]  # after a replay that succeeded


@dataclass(eq=False)
class Call:
    """A call of the core."""

    name: str
    args: tuple[Any, ...]
    outputs: list[Array]
    written: list[Array] = field(default_factory=list)  # arguments that it changes in place
    repeat: Repeat | None = None
    checks: bool = False  # it may raise, which ends a replay

    @cached_property
    def reads(self) -> list[Array]:
        """The arrays among the arguments."""
        return list(arrays_in(self.args))

    @cached_property
    def read_memory(self) -> list[int]:
        """Their memory."""
        return [memory(array) for array in self.reads]

    @cached_property
    def made_memory(self) -> list[int]:
        """The memory of the results."""
        return [memory(output) for output in self.outputs]

    def __str__(self) -> str:
        """Name, shapes of the arrays it reads, other arguments, shapes of the results."""
        text = f"{self.name}({', '.join(_describe(arg) for arg in self.args)})"
        return text + (f" -> {', '.join(str(list(output.shape)) for output in self.outputs)}" if self.outputs else "")


def arrays_in(value: Any) -> Iterator[Array]:
    """Yield the arrays in nested lists and tuples."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            if isinstance(item, np.ndarray):
                yield item
            elif isinstance(item, (list, tuple)):
                yield from arrays_in(item)


def owner(array: Array) -> Array:
    """Return the array whose memory this is a view of."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _start(array: Array) -> int:
    at: int = array.__array_interface__["data"][0]
    return at


def memory(array: Array) -> int:
    """Return a number for the memory that an array is, or is a view of: while it lives, no other has it."""
    return id(owner(array))


class Plan:
    """The calls of a captured step after the passes, and the memory that they share.

    Attributes
    ----------
    recorded, calls
        The calls of the core as they were recorded, and as they are replayed.
    saved
        How many calls each pass did away with, by its name.
    bytes_recorded, bytes_planned
        Memory of the results that only later calls read: one after the other, and as it is shared.
    barriers
        How often threads waited for each other in the latest replay, None before the first. Small calls run on one.
    """

    def __init__(self, calls: list[Call], kept: list[Array]) -> None:
        from pynn import passes

        self.recorded = self.calls = calls
        self.saved: dict[str, int] = {}
        self.barriers: int | None = None
        self._kept = {memory(array) for array in kept}
        for rewrite in passes.REWRITES:
            self.calls = rewrite(self.calls, self._kept)
            self.saved[rewrite.__name__] = len(calls) - len(self.calls) - sum(self.saved.values())
        self._offsets, self.bytes_planned = passes.place(self.calls, self._kept)
        own = {memory(o): passes.aligned(o.nbytes) for c in calls for o in c.outputs if memory(o) not in self._kept}
        self.bytes_recorded = sum(own.values())

    def at_place(self, value: Any, block: Array) -> Any:
        """Return arrays, or arguments that hold some, where the plan puts them in `block`."""
        if isinstance(value, (list, tuple)):
            parts = [self.at_place(v, block) if isinstance(v, (np.ndarray, list, tuple)) else v for v in value]
            return type(value)(parts)
        if memory(value) not in self._offsets:
            return value
        offset = self._offsets[memory(value)] + _start(value) - _start(owner(value))
        return np.ndarray(value.shape, value.dtype, block.data, offset)

    def release(self) -> None:
        """Let go of the results of the recording; the calls keep their shapes, and which of them share memory."""
        calls = {*self.recorded, *self.calls}
        made = {at for call in calls for at in call.made_memory} - self._kept
        bases: dict[int, Array] = {}

        def stand_in(value: Any) -> Any:
            if isinstance(value, (list, tuple)):
                return type(value)([stand_in(item) for item in value])
            if not isinstance(value, np.ndarray) or memory(value) not in made:
                return value
            return np.broadcast_to(bases.setdefault(memory(value), np.empty((), value.dtype)), value.shape)

        # All first, then none: the number of an array's memory is its own only while the array lives.
        replaced = [(call, stand_in((call.args, call.outputs, call.written))) for call in calls]
        for call, fields in replaced:
            call.args, call.outputs, call.written = fields
            for name in ("reads", "read_memory", "made_memory"):
                vars(call).pop(name, None)

    def __str__(self) -> str:
        """One line for each call, then what the passes did."""
        lines = [f"{i:3} {call}" for i, call in enumerate(self.calls)]
        saved = ", ".join(f"{name} {n}" for name, n in self.saved.items())
        lines.append(f"{len(self.calls)} calls of {len(self.recorded)} recorded; saved by passes: {saved}")
        lines.append(f"{self.bytes_planned:,} bytes between calls, {self.bytes_recorded:,} before they shared memory")
        if self.barriers is not None:
            lines.append(f"barriers: {self.barriers}")
        return "\n".join(lines)

    def dot(self) -> str:
        """Return a picture of the plan in the language of Graphviz: boxes are calls, arrows the arrays between them."""
        lines = ["digraph plan {", "  node [shape=box, fontname=monospace]"]
        makers: dict[int, int] = {}
        for i, call in enumerate(self.calls):
            lines.append(f'  c{i} [label="{call.name}"]')
            lines += [
                f'  c{makers[memory(array)]} -> c{i} [label="{list(array.shape)}"]'
                for array in call.reads
                if memory(array) in makers
            ]
            makers.update((at, i) for at in call.made_memory)
        return "\n".join([*lines, "}"])


def _describe(arg: Any) -> str:
    if isinstance(arg, np.ndarray):
        return str(list(arg.shape))
    if isinstance(arg, list) and arg and isinstance(arg[0], np.ndarray):
        return f"{len(arg)} arrays" if len(arg) > 1 else f"[{_describe(arg[0])}]"
    return repr(arg)
