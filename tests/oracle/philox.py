"""Dropout by a counter-based generator, and embedding."""

import numpy as np

from oracle.like import like

# Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
_MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)
_WEYL = np.array([0x9E3779B9, 0xBB67AE85], np.uint32)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def philox(seed, counters):
    """Return Philox 4x32-10 of each 64-bit counter [blocks] under the 64-bit key `seed`: uint32 [blocks, 4]."""
    key = np.array([seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF], np.uint32)
    c0, c1 = counters & _LOW, counters >> _SHIFT
    c2, c3 = np.zeros_like(c0), np.zeros_like(c0)
    for _ in range(10):
        product0, product1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (product1 >> _SHIFT) ^ c1 ^ np.uint64(key[0]),
            product1 & _LOW,
            (product0 >> _SHIFT) ^ c3 ^ np.uint64(key[1]),
            product0 & _LOW,
        )
        key = key + _WEYL  # modulo 2^32
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def dropout(x, p, seed, offset):
    # Block `offset + i` gives elements 4i .. 4i + 3, so a call uses ceil(size / 4) counters.
    counters = np.uint64(offset) + np.arange((x.size + 3) // 4, dtype=np.uint64)
    uniform = (philox(seed, counters).reshape(-1)[: x.size] >> np.uint32(8)) * 2.0**-24
    kept = (uniform >= p).reshape(x.shape)
    return like(np.where(kept, x * (1 / (1 - p) if p < 1 else 0), 0), x)


def embedding(weight, indices):
    return like(weight[indices], weight)


def embedding_backward(dy, indices, num_embeddings):
    dweight = np.zeros((num_embeddings, dy.shape[-1]), dy.dtype)
    np.add.at(dweight, indices, dy)
    return dweight
