"""Models as ONNX files."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pynn._arguments import rebuild, wrapped
from pynn._files import atomic_file
from pynn._version import __version__
from pynn.grad_mode import mode
from pynn.guarded import CaptureError
from pynn.nn import Module
from pynn.onnx import export_layers  # noqa: F401 - enters its rules
from pynn.onnx._package import import_onnx
from pynn.onnx.export_graph import Graph
from pynn.onnx.export_rules import RULES, cast
from pynn.onnx.export_trace import Axes, Length, Recording, Ref, Size, Trace, record, trace
from pynn.onnx.graph import GraphModule
from pynn.plan import Array
from pynn.replay import Captured
from pynn.tensor import Tensor

if TYPE_CHECKING:
    import onnx

__all__ = ["export"]

OPSET = 18
IR_VERSION = 10
LARGEST_FILE = 2**31 - 1  # bytes of a protocol buffer

DynamicAxes = Mapping[str, Mapping[int, str] | Sequence[int]]
MOST_AXES = 4
# Other lengths to record: near and far ones, first above that of the example, then below, then its multiples.
OTHERS: list[tuple[Callable[[int], int], Callable[[int], int]]] = [
    (lambda n: n + 1, lambda n: n + 7),
    (lambda n: n - 1, lambda n: n - 2),
    (lambda n: 2 * n, lambda n: 4 * n),
]


def export(
    model: Callable[..., Any],
    example: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_axes: DynamicAxes | None = None,
) -> onnx.ModelProto:
    """Return a model as ONNX, opset 18 and IR version 10, and write it to a file.

    The model is run, in evaluation mode and without gradients, and what the core computes is written down: Python's
    branches and loops are those of the example. Model, gradients and random state stay as they were; hooks are not
    called.

    Parameters
    ----------
    model
        A `Module`, or any function that computes with pynn.
    example
        The argument of the model, or a tuple of its positional arguments: tensors or arrays (also in tuples, lists and
        dicts), which become inputs of their shape and dtype, and whatever else the model takes.
    path
        File to write; None: only return the model.
    kwargs
        Arguments by name.
    input_names, output_names
        One for each array. By default the parameters' names of `forward`, and "output" (or "output_0", …; keys of a
        dict).
    dynamic_axes
        Which axes of the inputs may have any length, as in PyTorch: {"x": {0: "batch", 1: "time"}}, or {"x": [0]};
        axes of one name have one length. None: axis 0 of every input is "batch". {}: the shapes of the example.

    Returns
    -------
    onnx.ModelProto
        It has passed `onnx.checker.check_model`. Parameters and buffers are initialisers named as in `state_dict`,
        once each.

    Raises
    ------
    ImportError
        If the onnx package is missing.
    NotImplementedError
        If there is no rule for an operation; names it, its module and line.
    CaptureError
        If the model reads values, or draws random numbers with NumPy.
    ValueError
        If it does other things for other lengths of the dynamic axes, or names do not fit.
    TypeError
        If the model returns something else than tensors, the example holds none and no array, or `path` is no path.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> file = export(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), np.zeros((1, 3), np.float32))
    >>> [node.op_type for node in file.graph.node], [w.name for w in file.graph.initializer]
    (['Gemm', 'Relu'], ['0.weight', '0.bias'])
    """
    onnx = import_onnx("export")
    if not callable(model):
        raise TypeError(f"export: model is a {type(model).__name__}, needs a Module or a function")
    if path is not None and not isinstance(path, (str, os.PathLike)):
        raise TypeError(
            f"export: path, after the example, is a {type(path).__name__}, needs a str, an os.PathLike or None"
        )
    if isinstance(model, Captured):
        model = model.function
    if isinstance(model, GraphModule):
        input_names, output_names = input_names or model.inputs, output_names or model.outputs
    if mode.recorder is not None:
        raise RuntimeError("export: called while a function is captured; call it outside")
    arguments = example if isinstance(example, tuple) else (example,)
    found = list(_inputs(model, arguments, dict(kwargs or {})))
    if not found and (arguments or kwargs):
        raise TypeError("export: the example has no tensor or array, which the file's inputs are")
    names = _names("input_names", input_names, [name for name, _ in found])
    arrays = [array for _, array in found]
    dynamic = _dynamic(names, arrays, dynamic_axes, output_names or ())
    traced, returned = _trace(model, arguments, dict(kwargs or {}), arrays, dynamic)
    outputs = _names("output_names", output_names, returned)
    dtypes = [array.dtype for array in arrays]
    taken = set(traced.parameters)
    names = names if input_names else [_free(name, taken) for name in names]
    outputs = outputs if output_names else [_free(name, taken | set(names)) for name in outputs]
    if clash := sorted(taken & {*names, *outputs}) + sorted(set(names) & set(outputs)):
        raise ValueError(f"export: two arrays have the name {clash[0]!r}; give others as input_names or output_names")
    graph = _build(traced, names, outputs, dtypes, dynamic)
    if graph.size > LARGEST_FILE:
        raise ValueError(
            f"export: the parameters take {graph.size:,} bytes, an ONNX file holds at most {LARGEST_FILE:,}"
        )
    file = _file(graph, traced, type(model).__name__, names, outputs, dtypes)
    onnx.checker.check_model(file, full_check=True)
    if path is not None:
        with atomic_file(path) as stream:
            stream.write(file.SerializeToString())
    return file


# -- arguments ---------------------------------------------------------------------------------------------------------
def _inputs(model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, Array]]:
    """Yield the arrays among the arguments, with names."""
    function = model.forward if isinstance(model, Module) else model
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"export: the model does not take the example: {error}") from None
    except ValueError:  # a function without a signature
        names = [f"input_{i}" for i in range(len(args))]
    else:
        names = []
        for parameter in bound.signature.parameters.values():
            if parameter.kind is parameter.VAR_POSITIONAL:
                names += [f"{parameter.name}_{i}" for i in range(len(args) - len(names))]
            elif parameter.kind is not parameter.VAR_KEYWORD:
                names.append(parameter.name)
    for name, value in (*zip(names, args, strict=False), *kwargs.items()):
        yield from _leaves(name, value)


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Array]]:
    """Yield the arrays in tuples, lists and dicts."""
    if isinstance(value, Tensor):
        yield name, value.data
    elif isinstance(value, np.ndarray):
        yield name, Tensor(value).data
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _leaves(f"{name}_{i}", item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(f"{name}_{key}", item)


def _names(what: str, given: Sequence[str] | None, default: list[str]) -> list[str]:
    names = default if given is None else list(given)
    if len(names) != len(default):
        raise ValueError(f"export: {what} are {names}, needs {len(default)}, for {', '.join(default)}")
    if len(set(names)) < len(names) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"export: {what} are {names}, needs different texts")
    return names


def _free(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "_"
    return name


@dataclass(frozen=True)
class _Place:
    """An axis of an input."""

    which: int
    axis: int
    length: int  # in the example


def _dynamic(
    names: list[str], arrays: list[Array], given: DynamicAxes | None, other_names: Sequence[str]
) -> dict[str, list[_Place]]:
    """The dynamic axes by name, and where they are."""
    if given is None:
        given = {name: {0: "batch"} for name, array in zip(names, arrays, strict=True) if array.ndim}
    if not isinstance(given, Mapping):
        raise TypeError(f"export: dynamic_axes are {given!r}, needs a dict, as {{'x': {{0: 'batch'}}}}")
    found: dict[str, list[_Place]] = {}
    for name, axes in given.items():
        if name in other_names:  # PyTorch wants to be told of outputs, too
            continue
        if name not in names:
            raise ValueError(f"export: dynamic_axes names {name!r}, the inputs are {', '.join(names)}")
        if not isinstance(axes, (Mapping, list, tuple, range)):
            raise TypeError(f"export: dynamic_axes: {name} has {axes!r}, needs axes, as {{0: 'batch'}} or [0]")
        which = names.index(name)
        shape = arrays[which].shape
        for axis in axes:
            if not hasattr(axis, "__index__"):
                raise TypeError(f"export: dynamic_axes: {name} has the axis {axis!r}, needs an integer")
            if not -len(shape) <= axis < len(shape) or shape[axis] == 0:
                raise ValueError(f"export: dynamic_axes: {name} {list(shape)} has nothing along axis {axis}")
            symbol = axes[axis] if isinstance(axes, Mapping) else f"{name}_{axis}"
            if not isinstance(symbol, str) or not symbol:
                raise TypeError(f"export: dynamic_axes: axis {axis} of {name} is called {symbol!r}, needs a text")
            place = _Place(which, axis % len(shape), shape[axis])
            if any(place in others for others in found.values()):
                raise ValueError(f"export: dynamic_axes: {name} has axis {place.axis} twice")
            found.setdefault(symbol, []).append(place)
    for symbol, places in found.items():
        if len({place.length for place in places}) > 1:
            shown = " and ".join(f"{p.length} along axis {p.axis} of {names[p.which]}" for p in places)
            raise ValueError(f"export: {symbol!r} is {shown}; name those that may differ with dynamic_axes")
    if len(found) > MOST_AXES:
        raise ValueError(f"export: dynamic_axes are {', '.join(found)}, needs {MOST_AXES} or fewer")
    return found


_Dynamic = dict[str, list[_Place]]


# -- recording ---------------------------------------------------------------------------------------------------------
def _trace(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], arrays: list[Array], dynamic: _Dynamic
) -> tuple[Trace, list[str]]:
    """Record the model at several lengths of the dynamic axes; return also names of what it returns."""
    returned: list[str] = []

    def run(own: list[Array]) -> list[Array]:
        new_args, new_kwargs = rebuild((args, kwargs), map(wrapped, own))
        results = list(_results(model(*new_args, **new_kwargs)))
        if not results:
            raise TypeError("export: the model returns no tensor")
        named = [name or f"output_{i}" for i, (name, _) in enumerate(results)]
        returned[:] = named if len(named) > 1 or results[0][0] else ["output"]
        return [array for _, array in results]

    arrays = [array.astype(np.int64) if array.dtype.kind in "iu" else array for array in arrays]
    lengths = {symbol: places[0].length for symbol, places in dynamic.items()}
    try:
        first = record(run, arrays)
        axes, others = _others(lambda point: record(run, _resized(arrays, dynamic, point)), lengths)
    except CaptureError as error:
        raise CaptureError(f"export: {str(error).removeprefix('capture: ')}") from error
    return trace([first, *others], axes), returned


def _others(record_at: Callable[[dict[str, int]], Recording], lengths: dict[str, int]) -> tuple[Axes, list[Recording]]:
    """Record at other lengths than those of the example."""
    problem: Exception | None = None
    for near, far in OTHERS:
        if min(map(far, lengths.values()), default=1) < 1:
            continue
        axes = Axes(lengths, near, far)
        try:
            return axes, [record_at(point) for point in axes.points[1:]]
        except (IndexError, ValueError) as error:  # too long for a table, too short for a kernel
            problem = problem or error
    raise ValueError(
        f"export: the model does not take other lengths of {' and '.join(map(repr, lengths))} than those of the "
        f"example; pass dynamic_axes={{}} for a file that takes these alone: {problem}"
    ) from problem


def _resized(arrays: list[Array], dynamic: _Dynamic, point: dict[str, int]) -> list[Array]:
    """The example with other lengths: its entries again and again."""
    resized = list(arrays)
    for symbol, places in dynamic.items():
        rows = np.arange(point[symbol])
        for place in places:
            resized[place.which] = resized[place.which].take(rows % place.length, place.axis)
    return resized


def _results(value: Any, name: str = "") -> Iterator[tuple[str, Array]]:
    """Yield the arrays that the model returns; those in dicts have names."""
    if isinstance(value, Tensor):
        yield name, value.data
    elif isinstance(value, np.ndarray):
        yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _results(item, f"{name}_{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _results(item, f"{name}_{i}" if name else "")
    elif value is not None:
        raise TypeError(
            f"export: the model returns a {type(value).__name__}, needs tensors, alone or in tuples and dicts"
        )


# -- the file ----------------------------------------------------------------------------------------------------------
def _build(
    traced: Trace, names: list[str], outputs: list[str], dtypes: list[np.dtype[Any]], dynamic: _Dynamic
) -> Graph:
    graph = Graph(traced, names, outputs, {symbol: (names[p[0].which], p[0].axis) for symbol, p in dynamic.items()})
    for ref, name, dtype in zip(traced.inputs, names, dtypes, strict=True):
        if dtype != ref.dtype:  # of integers
            graph.replace_input(ref, cast(graph, name, ref.dtype))
    for step in traced.steps:
        if step.name not in RULES:
            raise NotImplementedError(f"export: {step.name}, {step.place}: there is no rule for ONNX")
        graph.emit(step, RULES[step.name])
    graph.step = None
    for ref, output in zip(traced.outputs, outputs, strict=True):
        graph.name_output(graph(ref), output)
    return graph


def _file(
    graph: Graph, traced: Trace, name: str, names: list[str], outputs: list[str], dtypes: list[np.dtype[Any]]
) -> onnx.ModelProto:
    import onnx
    from onnx import helper

    def info(name: str, ref: Ref, dtype: np.dtype[Any]) -> Any:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), [*map(_shown, ref.shape)])

    proto = helper.make_graph(
        graph.nodes,
        name,
        [info(*each) for each in zip(names, traced.inputs, dtypes, strict=True)],
        [info(name, ref, ref.dtype) for name, ref in zip(outputs, traced.outputs, strict=True)],
        [onnx.numpy_helper.from_array(array, name) for name, array in graph.initializers.items()],
    )
    return helper.make_model(
        proto,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="pynn",
        producer_version=__version__,
    )


def _shown(n: Length) -> int | str | None:
    """A length as a file tells it: None where it follows from others."""
    if not isinstance(n, Size):
        return n
    return (
        str(n) if n.terms is not None and len(n.terms) == 1 and len(n.terms[0][1]) == 1 and n.terms[0][0] == 1 else None
    )
