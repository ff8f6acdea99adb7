"""A graph of operators as a module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pynn import functional as F
from pynn.nn import Module
from pynn.onnx.operators import OPERATORS, Array, Node, Value
from pynn.tensor import Tensor

__all__ = ["Edge", "Graph", "GraphModule"]


@dataclass(frozen=True)
class Edge:
    """An input or output of the graph: its name, dtype, and shape with None for lengths that are not fixed."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        """Name, shape and dtype; ? for a free length."""
        shape = "" if self.shape is None else " [" + ", ".join("?" if n is None else str(n) for n in self.shape) + "]"
        return f"{self.name}{shape} {self.dtype}"


@dataclass(frozen=True)
class Graph:
    """The nodes in the order of their computation, and the constants among their inputs."""

    nodes: tuple[tuple[Node, tuple[str, ...]], ...]  # with the values that are not needed any more behind a node
    constants: dict[str, Array]
    trained: dict[str, str]  # attributes of the module that hold the values of these names
    buffers: dict[str, str]


class GraphModule(Module):
    """A module that computes an ONNX graph; `load` makes it.

    Call it with the inputs of the graph in their order, or by their names. Parameters are the floating-point arrays
    of the file that serve as weights, under the names that they have there.

    Attributes
    ----------
    inputs, outputs : tuple of str
        The names in the order of the graph.
    """

    def __init__(self, graph: Graph, inputs: tuple[Edge, ...], outputs: tuple[str, ...]) -> None:
        self._graph = graph
        self._edges = inputs
        self.inputs = tuple(edge.name for edge in inputs)
        self.outputs = outputs

    def forward(self, /, *args: Any, **kwargs: Any) -> Any:
        """Compute the outputs: one tensor, or a tuple of as many as the graph has.

        Raises
        ------
        TypeError
            For an input that is missing, unknown, or of another dtype than the graph declares.
        ValueError
            For an input of another shape; for operands that a node cannot combine, with the name of the node.
        """
        graph = self._graph
        values: dict[str, Value] = dict(graph.constants)
        values.update({name: getattr(self, key) for name, key in graph.trained.items()})
        values.update({name: getattr(self, key) for name, key in graph.buffers.items()})
        values.update(self._bind(args, kwargs))
        kept = {id(_memory(x.data)) for x in values.values() if isinstance(x, Tensor)}
        with np.errstate(all="ignore"):  # infinities and NaN are results, as in the core
            for node, unneeded in graph.nodes:
                results = _compute(node, [values[name] if name else None for name in node.inputs])
                values.update(zip(node.outputs, results, strict=False))
                for name in unneeded:
                    del values[name]
        outputs = [_own(values[name], kept) for name in self.outputs]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Tensor]:
        given = dict(zip(self.inputs, args, strict=False))
        wrong = [name for name in kwargs if name not in self.inputs or name in given]
        given |= kwargs
        if len(args) > len(self.inputs) or wrong or len(given) < len(self.inputs):
            raise TypeError(
                f"GraphModule: got {len(args)} inputs" + (f" and {', '.join(kwargs)}" if kwargs else "") + ", needs "
                f"{', '.join(map(str, self._edges))}"
            )
        bound = {}
        for edge in self._edges:
            x = _tensor(given[edge.name])
            if x.dtype != edge.dtype:
                raise TypeError(f"GraphModule: {edge.name} is {x.dtype}, needs {edge.dtype}")
            if edge.shape is not None and not _fits(x.shape, edge.shape):
                raise ValueError(f"GraphModule: {edge.name} is {list(x.shape)}, needs {edge}")
            bound[edge.name] = x
        return bound

    def extra_repr(self) -> str:
        """Return inputs, outputs and the number of nodes."""
        inputs, outputs = ", ".join(map(str, self._edges)), ", ".join(self.outputs)
        return f"{inputs} -> {outputs}; {len(self._graph.nodes)} nodes"


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(w is None or n == w for n, w in zip(shape, wanted, strict=True))


def _own(x: Value, kept: set[int]) -> Tensor:
    """Return an output that may be written to: apart from the constants, and from weights and inputs, `kept`."""
    if not isinstance(x, Tensor):
        return Tensor(x.copy())
    return F.index(x, ...) if id(_memory(x.data)) in kept else x


def _memory(x: Any) -> Any:
    """Return what owns the memory of an array, which a captured step lets nobody compare by NumPy."""
    while isinstance(x, np.ndarray) and x.base is not None:
        x = x.base
    return x


def _tensor(x: Any) -> Tensor:
    return x if isinstance(x, Tensor) else Tensor(x)


def _compute(node: Node, inputs: list[Value | None]) -> tuple[Value, ...]:
    operator = OPERATORS[node.op_type]
    extra = {"node": node} if "node" in operator.arguments else {}
    while inputs and inputs[-1] is None:
        inputs.pop()
    try:
        result = operator.function(*inputs, **node.attributes, **extra)
    except (TypeError, ValueError, IndexError, NotImplementedError) as error:
        raise type(error)(f"{node}: {error}") from error
    except MemoryError as error:  # NumPy's own takes other arguments
        raise MemoryError(f"{node}: {error}") from error
    except (ArithmeticError, LookupError, StopIteration) as error:  # of an attribute or shape that makes no sense
        raise ValueError(f"{node}: {type(error).__name__}: {error}") from error
    results = result if isinstance(result, tuple) else (result,)
    if any(node.outputs[len(results) :]):
        raise ValueError(f"{node}: computes {len(results)} outputs, the graph takes {len(node.outputs)}")
    return tuple(x if isinstance(x, Tensor) else np.asarray(x) for x in results)
