"""JAX's side: the same network as a pure function, and one step of its training compiled by `jax.jit`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sides import BETAS, EPS, Array, EagerSide, learning_rate, pads
from workloads import Workload

from pynn import nn

Forward = Callable[[dict[str, Any], Any], Any]  # (parameters, x) -> y


def start(threads: int) -> None:
    """Start JAX's CPU backend with so many threads: it counts the processors that the process may use just then."""
    jax.config.update("jax_platforms", "cpu")
    if not hasattr(os, "sched_setaffinity"):
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(allowed)[:threads]))
    try:
        jax.devices()
    finally:
        os.sched_setaffinity(0, allowed)


class JaxSide:
    """The step is one compiled function of weights, optimiser state and the rows to train on."""

    def __init__(self, ours: EagerSide, workload: Workload) -> None:
        model = ours.model
        self.images, self.labels = jnp.asarray(ours.images), jnp.asarray(ours.labels)
        # Copies: pynn updates its arrays in place.
        self.parameters = {name: jnp.asarray(np.array(p.data)) for name, p in model.named_parameters()}
        zeros = {name: jnp.zeros_like(p) for name, p in self.parameters.items()}
        self.state = (jnp.zeros((), jnp.float32), zeros, zeros)
        layers = [_layer(str(i), layer) for i, layer in enumerate(model)]
        lr, momentum = learning_rate(workload), workload.momentum
        adam, squares = workload.optimizer == "adam", workload.loss == "mse_loss"

        def loss_of(parameters: dict[str, Any], x: Any, labels: Any) -> Any:
            for layer in layers:
                x = layer(parameters, x)
            if squares:
                return jnp.square(x - labels).mean()
            return -jnp.take_along_axis(jax.nn.log_softmax(x), labels[:, None], axis=1).mean()

        def step(parameters: Any, state: Any, images: Any, labels: Any, rows: Any) -> Any:
            loss, gradients = jax.value_and_grad(loss_of)(parameters, images[rows], labels[rows])
            if adam:
                return *_adam(parameters, gradients, state, lr), loss
            return *_sgd(parameters, gradients, state, lr, momentum), loss

        self.compiled = jax.jit(step)

    def step(self, rows: Array) -> Any:
        """Train on the samples `rows`, and return the loss."""
        self.parameters, self.state, loss = self.compiled(
            self.parameters, self.state, self.images, self.labels, rows.astype("int32")
        )
        return jax.block_until_ready((loss, self.parameters))[0]


def _layer(name: str, layer: Any) -> Forward:
    """Return the function that a layer of pynn's computes."""
    if isinstance(layer, nn.Linear):
        return lambda p, x: x @ p[f"{name}.weight"].T + p.get(f"{name}.bias", 0)
    if isinstance(layer, nn.ReLU):
        return lambda p, x: jax.nn.relu(x)
    if isinstance(layer, nn.Tanh):
        return lambda p, x: jnp.tanh(x)
    if isinstance(layer, nn.Embedding):
        return lambda p, x: p[f"{name}.weight"][x]
    if isinstance(layer, nn.Flatten):
        return lambda p, x: x.reshape(len(x), -1)
    if isinstance(layer, nn.Conv2d):
        return lambda p, x: _conv(layer, p[f"{name}.weight"], p.get(f"{name}.bias"), x)
    if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
        return lambda p, x: _batch_norm(layer.eps, p[f"{name}.weight"], p[f"{name}.bias"], x)
    if isinstance(layer, (nn.MaxPool2d, nn.AvgPool2d)):
        return lambda p, x: _pool(layer, x)
    if type(layer).__name__ == "UnitBiased":
        return lambda p, x: _unit_biased(layer, p[f"{name}.conv.weight"], p[f"{name}.bias"], x)
    raise TypeError(f"JAX has no function for {type(layer).__name__} here")


def _conv(layer: nn.Conv2d, weight: Any, bias: Any, x: Any) -> Any:
    top, left = pads(layer)
    y = jax.lax.conv_general_dilated(
        x, weight, layer.stride, ((top, top), (left, left)), feature_group_count=layer.groups
    )
    return y if bias is None else y + bias[:, None, None]


def _unit_biased(layer: Any, weight: Any, bias: Any, x: Any) -> Any:
    x = jnp.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)), constant_values=-1.0)
    return _conv(layer.conv, weight, None, jnp.concatenate((x, x), 1) if layer.thirds else x) + bias


def _batch_norm(eps: float, weight: Any, bias: Any, x: Any) -> Any:
    axes = (0, *range(2, x.ndim))
    shape = (-1, *(1,) * (x.ndim - 2))
    normalized = (x - x.mean(axes, keepdims=True)) * jax.lax.rsqrt(x.var(axes, keepdims=True) + eps)
    return normalized * weight.reshape(shape) + bias.reshape(shape)


def _pool(layer: Any, x: Any) -> Any:
    (height, width), (top, left) = layer.kernel_size, layer.padding
    window, strides = (1, 1, height, width), (1, 1, *layer.stride)
    padding = ((0, 0), (0, 0), (top, top), (left, left))
    if isinstance(layer, nn.MaxPool2d):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, padding)
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, window, strides, padding) / (height * width)


def _sgd(parameters: Any, gradients: Any, state: Any, lr: float, momentum: float) -> Any:
    if not momentum:
        return jax.tree.map(lambda p, g: p - lr * g, parameters, gradients), state
    count, first, second = state
    first = jax.tree.map(lambda b, g: momentum * b + g, first, gradients)
    return jax.tree.map(lambda p, b: p - lr * b, parameters, first), (count, first, second)


def _adam(parameters: Any, gradients: Any, state: Any, lr: float) -> Any:
    count, first, second = state
    count = count + 1
    first = jax.tree.map(lambda m, g: BETAS[0] * m + (1 - BETAS[0]) * g, first, gradients)
    second = jax.tree.map(lambda v, g: BETAS[1] * v + (1 - BETAS[1]) * g * g, second, gradients)
    scale = lr / (1 - BETAS[0] ** count)
    root = 1 - BETAS[1] ** count

    def update(p: Any, m: Any, v: Any) -> Any:
        return p - scale * m / (jnp.sqrt(v / root) + EPS)

    return jax.tree.map(update, parameters, first, second), (count, first, second)
