"""What is done to the calls of a captured step before they are replayed: a pass takes a list of calls and returns one.

Every result of a recorded call has memory of its own, so an array is known by its memory, and a call may move or
change as long as it still follows the calls that it reads from.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Collection, Iterable

from pynn.chains import fuse_elementwise
from pynn.intercept import UPDATES
from pynn.plan import Array, Call, memory

__all__ = ["REWRITES", "drop_unread", "fuse_activation", "fuse_pool", "fuse_update", "place"]

NEAR = 1 << 18  # bytes of all results that stay in the L2 cache: to move them would bring nothing

FUSED = {"linear": ("relu", "sigmoid", "tanh"), "conv2d": ("relu",)}
ACTIVATION = {"linear": 3, "linear_backward": 4, "conv2d": 7, "conv2d_backward": 8}  # position of the argument
# Elements of the weights for which fuse_update pays, and the most rows of their layer's input.
UPDATED = ((range(1 << 16, 1 << 17), 64), (range(1 << 20, 1 << 62), 512))
HALVING = ((2, 2), (2, 2), (0, 0), (1, 1))  # kernel, stride, padding, dilation


def drop_unread(calls: list[Call], kept: Collection[int]) -> list[Call]:
    """Leave out calls whose results nobody reads: no later call, nor the caller, who reads the memory `kept`."""
    read = set(kept)
    needed = []
    for call in reversed(calls):
        if call.written or call.checks or not read.isdisjoint(call.made_memory):
            needed.append(call)
            read.update(call.read_memory)
    return needed[::-1]


def fuse_activation(calls: list[Call], kept: Collection[int]) -> list[Call]:
    """Let `linear` and `conv2d` compute the activation that follows them, and their backward that activation's."""
    names = {call.name for call in calls}
    plain = [
        call
        for call in calls
        if call.name in FUSED
        and call.args[ACTIVATION[call.name]] == "none"
        and call.made_memory[0] not in kept
        and not names.isdisjoint(FUSED[call.name])
    ]
    if not plain:
        return calls
    readers, makers = _readers(calls), _makers(calls)
    changes: dict[int, Call | None] = {}  # each call is in at most one of the groups that become one
    for call in plain:
        before = readers[call.made_memory[0]]
        after = [c for c in before if c.name in FUSED[call.name] and _is(c.args[0], call.outputs[0])]
        backward = [c for c in before if c.name == call.name + "_backward"]
        if call.name == "conv2d":  # whose backward does not read y
            backward = _conv_backward(call, readers)
        if (
            len(after) != 1
            or len(backward) > 1
            or len(before) > 2
            or not {id(c) for c in before} <= _ids(after, backward)
        ):
            continue
        activation, y = after[0], after[0].outputs[0]
        if backward:
            maker = _maker(makers, backward[0].args[0])
            if maker is None or maker.name != activation.name + "_backward" or not _is(maker.args[1], y):
                continue
            dz = maker.made_memory[0]
            if readers[dz] != backward or dz in kept or _makes_a_column(backward[0]):
                continue
            args = list(backward[0].args)
            args[0], args[1], args[ACTIVATION[backward[0].name]] = maker.args[0], y, activation.name
            changes |= {id(maker): None, id(backward[0]): backward[0].replaced(args=tuple(args))}
        changes |= {id(call): _with_activation(call, activation), id(activation): None}
    return _replaced(calls, changes)


