"""Training on data that are mostly zeros: they are packed once, and the first layer of an MLP takes rows from there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pynn import _core, nn
from pynn.optim import Optimizer
from pynn.tape import _record as record
from pynn.tensor import Tensor, bump_versions

Array: TypeAlias = npt.NDArray[Any]

ACTIVATIONS: dict[type[nn.Module], str] = {nn.Identity: "none", nn.Sigmoid: "sigmoid", nn.Tanh: "tanh", nn.ReLU: "relu"}
LEAST_COLUMNS, LEAST_OUTPUTS, LEAST_ROWS = 64, 16, 8  # of x, of the layer and of a batch: with fewer it does not pay
ZEROS = 3  # one in so many elements of sparse matrices may be there
LINE = 64  # bytes of the cache
CROWDED = 16  # lines from row to row, or a multiple: few sets of the cache would have them all


def packed(X: Any) -> _core.PackedRows | None:
    """Return these rows packed, an array or a CSR matrix [N, features]; None unless they are finite, mostly zeros."""
    rows = _core.PackedRows()
    if isinstance(X, np.ndarray):
        return rows if rows.pack(X) else None
    if X.nnz * ZEROS > X.shape[0] * X.shape[1]:
        return None
    offsets, indices = (np.asarray(part, np.int64) for part in (X.indptr, X.indices))
    nnz = int(offsets[-1])  # the arrays may have room for more
    is_packed = rows.pack_csr(offsets, indices[:nnz], np.ascontiguousarray(X.data[:nnz]), X.shape[1])
    return rows if is_packed else None


def packed_linear(rows: _core.PackedRows, numbers: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    """Return activation(rows[numbers] @ weight + bias); weight [features, outputs and zeros]."""
    chosen, w = numbers.data, weight.data
    y = _core.packed_linear(rows, chosen, w, bias.data, activation)

    def backward(dy: Array) -> tuple[Array, Array]:
        return _core.packed_linear_backward(dy, y, rows, chosen, w, activation)

    return record("packed_linear", y, (weight, bias), backward, saves_output=activation != "none")


class PackedLayers:
    """The layers of an MLP in training. The first one's weight is trained turned: what an element meets is a row of it.

    `rows` are those of the data; a captured step finds there what is put in its place later.
    """

    def __init__(self, module: nn.Sequential, optimizer: Optimizer) -> None:
        self.layers: list[nn.Module] = [*module]
        first = self.layers[0]
        assert isinstance(first, nn.Linear)
        assert first.bias is not None
        self._first, self._usual, self._bias = first, first.weight, first.bias
        self._optimizer, self.rows = optimizer, _core.PackedRows()
        outputs, inputs = self._usual.shape
        itemsize = self._usual.data.itemsize
        lines = -(-outputs * itemsize // LINE)
        lines += lines % CROWDED == 0
        turned = _core.empty((inputs, lines * LINE // itemsize), self._usual.dtype)
        turned.fill(0)
        self._turned = Tensor(turned, requires_grad=True)
        self._states: dict[Tensor, dict[str, Any]] = {}  # of the one that is not in use
        self._activation = ACTIVATIONS.get(type(self.layers[1]), "") if len(self.layers) > 1 else ""
        self._rest = nn.Sequential(*self.layers[2:])

    def __call__(self, numbers: Tensor) -> Tensor:
        """Return what the module computes of these rows."""
        h = packed_linear(self.rows, numbers, self._turned, self._bias, self._activation)
        result: Tensor = self._rest(h)
        return result

    def fits(self, module: nn.Module, rows: _core.PackedRows) -> bool:
        """Whether the module is still as it was, and computes what this does."""
        first, modules = self._first, [module, *self.layers[:2]]
        if rows.shape is None or not isinstance(module, nn.Sequential) or [*map(id, module)] != [*map(id, self.layers)]:
            return False
        return bool(
            self._activation
            and first.weight is self._usual
            and first.bias is self._bias
            and self._usual.requires_grad
            and self._bias.requires_grad
            and self._usual.shape[1] == rows.shape[1]
            and not any(m._forward_hooks or m._backward_hooks for m in modules)
            and any(p is self._usual for p in self._optimizer.param_groups[0]["params"])
            and np.isfinite(self._usual.data).all()  # times 0 they would be NaN
        )

    @contextmanager
    def training(self, rows: _core.PackedRows) -> Iterator[None]:
        """Let the optimiser update the turned weight, and the step read these rows."""
        self._copy(self._turned, self._usual)
        self._swap(self._turned, self._usual)
        self.rows.take(rows)
        try:
            yield
        finally:
            self.rows.clear()
            self.write_back()
            self._swap(self._usual, self._turned)

    def write_back(self) -> None:
        """Let the module have the weight as it is now."""
        self._copy(self._usual, self._turned)

    def _copy(self, to: Tensor, source: Tensor) -> None:
        _copy_turned(to.data, source.data)
        bump_versions([to])

    def _swap(self, to: Tensor, source: Tensor) -> None:
        """Let the optimiser have `to` in place of `source`, with its state."""
        params, states = self._optimizer.param_groups[0]["params"], self._optimizer.state
        params[[p is source for p in params].index(True)] = to
        source.grad = None
        state = states.pop(source, None)
        if not state:
            self._states.pop(to, None)
            return
        self._states[source] = state
        other = self._states.pop(to, {})
        for name, value in state.items():
            if not isinstance(value, np.ndarray):
                other[name] = value
                continue
            if name not in other:
                other[name] = _core.empty(to.shape, to.dtype)
                other[name].fill(0)
            _copy_turned(other[name], value)
        for name in other.keys() - state.keys():
            del other[name]
        states[to] = other


def _copy_turned(to: Array, source: Array) -> None:
    n, m = min(to.shape[0], source.shape[1]), min(to.shape[1], source.shape[0])
    to[:n, :m] = source.T[:n, :m]
