"""Normalisation, dropout and embedding."""

import numpy as np
import oracle

from ops.row import SHAPES, Op, integers, normal, positive

SEED = 5  # what the tests give to pynn.seed before every call


def _batch_norm(x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    bias = np.zeros_like(weight) if weight is not None and bias is None else bias
    return oracle.batch_norm(x, weight, bias, running_mean, running_var, training, momentum, eps)[0]


# The mean, the variance and the product each lose a few roundings of a sum.
batch_norm = Op(
    "batch_norm",
    _batch_norm,
    ulps=16,
    cancels=True,
    constants=(1, 2),
    terms=lambda x, *rest, **options: x.size // x.shape[1],
)
for shape in ((4, 3), (5, 1), (2, 3, 4), (2, 3, 3, 2), (33, 5, 4, 4)):
    c = shape[1]
    for training in (True, False):
        batch_norm.sample(normal(*shape), normal(c), positive(c), training=training)
        batch_norm.sample(normal(*shape), normal(c), positive(c), positive(c), normal(c), training, 0.3, 1e-3)
        batch_norm.sample(normal(*shape), normal(c), positive(c), positive(c), training=training)
    batch_norm.sample(normal(*shape), None, None, positive(c), normal(c), training=True)
_x, _c = normal(4, 3), normal(3)
batch_norm.refuses(TypeError, r"^batch_norm: training must be True or False", _x, None, None, None, None, normal(3))
batch_norm.refuses(ValueError, r"^batch_norm: needs running_mean and running_var unless training", _x, None, None)
batch_norm.refuses(ValueError, r"^batch_norm: .*\[4\]", _x, normal(4), positive(3))
batch_norm.refuses(ValueError, r"^batch_norm: .*\[4\]", _x, normal(3), positive(4), training=True)
batch_norm.refuses(ValueError, r"^batch_norm: .*\[2\]", _x, _c, positive(3), normal(2), normal(3))
batch_norm.refuses(ValueError, r"^batch_norm: .*\[2\]", _x, _c, positive(3), normal(3), normal(2))
batch_norm.refuses(ValueError, r"^batch_norm: a bias needs a weight", _x, _c, positive(3), None, normal(3))
batch_norm.refuses(ValueError, r"^batch_norm: .*\[3\]", normal(3), _c, positive(3))
batch_norm.refuses(ValueError, r"^batch_norm: .*\[1, 3\]", normal(1, 3), _c, positive(3), training=True)


def _layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    last = tuple(np.atleast_1d(normalized_shape))
    rows = x.reshape(*x.shape[: x.ndim - len(last)], int(np.prod(last)))
    bias = np.zeros_like(weight) if weight is not None and bias is None else bias
    flat = [None if p is None else p.reshape(-1) for p in (weight, bias)]
    return oracle.layer_norm(rows, *flat, eps)[0].reshape(x.shape)


layer_norm = Op(
    "layer_norm", _layer_norm, ulps=16, cancels=True, terms=lambda x, shape, *rest, **options: int(np.prod(shape))
)
for shape, last in (((5,), 5), ((3, 7), 7), ((2, 3, 5), (5,)), ((2, 3, 5), (3, 5)), ((0, 4), 4), ((17, 33), [33])):
    size = (last,) if isinstance(last, int) else tuple(last)
    layer_norm.sample(normal(*shape), last)
    layer_norm.sample(normal(*shape), last, positive(*size), normal(*size), 1e-3)
    layer_norm.sample(normal(*shape), last, positive(*size))
layer_norm.refuses(ValueError, r"^layer_norm: input \[3, 4\] does not end in normalized_shape \[3\]", normal(3, 4), 3)
layer_norm.refuses(ValueError, r"^layer_norm: input \[3, 4\] does not end in .*\[2, 3, 4\]", normal(3, 4), (2, 3, 4))
layer_norm.refuses(ValueError, r"^layer_norm: input \[\] does not end in", normal(), ())
layer_norm.refuses(ValueError, r"^layer_norm: weight or bias \[3\] needs the shape \[4\]", normal(3, 4), 4, normal(3))
layer_norm.sample(normal(3, 4), np.int64(4))
layer_norm.refuses(TypeError, r"^layer_norm: normalized_shape is .*, needs an integer", normal(3, 4), normal(4))
layer_norm.refuses(ValueError, r"^layer_norm: a bias needs a weight", normal(3, 4), 4, None, normal(4))


def _group_norm(x, num_groups, weight=None, bias=None, eps=1e-5):
    rows = x.reshape(len(x), num_groups, -1)
    y = oracle.layer_norm(rows, None, None, eps)[0].reshape(x.shape)
    shape = (-1, *[1] * (x.ndim - 2))
    y = y if weight is None else y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)


