"""Optimiser steps, written in place; the formulas are those of PyTorch's documentation."""

import math

import numpy as np


def sgd_(params, grads, momentum_buffers, lr, momentum, dampening, weight_decay, nesterov, first):
    for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
        step = grad + weight_decay * param
        if momentum:
            buffer = momentum_buffers[i]
            buffer[...] = step if first else momentum * buffer + (1 - dampening) * step
            step = step + momentum * buffer if nesterov else buffer
        param -= lr * step


def adam_(params, grads, exp_avgs, exp_avg_sqs, step, lr, beta1, beta2, eps, weight_decay, decoupled):
    for param, grad, m, v in zip(params, grads, exp_avgs, exp_avg_sqs, strict=True):
        if decoupled:
            param *= 1 - lr * weight_decay
        else:
            grad = grad + weight_decay * param
        m += (1 - beta1) * (grad - m)
        v += (1 - beta2) * (grad * grad - v)
        denominator = np.sqrt(v / (1 - beta2**step)) + eps
        param -= lr / (1 - beta1**step) * m / denominator


def l2_norm(arrays):
    return math.sqrt(sum(float(np.sum(np.square(array, dtype=np.float64))) for array in arrays))


def scale_(arrays, factor):
    for array in arrays:
        array *= factor


def all_finite(arrays):
    return all(bool(np.isfinite(array).all()) for array in arrays)
