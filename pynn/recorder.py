"""What `pynn.capture` notes while a function runs for the first time."""

from __future__ import annotations

import copy
import functools
import operator
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence, Set
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np

from pynn import _core
from pynn._snapshot import pairs
from pynn._surroundings import surroundings
from pynn.grad_mode import mode
from pynn.plan import Array, Call, Repeat, arrays_in, memory
from pynn.random import next_offset

if TYPE_CHECKING:
    from pynn.nn import Module
    from pynn.tensor import Tensor

__all__ = ["CaptureError", "Guarded", "Recorder"]


class CaptureError(RuntimeError):
    """The function did something that a replay could not repeat."""


class Guarded(np.ndarray):
    """The memory of a recorded value: the core may read it, NumPy and Python may not."""

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise CaptureError(
            f"capture: a value {list(self.shape)} of a captured step is read, {_where()}; each replay changes it, and "
            "only what pynn computes is repeated: return it from the captured function, and read it outside"
        )

    # NumPy's own ways in, then Python's, then the methods that look at values.
    __array_function__ = __getitem__ = __setitem__ = __iter__ = _refuse
    __float__ = __int__ = __bool__ = __index__ = __complex__ = __contains__ = __repr__ = __str__ = _refuse
    item = tolist = tobytes = astype = copy = fill = argmax = argmin = argsort = sort = take = _refuse
    std = var = max = min = all = any = prod = dot = round = clip = nonzero = cumsum = _refuse
    flatten = repeat = trace = diagonal = compress = choose = searchsorted = argpartition = cumprod = _refuse
    __format__ = __copy__ = __deepcopy__ = __reduce__ = __reduce_ex__ = tofile = dump = dumps = _refuse
    flat = _refuse  # type: ignore[assignment]

    # What a metric needs: how many, or which part, of integers are equal.
    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        found = None
        if ufunc is np.equal and method == "__call__" and not kwargs and mode.recorder is not None:
            found = mode.recorder.equal(*inputs)
        return self._refuse() if found is None else found

    def sum(self, *args: Any, **kwargs: Any) -> Any:
        return _core.count(self) if self._can_be_counted(args, kwargs) else self._refuse()

    def mean(self, *args: Any, **kwargs: Any) -> Any:
        return _core.share(self) if self._can_be_counted(args, kwargs) else self._refuse()

    def _can_be_counted(self, *options: Any) -> bool:
        return self.dtype == bool and not any(options) and mode.recorder is not None


class Draw:
    """A reservation of `n` counters of the kernels' random numbers, which each replay makes anew."""

    def __init__(self, n: int, drawn: tuple[int, int]) -> None:
        self.n, self.drawn = n, drawn

    def again(self) -> None:
        self.drawn = next_offset(self.n)


class Drawn(int):
    """Key or offset of a `Draw`, as an argument of a call."""

    draw: Draw
    which: int

    def __new__(cls, draw: Draw, which: int) -> Drawn:
        self = super().__new__(cls, draw.drawn[which])
        self.draw, self.which = draw, which
        return self


