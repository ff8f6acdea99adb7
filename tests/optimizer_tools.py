"""Parameters, gradients and optimisers with options, for the tests of optimisers."""

import numpy as np
import pytest

import pynn
from pynn import nn, optim

SHAPES = [(4, 3), (4,), (), (2, 3, 2, 2)]


def values(seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [np.array(rng.normal(size=shape), dtype) for shape in SHAPES]


def parameters(seed=0, dtype=np.float64):
    return [nn.Parameter(value) for value in values(seed, dtype)]


def take_step(optimizer, params, seed):
    for p, g in zip(params, values(seed, params[0].dtype), strict=True):
        p.grad = g
    optimizer.step()


OPTIMIZERS = {
    "sgd": (optim.SGD, {"lr": 0.1}),
    "sgd momentum": (optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    "sgd dampening": (optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.02}),
    "sgd nesterov": (optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.02}),
    "adam": (optim.Adam, {"lr": 0.1}),
    "adam options": (optim.Adam, {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.02}),
    "adamw": (optim.AdamW, {"lr": 0.1}),
    "adamw options": (optim.AdamW, {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.2}),
    "rmsprop": (optim.RMSprop, {}),
    "rmsprop momentum": (optim.RMSprop, {"lr": 0.1, "alpha": 0.8, "momentum": 0.9, "weight_decay": 0.02}),
    "rmsprop centered": (optim.RMSprop, {"lr": 0.1, "alpha": 0.7, "eps": 1e-3, "momentum": 0.5, "centered": True}),
    "adagrad": (optim.Adagrad, {}),
    "adagrad options": (optim.Adagrad, {"lr": 0.1, "lr_decay": 0.3, "weight_decay": 0.02, "eps": 1e-3,
                                        "initial_accumulator_value": 0.5}),
    "adadelta": (optim.Adadelta, {}),
    "adadelta options": (optim.Adadelta, {"lr": 0.5, "rho": 0.8, "eps": 1e-3, "weight_decay": 0.02}),
}  # fmt: skip
each_optimizer = pytest.mark.parametrize(("kind", "options"), OPTIMIZERS.values(), ids=OPTIMIZERS)


class HeavyBall(optim.Optimizer):
    """An optimiser as users write it, that remembers something."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    def step(self):
        with pynn.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    state = self.state.setdefault(p, {"velocity": np.zeros_like(p.data), "steps": 0})
                    state["velocity"] = 0.9 * state["velocity"] + p.grad
                    state["steps"] += 1
                    p -= group["lr"] / state["steps"] * state["velocity"]
