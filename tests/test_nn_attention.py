"""MultiheadAttention, TransformerEncoderLayer, the cache: PyTorch's results and keys, masks, generation, refusals."""

import numpy as np
import pytest

import pynn
from pynn import functional as F
from pynn import nn, serialize

try:
    import torch
except ImportError:
    torch = None

needs_torch = pytest.mark.skipif(torch is None, reason="PyTorch is not installed: no second oracle")


def array(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape)


def pair_of(name, *args, **options):
    """Return a module in float64 and PyTorch's, with the same weights."""
    theirs = getattr(torch.nn, name)(*args, **options).double()
    for p in theirs.parameters():  # biases and norms that are not 0 or 1
        torch.nn.init.normal_(p, std=0.3)
    ours = getattr(nn, name)(*args, **options).astype(np.float64)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def assert_same(ours, theirs, y, want, inputs, their_inputs):
    np.testing.assert_allclose(y.data, want.detach().numpy(), rtol=0, atol=1e-11)
    dy = array(*y.shape)
    y.backward(dy)
    want.backward(torch.tensor(dy))
    for x, t in zip(inputs, their_inputs, strict=True):
        np.testing.assert_allclose(x.grad, t.grad.numpy(), rtol=0, atol=1e-10)
    for (name, p), t in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad, t.grad.numpy(), rtol=0, atol=1e-10, err_msg=name)


MASKS = {
    "none": {},
    "causal": {"attn_mask": np.triu(np.ones((6, 6), bool), 1)},
    "padding": {"key_padding_mask": np.arange(6) >= np.array([[4], [6], [2]])},
    "each head": {"attn_mask": array(3 * 4, 6, 6)},
    "both": {"attn_mask": array(6, 6), "key_padding_mask": np.arange(6) >= np.array([[4], [6], [2]])},
}


@needs_torch
@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("cross", [False, True])
def test_multihead_attention_equals_pytorch(masks, batch_first, cross):
    ours, theirs = pair_of("MultiheadAttention", 8, 4, batch_first=batch_first)
    arrays = [array(3, 6, 8) + i for i in range(3 if cross else 1)]
    arrays = arrays if batch_first else [a.swapaxes(0, 1).copy() for a in arrays]
    inputs = [pynn.Tensor(a, requires_grad=True) for a in arrays]
    their_inputs = [torch.tensor(a, requires_grad=True) for a in arrays]
    given = MASKS[masks]
    y, weights = ours(*(inputs if cross else inputs * 3), **given)
    assert weights is None
    their_masks = {name: torch.tensor(mask) for name, mask in given.items()}
    if masks == "both":  # PyTorch wants one dtype
        padding = their_masks["key_padding_mask"]
        their_masks["key_padding_mask"] = torch.zeros(3, 6).double().masked_fill(padding, -torch.inf)
    want, _ = theirs(*(their_inputs if cross else their_inputs * 3), **their_masks)
    assert_same(ours, theirs, y, want, inputs, their_inputs)


@needs_torch
@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("cross", [False, True])
def test_weights_equal_pytorchs(masks, average, cross):
    ours, theirs = pair_of("MultiheadAttention", 8, 4, batch_first=True)
    arrays = [array(3, 6, 8) + i for i in range(3 if cross else 1)]
    inputs = [pynn.Tensor(a, requires_grad=True) for a in arrays]
    their_inputs = [torch.tensor(a, requires_grad=True) for a in arrays]
    given = {"need_weights": True, "average_attn_weights": average}
    y, weights = ours(*(inputs if cross else inputs * 3), **MASKS[masks], **given)
    their_masks = {name: torch.tensor(mask) for name, mask in MASKS[masks].items()}
    if masks == "both":  # PyTorch wants one dtype
        padding = their_masks["key_padding_mask"]
        their_masks["key_padding_mask"] = torch.zeros(3, 6).double().masked_fill(padding, -torch.inf)
    want_y, want = theirs(*(their_inputs if cross else their_inputs * 3), **their_masks, **given)
    np.testing.assert_allclose(y.data, want_y.detach().numpy(), rtol=0, atol=1e-11)
    np.testing.assert_allclose(weights.data, want.detach().numpy(), rtol=0, atol=1e-13)
    d = array(*weights.shape)
    F.sum(weights * d).backward()
    (want * torch.tensor(d)).sum().backward()
    for x, t in list(zip(inputs, their_inputs, strict=True))[:2]:  # values have no part in them
        np.testing.assert_allclose(x.grad, t.grad.numpy(), rtol=0, atol=1e-10)


