"""What `pynn.capture` notes while a function runs for the first time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pynn import _core, intercept
from pynn._changes import Changes
from pynn._draws import Draw, Drawn, drawn_now
from pynn._guards import Guards
from pynn.grad_mode import mode, observers
from pynn.guarded import CaptureError, guarded, where
from pynn.intercept import CHECKS, IN_PLACE, READS, UPDATES
from pynn.nn.module import Parameter
from pynn.plan import Array, Call, Repeat, arrays_in, memory

if TYPE_CHECKING:
    from pynn.optim import Optimizer
    from pynn.tensor import Tensor

__all__ = ["Recorder"]


class Recorder(Guards):
    """Notes what the core is asked for while a function runs, and what must be undone if it fails."""

    def __init__(self) -> None:
        super().__init__()
        self._dropped: dict[int, tuple[Tensor, int]] = {}  # and before which call
        self.calls: list[Call] = []
        self.leaves: dict[Tensor, bool] = {}  # whether an earlier gradient had been dropped
        self.grads: list[tuple[Tensor, Array | None, int]] = []  # and which call found the one from before gone
        self.draws: list[Draw] = []
        self.after: list[Callable[[], None]] = []
        self.originals: dict[str, Any] = {}
        self._arguments: list[tuple[Array, Array]] = []  # the caller's, and the copy that is read
        self.shared: dict[int, tuple[Any, ...]] = {}  # which of them share memory with what is written, and where it is
        self.written: list[Array] = []  # that no replay makes
        self._copies: list[Call] = []  # that follow the latest call
        self._made: set[int] = set()  # the memory that replays will write
        self._weights: set[int] = set()  # that of parameters

    def __enter__(self) -> Recorder:
        self.originals = intercept.start()
        self._changes = Changes(self.originals["broadcast_to"])
        mode.recorder = self
        observers.append(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        mode.recorder = None
        observers.remove(self)
        intercept.stop()
        try:
            if error is None:
                self._changes.commit()
        except BaseException as interrupt:
            error = interrupt
            raise
        finally:
            if error is not None:
                self._changes.roll_back()
                for thing, name, value in self.guards.values():
                    if name == "data":
                        thing.data = value
                self.restore()

    def call(self, name: str, original: Any, args: tuple[Any, ...]) -> Any:
        """Call a function of the core, and note it."""
        if name in READS:
            raise CaptureError(f"capture: {READS[name]} reads a value, {where()}, which a replay could not act on")
        written = [array for i in IN_PLACE[name] for array in arrays_in(args[i])] if name in IN_PLACE else ()
        outside = [array for array in written if not self.made(array)] if written else []
        result = None
        if outside and name in UPDATES:
            self._changes.update(original, args, outside)
        else:
            self._changes.catch_up()
            if outside:
                self._changes.keep(outside)
            result = original(*args)
        if self._copies:
            self._note_copies()
        outputs = [result] if isinstance(result, np.ndarray) else arrays_in(result)
        call = Call(name, args, outputs, written, checks=name in CHECKS)
        self._made.update(call.made_memory)
        self.calls.append(call)
        if outside:
            self._writes_outside(outside)
        if self.draws:
            drawn = [i for i, arg in enumerate(args) if isinstance(arg, Drawn)]
            if drawn:
                call.repeat = Repeat(drawn[0], functools.partial(drawn_now, args[drawn[0] :]))
        return guarded(result)

    def input(self, array: Array) -> Array:
        """Return the memory that a replay copies this argument to."""
        copy = np.array(array, array.dtype.newbyteorder("="), order="C")
        self._made.add(memory(copy))
        self._arguments.append((array, copy))
        return copy

    def output(self, value: Array | Tensor) -> Array:
        """Return the memory that a replay copies this result from."""
        if not isinstance(value, np.ndarray):
            self.reads(value)
            value = value.data
        return value.view(np.ndarray)

    def _writes_outside(self, arrays: list[Array]) -> None:
        """Write to the copies of arguments, too, what changed in memory that they share with these arrays."""
        self.written += arrays
        originals = [array for array, _ in self._arguments]
        for i in _core.Recording.overlapping(originals, _core.Recording.extents(arrays)):
            array, copy = self._arguments[i]
            if array.dtype != copy.dtype or array.dtype.kind != "f" or not array.flags.c_contiguous:
                raise CaptureError(
                    f"capture: an argument {list(array.shape)} shares memory with what is updated, {where()}, which "
                    "takes contiguous arrays of floats; pass a copy, or let the function refer to the array"
                )
            self._changes.catch_up()
            np.copyto(copy, array)
            self.shared[i] = place(array)
            self._copies.append(Call("broadcast_to", (array, array.shape), [copy], [copy]))

    def _note_copies(self) -> None:
        self.calls += self._copies
        self._copies = []

    def made(self, array: Array) -> bool:
        """Whether a replay writes to this array."""
        return memory(array) in self._made

    def differs(self, array: Array) -> bool:
        """Whether there are other values in this array in each replay."""
        return array.size > 0 and self.made(array)

    # -- called by the tape, modules, optimisers and random numbers while a recorder is at work ------------------------

    def computes(self, name: str, parents: Sequence[Tensor], y: Array) -> None:
        """An operation has computed `y` from its parents, on which a replay relies."""
        made = memory(y) in self._made
        for tensor in parents:
            if memory(tensor.data) not in self._made:
                if not made and y.size and self._is_weight(tensor) and memory(y) not in self._weights:
                    raise CaptureError(
                        f"capture: {name} of a parameter is computed by NumPy here, which a replay does not repeat, "
                        f"{where()}"
                    )
                self.guards.setdefault((id(tensor), "data"), (tensor, "data", tensor.data))
                if (id(tensor), "requires_grad") not in self.around.modes:
                    self.around.switches(tensor, "requires_grad")
            elif not made and y.size and self.differs(tensor.data):
                raise CaptureError(
                    f"capture: {name} is computed by NumPy here, which a replay does not repeat, {where()}"
                )

    def reads(self, tensor: Tensor) -> None:
        """A replay relies on the memory of a tensor, if it makes no other."""
        if not self.made(tensor.data):
            self.guards.setdefault((id(tensor), "data"), (tensor, "data", tensor.data))

    def _is_weight(self, tensor: Tensor) -> bool:
        """Whether a training changes this tensor, or what it is a view of."""
        if tensor.requires_grad or isinstance(tensor, Parameter):
            self._weights.add(memory(tensor.data))
        return memory(tensor.data) in self._weights

    def by_numpy(self, name: str, function: Callable[..., Array], args: tuple[Any, ...]) -> Array:
        """Return what NumPy computes, if it computes it from what no replay changes."""
        self._changes.catch_up()
        y = function(*args)
        if any(map(self.differs, arrays_in(args))):
            raise CaptureError(f"capture: {name} is computed by NumPy here, which a replay does not repeat, {where()}")
        return y

    def switches(self, thing: Any, name: str) -> None:
        """A mode is about to be set."""
        if name != "requires_grad" or not self.made(thing.data):  # else the function makes the tensor
            self.around.switches(thing, name)

    def counts(self, batch_norm: Any) -> None:
        """A module counts batches."""
        counter = batch_norm.num_batches_tracked

        def count(n: int) -> None:
            counter[...] += n

        self.undo(lambda: count(-1))
        self._writes_outside([counter])
        self.done(lambda: count(1))

    def averages(self, name: str) -> None:
        """A module is about to weigh a batch by how many there were."""
        raise CaptureError(
            f"capture: {name} with momentum=None averages over all batches, {where()}, which a replay does not count"
        )

    def catch_up(self) -> None:
        """NumPy is about to read or write parameters, or an optimiser's states."""
        self._changes.catch_up()

    def numpy(self, tensor: Tensor) -> None:
        """A tensor is asked for its array."""
        self._changes.catch_up()
        if self.differs(tensor.data):
            guarded(tensor.data)._refuse()
        self.reads(tensor)

    def view(self, array: Array) -> Array:
        """Return an array guarded, if replays will change it and NumPy has taken the guard away."""
        return guarded(array) if self.made(array) else array

    def copy(self, array: Array) -> Array:
        """Return a copy that replays make anew, if they change the array."""
        self._changes.catch_up()
        return _core.broadcast_to(array, array.shape) if self.made(array) and array.dtype.kind == "f" else array.copy()

    def writes(self, name: str, instead: str = "return the new values, or let an optimiser update it") -> None:
        """A tensor, or its gradient, is written in place."""
        raise CaptureError(
            f"capture: {name} writes a tensor in place, {where()}, which a replay does not repeat; {instead}"
        )

    def fills_gradient(self) -> None:
        """A gradient is filled with zeros."""
        self.writes("zero_grad", "call it without set_to_none=False")

    def converts(self, what: str, array: Array, dtype: np.dtype[Any]) -> None:
        """NumPy converts an array."""
        self._changes.catch_up()
        if self.differs(array):
            how = f"converted from {array.dtype} to {dtype}, {where()}"
            instead = "convert it before it is passed to the captured function"
            if array.dtype == dtype:
                how = f"copied by NumPy to lie in order, {where()}"
                instead = "use operations on the tensor, such as transpose, in place of those on its array"
            raise CaptureError(
                f"capture: {what} {list(array.shape)} is {how}, which a replay does not repeat; {instead}"
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
        self._changes.undo(action)

    def done(self, action: Callable[[], None]) -> None:
        """Python does this in each replay, once all has been written that was written so far."""
        writing = next((call for call in reversed(self.calls) if call.written), None)
        if writing is None:
            self.after.append(action)
        else:
            writing.done += (action,)

    def repeat(self, first: int, numbers: Callable[[], tuple[Any, ...]], *done: Callable[[], None]) -> None:
        """The latest call takes these numbers, from its argument `first`, in later replays; `done` follows it."""
        self.calls[-1].repeat = Repeat(first, numbers)
        self.calls[-1].done += done

    def schedules(self, name: str, optimizer: Optimizer, step: Callable[[], None]) -> None:
        """A schedule steps: it does so in each replay, between the calls that it stands between."""
        self.around.forget(optimizer)
        self._note_copies()
        self.calls.append(Call(name, (), [], checks=True, python=step))

    def fixed_options(self, group: dict[str, Any]) -> None:
        """An optimiser computes with its options while it is recorded: with others it is captured anew."""
        if any(call.python for call in self.calls):
            raise CaptureError(f"capture: a schedule steps before the optimizer, {where()}, and needs to step after it")
        options = dict(group)
        self.holds(lambda: group == options)

    def gradient(self, tensor: Tensor, grad: Array) -> Array:
        """Return the gradient of a leaf, guarded."""
        if tensor._grad is not None and not self.made(tensor._grad):
            raise CaptureError(
                f"capture: a tensor {list(tensor.shape)} already has a gradient from before, {where()}, to which "
                "every replay would add; call zero_grad inside of the captured function, of a module or optimizer that "
                "has this tensor"
            )
        if tensor not in self.leaves:
            self.leaves[tensor] = id(tensor) in self._dropped
            self._undo_gradient(tensor)
        return grad

    def drops_gradient(self, tensor: Tensor) -> None:
        """A gradient is set to None."""
        if id(tensor) not in self._dropped:
            self._dropped[id(tensor)] = tensor, len(self.calls)
            self._undo_gradient(tensor)

    def assigns_gradient(self, tensor: Tensor) -> None:
        """A gradient takes the place of what was there."""
        self.drops_gradient(tensor)
        self.leaves[tensor] = True

    def _undo_gradient(self, tensor: Tensor) -> None:
        self._changes.undo(functools.partial(setattr, tensor, "_grad", tensor._grad))

    def new_leaf(self, tensor: Tensor) -> None:
        """A tensor begins to require a gradient."""
        if self.made(tensor.data) or tensor.requires_grad:
            return
        if (id(tensor), "requires_grad") not in self.around.modes:
            raise CaptureError(
                f"capture: a parameter {list(tensor.shape)} is made, or begins to require a gradient, inside of the "
                f"captured function, {where()}; do so before, so that it lives from call to call"
            )

    def draw(self, n: int, drawn: tuple[int, int]) -> tuple[int, int]:
        """Return the key and offset of random numbers in a form that later calls can be seen to use."""
        draw = Draw(n, drawn)
        self.draws.append(draw)
        return Drawn(draw, 0), Drawn(draw, 1)

    def random(self) -> None:
        """NumPy is asked for random numbers."""
        raise CaptureError(
            f"capture: random numbers are drawn with NumPy {where()}, and would be the same in every replay; draw "
            "them outside, and pass them to the captured function"
        )

    def random_starts(self) -> None:
        """`seed`, `fork_rng` or `set_rng_state` is called."""
        raise CaptureError(
            f"capture: random numbers start anew, {where()}, which a replay does not repeat; it draws on from where "
            "they stand: call this outside of the captured function"
        )

    def own(self, dx: Array, given: set[int]) -> Array:
        """Return a gradient in memory that no other leaf was `given`."""
        at = memory(dx)
        if at in given or at not in self._made:
            dx = _core.broadcast_to(dx, dx.shape)
            at = memory(dx)
        given.add(at)
        return dx

    def uses_gradient(self, tensor: Tensor) -> None:
        """The gradient of this leaf is used where it stands, if it has one."""
        if tensor._grad is None:
            if id(tensor) not in self._dropped:  # another step may give it one
                self.guards[id(tensor), "_grad"] = tensor, "_grad", None
        elif not self.made(tensor._grad):
            raise CaptureError(
                f"capture: a gradient {list(tensor.shape)} from before is used, {where()}; call backward inside of the "
                "captured function"
            )

    def finish(self) -> None:
        """Collect the gradients that stay, and open them to NumPy; those that were dropped stay None."""
        self._note_copies()
        for thing, name, value in self.guards.values():
            if name == "data" and thing.data is not value:
                raise CaptureError(
                    f"capture: the data of a tensor {list(thing.shape)} are replaced, {where()}, which a replay does "
                    "not repeat; return the new values, or let an optimiser update them"
                )
        self.check()
        self.after += self.around.modes_left()
        for tensor, dropped in self.leaves.items():
            if self.made(tensor.data):  # the next call has another one
                continue
            if tensor._grad is not None:
                tensor._grad = tensor._grad.view(np.ndarray)
                _, at = self._dropped.get(id(tensor), (tensor, 0))
                self.grads.append((tensor, tensor._grad, at))
            if not dropped:  # a second call would add to it
                self.guards[id(tensor), "_grad"] = tensor, "_grad", None
        self.grads += [(tensor, None, at) for tensor, at in self._dropped.values() if tensor._grad is None]


def place(array: Array) -> tuple[Any, ...]:
    """Where an array is, beside its shape and dtype."""
    return array.ctypes.data, array.strides
