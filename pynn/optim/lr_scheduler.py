"""All learning-rate schedules, as in `torch.optim.lr_scheduler`; `pynn.optim` has them, too."""

from pynn.optim.lr_base import LRScheduler, ReduceLROnPlateau
from pynn.optim.lr_formulas import (
    CosineAnnealingLR,
    CosineWarmupLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    StepLR,
)

__all__ = [
    "CosineAnnealingLR",
    "CosineWarmupLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "ReduceLROnPlateau",
    "StepLR",
]
