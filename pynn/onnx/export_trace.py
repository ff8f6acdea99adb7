"""What a model computes, for any length of the dynamic axes: several recordings of it, compared."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from pynn.grad_mode import mode, no_grad
from pynn.guarded import CaptureError, guarded, where
from pynn.nn import Module, Parameter
from pynn.plan import Array, Call, arrays_in, memory
from pynn.recorder import Recorder

ADVICE = "pass dynamic_axes={} for a file that takes the shapes of the example alone"
Source: TypeAlias = tuple[str, int, int]  # ("input", which, 0) or ("call", which, which of its results)


@dataclass(frozen=True)
class Size:
    """A length that depends on those of the dynamic axes."""

    values: tuple[int, ...]  # in each recording
    terms: (
        tuple[tuple[int, tuple[str, ...]], ...] | None
    )  # a sum of factor · product of axes; None: some other function

    def __str__(self) -> str:
        """Return the sum, such as 2*batch + 1."""
        terms = self.terms or ((1, ("?",)),)
        return " + ".join("*".join([str(factor)] * (factor != 1 or not axes) + list(axes)) for factor, axes in terms)


Length: TypeAlias = int | Size


@dataclass(frozen=True, eq=False)
class Ref:
    """An array that a step reads or makes."""

    arrays: tuple[Array, ...]  # in each recording
    source: Source | None  # None: it does not depend on the inputs
    shape: tuple[Length, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the elements."""
        return self.arrays[0].dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)


@dataclass
class Step:
    """A call of the core, or of what NumPy does for pynn."""

    name: str
    args: tuple[Any, ...]  # arrays are `Ref`s, integers that vary `Size`s
    outputs: list[Ref]
    place: str  # module and line, for errors
    module: str  # dotted name


class Axes:
    """The dynamic axes and the lengths that they have in each recording: those of the example, and others."""

    def __init__(self, lengths: dict[str, int], near: Callable[[int], int], far: Callable[[int], int]) -> None:
        """The other lengths of an axis that is n long in the example are near(n) and far(n)."""
        self.names = list(lengths)
        self._steps = {name: near(n) - n for name, n in lengths.items()}
        corners = itertools.product((False, True), repeat=len(lengths))
        self.points = [
            {name: near(n) if is_near else n for (name, n), is_near in zip(lengths.items(), corner, strict=True)}
            for corner in corners
        ]
        if lengths:
            self.points.append({name: far(n) for name, n in lengths.items()})

    def length(self, values: Sequence[int]) -> Length:
        """Return the length that has these values in the recordings.

        It is multi-linear in the axes, from its values at the corners; the last recording must agree.
        """
        if len(set(values)) == 1:
            return int(values[0])
        terms: dict[tuple[str, ...], int] = {}
        corners = list(itertools.product((False, True), repeat=len(self.names)))
        for corner in corners:
            inside = [other for other in corners if all(o <= c for o, c in zip(other, corner, strict=True))]
            rise = sum((-1) ** (sum(corner) - sum(o)) * values[corners.index(o)] for o in inside)
            names = [name for name, is_near in zip(self.names, corner, strict=True) if is_near]
            slope, rest = divmod(rise, math.prod(self._steps[name] for name in names))
            if rest:
                return Size(tuple(values), None)
            # slope · product of (axis - its length in the example), multiplied out
            for chosen in itertools.product((True, False), repeat=len(names)):
                kept = tuple(name for name, keep in zip(names, chosen, strict=True) if keep)
                others = [-self.points[0][name] for name, keep in zip(names, chosen, strict=True) if not keep]
                terms[kept] = terms.get(kept, 0) + slope * math.prod(others)
        last = sum(factor * math.prod(self.points[-1][name] for name in axes) for axes, factor in terms.items())
        if last != values[-1]:
            return Size(tuple(values), None)
        return Size(tuple(values), tuple((factor, axes) for axes, factor in terms.items() if factor))

    def map(self, function: Callable[..., int], *lengths: Length) -> Length:
        """Return `function` of some lengths."""
        rows = [(n.values if isinstance(n, Size) else (n,) * len(self.points)) for n in lengths]
        return self.length([function(*row) for row in zip(*rows, strict=True)])


