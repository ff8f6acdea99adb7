"""Which layer made the loss NaN or infinite."""

from __future__ import annotations

from typing import Any

import numpy as np

from pynn.nn import Module
from pynn.tape import no_grad
from pynn.tensor import Tensor


class _Found(Exception):  # noqa: N818 (ends the forward pass, not an error)
    pass


def explain_non_finite(model: Module, inputs: Any) -> str:
    """Run the forward pass of a batch again, layer by layer; say where the first NaN or infinity appears."""
    if not _is_finite(inputs):
        return "the inputs of the batch are not finite"
    names = {id(module): name for name, module in model.named_modules()}

    # A hook runs when its layer is done, so the innermost layer speaks before those that contain it.
    def check(module: Module, args: tuple[Any, ...], y: Any) -> None:
        if all(_is_finite(part) for part in (y if isinstance(y, (tuple, list)) else (y,))):
            return
        name = names[id(module)]
        layer = f"layer {name!r} ({type(module).__name__})" if name else f"the model ({type(module).__name__})"
        raise _Found(f"{layer} is the first whose output is not finite{_blame_parameter(module)}")

    handles = [module.register_forward_hook(check) for module in model.modules()]
    try:
        with no_grad():
            model(inputs)
    except _Found as found:
        return str(found)
    finally:
        for handle in handles:
            handle.remove()
    return "every layer's output is finite, so it comes from the loss function or the targets"


def _blame_parameter(module: Module) -> str:
    for name, parameter in module.named_parameters():
        if not _is_finite(parameter):
            before = parameter.grad is not None and not _is_finite(parameter.grad)
            return f", since its {name} is not finite" + (", and its gradient was not in the step before" * before)
    return ""


def _is_finite(value: Any) -> bool:
    array = value.data if isinstance(value, Tensor) else np.asarray(value)
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())
