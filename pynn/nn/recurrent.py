"""Recurrent layers over sequences, and the cells that take one step."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from pynn import functional as F
from pynn._array import empty
from pynn.functional._args import Input, as_tensor, flag, number, one_of
from pynn.functional.recurrent import NONLINEARITIES, pair_of_states
from pynn.nn import init
from pynn.nn.layers import check_sizes
from pynn.nn.module import Module, Parameter
from pynn.tensor import Tensor


class _Recurrent(Module):
    """What RNN, LSTM and GRU share: weights, layers, directions."""

    _gates: int
    _function: Callable[..., tuple[Tensor, ...]]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
    ) -> None:
        name = type(self).__name__
        check_sizes(name, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        if not 0 <= number(name, "dropout", dropout) <= 1:
            raise ValueError(f"{name}: dropout is {dropout}, needs 0 <= dropout <= 1")
        if dropout > 0 and num_layers == 1:
            warnings.warn(f"{name}: dropout acts between layers, and there is only one", stacklevel=3)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = flag(name, "bias", bias)
        self.batch_first = flag(name, "batch_first", batch_first)
        self.dropout = dropout
        self.bidirectional = flag(name, "bidirectional", bidirectional)
        self._suffixes = [
            f"_l{layer}{direction}"
            for layer in range(num_layers)
            for direction in ("", "_reverse")[: 1 + self.bidirectional]
        ]
        for i, suffix in enumerate(self._suffixes):
            columns = input_size if i <= self.bidirectional else hidden_size * (1 + self.bidirectional)
            _add_weights(self, self._gates * hidden_size, columns, hidden_size, self.bias, suffix)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights and biases anew, from U(-k, k) with k = 1/√hidden_size."""
        _reset(self, self.hidden_size)

    def _run(self, x: Tensor, states: Sequence[Tensor | None], *options: Any) -> tuple[Tensor, list[Tensor]]:
        """Return the output of the last layer and the last states, each [layers · directions, N, H]."""
        directions, name, x = 1 + self.bidirectional, type(self).__name__, as_tensor(x)
        axes = 1 if x.dtype.kind in "iu" else 2
        if x.ndim not in (axes, axes + 1) or (axes == 2 and x.shape[-1] != self.input_size):
            shape = "[N, T, in]" if self.batch_first else "[T, N, in]"
            raise ValueError(
                f"{name}: input {list(x.shape)} of {x.dtype}, needs {shape} or [T, in] with in = {self.input_size}, "
                "or integers without the last axis"
            )
        batched = x.ndim == axes + 1
        if not batched:
            x = F.reshape(x, (x.shape[0], 1, *x.shape[1:]))
        elif self.batch_first:
            x = F.transpose(x, (1, 0, *range(2, x.ndim)))
        needed = (len(self._suffixes), *x.shape[1 : 1 + batched], self.hidden_size)
        for state in states:
            if state is not None and state.shape != needed:
                raise ValueError(f"{name}: state {list(state.shape)}, needs {list(needed)}")

        last: list[list[Tensor]] = []
        for i in range(0, len(self._suffixes), directions):
            if i > 0:
                x = F.dropout(x, self.dropout, self.training)
            outputs = []
            for at in range(i, i + directions):
                weights = [getattr(self, f"{kind}{self._suffixes[at]}", None) for kind in _KINDS]
                start = [None if state is None else F.reshape(state[at], (-1, self.hidden_size)) for state in states]
                y, *states_after = self._function(x, *weights, *start, *options, reverse=at > i)
                outputs.append(y)
                last.append(states_after)
            x = outputs[0] if directions == 1 else F.concatenate(outputs, 2)
        states_n = [F.stack(layers) for layers in zip(*last, strict=True)]
        if not batched:
            return F.reshape(x, (x.shape[0], x.shape[2])), [F.reshape(s, (s.shape[0], s.shape[2])) for s in states_n]
        return F.transpose(x, (1, 0, 2)) if self.batch_first else x, states_n

    def extra_repr(self) -> str:
        """Return the sizes, and what is not default."""
        text = f"{self.input_size}, {self.hidden_size}"
        for name, default in (("num_layers", 1), ("bias", True), ("batch_first", False), ("dropout", 0.0)):
            text += f", {name}={getattr(self, name)}" if getattr(self, name) != default else ""
        return text + (", bidirectional=True" if self.bidirectional else "")


_KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _add_weights(module: Module, outputs: int, inputs: int, hidden: int, bias: bool, suffix: str = "") -> None:
    shapes = ((outputs, inputs), (outputs, hidden), (outputs,), (outputs,))
    for kind, shape in zip(_KINDS, shapes[: 4 if bias else 2], strict=False):
        setattr(module, kind + suffix, Parameter(empty(type(module).__name__, *shape)))


def _reset(module: Module, hidden: int) -> None:
    for parameter in module.parameters():
        init.uniform_(parameter, -1 / math.sqrt(hidden), 1 / math.sqrt(hidden))


def _tensor(state: Input | None) -> Tensor | None:
    return None if state is None else as_tensor(state)


class RNN(_Recurrent):
    """Elman network: h_t = tanh(x_t W_ihᵀ + b_ih + h_(t-1) W_hhᵀ + b_hh), in one or several layers.

    Parameters
    ----------
    input_size, hidden_size : int
        Size of x_t, and of h_t.
    num_layers : int
        Layers, each of which reads the outputs of the one before.
    nonlinearity : {"tanh", "relu"}
        What the sum passes through.
    bias : bool
        False leaves the biases out.
    batch_first : bool
        True exchanges the first two axes of input and output; states keep theirs.
    dropout : float
        Probability of dropping an output of a layer on its way to the next, in training.
    bidirectional : bool
        True adds to each layer one that runs from the last time step to the first; their outputs are concatenated.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> rnn = nn.RNN(3, 4, num_layers=2)
    >>> y, state = rnn(np.zeros((5, 2, 3), np.float32))
    >>> y.shape, state.shape
    ((5, 2, 4), (2, 2, 4))
    """

    _gates = 1
    _function = staticmethod(F.rnn)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ) -> None:
        one_of("RNN", "nonlinearity", nonlinearity, NONLINEARITIES)
        self.nonlinearity = nonlinearity
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)

    def forward(self, x: Tensor, state: Input | None = None) -> tuple[Tensor, Tensor]:
        """Return the outputs [T, N, directions · H] and the last states [layers · directions, N, H].

        `x` is [T, N, in] ([N, T, in] with `batch_first`), one sequence [T, in], or integers without the last axis,
        which stand for one-hot vectors. `state` continues an earlier call; None starts with zeros. A `state` that came
        out of a call carries its history: `detach` it to end the gradient there.
        """
        y, states = self._run(x, [_tensor(state)], self.nonlinearity)
        return y, states[0]


