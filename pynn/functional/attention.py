"""Attention, computed blockwise: memory grows with the length, not with its square. Positions as rotations."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from pynn import _core, random
from pynn.functional._args import Array, Gradients, Input, as_tensor, flag, integer, number, require_floats
from pynn.tape import _record as record
from pynn.tensor import Tensor

__all__ = ["rotary_embedding", "scaled_dot_product_attention", "self_attention"]


def scaled_dot_product_attention(
    query: Input,
    key: Input,
    value: Input,
    attn_mask: Input | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    past: int = 0,
) -> Tensor:
    """Return softmax(query @ key.T * scale + mask) @ value for each head (Vaswani et al. 2017).

    The scores are never stored: forward and backward go through tiles of them (Dao, FlashAttention-2, 2023).

    Parameters
    ----------
    query, key, value
        Shapes [N, H, L, E], [N, H, S, E] and [N, H, S, Ev], or without N, or without N and H.
    attn_mask
        Broadcasts to [N, H, L, S]. bool: False hides a key from a query. Of the query's dtype: added to the scores; it
        takes no gradient.
    dropout_p
        Probability with which each weight is dropped, at every call: pass 0 unless training.
    is_causal
        Query i sees keys 0 … past + i; together with `attn_mask`, those that both show.
    scale
        1 / sqrt(E) if None.
    past
        Keys in front of that of the first query, 0 … S: those that a generator has kept. Keys behind past + L are not
        looked at.

    Returns
    -------
    Tensor
        Shape [N, H, L, Ev]. A query that sees no key gives 0, and takes and passes no gradient, as in PyTorch.

    Examples
    --------
    >>> import pynn
    >>> x = pynn.tensor([[1.0], [3.0]])
    >>> pynn.functional.scaled_dot_product_attention(pynn.zeros(2, 1), x, x, is_causal=True)
    Tensor([[1.],
            [2.]], dtype=float32)
    """
    name = "scaled_dot_product_attention"
    query, key, value = as_tensor(query), as_tensor(key), as_tensor(value)
    q, k, v = query.data, key.data, value.data
    shape = q.shape
    if not 2 <= q.ndim == k.ndim == v.ndim <= 4 or not (
        k.shape[:-2] == v.shape[:-2] == shape[:-2] and k.shape[-1] == shape[-1] and v.shape[-2] == k.shape[-2]
    ):
        raise ValueError(
            f"{name}: query {list(shape)}, key {list(k.shape)} and value {list(v.shape)} "
            "need the shapes [N, H, L, E], [N, H, S, E] and [N, H, S, Ev]"
        )
    if q.ndim < 4:
        ones = (1,) * (4 - q.ndim)
        q, k, v = q.reshape(ones + shape), k.reshape(ones + k.shape), v.reshape(ones + v.shape)
    lengths = *q.shape[:3], k.shape[2]
    is_causal = flag(name, "is_causal", is_causal)
    mask = _mask(name, attn_mask, lengths)
    if not 0 <= integer(name, "past", past) <= lengths[3] or (past and not is_causal):
        raise ValueError(f"{name}: past is {past}, needs 0 to the {lengths[3]} keys, and is_causal")
    seen = past if is_causal else None
    how = mask, seen, _scale(name, scale, q.shape[3]), *_dropout(name, dropout_p, lengths)
    y, lse = _core.scaled_dot_product_attention(q, k, v, *how)

    def backward(dy: Array) -> Gradients:
        dxs = _core.scaled_dot_product_attention_backward(dy.reshape(y.shape), y, lse, q, k, v, *how)
        return [dx.reshape(x.shape) for dx, x in zip(dxs, (query, key, value), strict=True)]

    result = y if query.ndim == 4 else y.reshape(*shape[:-1], v.shape[-1])
    return record(name, result, (query, key, value), backward, (query, key, value), saves_output=True)


def self_attention(
    qkv: Input,
    num_heads: int,
    attn_mask: Input | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Return `scaled_dot_product_attention` of the heads that stand beside each other in `qkv`, without a copy of them.

    Parameters
    ----------
    qkv
        Shape [N, L, 3 H E]: in each row all heads' queries, then all keys, then all values, as one linear layer makes
        them.
    num_heads
        H.
    attn_mask, dropout_p, is_causal, scale
        As in `scaled_dot_product_attention`.

    Returns
    -------
    Tensor
        Shape [N, L, H E].

    Examples
    --------
    >>> import pynn
    >>> pynn.functional.self_attention(pynn.randn(2, 5, 3 * 8), num_heads=4, is_causal=True).shape
    (2, 5, 8)
    """
    name = "self_attention"
    qkv = as_tensor(qkv)
    x, num_heads = qkv.data, integer(name, "num_heads", num_heads)
    if x.ndim != 3 or num_heads < 1 or x.shape[2] % (3 * num_heads):
        raise ValueError(
            f"{name}: qkv {list(x.shape)} with {num_heads} heads needs the shape [N, L, 3 H E] with H >= 1"
        )
    lengths = x.shape[0], num_heads, x.shape[1], x.shape[1]
    mask = _mask(name, attn_mask, lengths)
    how = (
        mask,
        0 if flag(name, "is_causal", is_causal) else None,
        _scale(name, scale, x.shape[2] // (3 * num_heads)),
        *_dropout(name, dropout_p, lengths),
    )
    y, lse = _core.self_attention(x, num_heads, *how)

    def backward(dy: Array) -> Gradients:
        return (_core.self_attention_backward(dy, y, lse, x, num_heads, *how),)

    return record(name, y, (qkv,), backward, (qkv,), saves_output=True)


def rotary_embedding(x: Input, start: int = 0, base: float = 10000.0) -> Tensor:
    """Turn queries or keys by angles that grow with their position (Su et al. 2021, RoFormer, arXiv:2104.09864).

    The product of a query and a key then depends on their distance alone. Pair i of neighbours, features 2i and 2i + 1,
    is turned by position · base^(-2i / E), as in the paper; programs that pair feature i with E / 2 + i need their
    features in the other order.

    Parameters
    ----------
    x
        Shape [..., L, E] with an even E: positions start … start + L - 1.
    start
        Position of the first row: what a generator has behind it.
    base
        Angles reach from 1 down to almost 1 / base for each position.

    Returns
    -------
    Tensor
        The shape of `x`.

    Raises
    ------
    ValueError
        If x has fewer than two axes or an odd E, start is negative, or base is not a positive number.

    Examples
    --------
    >>> import pynn
    >>> pynn.functional.rotary_embedding(pynn.tensor([[1.0, 0.0], [1.0, 0.0]])).numpy().round(2)  # cos and sin of 0, 1
    array([[1.  , 0.  ],
           [0.54, 0.84]], dtype=float32)
    """
    name = "rotary_embedding"
    x = as_tensor(x)
    require_floats(name, "x", x)
    start, base = integer(name, "start", start), number(name, "base", base)
    shape = x.data.shape
    if len(shape) < 2 or shape[-1] % 2:
        raise ValueError(f"{name}: x {list(shape)} needs the shape [..., L, E] with an even E")
    if start < 0 or not 0 < base < math.inf:
        raise ValueError(f"{name}: start {start} and base {base} need at least 0 and a positive number")
    cos, sin, minus_sin = _turns(start, *shape[-2:], base, x.data.dtype)

    def backward(dy: Array) -> Gradients:
        return (_core.rotate_pairs(dy, cos, minus_sin),)

    return record(name, _core.rotate_pairs(x.data, cos, sin), (x,), backward)


@lru_cache(maxsize=64)  # all layers and steps use the same; a generator's are short
def _turns(start: int, length: int, features: int, base: float, dtype: np.dtype[np.floating]) -> tuple[Array, ...]:
    """Cosines, sines and their negatives [length, features / 2], rounded once."""
    rates = base ** (-np.arange(0, features, 2) / max(1, features))
    angles = np.arange(start, start + length)[:, None] * rates
    return tuple(f.astype(dtype) for f in (np.cos(angles), np.sin(angles), -np.sin(angles)))


def _mask(name: str, attn_mask: Input | None, shape: tuple[int, ...]) -> Array | None:
    """The mask with four axes, of which the first three may be 1."""
    if attn_mask is None:
        return None
    tensor = as_tensor(attn_mask)
    if tensor.requires_grad:
        raise ValueError(f"{name}: attn_mask takes no gradient; detach it")
    mask = tensor.data
    if mask.ndim > 4 or any(n not in (1, size) for n, size in zip(mask.shape[::-1], shape[::-1], strict=False)):
        raise ValueError(f"{name}: attn_mask {list(mask.shape)} does not broadcast to {list(shape)}")
    mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
    if mask.shape[3] != shape[3]:
        mask = np.ascontiguousarray(np.broadcast_to(mask, (*mask.shape[:3], shape[3])))
    return mask


def _scale(name: str, scale: float | None, features: int) -> float:
    return 1 / math.sqrt(max(1, features)) if scale is None else number(name, "scale", scale)


def _dropout(name: str, p: float, shape: tuple[int, ...]) -> tuple[float, int, int]:
    """Probability, key and first counter of Philox, which gives four numbers for each counter."""
    if not 0 <= number(name, "dropout_p", p) <= 1:
        raise ValueError(f"{name}: dropout_p must be a probability in 0 … 1, got {p}")
    return (p, *random.next_offset(math.prod(shape[:3]) * ((shape[3] + 3) // 4))) if p else (0.0, 0, 0)
