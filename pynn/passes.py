"""What is done to the calls of a captured step before they are replayed: a pass takes a list of calls and returns one.

Every result of a recorded call has memory of its own, so an array is known by its memory, and a call may move or
change as long as it still follows the calls that it reads from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import replace

from pynn.plan import Array, Call, memory

__all__ = ["REWRITES", "drop_unread", "fuse_activation", "fuse_pool", "place"]

ALIGNMENT = 64  # bytes, of what kernels write

FUSED = {"linear": ("relu", "sigmoid", "tanh"), "conv2d": ("relu",)}
ACTIVATION = {"linear": 3, "linear_backward": 4, "conv2d": 7, "conv2d_backward": 8}  # position of the argument
HALVING = ((2, 2), (2, 2), (0, 0), (1, 1))  # kernel, stride, padding, dilation


def drop_unread(calls: list[Call], kept: Collection[int]) -> list[Call]:
    """Leave out calls whose results nobody reads: no later call, nor the caller, who reads the memory `kept`."""
    read = set(kept)
    needed = []
    for call in reversed(calls):
        if call.written or call.checks or any(at in read for at in call.made_memory):
            needed.append(call)
            read.update(call.read_memory)
    return needed[::-1]


def fuse_activation(calls: list[Call], kept: Collection[int]) -> list[Call]:
    """Let `linear` and `conv2d` compute the activation that follows them, and their backward that activation's."""
    readers = _readers(calls)
    for call in calls:
        if call.name not in FUSED or call.args[ACTIVATION[call.name]] != "none" or call.made_memory[0] in kept:
            continue
        before = readers[call.made_memory[0]]
        after = [c for c in before if c.name in FUSED[call.name] and _same(c.args[:1], call.outputs)]
        backward = [c for c in before if c.name == call.name + "_backward"]
        if call.name == "conv2d":  # whose backward does not read y
            backward = [c for c in calls if c.name == "conv2d_backward" and _same(c.args[2:4], call.args[:2])]
        if (
            len(after) != 1
            or len(backward) > 1
            or len(before) > 2
            or not {id(c) for c in before} <= _ids(after, backward)
        ):
            continue
        activation, y = after[0], after[0].outputs[0]
        if not backward:
            return fuse_activation(
                _replaced(calls, {id(call): _with_activation(call, activation), id(activation): None}), kept
            )
        makers = _makers(calls, backward[0].args[0])
        if len(makers) != 1 or makers[0].name != activation.name + "_backward" or not _same([makers[0].args[1]], [y]):
            continue
        dz = makers[0].outputs[0]
        if readers[memory(dz)] != backward or memory(dz) in kept:
            continue
        args = list(backward[0].args)
        args[0], args[1], args[ACTIVATION[backward[0].name]] = makers[0].args[0], y, activation.name
        changes = {
            id(call): _with_activation(call, activation),
            id(activation): None,
            id(makers[0]): None,
            id(backward[0]): replace(backward[0], args=tuple(args)),
        }
        return fuse_activation(_replaced(calls, changes), kept)
    return calls


def fuse_pool(calls: list[Call], kept: Collection[int]) -> list[Call]:
    """Let `conv2d` do the max-pooling of windows [2, 2] that follows it, whose gradient is then never written out."""
    readers = _readers(calls)
    for call in calls:
        if call.name != "conv2d" or call.made_memory[0] in kept:
            continue
        before = readers[call.made_memory[0]]
        pools = [c for c in before if c.name == "max_pool2d" and c.args[1:] == (*HALVING, False)]
        pools = [c for c in pools if _same(c.args[:1], call.outputs)]
        backward = [c for c in calls if c.name == "conv2d_backward" and _same(c.args[2:4], call.args[:2])]
        if len(pools) != 1 or len(backward) > 1 or not {id(c) for c in before} <= _ids(pools, backward):
            continue
        pool = pools[0]
        changes: dict[int, Call | None] = {
            id(call): replace(call, name="conv2d_max_pool2d", outputs=pool.outputs),
            id(pool): None,
        }
        if backward:
            dz = backward[0].args[0]
            makers = _makers(calls, dz)
            if len(makers) != 1 or makers[0].name != "max_pool2d_backward":
                continue
            if not _same([makers[0].args[1]], [pool.outputs[1]]):
                continue
            if readers[memory(dz)] != backward or memory(dz) in kept:
                continue
            args = (makers[0].args[0], *pool.outputs, *backward[0].args[2:])
            changes[id(makers[0])] = None
            changes[id(backward[0])] = replace(backward[0], name="conv2d_max_pool2d_backward", args=args)
        return fuse_pool(_replaced(calls, changes), kept)
    return calls


def place(calls: list[Call], fixed: Collection[int]) -> tuple[dict[int, int], int]:
    """Give each result that is not `fixed` a place in one block of memory that it leaves after its last reader.

    Largest first, at the lowest offset that is free from the first to the last call that needs it (greedy by size, as
    in Pisarchyk and Lee 2020, arXiv:2001.03288). Returns the offsets in bytes by memory, and the size of the block.
    """
    sizes: dict[int, int] = {}
    lives: dict[int, tuple[int, int]] = {}  # first and last call
    for i, call in enumerate(calls):
        for at, output in zip(call.made_memory, call.outputs, strict=True):
            if output.nbytes and at not in fixed:
                sizes[at] = output.nbytes
                lives[at] = i, i
        for at in call.read_memory:
            if at in lives:
                lives[at] = lives[at][0], i
    offsets: dict[int, int] = {}
    for at in sorted(sizes, key=lambda at: -sizes[at]):
        offset = 0
        for other in sorted(offsets, key=lambda other: offsets[other]):
            together = lives[other][0] <= lives[at][1] and lives[at][0] <= lives[other][1]
            if together and offsets[other] < offset + sizes[at] and offset < offsets[other] + sizes[other]:
                offset = aligned(offsets[other] + sizes[other])
        offsets[at] = offset
    return offsets, max((aligned(offsets[at] + sizes[at]) for at in offsets), default=0)


def aligned(nbytes: int) -> int:
    """Round up to where the next array may begin."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


REWRITES = (drop_unread, fuse_activation, fuse_pool)  # in this order


def _readers(calls: Iterable[Call]) -> dict[int, list[Call]]:
    """The calls that read each memory."""
    readers: dict[int, list[Call]] = defaultdict(list)
    for call in calls:
        for at in dict.fromkeys(call.read_memory):
            readers[at].append(call)
    return readers


def _makers(calls: Iterable[Call], array: Array) -> list[Call]:
    """The calls that have this very array as a result; none if it is a view of another shape."""
    at = memory(array)
    return [c for c in calls if at in c.made_memory and c.outputs[c.made_memory.index(at)].shape == array.shape]


def _with_activation(call: Call, activation: Call) -> Call:
    args = list(call.args)
    args[ACTIVATION[call.name]] = activation.name
    return replace(call, args=tuple(args), outputs=activation.outputs)


def _replaced(calls: list[Call], changes: dict[int, Call | None]) -> list[Call]:
    changed = (changes.get(id(call), call) for call in calls)
    return [call for call in changed if call is not None]


def _same(a: Iterable[Array], b: Iterable[Array]) -> bool:
    """Whether these are the same arrays."""
    return all(memory(x) == memory(y) and x.shape == y.shape for x, y in zip(a, b, strict=True))


def _ids(*lists: list[Call]) -> set[int]:
    return {id(call) for calls in lists for call in calls}