class LSTM(_Recurrent):
    """Long short-term memory in one or several layers (Hochreiter and Schmidhuber 1997); parameters as for `RNN`.

    `weight_ih_l0` [4·H, in] and the others hold the gates in PyTorch's order: input, forget, cell, output.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> lstm = nn.LSTM(3, 4, num_layers=2, batch_first=True)
    >>> y, (h, c) = lstm(np.zeros((2, 5, 3), np.float32))
    >>> y.shape, h.shape, c.shape
    ((2, 5, 4), (2, 2, 4), (2, 2, 4))
    >>> y, (h, c) = lstm(np.zeros((2, 1, 3), np.float32), (h.detach(), c.detach()))
    """

    _gates = 4
    _function = staticmethod(F.lstm)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ) -> None:
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)

    def forward(self, x: Tensor, state: tuple[Input, Input] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the outputs [T, N, directions · H] and the last (h, c), each [layers · directions, N, H].

        `x` is [T, N, in] ([N, T, in] with `batch_first`), one sequence [T, in], or integers without the last axis,
        which stand for one-hot vectors. `state` (h, c) continues an earlier call; None starts with zeros. A `state`
        that came out of a call carries its history: `detach` both to end the gradient there.
        """
        h, c = pair_of_states("LSTM", state)
        y, (h_n, c_n) = self._run(x, [_tensor(h), _tensor(c)])
        return y, (h_n, c_n)


class GRU(_Recurrent):
    """Gated recurrent unit in one or several layers (Cho et al. 2014, arXiv:1406.1078); parameters as for `RNN`.

    `weight_ih_l0` [3·H, in] and the others hold the gates in PyTorch's order: reset, update, new.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> y, state = nn.GRU(3, 4, bidirectional=True)(np.zeros((5, 2, 3), np.float32))
    >>> y.shape, state.shape
    ((5, 2, 8), (2, 2, 4))
    """

    _gates = 3
    _function = staticmethod(F.gru)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ) -> None:
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)

    def forward(self, x: Tensor, state: Input | None = None) -> tuple[Tensor, Tensor]:
        """Return the outputs [T, N, directions · H] and the last states [layers · directions, N, H], as `RNN` does."""
        y, states = self._run(x, [_tensor(state)])
        return y, states[0]


class _Cell(Module):
    """One step of a recurrent layer: `weight_ih` [G·H, in], `weight_hh` [G·H, H], `bias_ih` and `bias_hh` [G·H]."""

    _gates: int
    weight_ih: Parameter
    weight_hh: Parameter
    bias_ih: Parameter | None = None
    bias_hh: Parameter | None = None

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True) -> None:
        name = type(self).__name__
        check_sizes(name, input_size=input_size, hidden_size=hidden_size)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = flag(name, "bias", bias)
        _add_weights(self, self._gates * hidden_size, input_size, hidden_size, self.bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights and biases anew, from U(-k, k) with k = 1/√hidden_size."""
        _reset(self, self.hidden_size)

    def _weights(self) -> tuple[Parameter, Parameter, Parameter | None, Parameter | None]:
        return self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class RNNCell(_Cell):
    """One step of `RNN`: x [N, in] (or integers [N], for one-hot vectors) and h [N, H] -> [N, H].

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> nn.RNNCell(3, 4)(np.zeros((2, 3), np.float32)).shape
    (2, 4)
    """

    _gates = 1

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh") -> None:
        one_of("RNNCell", "nonlinearity", nonlinearity, NONLINEARITIES)
        self.nonlinearity = nonlinearity
        super().__init__(input_size, hidden_size, bias)

    def forward(self, x: Tensor, h: Input | None = None) -> Tensor:
        """Return the next state; None for `h` starts with zeros."""
        return F.rnn_cell(x, h, *self._weights(), self.nonlinearity)


class LSTMCell(_Cell):
    """One step of `LSTM`: x [N, in] (or integers [N], for one-hot vectors) and (h, c), each [N, H] -> (h, c).

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> h, c = nn.LSTMCell(3, 4)(np.zeros((2, 3), np.float32))
    >>> h.shape, c.shape
    ((2, 4), (2, 4))
    """

    _gates = 4

    def forward(self, x: Tensor, state: tuple[Input, Input] | None = None) -> tuple[Tensor, Tensor]:
        """Return the next (h, c); None for `state` starts with zeros."""
        return F.lstm_cell(x, state, *self._weights())


class GRUCell(_Cell):
    """One step of `GRU`: x [N, in] (or integers [N], for one-hot vectors) and h [N, H] -> [N, H].

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> nn.GRUCell(3, 4)(np.zeros((2, 3), np.float32)).shape
    (2, 4)
    """

    _gates = 3

    def forward(self, x: Tensor, h: Input | None = None) -> Tensor:
        """Return the next state; None for `h` starts with zeros."""
        return F.gru_cell(x, h, *self._weights())