def test_weights_of_one_causal_sequence_and_of_nothing_seen():
    attention = nn.MultiheadAttention(8, 2)
    x = pynn.randn(5, 8)
    y, weights = attention(x, need_weights=True, is_causal=True)
    assert weights.shape == (5, 5)
    assert (weights.data[np.triu_indices(5, 1)] == 0).all()
    np.testing.assert_allclose(weights.data.sum(axis=1), np.ones(5), rtol=1e-6)
    assert (y.data == attention(x, is_causal=True)[0].data).all()
    _, weights = attention(x, need_weights=True, attn_mask=np.arange(5)[:, None] == np.full((1, 5), 2))
    assert (weights.data[2] == 0).all()
    np.testing.assert_allclose(weights.data[[0, 1, 3, 4]].sum(axis=1), np.ones(4), rtol=1e-6)


def test_weights_in_a_captured_step():
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    weights_of = pynn.capture(lambda x: attention(x, need_weights=True, is_causal=True)[1])
    for _ in range(3):
        x = np.random.default_rng(5).normal(size=(2, 6, 8)).astype(np.float32)
        want = attention(pynn.Tensor(x), need_weights=True, is_causal=True)[1]
        np.testing.assert_array_equal(weights_of(x).data, want.data)


def test_rotated_products_depend_on_the_distance_alone():
    rng = np.random.default_rng(3)
    q, k = (np.tile(rng.normal(size=16), (40, 1)) for _ in range(2))
    scores = F.matmul(F.rotary_embedding(q), F.rotary_embedding(k), transpose_b=True).data
    for distance in (-20, -1, 0, 3, 39):
        diagonal = np.diagonal(scores, distance)
        np.testing.assert_allclose(diagonal, np.full_like(diagonal, diagonal[0]), rtol=0, atol=1e-12)
    assert np.ptp(scores[0]) > 1
    later = F.rotary_embedding(q[:4], start=7).data
    np.testing.assert_array_equal(later, F.rotary_embedding(q).data[7:11])


def test_rotation_in_a_captured_step():
    weight = nn.Parameter(np.random.default_rng(1).normal(size=(2, 5, 6)).astype(np.float32))

    def step(x):
        weight.grad = None
        loss = F.sum(F.rotary_embedding(weight * x) * x + F.rotary_embedding(weight, start=2))
        loss.backward()
        return loss

    captured = pynn.capture(step)
    for seed in range(3):
        x = np.random.default_rng(seed).normal(size=(2, 5, 6)).astype(np.float32)
        want, gradient = step(pynn.Tensor(x)).item(), weight.grad.copy()
        assert captured(x).item() == want
        np.testing.assert_array_equal(weight.grad, gradient)


@needs_torch
def test_is_causal_needs_no_mask_and_one_sequence_no_batch():
    ours, theirs = pair_of("MultiheadAttention", 8, 2, bias=False)
    x, t = pynn.Tensor(array(5, 8), requires_grad=True), torch.tensor(array(5, 8), requires_grad=True)
    y, _ = ours(x, is_causal=True)
    want, _ = theirs(t, t, t, attn_mask=torch.ones(5, 5).triu(1).bool())
    assert_same(ours, theirs, y, want, [x], [t])


@needs_torch
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_encoder_layer_equals_pytorch(activation, norm_first, bias):
    options = {"dim_feedforward": 20, "dropout": 0.0, "activation": activation, "norm_first": norm_first, "bias": bias}
    ours, theirs = pair_of("TransformerEncoderLayer", 8, 2, batch_first=True, **options)
    x, t = pynn.Tensor(array(3, 6, 8), requires_grad=True), torch.tensor(array(3, 6, 8), requires_grad=True)
    mask = np.triu(np.ones((6, 6), bool), 1)
    assert_same(ours, theirs, ours(x, src_mask=mask), theirs(t, src_mask=torch.tensor(mask)), [x], [t])
    assert (ours(x, src_mask=mask).data == ours(x, is_causal=True).data).all()


def test_dropout_only_in_training():
    x = pynn.randn(2, 5, 8)
    block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True)
    assert (block(x).data != block(x).data).any()
    attention = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
    assert (attention(x)[0].data != attention(x)[0].data).any()
    block.eval()
    attention.eval()
    assert (block(x).data == block(x).data).all()
    assert (attention(x)[0].data == attention(x)[0].data).all()


@pytest.mark.parametrize("steps", [(1,) * 7, (3, 1, 3), (7,)])
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_cache_gives_what_the_whole_sequence_gives(steps, batch_first):
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first).eval().astype(np.float64)
    x = pynn.Tensor(array(*((2, 7, 8) if batch_first else (7, 2, 8))))
    axis = 1 if batch_first else 0
    cache, start, parts = nn.KeyValueCache(9), 0, []
    with pynn.no_grad():
        for n in steps:
            part = x[:, start : start + n] if batch_first else x[start : start + n]
            parts.append(block(part, cache=cache))
            start += n
            assert cache.length == start
        want = block(x, is_causal=True)
    np.testing.assert_allclose(F.concatenate(parts, axis).data, want.data, rtol=0, atol=1e-13)


