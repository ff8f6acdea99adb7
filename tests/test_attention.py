"""What the table of operations does not say of attention: its memory, its gradients' absence, and PyTorch's results."""

import numpy as np
import pytest

import pynn
from pynn import _core
from pynn import functional as F


def reserved(length):
    """Return the bytes that the arena holds beyond the arrays of a forward and backward of this length."""
    x = np.random.default_rng(0).normal(size=(1, 1, length, 16)).astype(np.float32)
    tensors = [pynn.Tensor(x, requires_grad=True) for _ in range(3)]
    before = _core.arena_stats()["bytes_reserved"]
    F.scaled_dot_product_attention(*tensors, is_causal=True).sum().backward()
    return _core.arena_stats()["bytes_reserved"] - before


def test_memory_is_linear_in_the_length():
    reserved(512)  # scratch of the threads, which stays
    taken = reserved(8192)
    # y, its gradient, three gradients, seven partial ones of the queries, lse, delta; blocks hold up to a quarter more.
    assert taken <= 1.25 * (12 * 16 + 2) * 8192 * 4
    assert taken < 8192 * 8192 * 4 / 20  # what a twentieth of the scores would take


def test_a_mask_takes_no_gradient():
    x = pynn.ones(2, 3)
    with pytest.raises(ValueError, match=r"^scaled_dot_product_attention: attn_mask takes no gradient; detach it"):
        F.scaled_dot_product_attention(x, x, x, pynn.zeros(2, 2, requires_grad=True))


def test_nan_stays_in_the_rows_and_heads_that_see_it():
    x = np.ones((1, 2, 300, 4), np.float32)
    bad = x.copy()
    bad[0, 1, 290, 0] = np.nan
    assert np.isnan(F.scaled_dot_product_attention(x, bad, x, is_causal=True).data).nonzero()[2].min() == 290
    assert np.isnan(F.scaled_dot_product_attention(x, bad, x).data).any(axis=(2, 3)).tolist() == [[False, True]]
    hidden = np.arange(300) != 290
    assert not np.isnan(F.scaled_dot_product_attention(x, x, x, hidden).data).any()


def test_dropout_follows_the_seed_and_keeps_the_mean():
    x, one = pynn.zeros(1, 4, 64, 8), pynn.ones(1, 4, 64, 8)
    pynn.seed(1)
    y, other = (F.scaled_dot_product_attention(x, x, one, dropout_p=0.3).data for _ in range(2))
    pynn.seed(1)
    assert (F.scaled_dot_product_attention(x, x, one, dropout_p=0.3).data == y).all()
    assert (other != y).any()
    kept = y[..., 0].sum() * 64 * 0.7 / (4 * 64 * 64)  # each of 4 * 64 * 64 weights with probability 0.7
    assert abs(kept - 0.7) < 5 * np.sqrt(0.3 * 0.7 / (4 * 64 * 64))


@pytest.mark.parametrize("mask", [None, "causal", "bool", "float", "hidden rows"])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7, 4), (1, 2, 200, 333, 24)])
def test_equals_pytorch(shape, mask):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: no second oracle")
    n, h, queries, keys, features = shape
    rng = np.random.default_rng(3)
    arrays = [rng.normal(size=(n, h, rows, features)) for rows in (queries, keys, keys)]
    attn_mask = {
        "bool": rng.uniform(size=(queries, keys)) < 0.8,
        "float": rng.normal(size=(n, 1, queries, keys)),
        "hidden rows": np.where(rng.uniform(size=(queries, 1)) < 0.5, -np.inf, np.zeros(keys)),
    }.get(mask)
    ours = [pynn.Tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    y = F.scaled_dot_product_attention(*ours, attn_mask, is_causal=mask == "causal")
    want = torch.nn.functional.scaled_dot_product_attention(
        *theirs, None if attn_mask is None else torch.tensor(attn_mask), is_causal=mask == "causal"
    )
    dy = rng.normal(size=y.shape)
    y.backward(dy)
    want.backward(torch.tensor(dy))
    np.testing.assert_allclose(y.data, want.detach().numpy(), rtol=0, atol=1e-12)
    for x, t in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(x.grad, t.grad.numpy(), rtol=0, atol=1e-11)
