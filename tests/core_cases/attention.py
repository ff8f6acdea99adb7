"""scaled_dot_product_attention and self_attention."""

from typing import Any

import numpy as np
import oracle
from closeness import sum_ulps
from oracle.attention import _join, _split

from core_cases.case import case, f32, family, normal, uniform


def _sizes(query: Any, key: Any, attn_mask: Any, past: Any, scale: float) -> tuple[Any, Any]:
    """Return the softmax, and for each query the size of the terms that its largest score is made of."""
    p, _ = oracle.attention._weights(query, key, attn_mask, past, scale)
    terms = np.einsum("nhle,nhse->nhls", np.abs(query), np.abs(key)) * abs(scale)
    if attn_mask is not None and attn_mask.dtype != bool:
        terms = terms + np.where(np.isfinite(attn_mask), np.abs(attn_mask), 0)
    return p, 1 + terms.max(axis=3, initial=0)


# An error of a score is one of the weight, relative to it. Dropout only takes terms away, or doubles them.
def _forward(query: Any, key: Any, value: Any, attn_mask: Any, past: Any, scale: float, *_: Any) -> Any:
    p, size = _sizes(query, key, attn_mask, past, scale)
    return 2 * size[..., None] * (p @ np.abs(value)), size


def _backward(
    dy: Any, y: Any, lse: Any, query: Any, key: Any, value: Any, attn_mask: Any, past: Any, scale: float, *_: Any
) -> Any:
    p, size = _sizes(query, key, attn_mask, past, scale)
    weights = 2 * p * size[..., None]
    dp = np.abs(dy) @ np.abs(value).swapaxes(2, 3)
    dscores = 2 * weights * (dp + (p * dp).sum(axis=3, keepdims=True)) * abs(scale)
    return dscores @ np.abs(key), dscores.swapaxes(2, 3) @ np.abs(query), weights.swapaxes(2, 3) @ np.abs(dy)


def _packed_forward(qkv: Any, num_heads: int, *how: Any) -> Any:
    y, lse = _forward(*_split(qkv, 3, num_heads), *how)
    return _join([y]), lse


def _packed_backward(dy: Any, y: Any, lse: Any, qkv: Any, num_heads: int, *how: Any) -> Any:
    dy = _split(dy, 1, num_heads)[0]
    return _join(_backward(dy, None, lse, *_split(qkv, 3, num_heads), *how))


@family
def attention() -> None:
    def both(query: Any, key: Any, value: Any, *how: Any) -> None:
        ulps = 8 + sum_ulps(max(*query.shape, *key.shape, *value.shape))
        case("scaled_dot_product_attention", query, key, value, *how, ulps=ulps, scale=_forward)
        y, lse = oracle.scaled_dot_product_attention(query, key, value, *how)
        case(
            "scaled_dot_product_attention_backward",
            *(normal(*y.shape), f32(y), f32(lse), query, key, value, *how),
            ulps=2 * ulps,
            scale=_backward,
        )
        if query.shape == key.shape == value.shape and query.shape[1]:
            qkv, heads = _join([query, key, value]), query.shape[1]
            case("self_attention", qkv, heads, *how, ulps=ulps, scale=_packed_forward)
            case(
                "self_attention_backward",
                *(_join([normal(*y.shape)]), _join([f32(y)]), f32(lse), qkv, heads, *how),
                ulps=2 * ulps,
                scale=_packed_backward,
            )

    for n, h, queries, keys, features, value_features in (
        (1, 1, 1, 1, 1, 1),
        (2, 3, 5, 7, 4, 6),
        (2, 2, 9, 9, 3, 3),
        (1, 2, 64, 64, 32, 32),
        (1, 1, 1, 70, 16, 16),
        (1, 1, 130, 300, 16, 24),
        (1, 1, 300, 130, 33, 17),
        (0, 2, 3, 3, 4, 4),
        (2, 0, 3, 3, 4, 4),
        (1, 2, 0, 3, 4, 4),
        (1, 2, 3, 0, 4, 4),
        (1, 2, 3, 3, 0, 4),
        (1, 2, 3, 3, 4, 0),
    ):
        arrays = normal(n, h, queries, features), normal(n, h, keys, features), normal(n, h, keys, value_features)
        for past in (None, 0, keys // 2):
            both(*arrays, None, past, 0.3, 0.0, 0, 0)
        both(*arrays, uniform(n, 1, queries, keys) < 0.7, None, 0.3, 0.0, 0, 0)
        both(*arrays, uniform(1, h, 1, keys) < 0.7, 0, 0.3, 0.0, 0, 0)
        both(*arrays, normal(1, h, queries, keys), None, -0.5, 0.0, 0, 0)
        both(*arrays, None, None, 0.3, 0.25, 2**63 + 12345, 2**40 + 3)
        both(*arrays, None, 0, 0.3, 1.0, 5, 0)
    x = normal(1, 2, 6, 4), normal(1, 2, 6, 4), normal(1, 2, 6, 4)
    hidden = np.array([0, -np.inf, 1, -np.inf, 2, 0]).reshape(1, 1, 6, 1) + np.zeros((1, 1, 1, 6))
    both(*x, hidden, None, 1.0, 0.0, 0, 0)  # queries that see no key
    far = np.full((1, 1, 1, 6), f32(-1e30))  # from all other scores, and yet the largest
    case("scaled_dot_product_attention", *x, far, None, 1.0, 0.0, 0, 0, ulps=20, scale=_forward)
    both(*(100 * a for a in x), None, None, 1.0, 0.0, 0, 0)  # no exponential overflows


@family
def rotations() -> None:
    for lead, rows, pairs in (
        ((), 1, 1),
        ((2, 3), 5, 3),
        ((1,), 70, 16),
        ((3,), 2000, 17),
        ((0, 2), 3, 4),
        ((2,), 0, 4),
    ):
        x, angles = normal(*lead, rows, 2 * pairs), 9 * normal(rows, pairs)
        case(
            "rotate_pairs",
            x,
            f32(np.cos(angles)),
            f32(np.sin(angles)),
            ulps=2,
            scale=lambda x, *_: np.abs(x).max(initial=0),
        )