group_norm = Op("group_norm", _group_norm, ulps=16, cancels=True, terms=lambda x, groups, *rest, **options: x[0].size)
# In groups of two values the gradient is nothing but a cancellation.
for shape, groups in (((2, 10), 2), ((3, 6, 5), 3), ((2, 6, 3, 4), 1), ((2, 4, 3, 5), 4), ((1, 2, 9, 7, 2), 2)):
    c = shape[1]
    group_norm.sample(normal(*shape), groups)
    group_norm.sample(normal(*shape), groups, positive(c), normal(c), 1e-3)
    group_norm.sample(normal(*shape), groups, positive(c))
group_norm.refuses(ValueError, r"^group_norm: input \[3, 4\] needs .*divisible into 3 groups", normal(3, 4), 3)
group_norm.refuses(ValueError, r"^group_norm: input \[3, 4\] needs .*divisible into 0 groups", normal(3, 4), 0)
group_norm.refuses(ValueError, r"^group_norm: input \[4\] needs", normal(4), 2)
group_norm.refuses(ValueError, r"^group_norm: input \[0, 4\] needs", normal(0, 4), 2)
group_norm.refuses(ValueError, r"^group_norm: weight or bias \[2\] needs the shape \[4\]", normal(3, 4), 2, normal(2))
group_norm.refuses(ValueError, r"^group_norm: a bias needs a weight", normal(3, 4), 2, None, normal(4))
group_norm.refuses(TypeError, r"^group_norm: x is int64, needs float32 or float64", np.ones((3, 4), int), 2)
group_norm.refuses(TypeError, r"^group_norm: num_groups is .*, needs an integer", normal(3, 4), 2.0)


def _dropout(x, p=0.5, training=True):
    return oracle.dropout(x, p, SEED, 0) if training and p else x


dropout = Op("dropout", _dropout, ulps=1)
for shape in SHAPES:
    dropout.sample(normal(*shape))
    dropout.sample(normal(*shape), 0.25)
for p in (0, 0.0, 1, 1.0):
    dropout.sample(normal(3, 5), p)
dropout.sample(normal(3, 5), training=False)
for p in (-0.1, 1.1, float("nan")):
    dropout.refuses(ValueError, rf"^dropout: p must be a probability .*{p}", normal(3), p)
dropout.refuses(TypeError, r"^dropout: p is .*, needs a number", normal(3), "x")
dropout.refuses(TypeError, r"^dropout: training must be True or False", normal(3), 0.5, normal(3))

embedding = Op("embedding", lambda indices, weight: oracle.embedding(weight, indices.astype(int)))
for vocabulary, width, shape in (
    (1, 1, (1,)),
    (5, 3, (4,)),
    (7, 17, (2, 3)),
    (7, 5, ()),
    (5, 3, (0,)),
    (6, 33, (40, 3)),
):
    embedding.sample(integers(vocabulary, *shape), normal(vocabulary, width))
embedding.sample(integers(5, 4).astype(np.uint8), normal(5, 2))
embedding.refuses(IndexError, r"^embedding: .*5.*", np.array([0, 5]), normal(5, 2))
embedding.refuses(IndexError, r"^embedding: .*-1.*", np.array([0, -1]), normal(5, 2))
embedding.refuses(IndexError, r"^embedding: ", np.array([0]), normal(0, 2))
embedding.refuses(TypeError, r"^embedding: indices must hold integers, got float", np.array([0.5]), normal(5, 2))
embedding.refuses(ValueError, r"^embedding: .*\[5\]", np.array([0]), normal(5))
embedding.refuses(ValueError, r"^embedding: .*\[\]", np.array([0]), normal())
