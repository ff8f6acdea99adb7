"""Optimisers, learning-rate schedules and gradient clipping, with PyTorch's names and options."""

from pynn.optim.algorithms import SGD, Adam, AdamW
from pynn.optim.lr_scheduler import (
    CosineWarmupLR,
    ExponentialLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)
from pynn.optim.optimizer import Optimizer, clip_grad_norm_

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "CosineWarmupLR",
    "ExponentialLR",
    "LRScheduler",
    "OneCycleLR",
    "Optimizer",
    "ReduceLROnPlateau",
    "StepLR",
    "clip_grad_norm_",
]
