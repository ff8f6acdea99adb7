"""The rules of `export_rules` go on: convolution, pools, norms, attention, recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pynn.onnx.export_graph import Graph, Value
from pynn.onnx.export_rules import activate, cast, rule, turned
from pynn.onnx.export_trace import Length, Ref, Size

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]  # top, bottom, left, right


# -- convolution and pools ---------------------------------------------------------------------------------------------
@rule
def conv2d(
    g: Graph,
    x: Ref,
    weight: Ref,
    bias: Ref | None,
    stride: Pair,
    padding: Pads,
    dilation: Pair,
    groups: int,
    activation: str,
) -> str | Value:
    assert g.step is not None
    y = g.step.outputs[0].shape
    top, bottom, left, right = padding
    filters = g.value(weight)
    if len(filters.shape) == 3 and x.shape[2] == y[2] == 1:  # conv1d
        source, kernel = g.value(x), filters.shape
        rows = g.reshape(source.name, source.shape, (*x.shape[:2], x.shape[3]))
        how: dict[str, Any] = {"strides": stride[1:], "dilations": dilation[1:], "pads": (left, right)}
        sums = g.add(
            "Conv", rows, filters.name, "" if bias is None else g(bias), kernel_shape=kernel[2:], group=groups, **how
        )
        return Value(activate(g, sums, activation), (*y[:2], y[3]))
    how = {"strides": stride, "dilations": dilation, "pads": (top, left, bottom, right)}
    sums = g.add(
        "Conv", g(x), g(weight), "" if bias is None else g(bias), kernel_shape=weight.shape[2:], group=groups, **how
    )
    return activate(g, sums, activation)


@rule
def conv2d_max_pool2d(g: Graph, *args: Any) -> str:
    sums = conv2d(g, *args[:8])  # without need_indices
    assert isinstance(sums, str)
    return g.add("MaxPool", sums, kernel_shape=(2, 2), strides=(2, 2))


@rule
def conv2d_backward(
    g: Graph,
    dy: Ref,
    y: Ref | None,
    x: Ref,
    weight: Ref,
    stride: Pair,
    padding: Pads,
    dilation: Pair,
    groups: int,
    activation: str,
    need_dx: bool,
    need_dweight: bool,
    need_dbias: bool,
) -> str:
    """A transposed convolution; of `x`, which is never read, it has the shape."""
    if need_dweight or need_dbias or activation != "none":
        g.refuse("a gradient")
    top, bottom, left, right = padding
    extra = [
        g.axes.map(
            lambda size, n, s=s, p=p, d=d, k=k: size - ((n - 1) * s - p + d * (k - 1) + 1), x.shape[i], dy.shape[i]
        )
        for i, s, p, d, k in zip((2, 3), stride, (top + bottom, left + right), dilation, weight.shape[2:], strict=True)
    ]
    return g.add(
        "ConvTranspose",
        g(dy),
        g(weight),
        kernel_shape=weight.shape[2:],
        strides=stride,
        pads=(top, left, bottom, right),
        dilations=dilation,
        group=groups,
        output_padding=extra,
    )


@rule
def max_pool2d(g: Graph, x: Ref, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool) -> str:
    end = _end(g, x, kernel, stride, padding, dilation, ceil_mode)
    name, pads = g(x), (*padding, *end)
    if any(e >= k for e, k in zip(end, kernel, strict=True)):  # which ONNX Runtime refuses
        name = g.add("Pad", name, g.integers(0, 0, *padding, 0, 0, *end), g.number(-np.inf, x.dtype))
        pads = (0, 0, 0, 0)
    return g.add("MaxPool", name, kernel_shape=kernel, strides=stride, pads=pads, dilations=dilation)


@rule
def avg_pool2d(
    g: Graph, x: Ref, kernel: Pair, stride: Pair, padding: Pair, ceil_mode: bool, count_include_pad: bool
) -> str:
    name = g(x)
    end = _end(g, x, kernel, stride, padding, (1, 1), ceil_mode)
    pads: tuple[int, ...] = (*padding, *end)
    counts = count_include_pad and any(padding)
    if counts and ceil_mode:  # zeros count, what a window overhangs does not
        around = [0, 0, *padding] * 2
        name = g.add("Pad", name, g.integers(*around), g.number(0, x.dtype))
        pads = (0, 0, *[max(0, e - p) for e, p in zip(end, padding, strict=True)])
        counts = False
    return g.add("AveragePool", name, kernel_shape=kernel, strides=stride, pads=pads, count_include_pad=int(counts))


def _end(
    g: Graph, x: Ref, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool
) -> tuple[int, ...]:
    """The padding at the bottom and right that makes room for the windows that overhang."""
    assert g.step is not None
    if not ceil_mode:
        return padding
    ends = [
        g.axes.map(
            lambda count, n, k=k, s=s, p=p, d=d: max((count - 1) * s + d * (k - 1) + 1 - n - p, 0),
            g.step.outputs[0].shape[i],
            x.shape[i],
        )
        for i, k, s, p, d in zip((2, 3), kernel, stride, padding, dilation, strict=True)
    ]
    known = [end for end in ends if not isinstance(end, Size)]
    if len(known) < 2:
        g.refuse("ceil_mode, where height and width are dynamic axes")
    return tuple(known)


# -- normalisation -----------------------------------------------------------------------------------------------------
@rule
def batch_norm(
    g: Graph,
    x: Ref,
    weight: Ref | None,
    bias: Ref | None,
    running_mean: Ref | None,
    running_var: Ref | None,
    training: bool,
    momentum: float,
    eps: float,
) -> str:
    channels = x.shape[1]
    if isinstance(channels, Size):
        g.refuse("the channels are a dynamic axis")
    column = (channels, *[1] * (x.ndim - 2))
    if training or running_mean is None or running_var is None:  # the statistics of the batch
        over = g.integers(0, *range(2, x.ndim))
        deviation = g.add("Sub", g(x), g.add("ReduceMean", g(x), over, keepdims=1))
        variance = g.add("ReduceMean", g.add("Mul", deviation, deviation), over, keepdims=1)
        y = g.add("Div", deviation, g.add("Sqrt", g.add("Add", variance, g.number(eps, x.dtype))))
        if weight is None or bias is None:
            return y
        scale, shift = (g.reshape(g(p), p.shape, column) for p in (weight, bias))
        return g.add("Add", g.add("Mul", y, scale), shift)
    scale = g.constant(np.ones(channels, x.dtype)) if weight is None else g(weight)
    shift = g.constant(np.zeros(channels, x.dtype)) if bias is None else g(bias)
    return g.add("BatchNormalization", g(x), scale, shift, g(running_mean), g(running_var), epsilon=eps)


@rule
def layer_norm(g: Graph, x: Ref, weight: Ref | None, bias: Ref | None, eps: float) -> str:
    size = x.shape[-1]
    if weight is None and isinstance(size, Size):
        over = g.integers(-1)
        deviation = g.add("Sub", g(x), g.add("ReduceMean", g(x), over, keepdims=1))
        variance = g.add("ReduceMean", g.add("Mul", deviation, deviation), over, keepdims=1)
        return g.add("Div", deviation, g.add("Sqrt", g.add("Add", variance, g.number(eps, x.dtype))))
    scale = g.constant(np.ones(size, x.dtype)) if weight is None else g(weight)  # type: ignore[arg-type]
    return g.add("LayerNormalization", g(x), scale, "" if bias is None else g(bias), axis=-1, epsilon=eps)


@rule
def dropout(g: Graph, x: Ref, p: float, *at: Length) -> str:
    g.refuse("drops elements at random; switch it off for evaluation")


# -- attention ---------------------------------------------------------------------------------------------------------
@rule
def scaled_dot_product_attention(
    g: Graph,
    query: Ref,
    key: Ref,
    value: Ref,
    attn_mask: Ref | None,
    past: Length | None,
    scale: float,
    dropout_p: float,
    *at: Length,
) -> str:
    lengths = query.shape[2], key.shape[2]
    return _attention(g, g(query), turned(g, key), g(value), lengths, attn_mask, past, scale, dropout_p, query.dtype)


@rule
def self_attention(
    g: Graph,
    qkv: Ref,
    num_heads: int,
    attn_mask: Ref | None,
    past: Length | None,
    scale: float,
    dropout_p: float,
    *at: Length,
) -> str:
    n, length, width = qkv.shape
    if isinstance(width, Size):
        g.refuse("the features are a dynamic axis")
    head = width // (3 * num_heads)
    heads = g.reshape(g(qkv), qkv.shape, (n, length, 3, num_heads, head))
    parts = g.add("Transpose", heads, perm=(2, 0, 3, 1, 4))  # [3, N, H, L, E]
    query, key, value = (g.add("Gather", parts, g.constant(np.array(i)), axis=0) for i in range(3))
    key = g.add("Transpose", key, perm=(0, 1, 3, 2))
    y = _attention(g, query, key, value, (length, length), attn_mask, past, scale, dropout_p, qkv.dtype)
    y = g.add("Transpose", y, perm=(0, 2, 1, 3))
    return g.reshape(y, (n, length, num_heads, head), (n, length, width // 3))


@rule
def rotate_pairs(g: Graph, x: Ref, cos: Ref, sin: Ref) -> str:
    width = x.shape[-1]
    if isinstance(width, Size):
        g.refuse("the features are a dynamic axis")
    shape = *x.shape[:-1], width // 2, 2
    pairs, c, s = g.reshape(g(x), x.shape, shape), g(cos), g(sin)
    a, b = (g.add("Gather", pairs, g.constant(np.array(i)), axis=-1) for i in range(2))
    first = g.add("Sub", g.add("Mul", a, c), g.add("Mul", b, s))
    second = g.add("Add", g.add("Mul", b, c), g.add("Mul", a, s))
    last = g.integers(-1)
    turned_pairs = g.add("Concat", g.add("Unsqueeze", first, last), g.add("Unsqueeze", second, last), axis=-1)
    return g.reshape(turned_pairs, shape, x.shape)


@rule
def attention_mask(g: Graph, masks: Sequence[Ref], dtype: np.dtype[Any]) -> str:
    """Of masks in which True hides a key one in which it shows it, or numbers to add."""
    names = list(map(g, masks))
    if all(mask.dtype == np.bool_ for mask in masks):
        return g.add("Not", g.add("Or", *names) if len(names) == 2 else names[0])
    zero, hidden = g.number(0, dtype), g.number(-np.inf, dtype)
    terms = [
        g.add("Where", name, hidden, zero) if mask.dtype == np.bool_ else name
        for name, mask in zip(names, masks, strict=True)
    ]
    return g.add("Add", *terms) if len(terms) == 2 else terms[0]


def _attention(
    g: Graph,
    query: str,
    key: str,
    value: str,
    lengths: Sequence[Length],
    attn_mask: Ref | None,
    past: Length | None,
    scale: float,
    dropout_p: float,
    dtype: np.dtype[Any],
) -> str:
    """Softmax of query [N, H, L, E] by key [N, H, E, S], by value [N, H, S, Ev]."""
    if dropout_p:
        g.refuse("drops weights at random; switch it off for evaluation")
    scores = g.add("MatMul", g.add("Mul", query, g.number(scale, dtype)), key)
    lowest = g.number(-np.inf, dtype)
    if past is not None:
        queries, keys = (
            g.add("Range", g.constant(np.array(0)), g.add("Squeeze", g.lengths([n])), g.constant(np.array(1)))
            for n in lengths
        )
        last = g.add("Unsqueeze", g.add("Add", queries, g.lengths([past])), g.integers(1))
        scores = g.add("Where", g.add("GreaterOrEqual", last, keys), scores, lowest)
    if attn_mask is None:
        return g.add("MatMul", g.add("Softmax", scores, axis=-1), value)
    if attn_mask.dtype == np.bool_:
        scores = g.add("Where", g(attn_mask), scores, lowest)
    else:
        scores = g.add("Add", scores, g(attn_mask))
    # A query that sees no key gives 0, where the softmax is NaN.
    highest = g.add("ReduceMax", scores, g.integers(-1), keepdims=1)
    is_blind = g.add("Equal", highest, lowest)
    weights = g.add("Softmax", g.add("Where", is_blind, g.number(0, dtype), scores), axis=-1)
    return g.add("MatMul", g.add("Where", is_blind, g.number(0, dtype), weights), value)


# -- recurrent layers --------------------------------------------------------------------------------------------------
@rule
def rnn(
    g: Graph,
    x: Ref,
    h0: Ref | None,
    weight_ih: Ref,
    weight_hh: Ref,
    bias_ih: Ref | None,
    bias_hh: Ref | None,
    relu: bool,
    reverse: bool,
) -> tuple[str, ...]:
    weights = weight_ih, weight_hh, bias_ih, bias_hh
    return _recurrent(g, "RNN", x, (h0,), weights, (0,), reverse, activations=["Relu" if relu else "Tanh"])


@rule
def lstm(
    g: Graph,
    x: Ref,
    h0: Ref | None,
    c0: Ref | None,
    weight_ih: Ref,
    weight_hh: Ref,
    bias_ih: Ref | None,
    bias_hh: Ref | None,
    reverse: bool,
) -> tuple[str, ...]:
    # ONNX has the gates in the order input, output, forget, cell.
    return _recurrent(g, "LSTM", x, (h0, c0), (weight_ih, weight_hh, bias_ih, bias_hh), (0, 3, 1, 2), reverse)


@rule
def gru(
    g: Graph,
    x: Ref,
    h0: Ref | None,
    weight_ih: Ref,
    weight_hh: Ref,
    bias_ih: Ref | None,
    bias_hh: Ref | None,
    reverse: bool,
) -> tuple[str, ...]:
    # ONNX has the gates in the order update, reset, hidden.
    weights = weight_ih, weight_hh, bias_ih, bias_hh
    return _recurrent(g, "GRU", x, (h0,), weights, (1, 0, 2), reverse, linear_before_reset=1)


def _recurrent(
    g: Graph,
    op: str,
    x: Ref,
    states: Sequence[Ref | None],
    weights: tuple[Ref, Ref, Ref | None, Ref | None],
    gates: Sequence[int],
    reverse: bool,
    **attributes: Any,
) -> tuple[str, ...]:
    """The outputs and the last states. The file keeps the weights as they are; a runtime sorts their gates."""
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    hidden, inputs = weight_hh.shape[1], weight_ih.shape[1]
    assert isinstance(hidden, int)
    assert isinstance(inputs, int)

    def sort(weight: Ref, *rest: int) -> str:
        if len(gates) == 1:
            return g.reshape(g(weight), weight.shape, (1, *weight.shape))
        parts = g.reshape(g(weight), weight.shape, (len(gates), hidden, *rest))
        parts = g.add("Gather", parts, g.integers(*gates), axis=0)
        return g.reshape(parts, (len(gates), hidden, *rest), (1, *weight.shape))

    biases = ""
    if bias_ih is not None and bias_hh is not None:
        biases = g.add("Concat", sort(bias_ih), sort(bias_hh), axis=1)
    value = g(x)
    if x.dtype.kind == "i":  # they stand for one-hot vectors
        ends = g.constant(np.array([0, 1], np.float32))
        value = g.add("OneHot", value, g.integers(inputs), ends, axis=-1)
        value = value if weight_ih.dtype == np.float32 else cast(g, value, weight_ih.dtype)
    starts = ["" if s is None else g.add("Unsqueeze", g(s), g.integers(0)) for s in states]
    y, *last = g.add_all(
        op,
        value,
        sort(weight_ih, inputs),
        sort(weight_hh, hidden),
        biases,
        "",  # all sequences have all steps
        *starts,
        outputs=1 + len(states),
        hidden_size=hidden,
        direction="reverse" if reverse else "forward",
        **attributes,
    )
    return g.add("Squeeze", y, g.integers(1)), *[g.add("Squeeze", state, g.integers(0)) for state in last]
