"""What a model consists of: layers, output shapes, parameters, multiply-adds."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pynn._array import as_dtype
from pynn.nn.attention import MultiheadAttention
from pynn.nn.layers import Conv1d, Conv2d, Linear
from pynn.nn.module import Module, Parameter
from pynn.nn.recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from pynn.nn.resize import ConvTranspose2d
from pynn.tape import no_grad
from pynn.tensor import Tensor


@dataclass(frozen=True)
class LayerSummary:
    """One call of one layer: its name and type, output shape with batch axis 1, own parameters, multiply-adds."""

    name: str
    type: str
    output_shape: tuple[int, ...] | None  # of the first of several outputs; None: it is not a tensor
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Summary:
    """Layers in the order in which they ran, and totals for one example; `print` shows the table."""

    layers: tuple[LayerSummary, ...]
    parameters: int  # shared ones once, and those of layers that did not run
    multiply_adds: int

    def __str__(self) -> str:
        """Return the table."""
        rows = [("layer", "type", "output", "parameters", "multiply-adds")]
        rows += [
            (
                layer.name or "-",
                layer.type,
                "-" if layer.output_shape is None else f"[{', '.join(['N', *map(str, layer.output_shape[1:])])}]",
                f"{layer.parameters:,}",
                f"{layer.multiply_adds:,}",
            )
            for layer in self.layers
        ]
        rows.append(("total", "", "", f"{self.parameters:,}", f"{self.multiply_adds:,}"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                [*(c.ljust(w) for c, w in zip(row[:3], widths, strict=False)), *map(str.rjust, row[3:], widths[3:])]
            )
            for row in rows
        ]
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def summary(model: Module, input_shape: int | tuple[int, ...], dtype: npt.DTypeLike | None = None) -> Summary:
    """Run one zero input through the model and tell what each layer does.

    Parameters
    ----------
    model : Module
        Runs in evaluation mode without gradients; its mode is restored.
    input_shape : int or tuple of int
        Shape of one example, without the batch axis: (1, 28, 28) for images [N, 1, 28, 28], 784 for [N, 784].
    dtype : dtype, optional
        Of the input; default the parameters'. Give an integer dtype for a model that begins with `Embedding`.

    Returns
    -------
    Summary
        Multiply-adds count the products of Linear (in · out per row), of convolutions (in/groups · kernel size per
        output), of recurrent layers (their weights at each step; integers choose columns and cost no product) and of
        attention (its projections, and keys and values for each query, also where a mask hides them).

    Examples
    --------
    >>> from pynn import nn
    >>> print(summary(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), (1, 28, 28)))
    layer  type     output    parameters  multiply-adds
    ---------------------------------------------------
    0      Flatten  [N, 784]           0              0
    1      Linear   [N, 10]        7,850          7,840
    ---------------------------------------------------
    total                          7,850          7,840
    """
    if not isinstance(model, Module):
        raise TypeError(f"summary: model is a {type(model).__name__}, needs a Module")
    try:
        example = tuple(map(operator.index, (input_shape,) if isinstance(input_shape, int) else input_shape))
    except TypeError:
        got = type(input_shape).__name__
        raise TypeError(f"summary: input_shape is a {got}, needs the sizes of one example: (1, 28, 28)") from None
    if min(example, default=0) < 0:
        raise ValueError(f"summary: input_shape is {list(example)}, needs sizes of at least 0")
    names: dict[Module, str] = {module: name for name, module in model.named_modules()}
    modes = {module: module.training for module in names}
    layers: list[LayerSummary] = []

    def record(module: Module, args: tuple[Any, ...], y: Any) -> None:
        first = y[0] if isinstance(y, tuple) and y else y
        shape = tuple(first.shape) if isinstance(first, Tensor) else None
        products = _multiply_adds(module, args, shape)
        layers.append(LayerSummary(names[module], type(module).__name__, shape, _own_size(module), products))

    # A module with children but no parameters of its own says nothing that its children do not.
    shown = [module for module in names if _own_size(module) or not list(module.children())]
    if dtype is None:
        dtype = next((p.dtype for p in model.parameters()), np.dtype(np.float32))
    dtype = as_dtype("summary", dtype)
    handles = [module.register_forward_hook(record) for module in shown]
    try:
        model.eval()
        with no_grad():
            model(Tensor(np.zeros((1, *example), dtype)))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return Summary(tuple(layers), sum(p.size for p in model.parameters()), sum(layer.multiply_adds for layer in layers))


def _own_size(module: Module) -> int:
    return sum(value.size for value in module._own_state().values() if isinstance(value, Parameter))


def _multiply_adds(module: Module, args: tuple[Any, ...], y_shape: tuple[int, ...] | None) -> int:
    """Return the number of products of one call."""
    if y_shape is None or not args:
        return 0
    x: tuple[int, ...] = tuple(args[0].shape)
    if isinstance(module, Linear):
        return math.prod(y_shape) * module.in_features
    if isinstance(module, Conv1d | Conv2d):  # each output is a dot product
        return math.prod(y_shape) * math.prod(module.weight.shape[1:])
    if isinstance(module, ConvTranspose2d):  # each input is multiplied with a filter
        return math.prod(x) * math.prod(module.weight.shape[1:])
    if isinstance(module, RNN | LSTM | GRU | RNNCell | LSTMCell | GRUCell):
        indices = args[0].dtype.kind in "iu"
        steps = math.prod(x if indices else x[:-1])
        free = ("weight_ih", "weight_ih_l0", "weight_ih_l0_reverse") if indices else ()
        weights = (p.size for name, p in module.named_parameters() if name.startswith("weight") and name not in free)
        return steps * sum(weights)
    if isinstance(module, MultiheadAttention):
        key: tuple[int, ...] = tuple(args[1].shape) if len(args) > 1 and args[1] is not None else x
        batch = 1 if len(x) == 2 else x[0 if module.batch_first else 1]
        queries, keys = math.prod(x[:-1]), math.prod(key[:-1])
        width = module.embed_dim
        return (queries + 2 * keys) * width**2 + 2 * queries * keys // max(1, batch) * width
    return 0
