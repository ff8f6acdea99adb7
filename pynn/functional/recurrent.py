"""Recurrent layers: a whole sequence in one operation, and single steps.

Weights have PyTorch's layouts and gate order: `weight_ih` [G·H, in], `weight_hh` [G·H, H], and both biases [G·H] or
neither, with G = 1 (rnn), 3 (gru: reset, update, new) or 4 (lstm: input, forget, cell, output).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pynn import _core
from pynn.functional._args import Array, Gradients, Input, as_tensor, flag, int64, one_of, renamed
from pynn.functional.shape import reshape
from pynn.tape import _record as record
from pynn.tape import constant
from pynn.tensor import Tensor

__all__ = ["gru", "gru_cell", "lstm", "lstm_cell", "rnn", "rnn_cell"]

Kernel = Callable[..., Sequence[Any]]
NONLINEARITIES = ("tanh", "relu")


def rnn(
    x: Input,
    weight_ih: Input,
    weight_hh: Input,
    bias_ih: Input | None = None,
    bias_hh: Input | None = None,
    h0: Input | None = None,
    nonlinearity: str = "tanh",
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Run an Elman network over a sequence: h_t = tanh(x_t W_ihᵀ + b_ih + h_(t-1) W_hhᵀ + b_hh) (Elman 1990).

    Parameters
    ----------
    x
        [T, N, in], or integers [T, N] in 0 … in-1, which stand for one-hot vectors and cost no product.
    weight_ih, weight_hh, bias_ih, bias_hh
        [H, in], [H, H], [H] and [H].
    h0
        The state [N, H] before the first step; None for zeros.
    nonlinearity
        "tanh" or "relu".
    reverse
        Run from the last time step to the first.

    Returns
    -------
    (Tensor, Tensor)
        The states of all time steps [T, N, H], and the one after the last step taken [N, H].

    Examples
    --------
    >>> import pynn
    >>> y, h = pynn.functional.rnn(pynn.ones(5, 2, 3), pynn.ones(4, 3), pynn.zeros(4, 4))
    >>> y.shape, h.shape
    ((5, 2, 4), (2, 4))
    """
    one_of("rnn", "nonlinearity", nonlinearity, NONLINEARITIES)
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    options = (nonlinearity == "relu", flag("rnn", "reverse", reverse))
    y, h_n = _layer("rnn", _core.rnn, _core.rnn_backward, x, (h0,), weights, options)
    return y, h_n


