"""What a `Trainer` captures, a step and a forward, and the mode in which it evaluates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pynn.functional import require_finite
from pynn.nn import Module
from pynn.optim import Optimizer
from pynn.tape import no_grad
from pynn.tensor import Tensor


def train_step(
    model: Module, loss_function: Callable[[Tensor, Any], Tensor], optimizer: Optimizer, inputs: Any, targets: Any
) -> tuple[Tensor, Tensor]:
    """Step the optimiser, and return loss and outputs; FloatingPointError before that if the loss is not finite."""
    outputs = forward(model, inputs)
    loss = loss_function(outputs, targets)
    if not isinstance(loss, Tensor):
        raise TypeError(f"Trainer: the loss is a {type(loss).__name__}, needs a scalar Tensor")
    require_finite(loss, "the loss")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss, outputs


def forward(model: Module, inputs: Any) -> Tensor:
    """Return the outputs of the model; TypeError unless they are one Tensor."""
    outputs = model(inputs)
    if not isinstance(outputs, Tensor):
        raise TypeError(f"Trainer: the model returns a {type(outputs).__name__}, needs a Tensor")
    return outputs


@contextmanager
def evaluation_mode(model: Module) -> Iterator[None]:
    """Evaluation mode without a tape; each module gets the mode it had back at the end."""
    training = [module for _, module in model.named_modules() if module.training]
    try:
        model.eval()
        with no_grad():
            yield
    finally:
        for module in training:
            module.training = True
