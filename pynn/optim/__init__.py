"""Optimisers, learning-rate schedules and gradient clipping, with PyTorch's names and options."""

from pynn.optim.adaptive import Adadelta, Adagrad, RMSprop
from pynn.optim.algorithms import SGD, Adam, AdamW
from pynn.optim.clip_grad import clip_grad_norm_, clip_grad_value_
from pynn.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineWarmupLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)
from pynn.optim.muon import Muon
from pynn.optim.optimizer import Optimizer

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "CosineAnnealingLR",
    "CosineWarmupLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "Muon",
    "OneCycleLR",
    "Optimizer",
    "RMSprop",
    "ReduceLROnPlateau",
    "StepLR",
    "clip_grad_norm_",
    "clip_grad_value_",
]
