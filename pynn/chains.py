"""A pass over the calls of a captured step: runs of elementwise calls become one call (see `pynn.passes`).

It goes over the arrays once, in blocks that stay in the L1 cache, with the kernels of the single calls, so that the
bits are theirs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from pynn.plan import Array, Call, Link, Value, memory

__all__ = ["fuse_elementwise", "run_links"]

LEAST = 4096  # elements; smaller arrays are in the L1 cache as it is
MOST = 16  # calls of a chain
NEAR = 16  # how many calls one may move over

_UNARY = ("relu", "leaky_relu", "sigmoid", "tanh", "gelu", "silu", "elu", "softplus", "sqrt", "abs", "clip")
_BACKWARD = tuple(name + "_backward" for name in _UNARY)
_BINARY = ("add", "sub", "mul", "div", "maximum", "minimum")
ELEMENTWISE = frozenset((*_UNARY, *_BACKWARD, *_BINARY, "neg", "exp", "log"))


def fuse_elementwise(calls: list[Call], kept: Collection[int]) -> list[Call]:
    """Let one call go over arrays of one shape once, block by block, in place of several that read each other.

    A call moves back to the one whose result it reads, or that one forward to it, if what lies between allows one.
    """
    fitting = {id(call) for call in calls if _fits(call)}
    if len(fitting) < 2:
        return calls
    groups: list[list[Call]] = []
    for call in calls:
        if id(call) not in fitting or not _join(groups, call, fitting):
            groups.append([call])
    if len(groups) == len(calls):
        return calls
    readers = Counter(at for call in calls for at in {*call.read_memory})
    return [group[0] if len(group) == 1 else _chain(group, kept, readers) for group in groups]


def run_links(functions: Mapping[str, Callable[..., Array]], links: tuple[Link, ...], *arrays: Array) -> None:
    """Call the functions of a chain, each on arrays and on results of those before."""
    values = [*arrays]
    for name, args in links:
        values.append(functions[name](*(values[arg] if type(arg) is Value else arg for arg in args)))


def _fits(call: Call) -> bool:
    """Whether this is an elementwise call on arrays of one shape and single elements."""
    if call.name not in ELEMENTWISE or call.repeat is not None:
        return False
    (y,) = call.outputs
    return y.size >= LEAST and all(x.shape == y.shape or x.size == 1 for x in call.reads)


def _join(groups: list[list[Call]], call: Call, fitting: Collection[int]) -> bool:
    """Add the call to the latest group that makes what it reads, and that may stand beside it; else return False."""
    (y,) = call.outputs
    reads = set(call.read_memory)
    single = {at for x, at in zip(call.reads, call.read_memory, strict=True) if x.shape != y.shape}
    later_made: set[int] = set()  # by the groups behind the one at hand
    later_read: set[int] = set()
    later_written: set[int] = set()
    for i in range(len(groups) - 1, max(-1, len(groups) - 1 - NEAR), -1):
        group = groups[i]
        made = {at for c in group for at in c.made_memory}
        read = {at for c in group for at in c.read_memory}
        if not reads.isdisjoint(made) and len(group) < MOST and id(group[0]) in fitting:
            (x,) = group[0].outputs
            if x.shape == y.shape and x.dtype == y.dtype and single.isdisjoint(made):
                if reads.isdisjoint(later_made | later_written):
                    group.append(call)
                    return True
                if made.isdisjoint(later_read) and later_written.isdisjoint(made | read):
                    groups.append([*groups.pop(i), call])
                    return True
        later_made |= made
        later_read |= read
        later_written.update(memory(array) for c in group for array in c.written)
    return False


def _chain(group: list[Call], kept: Collection[int], readers: Mapping[int, int]) -> Call:
    """The call that does what the group does. Results that only the group reads are stood for by untouched arrays."""
    own = {at for call in group for at in call.made_memory}
    read = ((x, at) for call in group for x, at in zip(call.reads, call.read_memory, strict=True))
    arrays = {id(x): x for x, at in read if at not in own}  # each once
    numbers = {key: Value(i) for i, key in enumerate(arrays)}
    results: dict[int, Value] = {}
    links: list[Link] = []
    outputs: list[Array] = []
    scratch: list[Array] = []
    inside = Counter(at for call in group for at in {*call.read_memory})
    for call in group:
        args: list[Any] = []
        for arg in call.args:
            if isinstance(arg, np.ndarray):
                arg = results[memory(arg)] if memory(arg) in results else numbers[id(arg)]
            args.append(arg)
        links.append((call.name, tuple(args)))
        (at,) = call.made_memory
        results[at] = Value(len(arrays) + len(outputs))
        outputs += call.outputs
        if at not in kept and inside[at] == readers[at]:
            outputs[-1] = np.empty(outputs[-1].shape, outputs[-1].dtype)
            scratch.append(outputs[-1])
    return Call(
        "+".join(call.name for call in group), tuple(arrays.values()), outputs, links=tuple(links), scratch=scratch
    )
