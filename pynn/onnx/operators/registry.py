"""The table of operators, and what their implementations share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from pynn import functional as F
from pynn.grad_mode import mode
from pynn.tensor import Tensor

Array: TypeAlias = npt.NDArray[Any]

# What flows along the edges of a graph: tensors where values come from inputs and weights, arrays where they follow
# from shapes and constants alone. Arrays are computed with NumPy, which a captured step does not see, and need not.
Value: TypeAlias = Tensor | Array

NATIVE, NUMPY, NONE = "yes", "eager", "none"


@dataclass(frozen=True)
class Node:
    """A node of a graph: its operator, the names of its inputs ("" for one left out) and outputs, its attributes."""

    op_type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    opset: int

    def __str__(self) -> str:
        """Return the operator and, to find it in the file, the node's name or that of its first output."""
        return f"{self.op_type} {self.name or self.outputs[0]!r}"

    def has_input(self, i: int) -> bool:
        """Whether input `i` is given."""
        return i < len(self.inputs) and self.inputs[i] != ""

    def has_output(self, i: int) -> bool:
        """Whether output `i` is asked for."""
        return i < len(self.outputs) and self.outputs[i] != ""


@dataclass(frozen=True)
class Operator:
    """How an operator is computed: inputs are positional arguments, attributes keywords, `node` the node itself."""

    function: Callable[..., Any]
    gradient: str  # "yes", in captured steps too; "eager": where NumPy computes, which is not captured; "none"
    weights: tuple[int, ...]  # inputs that are trained if they are stored in the file
    refuses: Callable[[Node], str | None]  # why a node is beyond what is implemented
    arguments: frozenset[str]


OPERATORS: dict[str, Operator] = {}

Function = TypeVar("Function", bound=Callable[..., Any])


def operator(
    *names: str,
    gradient: str = NATIVE,
    weights: tuple[int, ...] = (),
    refuses: Callable[[Node], str | None] = lambda node: None,
) -> Callable[[Function], Function]:
    """Enter a function into the table under each of these names."""

    def enter(function: Function) -> Function:
        arguments = frozenset(inspect.signature(function).parameters)
        for name in names:
            OPERATORS[name] = Operator(function, gradient, weights, refuses, arguments)
        return function

    return enter


def array(x: Value) -> Array:
    """Return the values for NumPy to read; CaptureError where each replay would have others."""
    if not isinstance(x, Tensor):
        return x
    if mode.recorder is not None:
        mode.recorder.numpy(x)
    return x.data


def integers(x: Value | Sequence[int]) -> list[int]:
    """Return axes, sizes or pads, which may be an attribute in older versions of an operator, as a list."""
    if isinstance(x, (list, tuple)):
        return [int(i) for i in x]
    return [int(i) for i in array(x).reshape(-1)]  # type: ignore[arg-type]


def is_dynamic(*values: Value) -> bool:
    """Whether one of them is a tensor of floating-point numbers: then pynn computes, else NumPy."""
    return any(isinstance(x, Tensor) and x.data.dtype.kind == "f" for x in values)


def axis_of(axis: int, ndim: int) -> int:
    """Return an axis counted from the front; ValueError if there is none."""
    if not -ndim <= axis < max(ndim, 1):
        raise ValueError(f"axis {axis} is out of range for {ndim} axes")
    return axis % max(ndim, 1)


def reshape(x: Value, shape: Sequence[int]) -> Value:
    """Return the elements in another shape."""
    return F.reshape(x, tuple(shape)) if isinstance(x, Tensor) else x.reshape(tuple(shape))


def transpose(x: Value, order: Sequence[int]) -> Value:
    """Return the axes in another order."""
    if list(order) == list(range(x.ndim)):
        return x
    return F.transpose(x, tuple(order)) if isinstance(x, Tensor) else np.ascontiguousarray(x.transpose(order))


def take(x: Value, key: tuple[Any, ...]) -> Value:
    """Return x[key]."""
    return F.index(x, key) if is_dynamic(x) else np.array(array(x)[key], order="C")