def lstm(
    x: Input,
    weight_ih: Input,
    weight_hh: Input,
    bias_ih: Input | None = None,
    bias_hh: Input | None = None,
    h0: Input | None = None,
    c0: Input | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run an LSTM over a sequence (Hochreiter and Schmidhuber 1997; with the forget gate of Gers et al. 2000).

    With i, f, g, o the four parts of x_t W_ihᵀ + b_ih + h_(t-1) W_hhᵀ + b_hh: c_t = σ(f) c_(t-1) + σ(i) tanh(g) and
    h_t = σ(o) tanh(c_t).

    Parameters
    ----------
    x
        [T, N, in], or integers [T, N] in 0 … in-1, which stand for one-hot vectors and cost no product.
    weight_ih, weight_hh, bias_ih, bias_hh
        [4·H, in], [4·H, H], [4·H] and [4·H].
    h0, c0
        The states [N, H] before the first step; None for zeros.
    reverse
        Run from the last time step to the first.

    Returns
    -------
    (Tensor, Tensor, Tensor)
        h of all time steps [T, N, H], and h and c [N, H] after the last step taken.

    Examples
    --------
    >>> import pynn
    >>> y, h, c = pynn.functional.lstm(pynn.ones(5, 2, 3), pynn.ones(16, 3), pynn.zeros(16, 4))
    >>> y.shape, c.shape
    ((5, 2, 4), (2, 4))
    """
    weights, options = (weight_ih, weight_hh, bias_ih, bias_hh), (flag("lstm", "reverse", reverse),)
    y, h_n, c_n = _layer("lstm", _core.lstm, _core.lstm_backward, x, (h0, c0), weights, options)
    return y, h_n, c_n


def gru(
    x: Input,
    weight_ih: Input,
    weight_hh: Input,
    bias_ih: Input | None = None,
    bias_hh: Input | None = None,
    h0: Input | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Run a gated recurrent unit over a sequence (Cho et al. 2014, arXiv:1406.1078; in cuDNN's form, as PyTorch).

    With r, z, n the parts of the two sums: h_t = (1 - z) n + z h_(t-1), r = σ(x_r + h_r), z = σ(x_z + h_z) and
    n = tanh(x_n + r h_n).

    Parameters
    ----------
    x
        [T, N, in], or integers [T, N] in 0 … in-1, which stand for one-hot vectors and cost no product.
    weight_ih, weight_hh, bias_ih, bias_hh
        [3·H, in], [3·H, H], [3·H] and [3·H].
    h0
        The state [N, H] before the first step; None for zeros.
    reverse
        Run from the last time step to the first.

    Returns
    -------
    (Tensor, Tensor)
        The states of all time steps [T, N, H], and the one after the last step taken [N, H].

    Examples
    --------
    >>> import pynn
    >>> y, h = pynn.functional.gru(pynn.ones(5, 2, 3), pynn.ones(12, 3), pynn.zeros(12, 4))
    >>> y.shape, h.shape
    ((5, 2, 4), (2, 4))
    """
    weights, options = (weight_ih, weight_hh, bias_ih, bias_hh), (flag("gru", "reverse", reverse),)
    y, h_n = _layer("gru", _core.gru, _core.gru_backward, x, (h0,), weights, options)
    return y, h_n


def rnn_cell(
    x: Input,
    h: Input | None,
    weight_ih: Input,
    weight_hh: Input,
    bias_ih: Input | None = None,
    bias_hh: Input | None = None,
    nonlinearity: str = "tanh",
) -> Tensor:
    """Return the next state [N, H] of `rnn` for x [N, in] (or integers [N]) and the state h [N, H] (None: zeros).

    Weights, biases and `nonlinearity` are those of `rnn`.

    >>> import pynn
    >>> pynn.functional.rnn_cell(pynn.ones(2, 3), None, pynn.ones(4, 3), pynn.zeros(4, 4)).shape
    (2, 4)
    """
    one_of("rnn_cell", "nonlinearity", nonlinearity, NONLINEARITIES)
    weights, options = (weight_ih, weight_hh, bias_ih, bias_hh), (nonlinearity == "relu", False)
    return _layer("rnn_cell", _core.rnn, _core.rnn_backward, _one_step("rnn_cell", x), (h,), weights, options)[1]


def lstm_cell(
    x: Input,
    state: tuple[Input, Input] | None,
    weight_ih: Input,
    weight_hh: Input,
    bias_ih: Input | None = None,
    bias_hh: Input | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the next state (h, c), each [N, H], of `lstm` for x [N, in] (or integers [N]) and a state (None: zeros).

    Weights and biases are those of `lstm`; TypeError for a state that is no pair.

    >>> import pynn
    >>> h, c = pynn.functional.lstm_cell(pynn.ones(2, 3), None, pynn.ones(16, 3), pynn.zeros(16, 4))
    >>> h.shape, c.shape
    ((2, 4), (2, 4))
    """
    h, c = pair_of_states("lstm_cell", state)
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    x = _one_step("lstm_cell", x)
    _, h_n, c_n = _layer("lstm_cell", _core.lstm, _core.lstm_backward, x, (h, c), weights, (False,))
    return h_n, c_n


def pair_of_states(name: str, state: tuple[Input, Input] | None) -> tuple[Input, Input] | tuple[None, None]:
    """Return the state (h, c) of an LSTM; TypeError if it is no such pair."""
    if state is None:
        return None, None
    if not isinstance(state, (tuple, list)) or len(state) != 2:
        raise TypeError(f"{name}: state must be a pair (h, c) or None, got {type(state).__name__}")
    return state[0], state[1]


def gru_cell(
    x: Input,
    h: Input | None,
    weight_ih: Input,
    weight_hh: Input,
    bias_ih: Input | None = None,
    bias_hh: Input | None = None,
) -> Tensor:
    """Return the next state [N, H] of `gru` for x [N, in] (or integers [N]) and the state h [N, H] (None: zeros).

    Weights and biases are those of `gru`.

    >>> import pynn
    >>> pynn.functional.gru_cell(pynn.ones(2, 3), None, pynn.ones(12, 3), pynn.zeros(12, 4)).shape
    (2, 4)
    """
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    return _layer("gru_cell", _core.gru, _core.gru_backward, _one_step("gru_cell", x), (h,), weights, (False,))[1]


def _one_step(name: str, x: Input) -> Tensor:
    """Return x [N, in] or indices [N] as a sequence of one time step."""
    x = as_tensor(x)
    if x.ndim != 2 and not (x.ndim == 1 and x.dtype.kind in "iu"):
        raise ValueError(f"{name}: x {list(x.shape)} of {x.dtype} needs the shape [N, in], or [N] of integers")
    return reshape(x, (1, *x.shape))


def _layer(
    name: str,
    forward: Kernel,
    backward: Kernel,
    x: Input,
    states: Sequence[Input | None],
    weights: Sequence[Input | None],
    options: Sequence[bool],
) -> list[Tensor]:
    """Return y [T, N, H] and the last states [N, H], as many as `states`."""
    x = as_tensor(x)
    value = int64(name, "x", x) if x.dtype.kind in "iu" else x.data
    given = [None if t is None else as_tensor(t) for t in (*states, *weights)]
    if weights[0] is None or weights[1] is None:
        raise TypeError(f"{name}: weight_ih and weight_hh must be tensors, got None")
    values = [None if t is None else t.data for t in given]
    needs = [t is not None and t.requires_grad for t in given]
    count = len(states)
    try:
        y, *rest = forward(value, *values, *options)
    except (TypeError, ValueError, IndexError) as error:
        raise renamed(error, name.removesuffix("_cell"), name) from None
    last, kept = rest[:count], rest[count:]
    need_x, need_states, need_weights = x.requires_grad, needs[:count], any(needs[count:])

    def gradients(*dys: Array | None) -> Gradients:
        arguments = (value, *values[: count + 2], *options, need_x, *need_states, need_weights)
        dx, *dxs = backward(*dys, *kept, y, *arguments)
        if len(dxs) < len(given):  # one gradient for both biases
            dxs.append(dxs[-1])
        return [dx, *[d for d, t in zip(dxs, given, strict=True) if t is not None]]

    parents = [x, *[t for t in given if t is not None]]
    return _record_outputs(name, [y, *last], parents, gradients)


def _record_outputs(
    name: str, outputs: Sequence[Array], parents: Sequence[Tensor], backward: Callable[..., Gradients]
) -> list[Tensor]:
    """`record` for an operation of several results: `backward` takes a gradient, or None, for each of them.

    A node for each result hands its gradient to a node that they share, which is older and so runs after all of them.
    """
    dys: list[Array | None] = [None] * len(outputs)
    token = np.zeros((), outputs[0].dtype)  # what the shared node gets for a gradient

    def shared_backward(_: Array) -> Gradients:
        given = dys[:]
        dys[:] = [None] * len(dys)
        return backward(*given)

    shared = record(name, outputs[0], parents, shared_backward, parents)

    def output(i: int) -> Tensor:
        def keep(dy: Array) -> Gradients:
            dys[i] = dy
            return (token,)

        return record(name, outputs[i], (shared,), keep)

    results = [output(i) for i in range(len(outputs))]
    if shared._node is not None:
        # The shared backward reads y. To save the result itself would close a cycle; its version is enough.
        first = constant(outputs[0])
        first._version = results[0]._version
        shared._node.saved = (*parents, first)
    return results