def fuse_pool(calls: list[Call], kept: Collection[int]) -> list[Call]:
    """Let `conv2d` do the max-pooling of windows [2, 2] that follows it, whose gradient is then never written out.

    The indices of the maxima are not made where nobody reads them.
    """
    if not any(call.name in ("max_pool2d", "conv2d_max_pool2d") for call in calls):
        return calls
    readers, makers = _readers(calls), _makers(calls)
    changes: dict[int, Call | None] = {}
    for call in calls:
        if call.name == "conv2d_max_pool2d" and call.made_memory[1:]:
            if not readers[call.made_memory[1]] and call.made_memory[1] not in kept:
                changes[id(call)] = _without_indices(call)
            continue
        if call.name != "conv2d" or call.made_memory[0] in kept:
            continue
        before, backward = readers[call.made_memory[0]], _conv_backward(call, readers)
        pools = [c for c in before if c.name == "max_pool2d" and c.args[1:] == (*HALVING, False)]
        pools = [c for c in pools if _is(c.args[0], call.outputs[0])]
        if len(pools) != 1 or len(backward) > 1 or not {id(c) for c in before} <= _ids(pools, backward):
            continue
        pool = pools[0]
        if backward:
            maker = _maker(makers, backward[0].args[0])
            if maker is None or maker.name != "max_pool2d_backward" or not _is(maker.args[1], pool.outputs[1]):
                continue
            dz = maker.made_memory[0]
            if readers[dz] != backward or dz in kept:
                continue
            args = (maker.args[0], *pool.outputs, *backward[0].args[2:])
            fused = backward[0].replaced("conv2d_max_pool2d_backward", args)
            changes |= {id(maker): None, id(backward[0]): fused}
        fused = call.replaced("conv2d_max_pool2d", outputs=pool.outputs)
        if not readers[pool.made_memory[1]] and pool.made_memory[1] not in kept:
            fused = _without_indices(fused)
        changes |= {id(call): fused, id(pool): None}
    return _replaced(calls, changes)


def fuse_update(calls: list[Call], kept: Collection[int]) -> list[Call]:
    """Let optimisers make the gradients of large linear layers' weights, and update each part while it is cached."""
    updates = [(i, call) for i, call in enumerate(calls) if call.name in UPDATES]
    makers: dict[int, tuple[int, Call]] = {}  # of the weights' gradients
    for i, call in enumerate(calls if updates else ()):
        if call.name == "linear_backward" and call.args[6] and _is_worth_fusing(call):
            makers[call.made_memory[call.args[5]]] = i, call
    if not makers:
        return calls
    reads = [at for call in calls for at in call.read_memory]
    changes: dict[int, Call | None] = {}
    for end, update in updates:
        grads, made, n, is_changed = list(update.args[1]), [], len(update.args[0]), False
        for position, at in enumerate(update.read_memory[n : 2 * n]):
            begin, backward = makers.get(at, (end, update))
            if begin >= end:
                continue
            dy, y, x, _, activation, needs_dx, _, needs_dbias = backward.args
            dx, (dweight, *dbias) = backward.outputs[:needs_dx], backward.outputs[needs_dx:]
            if grads[position].shape != dweight.shape or not all(
                reads.count(result) == 1 and result in update.read_memory for result in backward.made_memory[needs_dx:]
            ):
                continue
            if any(_writes(call, backward.read_memory[:3]) for call in calls[begin + 1 : end + 1] if call.written):
                continue
            is_kept = at in kept
            grads[position] = dy, y, x, activation, dweight if is_kept else None, dbias[0] if needs_dbias else None
            made += [dweight] * is_kept + dbias
            left = backward.replaced(args=(*backward.args[:6], False, False), outputs=dx) if needs_dx else None
            changes[id(backward)] = left
            is_changed = True
        if is_changed:
            changes[id(update)] = update.replaced(args=(update.args[0], grads, *update.args[2:]), outputs=made)
    return _replaced(calls, changes)


