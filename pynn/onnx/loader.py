"""Reading of ONNX files: `load` makes a module that computes what the graph says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pynn._files import check_path
from pynn.nn import Parameter
from pynn.onnx._package import decode_error, import_onnx
from pynn.onnx.graph import Edge, Graph, GraphModule
from pynn.onnx.operators import OPERATORS, Array, Node
from pynn.onnx.operators.shape import DTYPES
from pynn.onnx.simplify import fuse_gelu, move_constants, split_aliases

__all__ = ["OPSETS", "Problem", "load", "module_of", "unsupported"]

AUTO_PADS = "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"
OPSETS = 13, 28  # nodes have the meaning that their operator has in one of these


class Problem(NamedTuple):
    """What cannot be computed: an operator, or an "input", "output" or "array"; its name in the file; and why."""

    what: str
    name: str
    reason: str

    def __str__(self) -> str:
        """Return all three, as an error lists them."""
        return f"{self.what} {self.name!r} ({self.reason})"


def load(path: str | os.PathLike[str]) -> GraphModule:
    """Read an ONNX model.

    Parameters
    ----------
    path
        A `.onnx` file. Arrays that it keeps in other files must lie in its folder or below.

    Returns
    -------
    GraphModule
        Callable, differentiable, and in training mode or not the same: it computes what the graph says.

    Raises
    ------
    FileNotFoundError
        If the file, or one with arrays of it, is missing.
    TypeError
        If `path` is no path.
    ValueError
        If it is no ONNX model, or a broken one: truncated, with edges from nowhere or cycles, or with arrays outside of
        its folder.
    NotImplementedError
        Lists every node whose operator, version, dtype or attributes are not supported.
    ImportError
        If the onnx package is missing.

    Examples
    --------
    >>> from onnx import TensorProto as T, helper, save_model
    >>> x, y = (helper.make_tensor_value_info(name, T.FLOAT, ["n"]) for name in "xy")
    >>> graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
    >>> opset = helper.make_opsetid("", 18)
    >>> import tempfile, pathlib, numpy as np
    >>> path = pathlib.Path(tempfile.mkdtemp(), "relu.onnx")
    >>> save_model(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    >>> load(path)(np.array([-1, 2], np.float32))
    Tensor([0., 2.], dtype=float32)
    """
    onnx = import_onnx("load")
    check_path("load: path", path)
    model = _read(onnx, Path(path))
    try:
        return module_of(model)
    except ValueError as error:
        raise ValueError(f"load: {path} is not a valid ONNX model: {error}") from error


def _read(onnx: Any, path: Path) -> Any:
    """Return the checked model, with its arrays, and with functions replaced by what they compute."""
    with open(path, "rb"):  # the operating system's own error for a missing or unreadable file
        pass
    try:
        model = onnx.load_model(path, load_external_data=False)
        if not model.HasField("graph"):
            raise ValueError("it has no graph")
        onnx.checker.check_model(os.fspath(path))
        onnx.external_data_helper.load_external_data_for_model(model, os.fspath(path.parent))
    except (decode_error(), onnx.checker.ValidationError, ValueError, RuntimeError, OSError) as error:
        if isinstance(error, onnx.checker.ValidationError) and (missing := _missing_file(model, path.parent)):
            raise FileNotFoundError(f"load: {path} keeps arrays in {missing}, which is missing") from None
        raise ValueError(f"load: {path} is not a valid ONNX model: {error}") from error
    return model


def _missing_file(model: Any, folder: Path) -> Path | None:
    """Return the first file below the folder that arrays should be in, and that does not exist."""
    for tensor in (*model.graph.initializer, *(a.t for node in model.graph.node for a in node.attribute)):
        for entry in tensor.external_data:
            place = folder / str(entry.value)
            if entry.key == "location" and not place.exists() and place.resolve().is_relative_to(folder.resolve()):
                return place
    return None


def module_of(model: Any) -> GraphModule:
    """Return the module of a model in memory that was checked."""
    onnx = import_onnx("load")
    problems = unsupported(model)
    if problems:
        raise NotImplementedError("load: pynn does not support " + "; ".join(map(str, problems)))
    model = _inlined(onnx, model)
    arrays = {tensor.name: _array(onnx, tensor) for tensor in model.graph.initializer}
    inputs = tuple(_edge(value) for value in model.graph.input if value.name not in arrays)
    outputs = tuple(value.name for value in model.graph.output)
    nodes, constants = move_constants(list(_nodes(onnx, model)), set(outputs))
    nodes = split_aliases(nodes, arrays, set(outputs))
    nodes = fuse_gelu(nodes, arrays | constants, _ranks(model.graph), set(outputs))
    trained, buffers = _weights(nodes, arrays)
    keys = _keys([*trained, *buffers])
    module = GraphModule(
        Graph(
            _with_lifetimes(nodes, outputs),
            constants | {name: array for name, array in arrays.items() if name not in (*trained, *buffers)},
            {name: keys[name] for name in trained},
            {name: keys[name] for name in buffers},
        ),
        inputs,
        outputs,
    )
    for name in trained:
        setattr(module, keys[name], Parameter(arrays[name]))
    for name in buffers:
        setattr(module, keys[name], arrays[name])
    module._buffer_names = tuple(keys[name] for name in buffers)
    return module


def _keys(names: list[str]) -> dict[str, str]:
    """The attributes for arrays: their names, with _ behind those that would hide something of the module."""
    own = vars(GraphModule(Graph((), {}, {}, {}), (), ()))
    hiding = [name for name in names if name in own or hasattr(GraphModule, name)]
    keys = {name: name for name in names if name not in hiding}
    for name in hiding:
        key = f"{name}_"
        while key in own or key in keys.values() or hasattr(GraphModule, key):
            key += "_"
        keys[name] = key
    return keys


def _inlined(onnx: Any, model: Any) -> Any:
    """Replace functions, and operators that pynn lacks but ONNX defines by others, by their nodes."""
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    lacking = [node for node in model.graph.node if node.domain == "" and node.op_type not in OPERATORS]
    if not lacking:
        return model
    original, names = model, sorted({("", node.op_type) for node in lacking})
    model = type(model)()
    model.CopyFrom(original)
    model.graph.value_info.extend(_types_of_arrays(onnx, model.graph))
    for node in model.graph.node:
        if ("", node.op_type) in names:
            _fill_defaults(onnx, node, _opset(model))
    try:
        return onnx.inliner.inline_selected_functions(model, names, inline_schema_functions=True)
    except RuntimeError:  # where a function depends on types that are not known
        return original


def _types_of_arrays(onnx: Any, graph: Any) -> list[Any]:
    """Declarations of the stored arrays, of which the inliner would not know the types."""
    known = {value.name for value in (*graph.input, *graph.value_info, *graph.output)}
    info = onnx.helper.make_tensor_value_info
    return [info(t.name, t.data_type, t.dims) for t in graph.initializer if t.name not in known]


def _fill_defaults(onnx: Any, node: Any, opset: int) -> None:
    """Write down the attributes that are left to their defaults, which the inliner would forget."""
    try:
        schema = onnx.defs.get_schema(node.op_type, opset)
    except onnx.defs.SchemaError:
        return
    given = {attribute.name for attribute in node.attribute}
    node.attribute.extend(
        a.default_value for a in schema.attributes.values() if a.name not in given and a.default_value.name
    )


# -- what is supported -------------------------------------------------------------------------------------------------
def unsupported(model: Any) -> list[Problem]:
    """Return what pynn cannot compute of a model: one entry for each node, array or input at fault."""
    onnx = import_onnx("load")
    behind = _problems(onnx, _inlined(onnx, model))
    return behind and (_problems(onnx, model) or behind)  # in the words of the file, where these show it


def _problems(onnx: Any, model: Any) -> list[Problem]:
    opset, ranks = _opset(model), _ranks(model.graph)
    problems = [Problem(what, name, f"of type {kind}") for what, name, kind in _foreign_types(onnx, model.graph)]
    for node in model.graph.node:
        reason = _problem(onnx, node, opset, ranks)
        if reason:
            problems.append(Problem(node.op_type, node.name or "".join(node.output[:1]), reason))
    return problems


def _ranks(graph: Any) -> dict[str, int]:
    """Return how many axes values have, of those whose shape the file tells."""
    declared = {v.name: len(v.type.tensor_type.shape.dim) for v in (*graph.input, *graph.value_info)}
    return declared | {tensor.name: len(tensor.dims) for tensor in graph.initializer}


def _problem(onnx: Any, proto: Any, opset: int, ranks: dict[str, int]) -> str | None:
    """Why a node cannot be computed, or None."""
    if proto.domain not in ("", "ai.onnx"):
        return f"of the domain {proto.domain}"
    if proto.op_type not in OPERATORS:
        return "no such operator"
    oldest, newest = OPSETS
    since = onnx.defs.get_schema(proto.op_type, opset).since_version
    try:
        least = onnx.defs.get_schema(proto.op_type, oldest).since_version
    except onnx.defs.SchemaError:  # newer
        least = since
    if not least <= since <= newest or opset > newest:
        return f"version {since} of opset {opset}, pynn has those of opset {oldest} to {newest}"
    operator, node = OPERATORS[proto.op_type], _node(onnx, proto, opset)
    unknown = sorted(name for name in node.attributes if name not in operator.arguments)
    unknown += [name for name, value in node.attributes.items() if value is None]  # an array of another dtype
    dtype = node.attributes.get("dtype", 1)
    if unknown or dtype not in DTYPES:
        return f"attributes {', '.join(unknown)}" if unknown else f"dtype={dtype} is a type that pynn does not have"
    if node.op_type in ("Conv", "ConvTranspose") and ranks.get(node.inputs[1], 0) > 4:
        return f"{ranks[node.inputs[1]] - 2} spatial axes, at most 2"
    return _bad_number(node) or operator.refuses(node)


def _bad_number(node: Node) -> str | None:
    """Why attributes that several operators have are none of their values, or None."""
    for name in ("blocksize", "dilations", "group", "kernel_shape", "num_groups", "num_outputs", "strides"):
        value = node.attributes.get(name, 1)
        if min(value if isinstance(value, list) else [value], default=1) < 1:
            return f"{name}={value}, needs 1 or more"
    auto_pad = node.attributes.get("auto_pad", "NOTSET")
    return None if auto_pad in AUTO_PADS else f"auto_pad={auto_pad!r}, needs one of {', '.join(AUTO_PADS)}"


def _foreign_types(onnx: Any, graph: Any) -> Iterator[tuple[str, str, str]]:
    """Inputs, outputs and arrays that are no tensors of a dtype of pynn's."""
    names = onnx.TensorProto.DataType.Name
    for what, values in (("input", graph.input), ("output", graph.output)):
        for value in values:
            kind = value.type.WhichOneof("value")
            if kind != "tensor_type":
                yield what, value.name, kind or "none"
            elif value.type.tensor_type.elem_type not in DTYPES:
                yield what, value.name, names(value.type.tensor_type.elem_type).lower()
    for tensor in graph.initializer:
        if tensor.data_type not in DTYPES:
            yield "array", tensor.name, names(tensor.data_type).lower()
    for sparse in graph.sparse_initializer:
        yield "array", sparse.values.name, "sparse"


# -- from protocol buffers to arrays and nodes -------------------------------------------------------------------------
def _array(onnx: Any, tensor: Any) -> Array:
    if any(n < 0 for n in tensor.dims):  # NumPy would take it for whatever fits
        raise ValueError(f"array {tensor.name!r} is broken: its shape is {list(tensor.dims)}")
    try:
        return np.array(onnx.numpy_helper.to_array(tensor), order="C")
    except (TypeError, ValueError) as error:  # too few bytes for the shape
        raise ValueError(f"array {tensor.name!r} is broken: {error}") from error


def _edge(value: Any) -> Edge:
    tensor = value.type.tensor_type
    shape = None
    if tensor.HasField("shape"):
        # Below 0 is how some exporters write a length that is free.
        shape = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None for d in tensor.shape.dim)
    return Edge(value.name, np.dtype(DTYPES[tensor.elem_type]), shape)


