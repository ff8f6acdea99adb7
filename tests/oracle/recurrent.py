"""Recurrent layers, one time step after the other; gradients by the chain rule, one time step before the other."""

import numpy as np

from oracle.elementwise import sigmoid
from oracle.like import like


def rnn(x, h0, weight_ih, weight_hh, bias_ih, bias_hh, relu, reverse):
    x, h, steps = _start(x, h0, weight_ih, weight_hh, reverse)
    y = np.zeros((*x.shape[:2], h.shape[1]), h.dtype)
    for t in steps:
        z = _sums(x[t], weight_ih, bias_ih) + _sums(h, weight_hh, bias_hh)
        h = y[t] = np.maximum(z, 0) if relu else np.tanh(z)
    return y, like(h, h)


def rnn_backward(dy, dh_n, y, x, h0, weight_ih, weight_hh, relu, reverse, need_dx, need_dh0, need_dweights):
    indices, (x, h_start, steps) = x, _start(x, h0, weight_ih, weight_hh, reverse)
    dh, dz = _zeros(dh_n, h_start), np.zeros_like(y)
    for t in steps[::-1]:
        dh = dh if dy is None else dh + dy[t]
        dz[t] = dh * (y[t] > 0 if relu else 1 - y[t] ** 2)
        dh = dz[t] @ weight_hh
    h_prev = _before(y, h_start, reverse)
    weights = _weight_gradients(dz, dz, x, h_prev, need_dweights)
    return _dx(dz, weight_ih, indices, need_dx), like(dh, y) if need_dh0 else None, *weights[:3]


def lstm(x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, reverse):
    x, h, steps = _start(x, h0, weight_ih, weight_hh, reverse)
    c = _zeros(c0, h)
    y = np.zeros((*x.shape[:2], h.shape[1]), h.dtype)
    cells, gates = np.zeros_like(y), np.zeros((*x.shape[:2], len(weight_ih)), h.dtype)
    for t in steps:
        i, f, g, o = np.split(_sums(x[t], weight_ih, bias_ih) + _sums(h, weight_hh, bias_hh), 4, axis=-1)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        c = cells[t] = f * c + i * g
        h = y[t] = o * np.tanh(c)
        gates[t] = np.concatenate([i, f, g, o], axis=-1)
    return y, like(h, h), like(c, h), gates, cells


def lstm_backward(
    dy,
    dh_n,
    dc_n,
    gates,
    cells,
    y,
    x,
    h0,
    c0,
    weight_ih,
    weight_hh,
    reverse,
    need_dx,
    need_dh0,
    need_dc0,
    need_dweights,
):
    indices, (x, h_start, steps) = x, _start(x, h0, weight_ih, weight_hh, reverse)
    c_prev = _before(cells, _zeros(c0, h_start), reverse)
    dh, dc, dz = _zeros(dh_n, h_start), _zeros(dc_n, h_start), np.zeros_like(gates)
    for t in steps[::-1]:
        i, f, g, o = np.split(gates[t], 4, axis=-1)
        dh = dh if dy is None else dh + dy[t]
        tanh_c = np.tanh(cells[t])
        dc = dc + dh * o * (1 - tanh_c**2)
        parts = dc * g * i * (1 - i), dc * c_prev[t] * f * (1 - f), dc * i * (1 - g**2), dh * tanh_c * o * (1 - o)
        dz[t] = np.concatenate(parts, axis=-1)
        dc, dh = dc * f, dz[t] @ weight_hh
    weights = _weight_gradients(dz, dz, x, _before(y, h_start, reverse), need_dweights)
    dx = _dx(dz, weight_ih, indices, need_dx)
    return dx, like(dh, y) if need_dh0 else None, like(dc, y) if need_dc0 else None, *weights[:3]


def gru(x, h0, weight_ih, weight_hh, bias_ih, bias_hh, reverse):
    x, h, steps = _start(x, h0, weight_ih, weight_hh, reverse)
    y = np.zeros((*x.shape[:2], h.shape[1]), h.dtype)
    hn, gates = np.zeros_like(y), np.zeros((*x.shape[:2], len(weight_ih)), h.dtype)
    for t in steps:
        xr, xz, xn = np.split(_sums(x[t], weight_ih, bias_ih), 3, axis=-1)
        hr, hz, hn[t] = np.split(_sums(h, weight_hh, bias_hh), 3, axis=-1)
        r, z = sigmoid(xr + hr), sigmoid(xz + hz)
        n = np.tanh(xn + r * hn[t])
        h = y[t] = (1 - z) * n + z * h
        gates[t] = np.concatenate([r, z, n], axis=-1)
    return y, like(h, h), gates, hn


def gru_backward(dy, dh_n, gates, hn, y, x, h0, weight_ih, weight_hh, reverse, need_dx, need_dh0, need_dweights):
    indices, (x, h_start, steps) = x, _start(x, h0, weight_ih, weight_hh, reverse)
    h_prev = _before(y, h_start, reverse)
    dh, dz_x, dz_h = _zeros(dh_n, h_start), np.zeros_like(gates), np.zeros_like(gates)
    for t in steps[::-1]:
        r, z, n = np.split(gates[t], 3, axis=-1)
        dh = dh if dy is None else dh + dy[t]
        dn = dh * (1 - z) * (1 - n**2)
        dr, dz = dn * hn[t] * r * (1 - r), dh * (h_prev[t] - n) * z * (1 - z)
        dz_x[t], dz_h[t] = np.concatenate([dr, dz, dn], axis=-1), np.concatenate([dr, dz, dn * r], axis=-1)
        dh = dh * z + dz_h[t] @ weight_hh
    weights = _weight_gradients(dz_x, dz_h, x, h_prev, need_dweights)
    return _dx(dz_x, weight_ih, indices, need_dx), like(dh, y) if need_dh0 else None, *weights


def _start(x, h0, weight_ih, weight_hh, reverse):
    """Return x as numbers, the state before the first step, and the order of the steps."""
    if x.ndim == 2:
        x = np.eye(weight_ih.shape[1], dtype=weight_ih.dtype)[x]
    h = np.zeros((x.shape[1], weight_hh.shape[1]), weight_ih.dtype) if h0 is None else h0
    steps = range(len(x))
    return x, h, steps[::-1] if reverse else steps


def _zeros(state, h):
    return np.zeros_like(h) if state is None else state


def _sums(x, weight, bias):
    return x @ weight.T if bias is None else x @ weight.T + bias


def _before(states, start, reverse):
    """Return, for every time step, the state that it began with."""
    parts = [states[1:], start[None]] if reverse else [start[None], states[:-1]]
    return np.concatenate(parts)[: len(states)] if len(states) else states


def _dx(dz, weight_ih, x, need_dx):
    return like(dz @ weight_ih, dz) if need_dx and x.ndim == 3 else None


def _weight_gradients(dz_x, dz_h, x, h_prev, need_dweights):
    if not need_dweights:
        return None, None, None, None
    dweight_ih, dweight_hh = np.einsum("tng,tni->gi", dz_x, x), np.einsum("tng,tnh->gh", dz_h, h_prev)
    return like(dweight_ih, dz_x), like(dweight_hh, dz_x), like(dz_x.sum((0, 1)), dz_x), like(dz_h.sum((0, 1)), dz_x)
