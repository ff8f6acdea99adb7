"""Attention, with all its scores."""

import numpy as np

from oracle.like import like
from oracle.philox import dropout


def _scores(query, key, attn_mask, past, scale):
    scores = np.einsum("nhle,nhse->nhls", query, key) * scale
    if attn_mask is not None:
        scores = np.where(attn_mask, scores, -np.inf) if attn_mask.dtype == bool else scores + attn_mask
    if past is None:
        return scores
    return np.where(np.tri(*scores.shape[2:], past, dtype=bool), scores, -np.inf)


def _weights(query, key, attn_mask, past, scale):
    """Return the softmax [N, H, L, S], 0 for queries that see no key, and the logarithm of its denominators."""
    scores = _scores(query, key, attn_mask, past, scale)
    largest = scores.max(axis=3, keepdims=True, initial=-np.inf)
    p = np.exp(scores - np.where(largest == -np.inf, 0, largest))
    total = p.sum(axis=3, keepdims=True)
    with np.errstate(divide="ignore"):
        lse = np.where(total == 0, np.inf, largest + np.log(total))
    return p / np.where(total == 0, 1, total), lse[..., 0]


def _dropout(p, dropout_p, seed, offset):
    """Drop with counters that begin anew for each query."""
    keys = p.shape[3]
    padded = np.zeros((*p.shape[:3], (keys + 3) // 4 * 4), p.dtype)
    padded[..., :keys] = p
    return dropout(padded, dropout_p, seed, offset)[..., :keys]


def scaled_dot_product_attention(query, key, value, attn_mask, past, scale, dropout_p, seed, offset):
    p, lse = _weights(query, key, attn_mask, past, scale)
    y = np.einsum("nhls,nhsv->nhlv", _dropout(p, dropout_p, seed, offset), value)
    return like(y, query), like(lse, query)


def scaled_dot_product_attention_backward(
    dy, y, lse, query, key, value, attn_mask, past, scale, dropout_p, seed, offset
):
    p = np.exp(_scores(query, key, attn_mask, past, scale) - lse[..., None])
    dvalue = np.einsum("nhls,nhlv->nhsv", _dropout(p, dropout_p, seed, offset), dy)
    dp = _dropout(np.einsum("nhlv,nhsv->nhls", dy, value), dropout_p, seed, offset)
    dscores = p * (dp - (dy * y).sum(axis=3, keepdims=True)) * scale  # the same sum as of p * dp
    dquery = np.einsum("nhls,nhse->nhle", dscores, key)
    dkey = np.einsum("nhls,nhle->nhse", dscores, query)
    return like(dquery, query), like(dkey, query), like(dvalue, query)


def _split(x, parts, num_heads):
    """Return the queries, keys and values [N, H, L, E] of x [N, L, parts H E]."""
    n, length, width = x.shape
    heads = x.reshape(n, length, parts, num_heads, width // (parts * num_heads))
    return [heads[:, :, i].swapaxes(1, 2) for i in range(parts)]


def _join(parts):
    n, heads, length, features = parts[0].shape
    joined = np.stack([part.swapaxes(1, 2) for part in parts], axis=2)
    return np.ascontiguousarray(joined.reshape(n, length, len(parts) * heads * features))


def self_attention(qkv, num_heads, attn_mask, past, scale, dropout_p, seed, offset):
    y, lse = scaled_dot_product_attention(*_split(qkv, 3, num_heads), attn_mask, past, scale, dropout_p, seed, offset)
    return _join([y]), lse


def self_attention_backward(dy, y, lse, qkv, num_heads, attn_mask, past, scale, dropout_p, seed, offset):
    dy, y = _split(dy, 1, num_heads)[0], _split(y, 1, num_heads)[0]
    how = attn_mask, past, scale, dropout_p, seed, offset
    return _join(scaled_dot_product_attention_backward(dy, y, lse, *_split(qkv, 3, num_heads), *how))


def rotate_pairs(x, cos, sin):
    a, b = x[..., ::2], x[..., 1::2]
    return np.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(x.shape)