def place(calls: list[Call], kept: Collection[int]) -> tuple[dict[int, int], int]:
    """Give each result that is not `kept` a place in one block of memory that it leaves after its last reader.

    Largest first, at the lowest offset that is free from the first to the last call that needs it (greedy by size, as
    in Pisarchyk and Lee 2020, arXiv:2001.03288). Where all results are little, they stay where the recording has them.
    Returns the offsets in bytes by memory, and the size of the block.
    """
    if sum(sum(call.made_bytes) for call in calls) <= NEAR:
        return {}, 0
    outside = {*kept, *(memory(array) for call in calls for array in call.scratch)}
    sizes = {
        at: nbytes
        for call in calls
        for at, nbytes in zip(call.made_memory, call.made_bytes)  # noqa: B905
        if nbytes and at not in outside
    }
    lives: dict[int, list[int]] = {}  # first and last call
    for i, call in enumerate(calls):
        for at in (*call.made_memory, *call.read_memory):
            if at in sizes:
                lives.setdefault(at, [i, i])[1] = i
    offsets: dict[int, int] = {}
    placed: list[tuple[int, int, int, int]] = []  # by offset: begin, where the next may begin, first and last call
    for at in sorted(sizes, key=sizes.__getitem__, reverse=True):
        (first, last), size, offset = lives[at], sizes[at], 0
        for begin, end, other_first, other_last in placed:
            if begin >= offset + size:  # and so do all that follow
                break
            if offset < end and other_first <= last and first <= other_last:
                offset = end
        offsets[at] = offset
        bisect.insort(placed, (offset, offset + size, first, last))
    return offsets, max((end for _, end, _, _ in placed), default=0)


REWRITES = (drop_unread, fuse_activation, fuse_pool, fuse_elementwise, fuse_update)  # in this order


def _readers(calls: Iterable[Call]) -> dict[int, list[Call]]:
    """The calls that read each memory."""
    readers: dict[int, list[Call]] = defaultdict(list)
    for call in calls:
        for at in {*call.read_memory}:
            readers[at].append(call)
    return readers


def _makers(calls: Iterable[Call]) -> dict[int, Call]:
    """The call that makes each memory."""
    return {at: call for call in calls for at in call.made_memory}


def _maker(makers: dict[int, Call], array: Array) -> Call | None:
    """The call that has this very array as a result; None if it is a view of another shape."""
    at = memory(array)
    call = makers.get(at)
    return call if call and call.outputs[call.made_memory.index(at)].shape == array.shape else None


def _conv_backward(call: Call, readers: dict[int, list[Call]]) -> list[Call]:
    """The gradients of convolutions of the same input and weight."""
    found = (c for c in readers[call.read_memory[0]] if c.name == "conv2d_backward")
    return [c for c in found if _is(c.args[2], call.args[0]) and _is(c.args[3], call.args[1])]


def _makes_a_column(call: Call) -> bool:
    """Whether a `linear_backward` makes dot products of dz, where it has that, and of blocks where it makes it."""
    if call.name != "linear_backward":
        return False
    weight, needs_dx = call.args[3], call.args[5]
    return bool(weight.shape[1] == 1 and (needs_dx or weight.size == 1))


def _is_worth_fusing(call: Call) -> bool:
    """Whether the update of a `linear_backward`'s weight waits for the other core's cache, or for memory.

    Between the two it comes from the L3 cache, as quickly as it is computed.
    """
    dy, weight = call.args[0], call.args[3]
    size = weight.size
    for sizes, rows in UPDATED:
        if size in sizes:
            return bool(dy.size <= rows * weight.shape[0])
    return False


def _writes(call: Call, memories: Collection[int]) -> bool:
    """Whether the call changes arrays in one of these, which as a rule it does not even have."""
    own = {*call.read_memory, *call.made_memory}
    return not own.isdisjoint(memories) and not {*map(memory, call.written)}.isdisjoint(memories)


def _with_activation(call: Call, activation: Call) -> Call:
    args = list(call.args)
    args[ACTIVATION[call.name]] = activation.name
    return call.replaced(args=tuple(args), outputs=activation.outputs)


def _without_indices(call: Call) -> Call:
    return call.replaced(args=(*call.args[:8], False), outputs=call.outputs[:1])


def _replaced(calls: list[Call], changes: dict[int, Call | None]) -> list[Call]:
    if not changes:
        return calls
    changed = [changes.get(id(call), call) for call in calls]
    return [call for call in changed if call is not None]


def _is(x: Array, y: Array) -> bool:
    """Whether this is the same array, and no view of another shape."""
    return memory(x) == memory(y) and x.shape == y.shape


def _ids(*lists: list[Call]) -> set[int]:
    return {id(call) for calls in lists for call in calls}