def _drawn_now(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(arg.draw.drawn[arg.which] if isinstance(arg, Drawn) else arg for arg in args)


class Recorder:
    """Notes what the core is asked for while a function runs, and what must be undone if it fails."""

    def __init__(self, leaves: Iterable[Tensor] = ()) -> None:
        """`leaves`: which had gradients after an earlier recording of the function."""
        self._had_gradient = {id(tensor) for tensor in leaves if tensor.grad is not None}
        self._dropped: set[int] = set()
        self.calls: list[Call] = []
        self.guards: dict[tuple[int, str], tuple[Any, str, Any]] = {}
        self.leaves: dict[Tensor, bool] = {}  # whether an earlier gradient had been dropped
        self.modules: dict[int, tuple[Module, tuple[Any, ...]]] = {}
        self._inside: Set[int] = set()  # modules that are children of those being called
        self.grads: list[tuple[Tensor, Array]] = []
        self._values: list[tuple[Any, str, Any]] = []
        self._globals: list[tuple[dict[str, Any], str, Any]] = []
        self.globals: list[tuple[dict[str, Any], str, Any]] = []  # that were not assigned to in the function
        self._functions: set[Any] = set()  # whose values were noted
        self.draws: list[Draw] = []
        self.entries: list[tuple[dict[Any, Any], Any, Any]] = []
        self.items: list[tuple[Any, tuple[Any, ...]]] = []
        self.conditions: list[Callable[[], bool]] = []
        self.after: list[Callable[[], None]] = []
        self.originals: dict[str, Any] = {}
        self._made: set[int] = set()  # the memory that replays will write
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> Recorder:
        _intercept.acquire()
        try:
            functions = vars(_core)
            self.originals, interceptors = _interceptors(_operations(functions))
            mode.recorder = self
            functions.update(interceptors)
        except BaseException:  # Ctrl-C
            self._restore()
            raise
        return self

    def _restore(self) -> None:
        mode.recorder = None
        try:
            vars(_core).update(self.originals)
        finally:
            _intercept.release()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._restore()
        if error is not None:
            for undo in reversed(self._undo):
                undo()

    def call(self, name: str, original: Any, args: tuple[Any, ...]) -> Any:
        """Call a function of the core, and note it."""
        if name in READS:
            raise CaptureError(f"capture: {READS[name]} reads a value, {_where()}, which a replay could not act on")
        written = [array for i in IN_PLACE[name] for array in arrays_in(args[i])] if name in IN_PLACE else []
        for array in written:
            if not self.made(array):
                self.undo(functools.partial(np.copyto, array, array.copy()))
        result = original(*args)
        call = Call(name, args, arrays_in(result), written, checks=name in CHECKS)
        self._made.update(call.made_memory)
        self.calls.append(call)
        if self.draws:
            drawn = [i for i, arg in enumerate(args) if isinstance(arg, Drawn)]
            if drawn:
                self.repeat(drawn[0], functools.partial(_drawn_now, args[drawn[0] :]))
        return guarded(result)

    def input(self, array: Array) -> Array:
        """Return the memory that a replay copies this argument to."""
        copy = np.array(array, array.dtype.newbyteorder("="), order="C")
        self._made.add(memory(copy))
        return copy

    def made(self, array: Array) -> bool:
        """Whether a replay will write other values to this array."""
        return array.size > 0 and memory(array) in self._made

    # -- called by the tape, modules, optimisers and random numbers while a recorder is at work ------------------------

    def result(self, name: str, parents: Sequence[Tensor], y: Array) -> Array:
        """Return the result of an operation, guarded if replays will change it."""
        made = self.made(y)
        for tensor in parents:
            if not self.made(tensor.data):
                if (id(tensor), "data") not in self.guards:  # a replay relies on its memory
                    self.fixed(tensor, "data")
                    self.fixed(tensor, "requires_grad")
            elif not made:
                raise CaptureError(
                    f"capture: {name} is computed by NumPy here, which a replay does not repeat, {_where()}"
                )
        return y

    def by_numpy(self, name: str, function: Callable[..., Array], args: tuple[Any, ...]) -> Array:
        """Return what NumPy computes, if it computes it from what no replay changes."""
        y = function(*args)
        if any(map(self.made, arrays_in(args))):
            raise CaptureError(f"capture: {name} is computed by NumPy here, which a replay does not repeat, {_where()}")
        return y

    def values_of(self, function: Any) -> None:
        """Note what the function has from around it, and the functions among that, unless it changes them itself."""
        if isinstance(function, functools.partial):
            function = function.func
        function, owner = getattr(function, "__func__", function), getattr(function, "__self__", None)
        if not isinstance(function, FunctionType) or function in self._functions:
            return
        if (function.__module__ or "").partition(".")[0] == "pynn":
            return
        self._functions.add(function)
        values, variables, methods = surroundings(function, owner)
        self._values += values
        self._globals += variables
        for value in (*(value for _, _, value in (*values, *variables)), *methods):
            self.values_of(value)

    def fixed(self, thing: Any, name: str) -> None:
        """Note an attribute that must be the same object in each replay."""
        self.guards[id(thing), name] = thing, name, getattr(thing, name)

    def same_entry(self, entries: dict[Any, Any], key: Any) -> None:
        """Note an entry that must be the same object in each replay."""
        self.entries.append((entries, key, entries[key]))

    def same_items(self, container: list[Any] | dict[Any, Any]) -> None:
        """Note that all items, or values under equal keys, must be the same objects in each replay."""
        self.items.append((container, pairs(container) if isinstance(container, dict) else tuple(container)))

    def module(self, module: Module, args: Any, kwargs: Any) -> Any:
        """Call a module whose attributes must be the same objects in each replay."""
        if id(module) in self._inside:
            return module.forward(*args, **kwargs)
        before = {id(m): (m, pairs(vars(m))) for m in module.modules()}
        for m, _ in before.values():
            if m._forward_hooks or m._backward_hooks:
                raise CaptureError(f"capture: {type(m).__name__} has a hook, {_where()}, which a replay would not call")
        for _, values in before.values():
            for value in values[1::2]:
                if isinstance(value, (list, dict)):
                    self.same_items(value)
        outside = self._inside
        self._inside = outside | before.keys()
        try:
            y = module.forward(*args, **kwargs)
        finally:
            self._inside = outside
        for m, values in before.values():
            if not are(vars(m), values):
                raise CaptureError(
                    f"capture: {type(m).__name__} changes its attributes in forward, {_where()}, which a replay does "
                    "not repeat"
                )
        self.modules.update(before)
        return y

    def counts(self, batch_norm: Any) -> None:
        """A module counts batches."""
        counter = batch_norm.num_batches_tracked

        def count(n: int) -> None:
            counter[...] += n

        self.undo(lambda: count(-1))
        self.after.append(lambda: count(1))

    def numpy(self, array: Array) -> None:
        """A tensor is asked for its array."""
        if self.made(array):
            guarded(array)._refuse()

    def view(self, array: Array) -> Array:
        """Return an array guarded, if replays will change it and NumPy has taken the guard away."""
        return guarded(array) if self.made(array) else array

    def copy(self, array: Array) -> Array:
        """Return a copy that replays make anew, if they change the array."""
        return _core.broadcast_to(array, array.shape) if self.made(array) and array.dtype.kind == "f" else array.copy()

    def writes(self, name: str) -> None:
        """A tensor is written in place."""
        raise CaptureError(
            f"capture: {name} writes a tensor in place, {_where()}, which a replay does not repeat; return the new "
            "values, or let an optimiser update it"
        )

    def converts(self, what: str, array: Array, dtype: np.dtype[Any]) -> None:
        """NumPy converts an array."""
        if self.made(array):
            raise CaptureError(
                f"capture: {what} {list(array.shape)} is converted from {array.dtype} to {dtype}, {_where()}, which a "
                "replay does not repeat; convert it before it is passed to the captured function"
            )

    def equal(self, *pair: Any) -> Array | None:
        """Return whether integers are equal, None if this is another comparison."""
        arrays = [np.asanyarray(x) for x in pair]
        if any(x.dtype.kind not in "iu" for x in arrays):
            return None
        a, b = (_core.as_int64(x) if self.made(x) else np.asarray(x, np.int64, order="C") for x in arrays)
        if a.ndim < b.ndim:
            a, b = b, a
        result: Array | None = _core.equal(a, b) if b.shape in ((), a.shape) else None
        return result

    def undo(self, action: Callable[[], None]) -> None:
        """Do this if the function fails."""
        self._undo.append(action)

    def holds(self, condition: Callable[[], bool]) -> None:
        """Something a replay relies on: where it is false, the function is captured anew."""
        self.conditions.append(condition)

    def repeat(
        self, first: int, numbers: Callable[[], tuple[Any, ...]], done: Callable[[], None] = lambda: None
    ) -> None:
        """The latest call takes these numbers, from its argument `first`, in later replays; `done` follows each."""
        self.calls[-1].repeat = Repeat(first, numbers, done)

    def gradient(self, tensor: Tensor, grad: Array) -> Array:
        """Return the gradient of a leaf, guarded."""
        if tensor.grad is not None and not self.made(tensor.grad):
            raise CaptureError(
                f"capture: a tensor {list(tensor.shape)} already has a gradient from before, {_where()}, to which "
                "every replay would add; call zero_grad inside of the captured function"
            )
        if tensor.grad is None and id(tensor) in self._had_gradient:
            self._dropped.add(id(tensor))  # by `tensor.grad = None`
        if tensor not in self.leaves:
            self.leaves[tensor] = id(tensor) in self._dropped
        self._undo_gradient(tensor)
        return grad

    def drops_gradient(self, tensor: Tensor) -> None:
        """A gradient is set to None."""
        self._dropped.add(id(tensor))
        self._undo_gradient(tensor)

    def _undo_gradient(self, tensor: Tensor) -> None:
        before = tensor.grad
        self.undo(lambda: setattr(tensor, "grad", before))

    def new_leaf(self, tensor: Tensor) -> None:
        """A tensor begins to require a gradient."""
        if not self.made(tensor.data):
            raise CaptureError(
                f"capture: a parameter {list(tensor.shape)} is made inside of the captured function, {_where()}; make "
                "it before, so that it lives from call to call"
            )

    def draw(self, n: int, drawn: tuple[int, int]) -> tuple[int, int]:
        """Return the key and offset of random numbers in a form that later calls can be seen to use."""
        draw = Draw(n, drawn)
        self.draws.append(draw)
        return Drawn(draw, 0), Drawn(draw, 1)

    def random(self) -> None:
        """NumPy is asked for random numbers."""
        raise CaptureError(
            f"capture: random numbers are drawn with NumPy {_where()}, and would be the same in every replay; draw "
            "them outside, and pass them to the captured function"
        )

    def own(self, dx: Array, given: set[int]) -> Array:
        """Return a gradient in memory that no other leaf was `given`."""
        if memory(dx) in given or not self.made(dx):
            dx = _core.broadcast_to(dx, dx.shape)
        given.add(memory(dx))
        return dx

    def uses_gradient(self, tensor: Tensor) -> None:
        """An optimiser uses the gradient of this leaf."""
        if tensor.grad is not None and not self.made(tensor.grad):
            raise CaptureError(
                f"capture: an optimiser uses a gradient {list(tensor.shape)} from before, {_where()}; call backward "
                "inside of the captured function"
            )

    def finish(self) -> None:
        """Collect the gradients that stay, and open them to NumPy."""
        for thing, name, value in self._values:
            if getattr(thing, name) is value:
                self.guards[id(thing), name] = thing, name, value
        self.globals = [entry for entry in self._globals if entry[0].get(entry[1]) is entry[2]]
        for tensor, dropped in self.leaves.items():
            if self.made(tensor.data):  # the next call has another one
                continue
            if tensor.grad is not None:
                tensor.grad = tensor.grad.view(np.ndarray)
                self.grads.append((tensor, tensor.grad))
            if not dropped:  # a second call would add to it
                self.guards[id(tensor), "grad"] = tensor, "grad", None


def guarded(value: Any) -> Any:
    """Return a result of the core with its arrays as `Guarded`."""
    if isinstance(value, np.ndarray):
        return value.view(Guarded)
    return tuple(map(guarded, value)) if isinstance(value, tuple) else value


_intercept = threading.Lock()  # one function is captured at a time

# What the core offers that is no computation.
_NOT_CALLS = {
    "info",
    "num_threads",
    "set_num_threads",
    "kernel_counts",
    "reset_kernel_counts",
    "arena_stats",
    "empty",
    "peak_flops",
    "copy_rate",
}
OPERATIONS = [
    name
    for name, value in vars(_core).items()
    if callable(value) and name not in _NOT_CALLS and name[0] in "abcdefghijklmnopqrstuvwxyz"
]
IN_PLACE = {
    "sgd_": (0, 2),
    "adam_": (0, 2, 3),
    "rmsprop_": (0, 2, 3, 4),
    "adagrad_": (0, 2),
    "adadelta_": (0, 2, 3),
    "scale_": (0,),
    "clip_norm_": (0,),
    "batch_norm": (3, 4),
}  # which arguments these write
READS = {"l2_norm": "clip_grad_norm_"}
CHECKS = {"require_finite"}  # raise, and have no result


def _intercepted(name: str, original: Any, *args: Any) -> Any:
    recorder = mode.recorder
    return original(*args) if recorder is None else recorder.call(name, original, args)  # None in other threads


_operations = operator.itemgetter(*OPERATIONS)


@functools.lru_cache(1)
def _interceptors(originals: tuple[Any, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The core's functions by name, and what stands in their place while a function is recorded."""
    functions = dict(zip(OPERATIONS, originals, strict=True))
    return functions, {name: functools.partial(_intercepted, name, f) for name, f in functions.items()}


def are(attributes: dict[str, Any], wanted: tuple[Any, ...]) -> bool:
    """Whether the attributes have these names and are these very objects."""
    return tuple(attributes) == wanted[::2] and all(map(operator.is_, attributes.values(), wanted[1::2]))


def _where() -> str:
    """The line of the user's that led here."""
    for frame, line in traceback.walk_stack(sys._getframe()):
        path = frame.f_code.co_filename
        if not path.startswith(_OURS) and (not path.startswith(_STANDARD_LIBRARY) or "-packages" in path):
            return f"at {path}:{line}"
    return "somewhere"


_OURS, _STANDARD_LIBRARY = __file__.rpartition("recorder")[0], copy.__file__.rpartition("copy")[0]
