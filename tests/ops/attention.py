"""Attention."""

import math

import numpy as np
import oracle
from oracle.attention import _join, _split

from ops.norm import SEED
from ops.row import Op, chosen, normal


def _attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, past=0):
    lead = (1,) * (4 - query.ndim)
    q, k, v = (x.reshape(lead + x.shape) for x in (query, key, value))
    if attn_mask is not None:
        attn_mask = np.broadcast_to(attn_mask, (*q.shape[:3], k.shape[2]))
    scale = 1 / math.sqrt(max(1, q.shape[3])) if scale is None else scale
    y, _ = oracle.scaled_dot_product_attention(
        q, k, v, attn_mask, past if is_causal else None, scale, dropout_p, SEED, 0
    )
    return y.reshape(*query.shape[:-1], value.shape[-1])


def _self_attention(qkv, num_heads, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None):
    return _join([_attention(*_split(qkv, 3, num_heads), attn_mask, dropout_p, is_causal, scale)])


# The scores' roundings enter through the exponential: 8 for scores of up to 8.
attention = Op(
    "scaled_dot_product_attention",
    _attention,
    ulps=32,
    cancels=True,
    terms=lambda q, k, *rest, **options: 8 * q.shape[-1] + k.shape[-2],
    constants=(3, "attn_mask"),
)
for q, k, v in (
    ((1, 1, 1, 1), (1, 1, 1, 1), (1, 1, 1, 1)),
    ((2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6)),
    ((3, 5, 4), (3, 2, 4), (3, 2, 4)),
    ((5, 4), (3, 4), (3, 1)),
    ((1, 1, 67, 17), (1, 1, 150, 17), (1, 1, 150, 9)),
    ((0, 1, 3, 2), (0, 1, 3, 2), (0, 1, 3, 2)),
    ((1, 1, 0, 2), (1, 1, 3, 2), (1, 1, 3, 2)),
    ((1, 1, 3, 2), (1, 1, 0, 2), (1, 1, 0, 2)),
    ((1, 1, 3, 0), (1, 1, 2, 0), (1, 1, 2, 2)),
):
    attention.sample(normal(*q), normal(*k), normal(*v))
    attention.sample(normal(*q), normal(*k), normal(*v), is_causal=True)
    attention.sample(normal(*q), normal(*k), normal(*v), chosen(q[-2], k[-2]))
    attention.sample(normal(*q), normal(*k), normal(*v), dropout_p=0.4)
x, y = normal(2, 3, 6, 4), normal(2, 3, 7, 4)
attention.sample(x, y, y, np.where(chosen(6, 1), -np.inf, np.zeros((1, 7))))
for past in (1, 4, 7):
    attention.sample(x, y, y, is_causal=True, past=past)
for mask in ((), (1,), (7,), (6, 1), (2, 1, 1, 7), (3, 6, 7)):
    attention.sample(x, y, y, normal(*mask), scale=0.3)
    attention.sample(x, y, y, attn_mask=chosen(*mask), is_causal=True, scale=-1)
for past in (-1, 8):
    attention.refuses(ValueError, rf"^scaled_dot_product_attention: past is {past}", x, y, y, is_causal=True, past=past)
attention.refuses(ValueError, r"^scaled_dot_product_attention: past is 1, .* and is_causal", x, y, y, past=1)
attention.refuses(
    TypeError, r"^scaled_dot_product_attention: past is .*, needs an integer", x, y, y, is_causal=True, past=0.5
)
shapes = r"^scaled_dot_product_attention: .*"
for bad in (
    (normal(3, 4), normal(5, 3), normal(5, 3)),
    (normal(3, 4), normal(5, 4), normal(6, 4)),
    (normal(2, 3, 4), normal(3, 5, 4), normal(3, 5, 4)),
    (normal(4), normal(4), normal(4)),
    (normal(1, 1, 1, 2, 2), normal(1, 1, 1, 2, 2), normal(1, 1, 1, 2, 2)),
    (normal(3, 4), normal(1, 3, 4), normal(1, 3, 4)),
):
    attention.refuses(ValueError, shapes + r"need the shapes \[N, H, L, E\]", *bad)
