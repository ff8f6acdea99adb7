"""Recurrent layers: ONNX's weights, whose gates stand in another order, for pynn's kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pynn import functional as F
from pynn.onnx.operators.registry import Node, Value, operator, transpose
from pynn.tensor import Tensor

Weights = tuple[Tensor, Tensor, Tensor | None, Tensor | None]
Layer = Callable[[Value, Weights, list[Tensor | None], bool], Sequence[Tensor]]

DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}


def _refuses(node: Node) -> str | None:
    given = node.attributes
    default = DEFAULTS[node.op_type]
    activations = given.get("activations") or default
    known = [default, ["Relu"]] if node.op_type == "RNN" else [default]
    if not any(activations == a * (len(activations) // len(a)) for a in known):
        return f"activations={activations}: only {' or '.join(map(str, known))}"
    for name in ("activation_alpha", "activation_beta", "clip", "input_forget"):
        if given.get(name):
            return f"{name} is not supported"
    if node.has_input(4):
        return "sequence_lens (sequences of different lengths) is not supported"
    return "peepholes are not supported" if node.op_type == "LSTM" and node.has_input(7) else None


def _blocks(w: Tensor, hidden: int, order: Sequence[int]) -> Tensor:
    """Rows of the gates in another order."""
    if list(order) == list(range(len(order))):
        return w
    return F.concatenate([w[i * hidden : (i + 1) * hidden] for i in order])


def _run(
    x: Value,
    w: Value,
    r: Value,
    b: Value | None,
    states: Sequence[Value | None],
    order: Sequence[int],
    layer: Layer,
    direction: str,
    layout: int,
) -> tuple[Value, ...]:
    """Run each direction: Y [T, D, N, H] and the last states [D, N, H]; batches first if `layout`."""
    directions = w.shape[0]
    if direction not in ("forward", "reverse", "bidirectional") or directions != 1 + (direction == "bidirectional"):
        raise ValueError(f"direction {direction!r} does not fit weights {list(w.shape)}")
    hidden = r.shape[2]
    if layout:
        x = transpose(x, (1, 0, 2))
        states = [None if s is None else transpose(s, (1, 0, 2)) for s in states]
    ys, lasts = [], []
    for d in range(directions):
        w_d, r_d = (_blocks(F.index(m, d), hidden, order) for m in (w, r))
        biases: list[Tensor | None] = [None, None]
        if b is not None:
            both = F.index(b, d)
            half = len(order) * hidden
            biases = [_blocks(both[:half], hidden, order), _blocks(both[half:], hidden, order)]
        first = [None if s is None else F.index(s, d) for s in states]
        backwards = direction == "reverse" or d == 1
        y, *last = layer(x, (w_d, r_d, biases[0], biases[1]), first, backwards)
        ys.append(y)
        lasts.append(last)
    y = F.stack(ys, 1)
    ends = [F.stack(parts) for parts in zip(*lasts, strict=True)]
    if layout:
        y = F.transpose(y, (2, 0, 1, 3))
        ends = [F.transpose(s, (1, 0, 2)) for s in ends]
    return y, *ends


@operator("RNN", weights=(1, 2, 3), refuses=_refuses)
def rnn(
    x: Value,
    w: Value,
    r: Value,
    b: Value | None = None,
    sequence_lens: None = None,
    initial_h: Value | None = None,
    *,
    activations: Sequence[str] = ("Tanh",),
    activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (),
    clip: float = 0.0,
    direction: str = "forward",
    hidden_size: int = 0,
    layout: int = 0,
) -> tuple[Value, ...]:
    nonlinearity = activations[0].lower()

    def layer(x: Value, weights: Weights, first: list[Tensor | None], backwards: bool) -> Sequence[Tensor]:
        return F.rnn(x, *weights, first[0], nonlinearity, backwards)

    return _run(x, w, r, b, [initial_h], (0,), layer, direction, layout)


@operator("LSTM", weights=(1, 2, 3), refuses=_refuses)
def lstm(
    x: Value,
    w: Value,
    r: Value,
    b: Value | None = None,
    sequence_lens: None = None,
    initial_h: Value | None = None,
    initial_c: Value | None = None,
    p: None = None,
    *,
    activations: Sequence[str] = (),
    activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (),
    clip: float = 0.0,
    direction: str = "forward",
    hidden_size: int = 0,
    input_forget: int = 0,
    layout: int = 0,
) -> tuple[Value, ...]:
    def layer(x: Value, weights: Weights, first: list[Tensor | None], backwards: bool) -> Sequence[Tensor]:
        return F.lstm(x, *weights, first[0], first[1], backwards)

    # input, output, forget, cell to input, forget, cell, output
    return _run(x, w, r, b, [initial_h, initial_c], (0, 2, 3, 1), layer, direction, layout)


@operator("GRU", weights=(1, 2, 3), refuses=_refuses)
def gru(
    x: Value,
    w: Value,
    r: Value,
    b: Value | None = None,
    sequence_lens: None = None,
    initial_h: Value | None = None,
    *,
    activations: Sequence[str] = (),
    activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (),
    clip: float = 0.0,
    direction: str = "forward",
    hidden_size: int = 0,
    layout: int = 0,
    linear_before_reset: int = 0,
) -> tuple[Value, ...]:
    def layer(x: Value, weights: Weights, first: list[Tensor | None], backwards: bool) -> Sequence[Tensor]:
        if linear_before_reset:
            return F.gru(x, *weights, first[0], backwards)
        return _gru_reset_first(x, weights, first[0], backwards)

    # update, reset, new to reset, update, new
    return _run(x, w, r, b, [initial_h], (1, 0, 2), layer, direction, layout)


def _gru_reset_first(x: Value, weights: Weights, h: Tensor | None, backwards: bool) -> tuple[Tensor, Tensor]:
    """The unit of the paper (Cho et al. 2014): reset before the product, n = tanh(x_n + W_n (r h) + b_n)."""
    w, r, w_bias, r_bias = weights
    hidden = r.shape[1]
    sums = F.linear(x, w, w_bias)  # [T, N, 3 H]
    if r_bias is not None:
        sums = sums + r_bias
    state = F.mul(sums[0, :, :hidden], 0.0) if h is None else h
    steps = range(sums.shape[0])
    states = []
    for t in reversed(steps) if backwards else steps:
        gates = F.sigmoid(sums[t, :, : 2 * hidden] + F.linear(state, r[: 2 * hidden]))
        reset, update = gates[:, :hidden], gates[:, hidden:]
        new = F.tanh(sums[t, :, 2 * hidden :] + F.linear(reset * state, r[2 * hidden :]))
        state = new + update * (state - new)
        states.append(state)
    return F.stack(states[::-1] if backwards else states), state
