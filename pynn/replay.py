"""`capture`: a step written in Python, recorded once and replayed in C++.

The first call of a captured function runs it as always and notes every call of the core: name, arguments, results
(`pynn.recorder`). The notes are a `Plan`, a list that can be looked at (`pynn.plan`); passes rewrite it
(`pynn.passes`), and it is then recorded once more in the core, without computing, as a list of computations on memory
that is laid out for good. Later calls bind or copy their arguments to that memory and run the list.
"""

from __future__ import annotations

import functools
import itertools
import operator
import sys
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

import numpy as np

from pynn import _core
from pynn._arguments import arrays_of, describe, rebuild, wrapped
from pynn._binding import LEAST_BOUND, Input, Step
from pynn._surroundings import SIMPLE
from pynn.grad_mode import mode, observers
from pynn.guarded import CaptureError, Guarded
from pynn.plan import Array, Call, Plan, memory
from pynn.recorder import Recorder, place
from pynn.tensor import Tensor

__all__ = ["CaptureError", "Captured", "capture"]

MOST_PLANS = 16  # of one captured function; the one unused for longest is dropped
_is_ready, _finish = _core.Recording.is_ready, _core.Recording.finish


def capture(function: Callable[..., Any]) -> Captured:
    """Return a function that records `function` when it is first called, and replays the recording afterwards.

    Parameters
    ----------
    function
        Any function of arrays, tensors and hashable values that runs forward, loss, `backward`, optimisers, or only a
        forward: also a module, or a method. Arrays and tensors may be inside of tuples, lists and dicts.

    Returns
    -------
    Captured
        Call it like `function`. It returns tensors of its own for the tensors that `function` returns. It captures anew
        for other shapes, dtypes, values of the hashable arguments, `train()` or `eval()`.

    Examples
    --------
    >>> import numpy as np
    >>> import pynn
    >>> from pynn import nn, optim
    >>> model = nn.Linear(3, 1)
    >>> optimizer = optim.SGD(model.parameters(), lr=0.1)
    >>> @pynn.capture
    ... def step(x, y):
    ...     optimizer.zero_grad()
    ...     loss = pynn.functional.mse_loss(model(x), y)
    ...     loss.backward()
    ...     optimizer.step()
    ...     return loss
    >>> x, y = np.ones((4, 3), np.float32), np.zeros((4, 1), np.float32)
    >>> losses = [step(x, y).item() for _ in range(3)]
    >>> losses[0] > losses[1] > losses[2]
    True
    """
    return Captured(function)