def _nodes(onnx: Any, model: Any) -> Iterator[Node]:
    opset = _opset(model)
    for proto in model.graph.node:
        yield _node(onnx, proto, opset)


def _node(onnx: Any, proto: Any, opset: int) -> Node:
    attributes = {attribute.name: _attribute(onnx, attribute) for attribute in proto.attribute}
    return Node(proto.op_type, proto.name, tuple(proto.input), tuple(proto.output), attributes, opset)


def _attribute(onnx: Any, attribute: Any) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return _array(onnx, value) if value.data_type in DTYPES else None
    if isinstance(value, (int, float)):
        return value
    return [item.decode() if isinstance(item, bytes) else item for item in value] if _is_list(value) else value


def _is_list(value: Any) -> bool:
    return hasattr(value, "__iter__") and not hasattr(value, "DESCRIPTOR")


def _opset(model: Any) -> int:
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def _weights(nodes: list[Node], arrays: dict[str, Array]) -> tuple[list[str], list[str]]:
    """Names of the arrays that are trained, and of those that belong to the state without a gradient.

    Trained is a floating-point array that some node takes as a weight, unless another one takes it as something else.
    Numbers, and arrays with infinities (masks), are constants.
    """
    weights, others, statistics = set(), set(), set()
    for node in nodes:
        for i, name in enumerate(node.inputs):
            if node.op_type == "BatchNormalization" and i > 2:
                statistics.add(name)
            elif i in OPERATORS[node.op_type].weights:
                weights.add(name)
            else:
                others.add(name)
    floats = [name for name, array in arrays.items() if array.dtype.kind == "f"]
    trained = [
        name
        for name in floats
        if name in weights - others - statistics and arrays[name].ndim and np.isfinite(arrays[name]).all()
    ]
    return trained, [name for name in floats if name in statistics]


def _with_lifetimes(nodes: list[Node], outputs: tuple[str, ...]) -> tuple[tuple[Node, tuple[str, ...]], ...]:
    """Each node with the values that no later one needs."""
    needed = {"", *outputs}
    result = []
    for node in reversed(nodes):
        mentioned = {*node.inputs, *node.outputs}
        result.append((node, tuple(sorted(mentioned - needed))))
        needed |= mentioned
    return tuple(reversed(result))
