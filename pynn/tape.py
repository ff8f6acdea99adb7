"""The tape: reverse-mode automatic differentiation in one short file.

Every differentiable operation computes its result with NumPy arrays and calls `record`, which wraps the result in a
`Tensor` and, if a parent needs a gradient, attaches a `Node`: who the parents are, and a function that turns the
gradient of the output (``dy``) into the gradients of the parents. `backward` walks these nodes from the newest to the
oldest. A node is always younger than its parents, so when its turn comes, all uses of its output have been summed.

Nodes point only backwards, from outputs to inputs, and never at their own output: when the last tensor of a graph goes
away, so does the graph, without the garbage collector. Nothing here recurses, so a graph may be any depth.
"""

from __future__ import annotations

import itertools
import operator
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy import ndarray

from pynn import _core
from pynn._array import as_array
from pynn.grad_mode import is_grad_enabled, mode, no_grad, observers
from pynn.tensor import Tensor

__all__ = ["Node", "backward", "constant", "grad", "is_grad_enabled", "no_grad", "record"]

Array: TypeAlias = npt.NDArray[Any]
Gradients: TypeAlias = Sequence[Array | None]  # one for each parent; None where no gradient flows

_clock = itertools.count(1)  # orders nodes by age, and writes in place by when they happened
_new = object.__new__
_age = operator.attrgetter("order")
_latest_write = 0  # no node that is younger than this needs a look at the versions of what it saved
_writing = threading.Lock()
_begin_writing, _end_writing = _writing.acquire, _writing.release

# The gradients that `loss.backward()` starts with: the same arrays every time, so that a loss can see that there is
# nothing to multiply its gradient by (`is_one`).
_one32, _one64 = np.ones((), np.float32), np.ones((), np.float64)
_one32.flags.writeable = _one64.flags.writeable = False


class Node:
    """One recorded operation; `record` makes it."""

    __slots__ = ("backward", "name", "order", "output_version", "parents", "retained", "saved")

    name: str
    order: int
    parents: Sequence[Node | Tensor | None]  # the node that made each, itself if it is a leaf, None for constants
    backward: Callable[[Array], Gradients] | None  # None once the node is released
    saved: Sequence[Tensor]
    output_version: list[int] | None
    retained: weakref.ref[Tensor] | None  # set by Tensor.retain_grad

    def check(self) -> None:
        """Raise RuntimeError unless `backward` can run and would see the values of the forward pass."""
        if self.backward is None:
            raise RuntimeError(
                f"backward: the graph through {self.name} was already freed by an earlier backward; "
                "pass retain_graph=True to the earlier one, or compute the output again"
            )
        order = self.order
        for i, tensor in enumerate(self.saved):
            if tensor._version[0] > order:
                self._refuse(f"its saved tensor {i}, {list(tensor.shape)},")
        if self.output_version is not None and self.output_version[0] > order:
            self._refuse("its output")

    def _refuse(self, what: str) -> None:
        raise RuntimeError(
            f"backward: {self.name} needs the values of its forward pass, but {what} was changed in place since; "
            "change a copy, or change it after backward"
        )

    def release(self) -> None:
        """Drop everything that the node keeps alive."""
        self.backward = self.output_version = None
        self.parents = self.saved = ()


def record(
    name: str,
    y: Array,
    parents: Sequence[Tensor],
    backward: Callable[[Array], Gradients],
    saved: Sequence[Tensor] = (),
    saves_output: bool = False,
) -> Tensor:
    """Wrap the result `y` of operation `name` in a Tensor that remembers how to differentiate it.

    `backward(dy)` returns a tuple with one gradient (or None) for each parent, of its shape and dtype: `dy` itself, a
    view, or a new array, but never an array that it keeps. `saved` names the parents whose values it reads,
    `saves_output` says that it reads `y`; a backward after one of these was changed in place is refused.

    Raises TypeError or ValueError for a result or parents, and in `backward` for gradients, that do not fit.

    >>> import pynn
    >>> def double(x):
    ...     return pynn.tape.record("double", 2 * x.data, (x,), lambda dy: (2 * dy,))
    >>> x = pynn.tensor([1.0, 5.0], requires_grad=True)
    >>> double(x).sum().backward()
    >>> x.grad
    array([2., 2.], dtype=float32)
    """
    if isinstance(y, Tensor):
        raise TypeError(f"record: the result of {name} is a Tensor, needs an array")
    for what, tensors in (("parents", parents), ("saved", saved)):
        if not isinstance(tensors, (tuple, list)) or not all(isinstance(tensor, Tensor) for tensor in tensors):
            raise TypeError(f"record: {what} of {name} needs to be a tuple of tensors, got {_types(tensors)}")
    kinds = [(parent.shape, parent.dtype) for parent in parents]  # not the parents, which it may not need

    def checked(dy: Array) -> Gradients:
        dxs = backward(dy)
        if not isinstance(dxs, (tuple, list)):
            raise TypeError(f"backward: {name} gives a {type(dxs).__name__}, needs a tuple with a gradient per parent")
        if len(dxs) != len(kinds):  # which is refused behind this
            return dxs
        return [
            None if dx is None else _gradient_of(i, name, dx, *kind)
            for i, (dx, kind) in enumerate(zip(dxs, kinds, strict=True))
        ]

    return _record(name, as_array(f"record: {name}", y), parents, checked, saved, saves_output)


