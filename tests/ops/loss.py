"""Softmax and losses."""

import numpy as np
import oracle

from ops.row import Op, apart, integers, normal, positive, signs, unit


def _along(rows):
    def apply(x, dim=-1):
        return np.moveaxis(rows(np.ascontiguousarray(np.moveaxis(x, dim, -1))), -1, dim)

    return apply


# exp multiplies the rounding of its argument, here below 8, by the argument.
softmax = Op("softmax", _along(oracle.softmax), ulps=16, terms=lambda x, dim=-1: x.shape[dim])
log_softmax = Op("log_softmax", _along(oracle.log_softmax), ulps=4, cancels=True, terms=lambda x, dim=-1: x.shape[dim])
for op in (softmax, log_softmax):
    for shape in ((1,), (7,), (3, 10), (5, 1), (0, 4), (2, 3, 5), (17, 33)):
        op.sample(normal(*shape))
    for dim in (0, 1, 2, -1, -2, -3):
        op.sample(normal(2, 3, 5), dim)
    op.refuses(ValueError, rf"^{op.name}: axis 2 is out of range for 2 axes", normal(3, 4), 2)
    op.refuses(ValueError, rf"^{op.name}: axis -3 is out of range for 2 axes", normal(3, 4), -3)
    op.refuses(ValueError, rf"^{op.name}: ", normal())
    op.refuses(TypeError, rf"^{op.name}: axis is .*, needs an integer", normal(3), 0.5)