def test_cache_refuses():
    attention, x = nn.MultiheadAttention(8, 2, batch_first=True), pynn.randn(1, 3, 8)
    with pytest.raises(RuntimeError, match=r"^KeyValueCache: keeps no gradients"):
        attention(x, cache=nn.KeyValueCache(3))
    cache = nn.KeyValueCache(4)
    with pynn.no_grad():
        attention(x, cache=cache)
        with pytest.raises(ValueError, match=r"^KeyValueCache: 6 tokens do not fit into 4"):
            attention(x, cache=cache)
        with pytest.raises(ValueError, match=r"^KeyValueCache: holds \[1, 2, 4, 4\] .* got \[2, 2, 4, 4\]"):
            attention(pynn.randn(2, 1, 8), cache=cache)
        with pytest.raises(ValueError, match=r"a cache is for self-attention without masks"):
            attention(x, pynn.randn(1, 3, 8), cache=cache)
    assert cache.length == 3
    with pytest.raises(ValueError, match=r"^KeyValueCache: capacity is 0"):
        nn.KeyValueCache(0)


def test_refusals():
    x = pynn.randn(2, 3, 8)
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    with pytest.raises(ValueError, match=r"embed_dim 8 does not divide into 3 heads"):
        nn.MultiheadAttention(8, 3)
    with pytest.raises(ValueError, match=r"dropout must be a probability"):
        nn.MultiheadAttention(8, 2, dropout=2)
    with pynn.no_grad(), pytest.raises(ValueError, match=r"a cache is for self-attention without masks and weights"):
        attention(x, need_weights=True, cache=nn.KeyValueCache(3))
    with pytest.raises(ValueError, match=r"input \[2, 3, 7\] needs the shape \[N, L, 8\]"):
        attention(pynn.randn(2, 3, 7))
    with pytest.raises(ValueError, match=r"attn_mask \[3, 2\] needs the shape \[3, 3\] or \[4, 3, 3\]"):
        attention(x, attn_mask=np.zeros((3, 2), bool))
    with pytest.raises(ValueError, match=r"key_padding_mask \[3, 2\] needs the shape \[2, 3\]"):
        attention(x, key_padding_mask=np.zeros((3, 2), bool))
    with pytest.raises(TypeError, match=r"attn_mask is int64, needs bool or float32"):
        attention(x, attn_mask=np.zeros((3, 3), int))
    with pytest.raises(ValueError, match=r"activation must be one of 'relu', 'gelu'"):
        nn.TransformerEncoderLayer(8, 2, activation="swish")
    with pytest.raises(ValueError, match=r"^sinusoidal_: needs two axes"):
        nn.init.sinusoidal_(nn.Parameter([1.0]))


def test_sinusoidal_positions():
    p = nn.init.sinusoidal_(nn.Embedding(9, 6).weight).data
    for position in (0, 1, 8):
        for i in range(3):
            angle = position / 10000 ** (2 * i / 6)
            np.testing.assert_allclose(p[position, 2 * i : 2 * i + 2], [np.sin(angle), np.cos(angle)], atol=1e-6)


class Tied(nn.Module):
    def __init__(self):
        self.tokens = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, indices):
        return self.head(self.tokens(indices))


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_tied_weights_are_one_tensor_under_two_names(tmp_path, suffix):
    if suffix == "safetensors":
        pytest.importorskip("safetensors", reason="safetensors is not installed")
    model = Tied()
    assert [name for name, _ in model.named_parameters()] == ["tokens.weight"]
    state = model.state_dict()
    assert list(state) == ["tokens.weight", "head.weight"]
    assert (state["tokens.weight"] == state["head.weight"]).all()
    before = state["tokens.weight"].copy()
    F.cross_entropy(model(np.array([0, 1])), np.array([2, 3])).backward()
    assert (model.tokens.weight.grad[:2] != 0).all()  # by both uses
    pynn.optim.SGD(model.parameters(), lr=0.1).step()
    assert (model.head.weight.data != before).any()
    path = tmp_path / f"tied.{suffix}"
    serialize.save(path, model.state_dict())
    other = Tied()
    other.load_state_dict(serialize.load(path)[0])
    assert other.head.weight is other.tokens.weight
    assert (other.head.weight.data == model.head.weight.data).all()
