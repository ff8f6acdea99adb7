"""The ONNX graph as it is made: nodes, initialisers, and names of values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from pynn.onnx.export_trace import ADVICE, Length, Ref, Size, Source, Step, Trace
from pynn.plan import Array

LARGEST = 2**63 - 1


@dataclass(frozen=True)
class Value:
    """A result under its name in the graph, and the shape that it has there."""

    name: str
    shape: tuple[Length, ...]


class Graph:
    """Nodes in their order; each is there once."""

    def __init__(
        self, trace: Trace, inputs: Sequence[str], outputs: Sequence[str], axes: dict[str, tuple[str, int]]
    ) -> None:
        """Names of inputs and outputs; `axes`: the input, and which axis of it, that a dynamic axis is."""
        import onnx

        self._helper, self._to_proto = onnx.helper, onnx.numpy_helper.from_array
        self._axes_from = axes
        self.axes = trace.axes
        self.nodes: list[Any] = []
        self.initializers: dict[str, Array] = {}
        self.size = 0  # bytes of all arrays
        self._parameters = {_extent(array): (name, array) for name, array in reversed(trace.parameters.items())}
        self._names = {*inputs, *outputs, *trace.parameters}
        self._constants: dict[Any, str] = {}
        self._made: dict[Any, tuple[str, ...]] = {}  # nodes by what they compute
        self._values: dict[Source, Value] = {}
        self._types: dict[str, np.dtype[Any]] = {}
        self._outputs: set[str] = set()
        self.step: Step | None = None
        for ref, name in zip(trace.inputs, inputs, strict=True):
            assert ref.source is not None
            self._values[ref.source] = Value(name, ref.shape)

    # -- for the rules -------------------------------------------------------------------------------------------------

    def __call__(self, ref: Ref) -> str:
        """Return the name of an array that a step reads, in the shape in which it reads it."""
        value = self.value(ref)
        return self.reshape(value.name, value.shape, ref.shape)

    def value(self, ref: Ref) -> Value:
        """Return an array that a step reads in the shape that it has."""
        if ref.source is None:
            return self._constant_of(ref)
        if ref.source not in self._values:
            self.refuse("reads a result that has no counterpart in ONNX")
        return self._values[ref.source]

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Add a node, and return the name of its first output; "" leaves an input out."""
        return self.add_all(op, *inputs, outputs=outputs, **attributes)[0]

    def add_all(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> tuple[str, ...]:
        """Add a node, and return the names of its outputs."""
        given = list(inputs)
        while given and not given[-1]:
            given.pop()
        what = op, tuple(given), repr(sorted(attributes.items()))
        if what not in self._made:
            name = self.unique("/".join([*self._place(given).split("."), op]).lstrip("/"))
            names = [name] if outputs == 1 else [self.unique(f"{name}_{i}") for i in range(outputs)]
            self.nodes.append(self._helper.make_node(op, given, names, name, **attributes))
            self._made[what] = tuple(names)
        return self._made[what]

    def _place(self, inputs: Sequence[str]) -> str:
        """Dotted name of the module that a node belongs to: of its parameters, or the one that was called."""
        weight = next((name for name in inputs if name in self.initializers), "")
        return weight.rpartition(".")[0] or (self.step.module if self.step is not None else "")

    def constant(self, array: Array) -> str:
        """Return the name of a constant with these values: no initialiser, since these are what a model trains."""
        array = np.asarray(array, order="C")
        key = array.dtype, array.shape, array.tobytes()
        if key not in self._constants:
            self._constants[key] = name = self.unique("constant")
            self.nodes.append(self._helper.make_node("Constant", [], [name], name, value=self._to_proto(array)))
            self.size += array.nbytes
        return self._constants[key]

    def number(self, value: float, dtype: np.dtype[Any]) -> str:
        """Return the name of a constant number."""
        return self.constant(np.array(value, dtype))

    def integers(self, *values: int) -> str:
        """Return the name of a constant vector of int64."""
        return self.constant(np.array(values, np.int64))

    def lengths(self, shape: Sequence[Length]) -> str:
        """Return the name of a vector of int64 with these lengths."""
        if not any(isinstance(n, Size) for n in shape):
            return self.integers(*shape)  # type: ignore[arg-type]
        parts = [self._length(n) for n in shape]
        return parts[0] if len(parts) == 1 else self.add("Concat", *parts, axis=0)

    def reshape(self, name: str, old: Sequence[Length], new: Sequence[Length]) -> str:
        """Return the name of a value of shape `old` in the shape `new`."""
        if tuple(old) == tuple(new):
            return name
        # An entry of 0 stands for the length that the input has there, and one of -1 for what is left.
        same = [isinstance(n, Size) and i < len(old) and old[i] == n for i, n in enumerate(new)]
        rest = [i for i, n in enumerate(new) if isinstance(n, Size) and not same[i]]
        if len(rest) <= 1 and 0 not in new:
            target = [0 if same[i] else -1 if i in rest else n for i, n in enumerate(new)]
            return self.add("Reshape", name, self.integers(*target))  # type: ignore[arg-type]
        return self.add("Reshape", name, self.lengths(new), allowzero=1)

    def refuse(self, why: str) -> NoReturn:
        """Raise NotImplementedError for the step."""
        what = f"{self.step.name}, {self.step.place}" if self.step is not None else "what the model returns"
        raise NotImplementedError(f"export: {what}: {why}")

    # -- lengths and constants -----------------------------------------------------------------------------------------

    def _length(self, n: Length) -> str:
        """Return the name of a vector of one int64."""
        if not isinstance(n, Size):
            return self.integers(n)
        if n.terms is None:
            self.refuse(
                f"needs a length that is {', '.join(map(str, n.values))} where the dynamic axes are {self._at()}"
            )
        total = ""
        for factor, axes in n.terms:
            product = ""
            for axis in axes:
                source, at = self._axes_from[axis]
                length = self.add("Shape", source, start=at, end=at + 1)
                product = self.add("Mul", product, length) if product else length
            if not product:
                product = self.integers(factor)
            elif factor != 1:
                product = self.add("Mul", product, self.integers(factor))
            total = self.add("Add", total, product) if total else product
        return total

    def _at(self) -> str:
        return "; ".join(", ".join(f"{name} {n}" for name, n in point.items()) for point in self.axes.points)

    def _constant_of(self, ref: Ref) -> Value:
        first = ref.arrays[0]
        if all(array is first or _equal(array, first) for array in ref.arrays):
            if first.nbytes and _extent(first) in self._parameters:
                name, whole = self._parameters[_extent(first)]
                if name not in self.initializers:
                    self.initializers[name] = whole
                    self.size += whole.nbytes
                return Value(name, whole.shape)
            return Value(self.constant(first.view(np.ndarray)), ref.shape)
        return Value(self._varying(ref), ref.shape)

    def _varying(self, ref: Ref) -> str:
        """A constant whose shape depends on the dynamic axes: numbers in their order, or the same along these axes."""
        lengths = [i for i, n in enumerate(ref.shape) if isinstance(n, Size)]
        if ref.ndim == 1 and ref.dtype == np.int64 and all(_equal(a, np.arange(len(a))) for a in ref.arrays):
            end = self.add("Squeeze", self._length(ref.shape[0]))
            return self.add("Range", self.constant(np.array(0)), end, self.constant(np.array(1)))
        cut = tuple(np.s_[:1] if i in lengths else np.s_[:] for i in range(ref.ndim))
        one = np.array(ref.arrays[0][cut])
        if lengths and one.size and all(_equal(np.broadcast_to(one, a.shape), a) for a in ref.arrays):
            return self.add("Expand", self.constant(one), self.lengths(ref.shape))
        return self.refuse(
            f"an array [{', '.join(map(str, ref.shape))}] that is no parameter, and whose values depend on the "
            f"dynamic axes; {ADVICE}"
        )

    # -- for the exporter ----------------------------------------------------------------------------------------------

    def emit(self, step: Step, rule: Callable[..., Any]) -> None:
        """Add the nodes of a step."""
        self.step = step
        made = rule(self, *step.args)
        for ref, value in zip(step.outputs, made if isinstance(made, tuple) else (made,), strict=False):
            assert ref.source is not None
            self._values[ref.source] = value if isinstance(value, Value) else Value(value, ref.shape)

    def name_output(self, name: str, output: str) -> None:
        """Call a value `output`: instead of its name if a node makes it, and it is no other output."""
        maker = next((node for node in self.nodes if name in node.output), None)
        if maker is None or name in self._outputs:
            self.nodes.append(self._helper.make_node("Identity", [name], [output], self.unique("Identity")))
            return
        maker.output[list(maker.output).index(name)] = output
        for node in self.nodes:
            node.input[:] = [output if given == name else given for given in node.input]
        self._made = {
            what: tuple(output if made == name else made for made in names) for what, names in self._made.items()
        }
        self._values = {
            source: Value(output, value.shape) if value.name == name else value
            for source, value in self._values.items()
        }
        self._outputs.add(output)

    def unique(self, name: str) -> str:
        """Return `name`, or one with a number behind it."""
        number, free = 0, name
        while free in self._names:
            number += 1
            free = f"{name}_{number}"
        self._names.add(free)
        return free

    def replace_input(self, ref: Ref, name: str) -> None:
        """Let steps read another value in place of an input."""
        assert ref.source is not None
        self._values[ref.source] = Value(name, ref.shape)


def _extent(array: Array) -> tuple[int, int]:
    return array.__array_interface__["data"][0], array.nbytes


def _equal(a: Array, b: Array) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and (_extent(a) == _extent(b) or a.tobytes() == b.tobytes())