class Tracer(Recorder):
    """Notes what a model computes in evaluation mode, and undoes all that it changes."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[tuple[str, str]] = []  # of each call: for errors, and the module's name
        self.roots: list[Module] = []
        self._names: dict[Module, str] = {}
        self._modes: dict[Module, bool] = {}
        self._calling: list[Module] = []

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._changes.roll_back()  # with or without an error
        super().__exit__(kind, error, trace)
        for module, training in self._modes.items():
            module.training = training

    def call(self, name: str, original: Any, args: tuple[Any, ...]) -> Any:
        """Call a function of the core, and note it and where."""
        result = super().call(name, original, args)
        self._note()
        return result

    def _note(self) -> None:
        module, place = "", where()
        if self._calling:
            module = self._names[self._calling[-1]]
            kind = type(self._calling[-1]).__name__
            place = f"in {f'{module!r} ({kind})' if module else kind}, {place}"
        self.places.append((place, module))

    def differs(self, array: Array) -> bool:
        """Whether an array depends on the inputs; one without elements, too."""
        return self.made(array)

    def by_numpy(self, name: str, function: Callable[..., Array], args: tuple[Any, ...]) -> Array:
        """Return what NumPy computes, as a call."""
        mode.recorder = None  # which would refuse to read the values
        try:
            y = function(*_opened(args))
        finally:
            mode.recorder = self
        if any(map(self.made, arrays_in(args))):
            self._made.add(memory(y))
            self.calls.append(Call(name, args, [y]))
            self._note()
        return self.view(y)

    def module(self, module: Module, args: Any, kwargs: Any) -> Any:
        """Call a module in evaluation mode, without its hooks."""
        if module not in self._names:
            self.roots.append(module)
            for name, inner in module.named_modules():
                self._names.setdefault(inner, name)
                self._modes.setdefault(inner, inner.training)
                inner.training = False
        self._calling.append(module)
        try:
            return module.forward(*args, **kwargs)
        finally:
            self._calling.pop()


def _opened(value: Any) -> Any:
    """Arguments whose arrays NumPy may read."""
    if isinstance(value, np.ndarray):
        return value.view(np.ndarray)
    return type(value)(map(_opened, value)) if isinstance(value, (list, tuple)) else value


@dataclass
class Trace:
    """Steps in their order, and what the model returns."""

    steps: list[Step]
    inputs: list[Ref]
    outputs: list[Ref]
    axes: Axes
    parameters: dict[str, Array]  # and buffers, of the modules that were called, as `state_dict` names them


@dataclass
class Recording:
    """One run of the model."""

    tracer: Tracer
    inputs: list[Array]
    outputs: list[Array]

    def sources(self) -> dict[int, Source]:
        """Return where the memory of an array comes from."""
        found: dict[int, Source] = {memory(array): ("input", i, 0) for i, array in enumerate(self.inputs)}
        for i, call in enumerate(self.tracer.calls):
            found |= {memory(output): ("call", i, k) for k, output in enumerate(call.outputs)}
        return found


def record(run: Callable[[list[Array]], list[Array]], inputs: Sequence[Array]) -> Recording:
    """Record `run`, which takes arrays to tensors' arrays."""
    tracer = Tracer()
    with tracer, no_grad():
        own = [tracer.input(array) for array in inputs]
        return Recording(tracer, own, run([guarded(array) for array in own]))


def trace(recordings: list[Recording], axes: Axes) -> Trace:
    """Compare recordings of the same model at the lengths of `axes`; ValueError if it does not do the same in all."""
    merge = _Merge(recordings, axes)
    first = recordings[0]
    names = [[call.name for call in recording.tracer.calls] for recording in recordings]
    if any(other != names[0] for other in names):
        raise ValueError(f"export: the model does other things for other lengths of {_listed(axes.names)}; {ADVICE}")
    inputs = [merge.ref(arrays) for arrays in zip(*[r.inputs for r in recordings], strict=True)]
    outputs = [merge.ref(arrays) for arrays in zip(*[r.outputs for r in recordings], strict=True)]
    needed = {memory(array) for array in first.outputs}
    steps = []
    for i in reversed(range(len(names[0]))):
        call = first.tracer.calls[i]
        if needed.isdisjoint(call.made_memory):
            continue
        needed.update(call.read_memory)
        place, module = first.tracer.places[i]
        args = merge.value([r.tracer.calls[i].args for r in recordings], f"{call.name} {place}")
        results = [merge.ref(arrays) for arrays in zip(*[r.tracer.calls[i].outputs for r in recordings], strict=True)]
        steps.append(Step(call.name, args, results, place, module))
    return Trace(steps[::-1], inputs, outputs, axes, _parameters(first.tracer.roots))


def _parameters(roots: list[Module]) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for number, root in enumerate(roots):
        for name, value in root._named_state():
            found[name if number == 0 else f"{number}.{name}"] = value.data if isinstance(value, Parameter) else value
    return found


class _Merge:
    def __init__(self, recordings: list[Recording], axes: Axes) -> None:
        self._axes = axes
        self._sources = [recording.sources() for recording in recordings]

    def ref(self, arrays: Sequence[Array]) -> Ref:
        sources = [found.get(memory(array)) for found, array in zip(self._sources, arrays, strict=True)]
        if len(set(sources)) > 1 or len({array.ndim for array in arrays}) > 1:
            raise ValueError(
                f"export: the model does other things for other lengths of {_listed(self._axes.names)}; {ADVICE}"
            )
        shape = tuple(map(self._axes.length, zip(*[array.shape for array in arrays], strict=True)))
        return Ref(tuple(arrays), sources[0], shape)

    def value(self, values: Sequence[Any], what: str) -> Any:
        """The argument that has these values in the recordings."""
        first = values[0]
        if isinstance(first, np.ndarray):
            return self.ref(values)
        if isinstance(first, (list, tuple)) and len({len(value) for value in values}) == 1:
            return type(first)(self.value(column, what) for column in zip(*values, strict=True))
        if isinstance(first, slice):
            return slice(*[self.value([getattr(v, part) for v in values], what) for part in ("start", "stop", "step")])
        if isinstance(first, (int, np.integer)) and not isinstance(first, bool):
            return self._axes.length(values)
        key: set[Hashable] = {str(value) for value in values}
        if len(key) > 1:
            raise ValueError(
                f"export: {what}: an argument is {first!r} or {values[-1]!r}, depending on the length of "
                f"{_listed(self._axes.names)}; {ADVICE}"
            )
        return first


def _listed(names: Sequence[str]) -> str:
    return " and ".join(map(repr, names))


__all__ = ["Axes", "CaptureError", "Length", "Recording", "Ref", "Size", "Step", "Trace", "record", "trace"]
