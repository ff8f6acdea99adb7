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


def rmsprop_(params, grads, square_avgs, grad_avgs, momentum_buffers, lr, alpha, eps, weight_decay, momentum):
    for i, (param, grad, square_avg) in enumerate(zip(params, grads, square_avgs, strict=True)):
        grad = grad + weight_decay * param
        square_avg += (1 - alpha) * (grad * grad - square_avg)
        variance = square_avg
        if grad_avgs:
            grad_avgs[i] += (1 - alpha) * (grad - grad_avgs[i])
            variance = np.maximum(square_avg - grad_avgs[i] ** 2, 0)
        step = grad / (np.sqrt(variance) + eps)
        if momentum:
            momentum_buffers[i][...] = step = momentum * momentum_buffers[i] + step
        param -= lr * step


def adagrad_(params, grads, sums, step, lr, lr_decay, eps, weight_decay):
    for param, grad, total in zip(params, grads, sums, strict=True):
        grad = grad + weight_decay * param
        total += grad * grad
        param -= lr / (1 + (step - 1) * lr_decay) * grad / (np.sqrt(total) + eps)


def adadelta_(params, grads, square_avgs, acc_deltas, lr, rho, eps, weight_decay):
    for param, grad, square_avg, acc_delta in zip(params, grads, square_avgs, acc_deltas, strict=True):
        grad = grad + weight_decay * param
        square_avg += (1 - rho) * (grad * grad - square_avg)
        delta = np.sqrt(acc_delta + eps) / np.sqrt(square_avg + eps) * grad
        acc_delta += (1 - rho) * (delta * delta - acc_delta)
        param -= lr * delta


def l2_norm(arrays):
    return math.sqrt(sum(float(np.sum(np.square(array, dtype=np.float64))) for array in arrays))


def clip_norm_(arrays, max_norm):
    norm = l2_norm(arrays)
    if max_norm < norm < np.inf:
        scale_(arrays, max_norm / norm)
    return np.array(norm)


def scale_(arrays, factor):
    for array in arrays:
        array *= factor


def require_finite(arrays, what):
    if not all(np.isfinite(array).all() for array in arrays):
        raise FloatingPointError(f"{what} is not finite")
