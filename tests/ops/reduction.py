"""Reductions."""

import numpy as np
import oracle

from ops.row import Op, apart, normal


def _axes(x, axis):
    axes = range(x.ndim) if axis is None else axis if isinstance(axis, tuple | list) else (axis,)
    return tuple(sorted(i % x.ndim for i in axes))


def _over_axes(name):
    def reduce(x, axis=None, keepdims=False):
        return getattr(oracle, name)(x, _axes(x, axis), keepdims)

    return reduce


def _count(x, axis=None, *rest, **options):
    return max(1, int(np.prod([x.shape[i] for i in _axes(x, axis)])))


def _var(x, axis=None, keepdims=False, correction=1):
    return oracle.var(x, _axes(x, axis), correction, keepdims)


sum_ = Op("sum", _over_axes("sum"), cancels=True, terms=_count)
mean = Op("mean", _over_axes("mean"), cancels=True, terms=_count)
max_ = Op("max", _over_axes("max"))
min_ = Op("min", _over_axes("min"))
var = Op("var", _var, ulps=8, terms=_count)
argmax = Op("argmax", lambda x, axis=None: np.array(np.argmax(x, axis)), differentiable=False)
require_finite = Op("require_finite", lambda x, what="": x)
REDUCTIONS = [
    ((), None),
    ((1,), None),
    ((7,), 0),
    ((3, 5), None),
    ((3, 5), 0),
    ((3, 5), -1),
    ((3, 5), (0, 1)),
    ((3, 5), (1, -2)),
    ((3, 5), ()),
    ((4, 1, 5), 1),
    ((2, 3, 4, 5), (0, 2, 3)),
    ((2, 3, 4, 5), [1, 3]),
    ((33, 70), 0),
    ((33, 70), 1),
    ((0, 3), 1),
    ((3, 0, 2), -1),
]
for op in (sum_, mean, max_, min_, var):
    for shape, axis in REDUCTIONS:
        x = apart(*shape)
        if op is var and _count(x, axis) == 1:
            op.sample(x, axis, correction=0)
            continue
        op.sample(x, axis)
        op.sample(x, axis=axis, keepdims=True)
    op.refuses(ValueError, rf"^{op.name}: axis 2 is out of range for 2 axes", normal(3, 4), 2)
    op.refuses(ValueError, rf"^{op.name}: axis -3 is out of range for 2 axes", normal(3, 4), (0, -3))
    op.refuses(ValueError, rf"^{op.name}: axis 0 is out of range for 0 axes", normal(), 0)
    op.refuses(ValueError, rf"^{op.name}: axes .* name an axis twice", normal(3, 4), (0, -2))
    op.refuses(TypeError, rf"^{op.name}: axis is .*, needs an integer", normal(3, 4), 0.5)
    op.refuses(TypeError, rf"^{op.name}: axis is .*, needs an integer", normal(3, 4), "0")
sum_.sample(normal(0, 3), 0)
sum_.sample(normal(0))
var.sample(normal(3, 5), 1, correction=0)
var.sample(normal(3, 5), None, True, 2)
var.refuses(TypeError, r"^var: correction is .*, needs an integer", normal(3), correction=0.5)
for op in (max_, min_):
    op.refuses(ValueError, rf"^{op.name}: .*\[0, 3\]", normal(0, 3), 0)
    op.refuses(ValueError, rf"^{op.name}: .*\[0\]", normal(0))
for shape, axis in (
    ((7,), None),
    ((7,), 0),
    ((3, 5), None),
    ((3, 5), 0),
    ((3, 5), -1),
    ((2, 33, 7), 1),
    ((0, 3), 1),
    ((1,), 0),
):
    argmax.sample(apart(*shape), axis)
    argmax.sample(np.round(normal(*shape)), axis=axis)  # the first of ties
argmax.refuses(ValueError, r"^argmax: axis 1 is out of range for 1 axes", normal(3), 1)
argmax.refuses(ValueError, r"^argmax: .*\[0\]", normal(0))
argmax.refuses(TypeError, r"^argmax: axis is .*, needs an integer", normal(3), (0,))

require_finite.sample(normal(2, 3))
require_finite.sample(normal(), "the loss")
require_finite.sample(normal(0))
require_finite.refuses(FloatingPointError, "^the loss is nan", np.array(np.nan), "the loss")
require_finite.refuses(FloatingPointError, "^x is not finite", np.array([1.0, -np.inf]), "x")
