"""Recurrent layers and cells."""

import numpy as np
import oracle

from ops.row import Op, integers, normal

GATES = {"rnn": 1, "lstm": 4, "gru": 3}


def _rnn(x, weight_ih, weight_hh, bias_ih=None, bias_hh=None, h0=None, nonlinearity="tanh", reverse=False):
    return oracle.rnn(x, h0, weight_ih, weight_hh, bias_ih, bias_hh, nonlinearity == "relu", reverse)


def _lstm(x, weight_ih, weight_hh, bias_ih=None, bias_hh=None, h0=None, c0=None, reverse=False):
    return oracle.lstm(x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, reverse)[:3]


def _gru(x, weight_ih, weight_hh, bias_ih=None, bias_hh=None, h0=None, reverse=False):
    return oracle.gru(x, h0, weight_ih, weight_hh, bias_ih, bias_hh, reverse)[:2]


def _rnn_cell(x, h, weight_ih, weight_hh, bias_ih=None, bias_hh=None, nonlinearity="tanh"):
    return _rnn(x[None], weight_ih, weight_hh, bias_ih, bias_hh, h, nonlinearity)[1]


def _lstm_cell(x, state, weight_ih, weight_hh, bias_ih=None, bias_hh=None):
    return _lstm(x[None], weight_ih, weight_hh, bias_ih, bias_hh, *(state or (None, None)))[1:]


def _gru_cell(x, h, weight_ih, weight_hh, bias_ih=None, bias_hh=None):
    return _gru(x[None], weight_ih, weight_hh, bias_ih, bias_hh, h)[1]


def _terms(x, *rest, **options):
    """Return a number of products whose sum loses what those of all time steps do."""
    return 64 * len(x) ** 2 * max(1, x.shape[-1])


SIZES = [(1, 1, 1, 1), (3, 2, 3, 2), (2, 3, 5, 9), (0, 2, 3, 2), (4, 0, 3, 2), (2, 2, 0, 3)]
rnn = Op("rnn", _rnn, ulps=16, cancels=True, terms=_terms)
lstm = Op("lstm", _lstm, ulps=16, cancels=True, terms=_terms)
gru = Op("gru", _gru, ulps=16, cancels=True, terms=_terms)
rnn_cell = Op("rnn_cell", _rnn_cell, ulps=16, cancels=True, terms=_terms)
lstm_cell = Op("lstm_cell", _lstm_cell, ulps=16, cancels=True, terms=_terms)
gru_cell = Op("gru_cell", _gru_cell, ulps=16, cancels=True, terms=_terms)


def _weights(gates, inputs, hidden, bias=True):
    shapes = [(gates * hidden, inputs), (gates * hidden, hidden), *[(gates * hidden,)] * (2 * bias)]
    return [normal(*shape) / 2 for shape in shapes]


for op in (rnn, lstm, gru):
    gates, states = GATES[op.name], 2 if op is lstm else 1
    for steps, batch, inputs, hidden in SIZES:
        x, h = normal(steps, batch, inputs), [normal(batch, hidden) for _ in range(states)]
        op.sample(x, *_weights(gates, inputs, hidden))
        op.sample(x, *_weights(gates, inputs, hidden, bias=False), None, None, *h, reverse=True)
        op.sample(x, *_weights(gates, inputs, hidden), *h)
    op.sample(integers(3, 4, 2).astype(np.uint8), *_weights(gates, 3, 5), reverse=True)
    op.sample(integers(3, 4, 2), *_weights(gates, 3, 5))

    w, name = _weights(gates, 3, 2), op.name
    op.refuses(ValueError, rf"^{name}: x \[2, 3\] needs 3 axes, \[T, N, in\]", normal(2, 3), *w)
    op.refuses(ValueError, rf"^{name}: x \[2, 1, 4\] has 4 features, weight_ih .* expects 3", normal(2, 1, 4), *w)
    op.refuses(ValueError, rf"^{name}: weight_hh is \[\d+, 3\]", normal(2, 1, 3), w[0], normal(2 * gates, 3))
    op.refuses(ValueError, rf"^{name}: bias_ih is \[7\]", normal(2, 1, 3), *w[:2], normal(7), w[3])
    op.refuses(ValueError, rf"^{name}: bias_hh is \[7\]", normal(2, 1, 3), *w[:3], normal(7))
    op.refuses(ValueError, rf"^{name}: bias_ih and bias_hh must both", normal(2, 1, 3), *w[:3])
    op.refuses(ValueError, rf"^{name}: h0 is \[1, 3\], needs \[1, 2\]", normal(2, 1, 3), *w, normal(1, 3))
    op.refuses(IndexError, rf"^{name}: x has index 3 at flat position 1, needs 0 to 2", np.array([[0, 3]]), *w)
    op.refuses(IndexError, rf"^{name}: x has index -1", np.array([[-1]]), *w)
    op.refuses(TypeError, rf"^{name}: reverse must be True or False, got 'no'", normal(2, 1, 3), *w, reverse="no")
    op.refuses(TypeError, rf"^{name}: x is int64", np.zeros((2, 1, 3), int), *w)
for op in (lstm, gru):
    message = rf"^{op.name}: weight_ih \[7, 3\] needs the shape \[\d hidden, in\]"
    op.refuses(ValueError, message, normal(2, 1, 3), normal(7, 3), normal(7, 2))
w = _weights(4, 3, 2)
lstm.refuses(ValueError, r"^lstm: c0 is \[2, 2\], needs \[1, 2\]", normal(2, 1, 3), *w, None, normal(2, 2))
for nonlinearity in ("relu", "tanh"):
    # Whole numbers and eighths: no sum comes close to the kink at 0, where the bias puts none.
    sixteenth = np.full(4, 1 / 64)
    x, w = np.round(4 * normal(3, 2, 5)), [np.round(2 * w) / 8 for w in _weights(1, 5, 4, bias=False)]
    rnn.sample(x[:1], *w, sixteenth, sixteenth, nonlinearity=nonlinearity)
    rnn_cell.sample(x[0], None, *w, sixteenth, sixteenth, nonlinearity)
for op in (rnn, rnn_cell):
    first = (normal(2, 1, 3),) if op is rnn else (normal(1, 3), None)
    message = rf"^{op.name}: nonlinearity must be one of 'tanh', 'relu', got 'sigmoid'"
    op.refuses(ValueError, message, *first, *_weights(1, 3, 2), nonlinearity="sigmoid")

for op in (rnn_cell, lstm_cell, gru_cell):
    name = op.name.removesuffix("_cell")
    gates = GATES[name]
    for _, batch, inputs, hidden in SIZES:
        h = normal(batch, hidden)
        state = [h, normal(batch, hidden)] if op is lstm_cell else h
        op.sample(normal(batch, inputs), None, *_weights(gates, inputs, hidden, bias=False))
        op.sample(integers(3, batch), None, *_weights(gates, 3, hidden))
        op.sample(normal(batch, inputs), state, *_weights(gates, inputs, hidden))
    w = _weights(gates, 3, 2)
    op.refuses(ValueError, rf"^{op.name}: x \[3\] of float32 needs the shape \[N, in\]", normal(3), None, *w)
    op.refuses(ValueError, rf"^{op.name}: x \[2, 1, 3\] of float32 needs", normal(2, 1, 3), None, *w)
    bad = normal(2, 3) if op is not lstm_cell else [normal(2, 3), normal(2, 2)]
    op.refuses(ValueError, rf"^{op.name}: h0 is \[2, 3\], needs \[2, 2\]", normal(2, 3), bad, *w)
