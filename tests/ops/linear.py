"""Matrix products."""

import numpy as np
import oracle

from ops.row import Op, apart, normal


def _matmul(a, b, transpose_a=False, transpose_b=False):
    if a.ndim == 1 or b.ndim == 1:
        return np.matmul(a.swapaxes(-1, -2) if transpose_a else a, b.swapaxes(-1, -2) if transpose_b else b)
    return oracle.matmul(a, b, transpose_a, transpose_b)


def _inner(a, b, transpose_a=False, transpose_b=False):
    return a.shape[-2 if transpose_a and a.ndim > 1 else -1]


matmul = Op("matmul", _matmul, cancels=True, terms=_inner)
for m, k, n in ((1, 1, 1), (3, 5, 7), (17, 33, 9), (0, 3, 4), (3, 0, 4), (3, 4, 0), (50, 129, 31)):
    for transpose_a in (False, True):
        for transpose_b in (False, True):
            matmul.sample(
                normal(*((k, m) if transpose_a else (m, k))),
                normal(*((n, k) if transpose_b else (k, n))),
                transpose_a=transpose_a,
                transpose_b=transpose_b,
            )
            if m == 3 and k == 5:
                a, b = (2, *((k, m) if transpose_a else (m, k))), (4, 1, *((n, k) if transpose_b else (k, n)))
                matmul.sample(normal(*a), normal(*b), transpose_a, transpose_b)
                matmul.sample(normal(*a), normal(*b[2:]), transpose_a, transpose_b)
                matmul.sample(normal(*a[1:]), normal(*b), transpose_a, transpose_b)
for a, b in (
    ((5, 3, 4), (5, 4, 6)),
    ((2, 1, 3, 4), (1, 5, 4, 6)),
    ((0, 3, 4), (4, 6)),
    ((2, 0, 4), (4, 6)),
    ((2, 3, 0), (0, 6)),
    ((2, 3, 4), (4, 0)),
    ((3,), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3,)),
    ((3,), (2, 3, 4)),
    ((2, 4, 3), (3,)),
    ((0,), (0,)),
):
    matmul.sample(normal(*a), normal(*b))
matmul.sample(normal(3), normal(4, 3), transpose_b=True)
matmul.refuses(ValueError, r"^matmul: .*\[2, 3\].*\[4, 5\]", normal(2, 3), normal(4, 5))
matmul.refuses(ValueError, r"^matmul: .*\[2, 3\].*\[3, 5\]", normal(2, 3), normal(3, 5), transpose_b=True)
matmul.refuses(ValueError, r"^matmul: .*\[2, 3, 4\].*\[3, 4, 5\]", normal(2, 3, 4), normal(3, 4, 5))
matmul.refuses(ValueError, r"^matmul: ", normal(), normal(3, 3))
matmul.refuses(ValueError, r"^matmul: ", normal(3), normal())
matmul.refuses(ValueError, r"^matmul: a 1-D operand cannot be transposed", normal(3), normal(3, 3), transpose_a=True)


def _linear(x, weight, bias=None, activation="none"):
    return oracle.linear(x, weight, bias, activation)


# The activations' own roundings are relative to 1, the size of a sigmoid.
linear = Op("linear", _linear, ulps=4, cancels=True, terms=lambda x, *rest, **options: x.shape[-1])
for lead, inputs, outputs in (
    ((3,), 5, 7),
    ((1,), 1, 1),
    ((), 5, 7),
    ((2, 3), 17, 9),
    ((0,), 5, 7),
    ((4,), 0, 3),
    ((33,), 129, 17),
):
    linear.sample(normal(*lead, inputs), normal(outputs, inputs))
    linear.sample(normal(*lead, inputs), normal(outputs, inputs), normal(outputs))
for activation in ("none", "relu", "leaky_relu", "sigmoid", "tanh"):
    # Whole numbers in x and eighths in the weight: no sum comes close to the kink at 0, where the bias puts none.
    linear.sample(np.round(4 * normal(3, 4)), apart(5, 4), np.full(5, 1 / 64), activation=activation)
linear.refuses(ValueError, r"^linear: .*\[2, 3\].*\[5, 4\]", normal(2, 3), normal(5, 4))
linear.refuses(ValueError, r"^linear: .*\[4\]", normal(2, 3), normal(5, 3), normal(4))
linear.refuses(ValueError, r"^linear: .*\[5, 3, 1\]", normal(2, 3), normal(5, 3, 1))
linear.refuses(ValueError, r"^linear: ", normal(), normal(5, 3))
linear.refuses(ValueError, r"^linear: activation must be .*got 'swish'", normal(2, 3), normal(5, 3), activation="swish")
linear.refuses(ValueError, r"^linear: activation must be", normal(2, 3), normal(5, 3), None, normal(5))