attention.refuses(
    ValueError,
    shapes + r"attn_mask \[5, 5\] does not broadcast to \[1, 1, 3, 5\]",
    *(normal(3, 4), normal(5, 4), normal(5, 4), normal(5, 5)),
)
attention.refuses(ValueError, shapes + "attn_mask", *(normal(3, 4), normal(5, 4), normal(5, 4), normal(1, 1, 1, 3, 5)))
attention.refuses(
    TypeError, shapes + "attn_mask is int64", *(normal(3, 4), normal(5, 4), normal(5, 4), np.ones((3, 5), int))
)
for p in (-0.1, 1.1, float("nan")):
    attention.refuses(
        ValueError, shapes + f"dropout_p must be .*{p}", normal(3, 4), normal(5, 4), normal(5, 4), None, p
    )
attention.refuses(
    TypeError, shapes + "scale is .*, needs a number", normal(3, 4), normal(5, 4), normal(5, 4), scale="x"
)
attention.refuses(
    TypeError, shapes + "is_causal must be True or False", normal(3, 4), normal(5, 4), normal(5, 4), is_causal="no"
)

self_attention = Op(
    "self_attention",
    _self_attention,
    ulps=32,
    cancels=True,
    terms=lambda qkv, num_heads, *rest, **options: 8 * qkv.shape[2] + qkv.shape[1],
    constants=(2, "attn_mask"),
)
for n, length, heads, features in ((1, 1, 1, 1), (2, 5, 3, 4), (1, 70, 2, 9), (0, 3, 1, 2), (2, 0, 1, 2), (1, 3, 2, 0)):
    self_attention.sample(normal(n, length, 3 * heads * features), heads)
    self_attention.sample(normal(n, length, 3 * heads * features), heads, is_causal=True, dropout_p=0.25)
self_attention.sample(normal(2, 5, 12), 2, normal(2, 1, 5, 5), scale=0.1)
self_attention.refuses(ValueError, r"^self_attention: qkv \[2, 3, 12\] with 3 heads needs", normal(2, 3, 12), 3)
self_attention.refuses(ValueError, r"^self_attention: qkv \[2, 3, 12\] with 0 heads needs", normal(2, 3, 12), 0)
self_attention.refuses(
    TypeError, r"^self_attention: is_causal must be True or False", normal(2, 3, 12), 1, is_causal=np.ones(2, bool)
)
self_attention.refuses(ValueError, r"^self_attention: qkv \[3, 12\]", normal(3, 12), 1)
self_attention.refuses(ValueError, r"^self_attention: attn_mask \[4\] does not", normal(2, 3, 12), 1, normal(4))


def _rotary(x, start=0, base=10000.0):
    angles = np.arange(start, start + x.shape[-2])[:, None] * base ** (-np.arange(0, x.shape[-1], 2) / x.shape[-1])
    z = (x[..., ::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)
    return np.stack([z.real, z.imag], axis=-1).reshape(x.shape)


# Cosines and sines are rounded, then two products and their difference.
rotary = Op("rotary_embedding", _rotary, ulps=6, cancels=True)
for shape in ((1, 2), (5, 6), (2, 3, 7, 34), (0, 3, 4), (3, 0, 4), (2, 4, 16)):
    rotary.sample(normal(*shape))
    rotary.sample(normal(*shape), 11, 100.0)
rotary.refuses(ValueError, r"^rotary_embedding: x \[3, 5\] needs the shape \[..., L, E\] with an even E", normal(3, 5))
rotary.refuses(TypeError, r"^rotary_embedding: x is int64, needs float32 or float64", np.ones((3, 4), int))
rotary.refuses(ValueError, r"^rotary_embedding: x \[4\] needs", normal(4))
rotary.refuses(ValueError, r"^rotary_embedding: start -1 and base", normal(3, 4), -1)
rotary.refuses(ValueError, r"^rotary_embedding: start 0 and base 0.0 need", normal(3, 4), 0, 0.0)
rotary.refuses(TypeError, r"^rotary_embedding: start is .*, needs an integer", normal(3, 4), 0.5)
rotary.refuses(TypeError, r"^rotary_embedding: base is .*, needs a number", normal(3, 4), 0, "x")
