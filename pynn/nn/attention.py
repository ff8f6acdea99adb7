"""Attention of several heads, the block of a transformer around it, and what a generator keeps."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np

from pynn import functional as F
from pynn._array import empty
from pynn.functional._args import Array, as_tensor, flag, number, one_of
from pynn.functional.shape import by_numpy
from pynn.grad_mode import is_grad_enabled
from pynn.nn import init
from pynn.nn.layers import Dropout, Linear, check_sizes
from pynn.nn.module import Module, Parameter
from pynn.nn.norm import LayerNorm
from pynn.tensor import Tensor


class KeyValueCache:
    """Keys and values of the tokens so far, so that a generator computes only those of the next ones.

    Pass one, for one attention layer, to `MultiheadAttention`. It is for `no_grad`: what it holds has no history.

    Parameters
    ----------
    capacity : int
        Tokens that fit.

    Attributes
    ----------
    length : int
        Tokens so far.

    Examples
    --------
    >>> import pynn
    >>> from pynn import nn
    >>> attention, x = nn.MultiheadAttention(8, 2, batch_first=True), pynn.randn(1, 5, 8)
    >>> cache = nn.KeyValueCache(5)
    >>> with pynn.no_grad():
    ...     whole = attention(x, x, x, is_causal=True)[0]
    ...     steps = [attention(x[:, i : i + 1], cache=cache)[0] for i in range(5)]
    >>> bool((abs(whole - F.concatenate(steps, 1)).data < 1e-6).all())
    True
    """

    def __init__(self, capacity: int) -> None:
        check_sizes("KeyValueCache", capacity=capacity)
        self.capacity = capacity
        self.length = 0
        self._arrays: tuple[Array, Array] | None = None

    def append(self, key: Array, value: Array) -> tuple[Array, Array]:
        """Take in key and value [N, H, L, E]; return both as [N, H, capacity, E], of which the first `length` count.

        Raises
        ------
        RuntimeError
            If gradients are recorded.
        ValueError
            If they do not fit, or N, H, E or the dtype differ from what is there.
        """
        if is_grad_enabled():
            raise RuntimeError("KeyValueCache: keeps no gradients; generate under pynn.no_grad()")
        shape = (*key.shape[:2], self.capacity, key.shape[3])
        if self._arrays is None:
            self._arrays = np.zeros(shape, key.dtype), np.zeros(shape, key.dtype)
        keys, values = self._arrays
        end = self.length + key.shape[2]
        if end > self.capacity:
            raise ValueError(f"KeyValueCache: {end} tokens do not fit into {self.capacity}")
        if keys.shape != shape or keys.dtype != key.dtype:
            raise ValueError(
                f"KeyValueCache: holds {list(keys.shape)} of {keys.dtype}, got {list(shape)} of {key.dtype}"
            )
        keys[:, :, self.length : end], values[:, :, self.length : end] = key, value
        self.length = end
        return keys, values


class MultiheadAttention(Module):
    """Attention of `num_heads` heads between linear layers (Vaswani et al. 2017); keys and layouts are PyTorch's.

    Parameters
    ----------
    embed_dim : int
        Features of queries, keys, values and outputs.
    num_heads : int
        Divides `embed_dim`.
    dropout : float
        Probability of dropping an attention weight in training.
    bias : bool
        Whether the linear layers have one.
    batch_first : bool
        x is [N, L, embed_dim] rather than [L, N, embed_dim].

    Attributes
    ----------
    in_proj_weight, in_proj_bias : Parameter
        [3 embed_dim, embed_dim] (Xavier uniform) and [3 embed_dim] (zeros): for queries, keys, values, in this order.
    out_proj : Linear

    Examples
    --------
    >>> import pynn
    >>> from pynn import nn
    >>> x = pynn.randn(2, 5, 8)
    >>> y, _ = nn.MultiheadAttention(8, num_heads=2, batch_first=True)(x, x, x, is_causal=True)
    >>> y.shape
    (2, 5, 8)
    """

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, batch_first: bool = False
    ) -> None:
        check_sizes("MultiheadAttention", embed_dim=embed_dim, num_heads=num_heads)
        if embed_dim % num_heads:
            raise ValueError(f"MultiheadAttention: embed_dim {embed_dim} does not divide into {num_heads} heads")
        if not 0 <= number("MultiheadAttention", "dropout", dropout) <= 1:
            raise ValueError(f"MultiheadAttention: dropout must be a probability in 0 … 1, got {dropout}")
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = flag("MultiheadAttention", "batch_first", batch_first)
        self.in_proj_weight = Parameter(empty("MultiheadAttention", 3 * embed_dim, embed_dim))
        has_bias = flag("MultiheadAttention", "bias", bias)
        self.in_proj_bias = Parameter(np.zeros(3 * embed_dim, np.float32)) if has_bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew; biases become 0."""
        init.xavier_uniform_(self.in_proj_weight)
        self.out_proj.reset_parameters()
        if self.in_proj_bias is not None and self.out_proj.bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        key_padding_mask: Tensor | Array | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | Array | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        cache: KeyValueCache | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the outputs, and the weights with which each query sees the keys, or None.

        Parameters
        ----------
        query, key, value
            [N, L, E], [N, S, E] and [N, S, E] if `batch_first`, else [L, N, E], …; without N for one sequence. `key` is
            `query` if None, `value` is `key`.
        key_padding_mask
            [N, S]: True (or -infinity) hides a key from all queries, the opposite of
            `F.scaled_dot_product_attention`'s.
        need_weights
            True also returns the weights, before dropout: they are computed a second time, for the outputs do without
            storing them. (PyTorch's default is True.)
        attn_mask
            [L, S] or [N num_heads, L, S]: True (or -infinity) hides a key from a query.
        average_attn_weights
            The weights are the mean over the heads, [N, L, S]; else those of each head, [N, num_heads, L, S]. Of one
            sequence, both are without N. A query that sees no key has weights of 0.
        is_causal
            Query i sees keys 0 … i; PyTorch wants the mask as well, here it is not needed.
        cache
            Takes the keys and values of the new tokens in, and attends causally to all it holds. Self-attention only.
        """
        key = query if key is None else key
        value = key if value is None else value
        same = key is query and value is query
        query, key, value = map(as_tensor, (query, key, value))
        lead = query.ndim
        batch = 0 if self.batch_first else 1
        if not same and (
            key.ndim != lead or key.shape != value.shape or (lead == 3 and key.shape[batch] != query.shape[batch])
        ):
            shapes = f"query {list(query.shape)}, key {list(key.shape)} and value {list(value.shape)}"
            raise ValueError(f"MultiheadAttention: {shapes} do not fit; needs one N, and keys and values of one shape")
        query, key, value = (self._batched(x) for x in ((query,) * 3 if same else (query, key, value)))
        n, queries, keys, width = query.shape[0], query.shape[1], key.shape[1], self.embed_dim
        head = width // self.num_heads
        bias = self.in_proj_bias
        p = self.dropout if self.training else 0.0
        mask = self._mask(attn_mask, key_padding_mask, n, queries, keys, query.dtype)
        weights: Tensor | None = None
        if cache is not None:
            if not same or mask is not None or need_weights:
                raise ValueError("MultiheadAttention: a cache is for self-attention without masks and weights")
            qkv = F.linear(query, self.in_proj_weight, bias).data.reshape(n, queries, 3, self.num_heads, head)
            new_query, new_key, new_value = qkv.transpose(2, 0, 3, 1, 4)
            past = cache.length
            all_keys, all_values = cache.append(new_key, new_value)
            y = F.scaled_dot_product_attention(new_query, all_keys, all_values, is_causal=True, past=past)
            y = F.reshape(F.transpose(y, (0, 2, 1, 3)), (n, queries, width))
        elif same:
            packed = F.linear(query, self.in_proj_weight, bias)
            y = F.self_attention(packed, self.num_heads, mask, p, is_causal)
            if need_weights:
                heads = F.transpose(F.reshape(packed, (n, queries, 3, self.num_heads, head)), (2, 0, 3, 1, 4))
                weights = _weights(heads[0], heads[1], mask, is_causal)
        else:
            parts = []
            for i, (x, length) in enumerate(((query, queries), (key, keys), (value, keys))):
                rows = slice(i * width, (i + 1) * width)
                x = F.linear(x, self.in_proj_weight[rows], None if bias is None else bias[rows])
                parts.append(F.transpose(F.reshape(x, (n, length, self.num_heads, head)), (0, 2, 1, 3)))
            q, k, v = parts
            y = F.scaled_dot_product_attention(q, k, v, mask, p, is_causal)
            y = F.reshape(F.transpose(y, (0, 2, 1, 3)), (n, queries, width))
            if need_weights:
                weights = _weights(q, k, mask, is_causal)
        y = self.out_proj(y)
        if weights is not None and average_attn_weights:
            weights = F.mean(weights, 1)
        if lead == 2:
            return F.reshape(y, (queries, width)), None if weights is None else weights[0]
        return y if self.batch_first else F.transpose(y, (1, 0, 2)), weights

    def _batched(self, x: Tensor) -> Tensor:
        """Return x as [N, L, embed_dim]."""
        if x.ndim not in (2, 3) or x.shape[-1] != self.embed_dim:
            order = "N, L" if self.batch_first else "L, N"
            raise ValueError(
                f"MultiheadAttention: input {list(x.shape)} needs the shape [{order}, {self.embed_dim}], also without N"
            )
        if x.ndim == 2:
            return F.reshape(x, (1, *x.shape))
        return x if self.batch_first else F.transpose(x, (1, 0, 2))

    def _mask(
        self,
        attn_mask: Tensor | Array | None,
        key_padding_mask: Tensor | Array | None,
        n: int,
        queries: int,
        keys: int,
        dtype: np.dtype[Any],
    ) -> Array | None:
        """Return both masks in one, as `scaled_dot_product_attention` takes it."""
        masks = []
        for name, given, shapes in (
            ("attn_mask", attn_mask, ((queries, keys), (n * self.num_heads, queries, keys))),
            ("key_padding_mask", key_padding_mask, ((n, keys),)),
        ):
            if given is None:
                continue
            mask = given.data if isinstance(given, Tensor) else np.asarray(given)
            if mask.shape not in shapes:
                needed = " or ".join(str(list(shape)) for shape in shapes)
                raise ValueError(f"MultiheadAttention: {name} {list(mask.shape)} needs the shape {needed}")
            if mask.dtype != bool and mask.dtype != dtype:
                raise TypeError(f"MultiheadAttention: {name} is {mask.dtype}, needs bool or {dtype}")
            if name == "key_padding_mask":
                mask = mask.reshape(n, 1, 1, keys)
            elif mask.ndim == 3:
                mask = mask.reshape(n, self.num_heads, queries, keys)
            masks.append(mask)
        return by_numpy("attention_mask", _joined, masks, dtype) if masks else None

    def extra_repr(self) -> str:
        """Return the sizes and options."""
        return (
            f"{self.embed_dim}, {self.num_heads}, dropout={self.dropout}, bias={self.in_proj_bias is not None}, "
            f"batch_first={self.batch_first}"
        )


def _weights(query: Tensor, key: Tensor, mask: Array | None, is_causal: bool) -> Tensor:
    """Return the softmax [N, H, L, S] of attention, with its gradient, for a mask as `_mask` returns it."""
    scores = F.matmul(query, key, transpose_b=True) / math.sqrt(max(1, query.shape[3]))
    if mask is None and not is_causal:
        return F.softmax(scores)
    shown: Array = np.ones(scores.shape[2:], bool)
    if is_causal:
        shown = np.tril(shown)
    if mask is not None and mask.dtype != bool:
        scores = scores + np.where(mask == -np.inf, mask.dtype.type(0), mask)
        mask = mask != -np.inf
    shown = shown if mask is None else shown & mask
    sees = np.any(shown, axis=-1, keepdims=True)  # a softmax of nothing would be NaN
    hidden = np.where(shown | ~sees, 0, -np.inf).astype(scores.dtype)
    weights: Tensor = F.softmax(scores + hidden) * sees.astype(scores.dtype)
    return weights


def _joined(masks: list[Array], dtype: np.dtype[Any]) -> Array:
    """One or two masks as one: where all are bool, True shows a key, else numbers to add."""
    if all(mask.dtype == bool for mask in masks):
        return np.asarray(~(masks[0] | masks[-1]))
    zero, hidden = dtype.type(0), dtype.type(-np.inf)
    return np.asarray(sum((np.where(m, hidden, zero) if m.dtype == bool else m for m in masks), zero))


class TransformerEncoderLayer(Module):
    """Self-attention and two linear layers, each with a residual and layer norm (Vaswani et al. 2017).

    With `is_causal` and `norm_first` it is the block of a GPT. Keys and layouts are PyTorch's.

    Parameters
    ----------
    d_model, nhead, dim_feedforward : int
        Features, heads, and features between the linear layers.
    dropout : float
        Probability of dropping attention weights, the inner features, and either branch's output.
    activation : str
        "relu" or "gelu".
    layer_norm_eps : float
        Of both norms.
    batch_first : bool
        x is [N, L, d_model] rather than [L, N, d_model].
    norm_first : bool
        Normalise in front of each branch rather than behind the sum (Xiong et al. 2020, arXiv:2002.04745).
    bias : bool
        Whether linear layers and norms have one.

    Examples
    --------
    >>> import pynn
    >>> from pynn import nn
    >>> block = nn.TransformerEncoderLayer(8, nhead=2, dim_feedforward=32, batch_first=True, norm_first=True)
    >>> block(pynn.randn(2, 5, 8), is_causal=True).shape
    (2, 5, 8)
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
    ) -> None:
        one_of("TransformerEncoderLayer", "activation", activation, ("relu", "gelu"))
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first)
        self.linear1 = Linear(d_model, dim_feedforward, bias)
        self.linear2 = Linear(dim_feedforward, d_model, bias)
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias)
        self.dropout = Dropout(dropout)
        self.activation = activation
        self.norm_first = flag("TransformerEncoderLayer", "norm_first", norm_first)

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | Array | None = None,
        src_key_padding_mask: Tensor | Array | None = None,
        is_causal: bool = False,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Return an output of the same shape; the masks and `cache` are those of `MultiheadAttention`."""

        def attend(x: Tensor) -> Tensor:
            y, _ = self.self_attn(
                x, key_padding_mask=src_key_padding_mask, attn_mask=src_mask, is_causal=is_causal, cache=cache
            )
            return cast(Tensor, self.dropout(y))

        if self.norm_first:
            x = src + attend(self.norm1(src))
            return x + self._feed_forward(self.norm2(x))
        x = self.norm1(src + attend(src))
        return cast(Tensor, self.norm2(x + self._feed_forward(x)))

    def _feed_forward(self, x: Tensor) -> Tensor:
        hidden = (F.relu if self.activation == "relu" else F.gelu)(self.linear1(x))
        return cast(Tensor, self.dropout(self.linear2(self.dropout(hidden))))