def _cross_entropy(logits, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    rows = np.moveaxis(logits, 1, -1) if logits.ndim > 1 else logits
    rows = rows.reshape(-1, rows.shape[-1])
    loss, _ = oracle.cross_entropy(
        rows, target.reshape(-1).astype(int), ignore_index, label_smoothing, reduction, False, weight
    )
    return loss.reshape(target.shape) if reduction == "none" else loss


def _loss_terms(x, target, *rest, **options):
    return x.size if options.get("reduction") != "none" else 1


cross_entropy = Op(
    "cross_entropy",
    _cross_entropy,
    ulps=8,
    cancels=True,
    terms=lambda x, *rest, **options: max(1, x.size),
    constants=(2, "weight"),
)
for reduction in ("mean", "sum", "none"):
    for smoothing in (0.0, 0.1, 1.0):
        cross_entropy.sample(normal(7, 5), integers(5, 7), label_smoothing=smoothing, reduction=reduction)
    cross_entropy.sample(normal(6, 4), np.array([0, 3, -100, 1, -100, 2]), reduction=reduction)
    cross_entropy.sample(normal(4, 3), np.array([0, 1, 2, 1]), None, 1, reduction, 0.25)
    cross_entropy.sample(normal(2, 3, 4, 5), integers(3, 2, 4, 5), reduction=reduction)
    cross_entropy.sample(normal(5), integers(5), reduction=reduction)
    cross_entropy.sample(normal(3, 4), integers(4, 3).astype(np.uint8), reduction=reduction)
    cross_entropy.sample(normal(1, 1), integers(1, 1), reduction=reduction)
    cross_entropy.sample(normal(33, 10), integers(10, 33).astype(np.int32), reduction=reduction)
    for smoothing in (0.0, 0.1, 1.0):
        cross_entropy.sample(normal(9, 17), integers(17, 9), positive(17), 3, reduction, smoothing)
    cross_entropy.sample(normal(2, 3, 4), integers(3, 2, 4), reduction=reduction, weight=np.array([0.0, 2.0, 0.5]))
cross_entropy.sample(normal(0, 4), integers(4, 0), reduction="sum")
cross_entropy.sample(normal(0, 4), integers(4, 0), reduction="none")
_x, _labels = normal(3, 4), np.array([0, 1, 2])
cross_entropy.refuses(IndexError, r"^cross_entropy: .*4.*", _x, np.array([0, 4, 1]))
cross_entropy.refuses(IndexError, r"^cross_entropy: .*-1.*", _x, np.array([0, -1, 1]))
cross_entropy.refuses(ValueError, r"^cross_entropy: logits \[3, 4\] and target \[2\] do not fit", _x, np.array([0, 1]))
cross_entropy.refuses(
    ValueError, r"^cross_entropy: logits \[3, 4\] and target \[3, 1\] do not fit", _x, _labels[:, None]
)
cross_entropy.refuses(TypeError, r"^cross_entropy: target must hold integers, got float", _x, unit(3))
cross_entropy.refuses(TypeError, r"^cross_entropy: target must hold integers, got bool", _x, _labels > 0)
cross_entropy.refuses(ValueError, r"^cross_entropy: .*label_smoothing", _x, _labels, label_smoothing=1.5)
cross_entropy.refuses(ValueError, r"^cross_entropy: .*label_smoothing", _x, _labels, label_smoothing=float("nan"))
cross_entropy.refuses(
    TypeError, r"^cross_entropy: label_smoothing is .*, needs a number", _x, _labels, label_smoothing="x"
)
cross_entropy.refuses(TypeError, r"^cross_entropy: ignore_index is .*, needs an integer", _x, _labels, ignore_index=0.5)
_wrapping = np.full(_labels.shape, 2**64 - 100, np.uint64)  # -100 as int64: would be ignored
cross_entropy.refuses(IndexError, r"^cross_entropy: target has 18446744073709551516, needs at most", _x, _wrapping)
cross_entropy.refuses(ValueError, r"^cross_entropy: reduction must be .*'max'", _x, _labels, reduction="max")
cross_entropy.refuses(ValueError, r"^cross_entropy: weight \[3\], needs \[4\]", _x, _labels, weight=unit(3))
cross_entropy.refuses(TypeError, r"^cross_entropy: weight is int64", _x, _labels, weight=np.arange(4))


def _nll_loss(log_probs, target, weight=None, ignore_index=-100, reduction="mean"):
    rows = np.moveaxis(log_probs, 1, -1) if log_probs.ndim > 1 else log_probs
    rows = np.ascontiguousarray(rows.reshape(-1, rows.shape[-1]))
    loss, _ = oracle.nll_loss(rows, target.reshape(-1).astype(int), ignore_index, reduction, False, weight)
    return loss.reshape(target.shape) if reduction == "none" else loss


nll_loss = Op(
    "nll_loss",
    _nll_loss,
    ulps=2,
    cancels=True,
    terms=lambda x, *rest, **options: max(1, x.size),
    constants=(2, "weight"),
)
for reduction in ("mean", "sum", "none"):
    nll_loss.sample(normal(7, 5), integers(5, 7), reduction=reduction)
    nll_loss.sample(normal(6, 4), np.array([0, 3, -100, 1, -100, 2]), reduction=reduction)
    nll_loss.sample(normal(4, 3), np.array([0, 1, 2, 1]), None, 1, reduction)
    nll_loss.sample(normal(2, 3, 4, 5), integers(3, 2, 4, 5), reduction=reduction)
    nll_loss.sample(normal(5), integers(5), reduction=reduction)
    nll_loss.sample(normal(33, 10), integers(10, 33).astype(np.int32), reduction=reduction)
    nll_loss.sample(normal(7, 5), integers(5, 7), positive(5), 1, reduction)
nll_loss.sample(normal(0, 4), integers(4, 0), reduction="sum")
nll_loss.refuses(IndexError, r"^nll_loss: .*4.*", _x, np.array([0, 4, 1]))
nll_loss.refuses(ValueError, r"^nll_loss: log_probs \[3, 4\] and target \[2\] do not fit", _x, np.array([0, 1]))
nll_loss.refuses(TypeError, r"^nll_loss: target must hold integers, got float", _x, unit(3))
nll_loss.refuses(TypeError, r"^nll_loss: ignore_index is .*, needs an integer", _x, _labels, ignore_index=0.5)
nll_loss.refuses(ValueError, r"^nll_loss: weight \[2\], needs \[4\]", _x, _labels, weight=unit(2))
nll_loss.refuses(ValueError, r"^nll_loss: reduction must be .*'max'", _x, _labels, reduction="max")


def _elementwise(name):
    def loss(x, target, reduction="mean"):
        return getattr(oracle, name)(x, target, reduction, False)[0]

    return loss


mse_loss = Op("mse_loss", _elementwise("mse_loss"), ulps=4, terms=_loss_terms)
bce = Op(
    "binary_cross_entropy_with_logits",
    _elementwise("binary_cross_entropy_with_logits"),
    ulps=8,
    cancels=True,
    constants=(1,),
    terms=_loss_terms,
)
hinge_loss = Op("hinge_loss", _elementwise("hinge_loss"), ulps=4, cancels=True, constants=(1,), terms=_loss_terms)
for op, make in ((mse_loss, normal), (bce, unit), (hinge_loss, signs)):
    for reduction in ("mean", "sum", "none"):
        for shape in ((), (1,), (7,), (3, 5), (5, 7, 33)):
            op.sample(apart(*shape), make(*shape), reduction=reduction)
    for reduction in ("sum", "none"):
        op.sample(apart(0, 3), make(0, 3), reduction=reduction)
    start = "(binary_cross_entropy|bce)_with_logits" if op is bce else op.name
    op.refuses(ValueError, rf"^{start}: .*\[4\].*\[3, 4\]", normal(3, 4), make(4))
    op.refuses(ValueError, rf"^{op.name}: reduction must be .*'avg'", normal(3), make(3), "avg")


def _smooth_l1(x, target, reduction="mean", beta=1.0):
    return oracle.smooth_l1_loss(x, target, beta, reduction, False)[0]


def _kl_div(x, target, reduction="mean", log_target=False):
    loss = oracle.kl_div(x, target, log_target, "sum" if reduction == "batchmean" else reduction, False)[0]
    return loss / (len(x) if x.ndim else 1) if reduction == "batchmean" else loss


l1_loss = Op(
    "l1_loss",
    lambda x, target, reduction="mean": _smooth_l1(x, target, reduction, 0.0),
    ulps=4,
    cancels=True,
    terms=_loss_terms,
)
smooth_l1_loss = Op("smooth_l1_loss", _smooth_l1, ulps=4, cancels=True, terms=_loss_terms)
for op in (l1_loss, smooth_l1_loss):
    for reduction in ("mean", "sum", "none"):
        for shape in ((), (1,), (7,), (3, 5), (5, 7, 33)):
            # Differences of multiples of 1/8 and of their shift by 3/64: away from 0 and from beta.
            op.sample(apart(*shape), apart(*shape, phase=0.625), reduction=reduction)
    op.sample(normal(0, 3), normal(0, 3), "sum")
    op.refuses(ValueError, rf"^{op.name}: .*\[4\].*\[3, 4\]", normal(3, 4), normal(4))
    op.refuses(ValueError, rf"^{op.name}: reduction must be .*'avg'", normal(3), normal(3), "avg")
for beta in (0, 0.25, 3.0):
    smooth_l1_loss.sample(apart(5, 7), apart(5, 7, phase=0.625), "none", beta)
    smooth_l1_loss.sample(apart(5, 7), apart(5, 7, phase=0.625), beta=beta)
smooth_l1_loss.refuses(ValueError, r"^smooth_l1_loss: beta is -1", normal(3), normal(3), beta=-1)
smooth_l1_loss.refuses(TypeError, r"^smooth_l1_loss: beta is .*, needs a number", normal(3), normal(3), beta="x")

kl_div = Op("kl_div", _kl_div, ulps=16, cancels=True, constants=(1,), terms=_loss_terms)
for reduction in ("mean", "batchmean", "sum", "none"):
    for shape in ((), (1,), (7,), (3, 5), (5, 7, 33)):
        kl_div.sample(normal(*shape), unit(*shape), reduction=reduction)
        kl_div.sample(normal(*shape), normal(*shape), reduction, True)
    kl_div.sample(normal(4), np.array([0.0, 1.0, 0.5, 0.0]), reduction)
kl_div.refuses(ValueError, r"^kl_div: .*\[4\].*\[3, 4\]", normal(3, 4), normal(4))
kl_div.refuses(ValueError, r"^kl_div: reduction must be .*'avg'", normal(3), normal(3), "avg")