def _types(value: object) -> str:
    if not isinstance(value, (tuple, list)):
        return type(value).__name__
    return f"({', '.join(type(item).__name__ for item in value)})"


def _gradient_of(i: int, name: str, dx: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return what the backward of one's own operation gives to parent `i`, if it fits."""
    what = f"backward: gradient {i} of {name}"
    if isinstance(dx, Tensor):
        raise TypeError(f"{what} is a Tensor, needs an array")
    array = as_array(what, dx, None if isinstance(dx, ndarray) else dtype)
    if array.dtype != dtype:
        raise TypeError(f"{what} is {array.dtype}, needs the dtype of the parent, {dtype}")
    if array.shape != shape:
        raise ValueError(f"{what} is {list(array.shape)}, needs the shape of the parent, {list(shape)}")
    return array


def _record(
    name: str,
    y: Array,
    parents: Sequence[Tensor],
    backward: Callable[[Array], Gradients],
    saved: Sequence[Tensor] = (),
    saves_output: bool = False,
) -> Tensor:
    """What `record` does, without a look at what is given: for pynn's own operations."""
    if observers and mode.recorder is not None:
        mode.recorder.computes(name, parents, y)
    out = _new(Tensor)  # without __init__: `y` needs no conversion
    out.data = y
    out._grad = out._node = None
    out._version = version = [0]
    out.requires_grad = False
    if mode.enabled:
        sources: list[Node | Tensor | None] = []
        needed = False
        for parent in parents:
            if parent.requires_grad:
                sources.append(parent._node or parent)
                needed = True
            else:
                sources.append(None)
        if needed:
            out.requires_grad = True
            out._node = node = _new(Node)  # without __init__, whose call takes as long as these lines
            node.name = name
            node.order = next(_clock)
            node.parents = sources
            node.backward = backward
            node.saved = saved
            node.output_version = version if saves_output else None
            node.retained = None
            if observers and mode.watcher is not None:
                mode.watcher.saw(name, out, parents)
    return out


def write_in_place() -> int:
    """Return when a write in place happened, on the clock of the nodes: now."""
    global _latest_write
    _begin_writing()  # else the earlier of two writes could be taken for the latest; `with` takes longer
    try:
        _latest_write = next(_clock)
        return _latest_write
    finally:
        _end_writing()


def is_one(dy: Array) -> bool:
    """Whether `dy` is known to be 1 without a look at its value: the gradient that `loss.backward()` starts with."""
    return dy is _one32 or dy is _one64


def constant(y: Array) -> Tensor:
    """Wrap an array that needs no conversion, outside of any graph."""
    return _record("constant", y, (), lambda dy: ())


def backward(output: Tensor, grad_output: object = None, retain_graph: bool = False) -> None:
    """Add the gradient of `output` to `.grad` of every leaf it depends on: of all of them, or of none on an error."""
    updates = []
    dy = _start_gradient("backward", output, grad_output)
    for source, dx in _gradients(output, dy, retain_graph).items():
        x = source if not isinstance(source, Node) else source.retained() if source.retained is not None else None
        if x is None:  # a tensor under retain_grad that nobody has any more
            continue
        if x._grad is not None:
            if x._grad.shape != dx.shape:
                raise ValueError(f"backward: .grad {list(x._grad.shape)} of a tensor {list(x.shape)} has another shape")
            dx = _core.add(x._grad, dx)
        updates.append((x, dx))
    recorder = mode.recorder if observers else None
    for x, dx in updates:
        x._grad = dx if recorder is None else recorder.gradient(x, dx)


def grad(
    output: Tensor, inputs: Tensor | Iterable[Tensor], grad_output: object = None, retain_graph: bool = False
) -> list[Array]:
    """Return the gradients of `output` with respect to `inputs`, and leave every `.grad` as it is.

    `inputs` may be leaves or computed tensors. `grad_output` (of the shape of `output`) can be left out for a single
    element. Raises RuntimeError if `output` does not depend on one of them, TypeError for what is no tensor.

    >>> import pynn
    >>> x = pynn.tensor(3.0, requires_grad=True)
    >>> pynn.grad(x * x, [x])
    [array(6., dtype=float32)]
    """
    tensors = list(inputs) if isinstance(inputs, Iterable) and not isinstance(inputs, Tensor) else [inputs]
    for x in (output, *tensors):
        if not isinstance(x, Tensor):
            raise TypeError(f"grad: got a {type(x).__name__}, needs tensors")
    dy = _start_gradient("grad", output, grad_output)
    sources = [x._node or x for x in tensors]
    start = output._node or output
    found = _gradients(output, dy, True, {s for s in sources if type(s) is Node})
    for i, source in enumerate(sources):
        if source not in found:
            raise RuntimeError(f"grad: the output does not depend on input {i}, {list(tensors[i].shape)}")
    if not retain_graph:  # only now: a refusal leaves the graph as it was
        for node in _history(start):
            node.release()
    return [found[source] for source in sources]


def _start_gradient(name: str, output: Tensor, grad_output: object) -> Array:
    """The dy that the walk starts with: a new array, or the shared 1."""
    if not output.requires_grad:
        raise RuntimeError(
            f"{name}: nothing that the tensor was computed from requires a gradient (or it was detached)"
        )
    if grad_output is None:
        y = output.data
        if y.size != 1:
            raise ValueError(
                f"{name}: needs a scalar such as a loss, got shape {list(output.shape)}; reduce it or pass its gradient"
            )
        if y.ndim == 0 and output._node is not None:  # a leaf's gradient will be its own
            return _one32 if y.dtype == _one32.dtype else _one64
        return np.ones(output.shape, output.dtype)
    given = grad_output.data if isinstance(grad_output, Tensor) else grad_output
    dy = as_array(name, given, None if isinstance(given, np.ndarray) else output.dtype)
    dy = dy.copy() if mode.recorder is None else mode.recorder.copy(dy)
    if dy.dtype != output.dtype:
        raise TypeError(f"{name}: gradient is {dy.dtype}, needs the dtype of the tensor, {output.dtype}")
    if dy.shape != output.shape:
        raise ValueError(f"{name}: gradient {list(dy.shape)} needs the shape of the tensor, {list(output.shape)}")
    return dy


def _gradients(y: Tensor, dy: Array, retain_graph: bool, keep: Collection[Node] = ()) -> dict[Node | Tensor, Array]:
    """Gradients of the leaves of `y` and of the nodes in `keep` or under `retain_grad`; no array appears twice."""
    start = y._node or y
    grads: dict[Node | Tensor, Array] = {start: dy}
    recorder = mode.recorder if observers else None
    given: set[int] = set()  # what memory it gave to leaves
    history = _history(start)
    for node in history:
        dy = grads.pop(node, None)  # type: ignore[arg-type]
        if dy is not None:
            if node.retained is not None or node in keep:
                grads[node] = dy.copy() if recorder is None else recorder.copy(dy)
            try:
                dxs = node.backward(dy)  # type: ignore[misc]
            except BaseException:
                for other in history:  # the marks of hooks, which have gathered gradients of this walk
                    forget = getattr(other.backward, "forget", None)
                    if forget is not None:
                        forget()
                raise
            if len(dxs) != len(node.parents):
                raise ValueError(f"backward: {node.name} has {len(node.parents)} parents, got {len(dxs)} gradients")
            for parent, dx in zip(node.parents, dxs):  # noqa: B905 - strict costs as much as the rest of the line
                if parent is None or dx is None:
                    continue
                if parent in grads:
                    dx = _core.add(grads[parent], dx)  # not in place: the sum so far may be someone's dy
                elif type(parent) is not Node:
                    if recorder is not None:
                        dx = recorder.own(dx, given)
                    elif dx is dy or isinstance(dx.base, ndarray):
                        dx = dx.copy()  # a leaf's gradient will be its own
                grads[parent] = dx
        if not retain_graph:  # node.release(), without the call
            node.backward = node.output_version = None
            node.parents = node.saved = ()
    if len(set(map(id, grads.values()))) != len(grads):  # a function gave one array to several parents
        seen: set[int] = set()
        for source, dx in grads.items():
            grads[source] = dx.copy() if id(dx) in seen else dx
            seen.add(id(dx))
    return grads


def _history(start: Node | Tensor) -> list[Node]:
    """All nodes behind `start`, newest first, each checked before any of them runs."""
    nodes = [start] if type(start) is Node else []
    seen = set(nodes)
    latest_write, is_sorted = _latest_write, True
    for node in nodes:  # grows while we walk it
        if node.order < latest_write or node.backward is None:
            node.check()
        for parent in node.parents:
            if type(parent) is Node and parent not in seen:
                seen.add(parent)
                is_sorted = is_sorted and parent.order < nodes[-1].order  # as a rule: a chain
                nodes.append(parent)
    if not is_sorted:
        nodes.sort(key=_age, reverse=True)
    return nodes
