"""`capture`: a step written in Python, recorded once and replayed in C++.

The first call of a captured function runs it as always and notes every call of the core: name, arguments, results
(`pynn.recorder`). The notes are a `Plan`, a list that can be looked at (`pynn.plan`); passes rewrite it
(`pynn.passes`), and it is then recorded once more in the core, without computing, as a list of computations on memory
that is laid out for good. Later calls copy their arguments into that memory and run the list.
"""

from __future__ import annotations

import functools
import itertools
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pynn import _core
from pynn.grad_mode import mode
from pynn.plan import Array, Plan, Repeat
from pynn.recorder import CaptureError, Guarded, Recorder, are
from pynn.tensor import Tensor

__all__ = ["CaptureError", "Captured", "capture"]

MOST_PLANS = 16  # of one captured function; the one unused for longest is dropped


def capture(function: Callable[..., Any]) -> Captured:
    """Return a function that records `function` when it is first called, and replays the recording afterwards.

    Parameters
    ----------
    function
        Any function of arrays, tensors and hashable values that runs forward, loss, `backward`, optimisers, or only a
        forward: also a module. Arrays and tensors may be inside of tuples, lists and dicts.

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
        self.function = function
        self._plans: OrderedDict[Any, list[_Replay]] = OrderedDict()
        self._latest: _Replay | None = None
        self._lock = threading.RLock()
        self._captures = 0
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if mode.recorder is not None:  # inside of another capture: a part of it
            return self.function(*args, **kwargs)
        arrays: list[Array] = []
        key = mode.enabled, _signature((args, kwargs), arrays)
        with self._lock:
            for replay in self._plans.get(key, ()):
                if replay.is_current():
                    self._latest = replay
                    return replay(arrays)
            return self._capture(key, args, kwargs, arrays)

    def plan(self) -> Plan:
        """Return the plan of the latest call; RuntimeError before the first one."""
        if self._latest is None:
            raise RuntimeError("plan: nothing was captured yet; call the function first")
        return self._latest.plan

    def _capture(self, key: Any, args: Any, kwargs: Any, arrays: list[Array]) -> Any:
        earlier = [leaf for replays in self._plans.values() for replay in replays for leaf, _ in replay.gradients]
        with Recorder(earlier) as recorder:
            inputs = [recorder.input(array) for array in arrays]
            fresh = iter([_tensor(array.view(Guarded)) for array in inputs])
            new_args, new_kwargs = _rebuild((args, kwargs), fresh)
            result = self.function(*new_args, **new_kwargs)
            outputs: list[Array] = []
            _signature(result, outputs)
            outputs = [output.view(np.ndarray) for output in outputs]
            recorder.finish()
        self._latest = _Replay(recorder, inputs, result, outputs)
        self._plans.setdefault(key, []).append(self._latest)
        self._plans.move_to_end(key)
        if sum(map(len, self._plans.values())) > MOST_PLANS:
            _, dropped = next(iter(self._plans.items()))
            dropped.pop(0)
            if not dropped:
                self._plans.popitem(last=False)
            self._captures += 1
            if self._captures == MOST_PLANS:
                name = getattr(self.function, "__name__", type(self.function).__name__)
                warnings.warn(
                    f"capture: {2 * MOST_PLANS} plans were made for {name}, and {MOST_PLANS} thrown away; "
                    "each new shape, dtype or value of an argument captures anew",
                    RuntimeWarning,
                    stacklevel=4,
                )
        return self._latest.results()


class _Replay:
    """A plan, ready to run."""

    def __init__(self, recorder: Recorder, inputs: list[Array], result: Any, outputs: list[Array]) -> None:
        self._inputs, self._outputs = inputs, outputs
        self._result = _rebuild(result, itertools.repeat(_nothing()))  # without the tensors and their graph
        self._keep: list[Any] = []  # the arrays whose memory the recording uses
        self._guards, self.gradients = list(recorder.guards.values()), recorder.grads
        self._conditions = recorder.conditions
        self._modules = [(vars(module), values) for module, values in recorder.modules.values()]
        self.plan = Plan(recorder.calls, [*inputs, *outputs, *(grad for _, grad in recorder.grads)])
        self._after, self._draws = recorder.after, recorder.draws
        self._build(recorder.originals)

    def _build(self, functions: dict[str, Any]) -> None:
        """Record the calls of the plan in the core, on memory that stays."""
        block = _core.empty((self.plan.bytes_planned // 4 + 1,), np.float32)
        self._recording = _core.Recording()
        self._repeats: list[tuple[int, Any, Repeat, tuple[Any, ...], list[Array]]] = []
        for at, call in enumerate(self.plan.calls):
            function, args = functions[call.name], self.plan.at_place(call.args, block)
            outputs = self.plan.at_place(call.outputs, block)
            self._recording.record(at, function, args, outputs)
            self._keep.append((args, outputs))
            if call.repeat is not None:
                self._repeats.append((at, function, call.repeat, args, outputs))

    def is_current(self) -> bool:
        """Whether everything that the recording took for fixed is as it was."""
        for attributes, values in self._modules:
            if not are(attributes, values):
                return False
        for thing, name, value in self._guards:
            if getattr(thing, name) is not value:
                return False
        return all(condition() for condition in self._conditions)

    def __call__(self, arrays: list[Array]) -> Any:
        for target, array in zip(self._inputs, arrays, strict=True):
            np.copyto(target, array)
        for draw in self._draws:
            draw.again()
        for at, function, repeat, args, outputs in self._repeats:
            self._recording.record(at, function, repeat.args(args), outputs)
        self._recording.run()
        for _, _, repeat, _, _ in self._repeats:
            repeat.done()
        for action in self._after:
            action()
        for tensor, grad in self.gradients:
            tensor.grad = grad
        return self.results()

    def results(self) -> Any:
        """Copies of what the function returned."""
        return _rebuild(self._result, iter([_tensor(output.copy()) for output in self._outputs]))


def _tensor(array: Array) -> Tensor:
    tensor = _nothing()
    tensor.data = array  # as it is: a Guarded too
    return tensor


def _nothing() -> Tensor:
    return Tensor(np.empty(0, np.float32))


def _signature(value: Any, arrays: list[Array]) -> Any:
    """A hashable description of arguments, whose arrays are added to `arrays`."""
    if isinstance(value, Tensor):
        if value.requires_grad and mode.recorder is None:
            raise CaptureError(
                f"capture: an argument {list(value.shape)} requires a gradient, which would go to a copy of it; let "
                "the function refer to the tensor instead"
            )
        arrays.append(value.data)
        return "tensor", value.data.shape, value.data.dtype.str
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return "array", value.shape, value.dtype.str
    if isinstance(value, (list, tuple)):
        return type(value), *(_signature(item, arrays) for item in value)
    if isinstance(value, dict):
        return dict, *((name, _signature(item, arrays)) for name, item in value.items())
    try:
        hash(value)
    except TypeError:
        raise TypeError(
            f"capture: an argument is a {type(value).__name__}, needs arrays or something hashable"
        ) from None
    return type(value), value


def _rebuild(value: Any, tensors: Iterator[Tensor]) -> Any:
    """The same arguments with tensors for the arrays."""
    if isinstance(value, (Tensor, np.ndarray)):
        return next(tensors)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_rebuild(item, tensors) for item in value))
    if isinstance(value, (list, tuple)):
        return type(value)(_rebuild(item, tensors) for item in value)
    if isinstance(value, dict):
        return {name: _rebuild(item, tensors) for name, item in value.items()}
    return value