class Captured:
    """What `capture` returns."""

    def __init__(self, function: Callable[..., Any]) -> None:
        if not callable(function):
            raise TypeError(f"capture: got {function!r}, needs a function or a module")
        self.function = function
        self._name: str = getattr(function, "__name__", type(function).__name__)
        self._plans: OrderedDict[Any, list[_Replay]] = OrderedDict()  # the one used last comes last
        self._latest: _Replay | None = None
        self._lock = threading.RLock()
        self._dropped = 0
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if observers and mode.recorder is not None:  # inside of another capture: a part of it
            mode.recorder.around.note(self.function, arguments=_things(args, kwargs))
            return self.function(*args, **kwargs)
        self._lock.acquire()  # a `with` statement takes longer
        try:
            latest = self._latest
            if latest is not None and not kwargs and latest.is_ready(args):
                return latest.replay(args)
            return self._choose(args, kwargs)
        finally:
            self._lock.release()

    def __get__(self, thing: object, kind: type | None = None) -> Any:
        """As a method of a class: what is captured is the method of each object, which keeps its plans."""
        if thing is None or not isinstance(self.function, FunctionType):
            return self
        if isinstance(thing, type):  # within `@classmethod`, up to Python 3.12
            return MethodType(self, thing)
        try:
            attributes = vars(thing)
        except TypeError:
            raise TypeError(
                f"capture: {self._name} of {type(thing).__name__}, needs a class without __slots__"
            ) from None
        attribute = f"_captured {self.function.__qualname__}"  # a subclass may have a method of the same name
        own = attributes.get(attribute)
        if own is None:
            own = Captured(MethodType(self.function, thing))
            if mode.recorder is None:  # a captured function may not give things new attributes
                own = attributes.setdefault(attribute, own)
        return own

    def _choose(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Replay the plan for these arguments, or make one."""
        arrays: list[Array] = []
        key = (mode.enabled, *[describe(arg, arrays) for arg in args])
        if kwargs:
            key = (*key, "kwargs", describe(kwargs, arrays))
        for replay in self._plans.get(key, ()):
            if replay.is_current() and replay.fits(arrays):
                self._plans.move_to_end(key)
                self._latest = replay
                replay.expect(args, kwargs)
                return replay.run(arrays)
        return self._capture(key, args, kwargs, arrays)

    def __reduce__(self) -> str | tuple[type[Captured], tuple[Callable[..., Any]]]:
        """Copy and pickle without plans: by its name where the decorator is used in a module, else as the function."""
        name = getattr(self, "__qualname__", "")
        try:
            if operator.attrgetter(name)(sys.modules[self.__module__]) is self:
                return name
        except (AttributeError, KeyError):
            pass
        return Captured, (self.function,)

    def __repr__(self) -> str:
        """Return what was captured, and how many plans it has: one for each kind of arguments."""
        return f"Captured({self._name}, plans={sum(map(len, self._plans.values()))})"

    def plan(self) -> Plan:
        """Return the plan of the latest call; RuntimeError before the first one."""
        if self._latest is None:
            raise RuntimeError("plan: nothing was captured yet; call the function first")
        return self._latest.plan

    def _capture(self, key: Any, args: Any, kwargs: Any, arrays: list[Array]) -> Any:
        _core.keep_awake()  # here and below: as long as Python works, no call comes
        with Recorder() as recorder:
            things = _things(args, kwargs)
            recorder.around.note(self.function, arguments=things)
            for thing in things:
                recorder.around.note(thing)
            inputs = [recorder.input(array) for array in arrays]
            fresh = iter([wrapped(array.view(Guarded)) for array in inputs])
            new_args, new_kwargs = rebuild((args, kwargs), fresh)
            result = self.function(*new_args, **new_kwargs)
            outputs = [recorder.output(value) for value in arrays_of(result)]
            result = rebuild(result, itertools.repeat(wrapped(_nothing)))  # without the tensors and their graph
            recorder.finish()
        _core.keep_awake()
        self._latest = _Replay(recorder, inputs, result, outputs)
        _core.keep_awake()
        self._latest.expect(args, kwargs)
        self._plans.setdefault(key, []).append(self._latest)
        self._plans.move_to_end(key)
        if sum(map(len, self._plans.values())) > MOST_PLANS:
            self._drop_oldest()
        return self._latest.results()

    def _drop_oldest(self) -> None:
        _, replays = next(iter(self._plans.items()))
        replays.pop(0)
        if not replays:
            self._plans.popitem(last=False)
        self._dropped += 1
        if self._dropped == MOST_PLANS:
            warnings.warn(
                f"capture: {2 * MOST_PLANS} plans were made for {self._name}, and {MOST_PLANS} thrown away; "
                "each new shape, dtype or value of an argument, and of what it has from around it, captures anew",
                RuntimeWarning,
                stacklevel=5,
            )


def _things(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Return the arguments that may have something to compare: of a dict, all of it is compared as it is."""
    return [arg for arg in (*args, *kwargs.values()) if not isinstance(arg, dict)]


class _Replay:
    """A plan, ready to run."""

    def __init__(self, recorder: Recorder, inputs: list[Array], result: Any, outputs: list[Array]) -> None:
        self._outputs, self._result = outputs, result
        self._is_tensor = isinstance(result, Tensor)
        self._guards = recorder.flat()
        self._draws = recorder.draws
        returned = [*outputs, *(grad for _, grad, _ in recorder.grads if grad is not None)]
        kept = [*inputs, *returned]
        numbers = _core.Recording.arrays_in(kept)[1]
        self._kept = {*numbers}
        self.plan = Plan(recorder.calls, self._kept)
        self.plan.share_memory()
        self._recording = _core.Recording()
        steps: list[Step] = []  # that may be recorded anew
        self._between: list[tuple[Step, Call]] = []  # that Python has a part in
        self._done: list[tuple[int, Callable[[], None]]] = []
        record, functions = self._recording.record, recorder.originals
        is_large = any(own.nbytes >= LEAST_BOUND for own in inputs)
        for at, call in enumerate(self.plan.calls):
            is_between = call.repeat is not None or call.python is not None
            if is_between or is_large or call.links:
                steps.append(Step(at, call, functions))
                steps[-1].record(self._recording)
            else:
                record(at, functions[call.name], call.args, call.outputs)
            if is_between:
                self._between.append((steps[-1], call))
            if call.done:
                self._done += [(at, action) for action in call.done]
        self._actions = (*(action for _, action in self._done), *recorder.after)
        # Copied always: what is returned, and what an update writes while the call of it, rewritten, may still read it.
        copied = {*numbers[len(inputs) :], *(numbers[i] for i in recorder.shared)}
        self._inputs = [Input(own, steps, copied) for own in inputs]
        self._gradients = recorder.grads
        self._grads = tuple(itertools.chain(*((tensor, "_grad", grad) for tensor, grad, _ in recorder.grads)))
        self._written = _core.Recording.extents(recorder.written)  # outside of the plan
        self._shared = dict(sorted(recorder.shared.items()))

    def expect(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Prepare for arguments like these, which `is_ready` will know again."""
        self._enabled = mode.enabled
        self._expected = None
        self._bound = []
        if self._shared:  # `fits` has a closer look
            return
        inputs = iter(self._inputs)
        expected: list[Any] = []
        for i, arg in enumerate(args):
            if isinstance(arg, (np.ndarray, Tensor)):
                own = next(inputs)
                if own.own.dtype.hasobject:  # references, which are more than their bytes
                    return
                is_copied = own.own.nbytes < LEAST_BOUND
                expected += type(arg), own.own, is_copied
                if not is_copied:
                    self._bound.append((own, i))
            elif arg is None or type(arg) in SIMPLE:
                expected += type(arg), arg, False
            else:
                return
        if not kwargs:
            self._expected = tuple(expected)

    def is_ready(self, args: tuple[Any, ...]) -> bool:
        """Whether the arguments are like the latest ones, and all is current.

        Small arrays are then where the plan reads them.
        """
        expected = self._expected
        return (
            expected is not None
            and self._enabled is mode.enabled
            and _is_ready(args, expected, self._written, *self._guards)
        )

    def fits(self, arrays: list[Array]) -> bool:
        """Whether these arguments share memory with what the plan updates exactly as those of the recording did."""
        sharing = _core.Recording.overlapping(arrays, self._written)
        return sharing == [*self._shared] and all(place(arrays[i]) == at for i, at in self._shared.items())

    def is_current(self) -> bool:
        """Whether everything that the recording took for fixed is as it was."""
        return _core.Recording.unchanged(*self._guards)

    def replay(self, args: tuple[Any, ...]) -> Any:
        """Replay with arguments for which it is ready."""
        for own, i in self._bound:
            arg = args[i]
            own.bind(arg if isinstance(arg, np.ndarray) else arg.data, self._kept, self._recording)
        return self._replay()

    def run(self, arrays: list[Array]) -> Any:
        """Replay with these arrays for the arguments."""
        for own, array in zip(self._inputs, arrays, strict=True):
            own.bind(array, self._kept, self._recording)
        return self._replay()

    def _replay(self) -> Any:
        for draw in self._draws:
            draw.again()
        begin, barriers, is_running = 0, 0, False
        try:
            for step, call in self._between:
                if call.python is not None:
                    is_running = True
                    barriers += self._recording.run(begin, step.at)
                    begin, is_running = step.at, False
                    call.python()
                elif call.repeat is not None:
                    try:
                        step.renumber(call.repeat, self._recording)
                    except BaseException:  # of its numbers: the function would have come as far as there
                        is_running = True
                        self._recording.run(begin, step.at)
                        begin, is_running = step.at, False
                        raise
            is_running = True
            self.plan.barriers = barriers + self._recording.run(begin)
        except BaseException:
            self._stop(self._recording.position if is_running else begin)
            raise
        _finish(self._actions, self._grads)
        return self.results()

    def _stop(self, position: int) -> None:
        """Do in Python what follows the calls that were run, those before `position`."""
        for at, action in self._done:
            if at < position:
                action()
        calls = self.plan.calls
        stopped = calls[position].number if position < len(calls) else self.plan.recorded
        makers = {at: i for i, call in enumerate(calls) for at in call.made_memory}
        for tensor, grad, dropped in self._gradients:
            if dropped <= stopped:
                tensor._grad = grad if grad is not None and makers.get(memory(grad), -1) < position else None

    def results(self) -> Any:
        """Copies of what the function returned."""
        if self._is_tensor:
            return wrapped(self._outputs[0].copy())
        if self._result is None:
            return None
        return rebuild(self._result, (wrapped(output.copy()) for output in self._outputs))


_nothing = np.empty(0, np.float32)
