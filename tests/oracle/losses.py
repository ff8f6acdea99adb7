"""Softmax over the last axis, and losses with their gradients."""

import numpy as np

from oracle.elementwise import sigmoid
from oracle.like import like


def softmax(x):
    e = np.exp(x - np.max(x, axis=-1, keepdims=True, initial=-np.inf))
    return like(e / np.sum(e, axis=-1, keepdims=True), x)


def softmax_backward(dy, y):
    return like(y * (dy - np.sum(dy * y, axis=-1, keepdims=True)), dy)


def log_softmax(x):
    shifted = x - np.max(x, axis=-1, keepdims=True, initial=-np.inf)
    return like(shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True)), x)


def log_softmax_backward(dy, y):
    return like(dy - np.exp(y) * np.sum(dy, axis=-1, keepdims=True), dy)


def _reduce(loss, gradient, x, reduction, count, need_grad):
    """Reduce elementwise losses; "mean" divides by `count` (0 gives NaN, as in PyTorch)."""
    if reduction == "mean":
        loss, gradient = np.divide(np.sum(loss), count), np.divide(gradient, count)
    elif reduction == "sum":
        loss = np.sum(loss)
    return like(loss, x), like(gradient, x) if need_grad else None


def _counts(target, weight, kept):
    """What each row counts: 0 if it is ignored."""
    return np.where(kept, 1 if weight is None else weight[np.where(kept, target, 0)], 0)


def cross_entropy(logits, target, ignore_index, label_smoothing, reduction, need_grad, weight=None):
    rows, classes = logits.shape
    kept = target != ignore_index
    # The smoothed target distribution q [N, C]: 1 - s on the label, s / C on every class.
    q = np.full((rows, classes), np.divide(label_smoothing, classes), logits.dtype)
    q[np.arange(rows)[kept], target[kept]] += 1 - label_smoothing
    if weight is not None:
        q *= weight
    logp = log_softmax(logits)
    loss = np.where(kept, -np.sum(q * logp, axis=1), 0)
    # d(-sum q log p) / dlogits = sum(q) p - q
    dlogits = np.where(kept[:, None], np.sum(q, axis=1, keepdims=True) * np.exp(logp) - q, 0)
    return _reduce(loss, dlogits, logits, reduction, np.sum(_counts(target, weight, kept)), need_grad)


def mse_loss(x, target, reduction, need_grad):
    return _reduce((x - target) ** 2, 2 * (x - target), x, reduction, x.size, need_grad)


def binary_cross_entropy_with_logits(x, target, reduction, need_grad):
    loss = np.maximum(x, 0) - x * target + np.log1p(np.exp(-np.abs(x)))
    return _reduce(loss, sigmoid(x) - target, x, reduction, x.size, need_grad)


def hinge_loss(x, target, reduction, need_grad):
    margin = 1 - target * x
    return _reduce(np.maximum(margin, 0), np.where(margin <= 0, 0, -target), x, reduction, x.size, need_grad)


def nll_loss(log_probs, target, ignore_index, reduction, need_grad, weight=None):
    rows = np.arange(len(log_probs))
    kept = target != ignore_index
    counts = _counts(target, weight, kept)
    gradient = np.zeros_like(log_probs)
    gradient[rows[kept], target[kept]] = -counts[kept]
    loss = np.zeros(len(log_probs), log_probs.dtype)
    loss[kept] = -counts[kept] * log_probs[rows[kept], target[kept]]
    return _reduce(loss, gradient, log_probs, reduction, np.sum(counts), need_grad)


def kl_div(x, target, log_target, reduction, need_grad):
    p = np.exp(target) if log_target else target
    log_p = target if log_target else np.log(np.where(target == 0, 1, target))
    loss = np.where(p == 0, 0, p * (log_p - x))
    return _reduce(loss, -p, x, reduction, x.size, need_grad)


def smooth_l1_loss(x, target, beta, reduction, need_grad):
    difference, width = x - target, beta or 1
    near = np.abs(difference) < beta
    loss = np.where(near, difference**2 / (2 * width), np.abs(difference) - beta / 2)
    return _reduce(loss, np.where(near, difference / width, np.sign(difference)), x, reduction, x.size, need_grad)


def l1_loss(x, target, reduction, need_grad):
    return smooth_l1_loss(x, target, 0.0, reduction, need_grad)
