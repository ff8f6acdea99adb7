"""Modules made of a list of modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any, Self, overload

from pynn import functional as F
from pynn.nn.activations import LeakyReLU, ReLU, Sigmoid, Tanh
from pynn.nn.layers import Conv2d, Linear, MaxPool2d
from pynn.nn.module import Module
from pynn.tensor import Tensor


class _List(Module):
    """Children in order, by position and by name."""

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    @overload
    def __getitem__(self, index: int) -> Any: ...  # Any: a caller knows which layer it is

    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: int | slice) -> Any:
        """Return a child, or a module of the same kind that shares the children of the slice and their names."""
        if isinstance(index, slice):
            part = type(self).__new__(type(self))
            part.training = self.training
            for name, module in list(self.named_children())[index]:
                part.add_module(name, module)
            return part
        return self._child(index)[1]

    def __setitem__(self, index: int, module: Module) -> None:
        """Replace a child; it keeps its name."""
        self.add_module(self._child(index)[0], module)

    def append(self, module: Module) -> Self:
        """Add a child at the end, named by its position; returns the module."""
        name = next(name for name in map(str, count(len(self))) if name not in vars(self))
        self.add_module(name, module)
        return self

    def _child(self, index: int) -> tuple[str, Module]:
        children = list(self.named_children())
        if not -len(children) <= index < len(children):
            raise IndexError(f"{type(self).__name__}: index {index} is out of range for {len(children)} modules")
        return children[index]


class Sequential(_List):
    """Call the modules one after another.

    `Linear` followed by ReLU, LeakyReLU(0.01), Sigmoid or Tanh is computed by one kernel, and so is `Conv2d` followed
    by ReLU, MaxPool2d(2), or both. Results are those of the separate layers; with a pool, gradients may differ by
    rounding.

    Parameters
    ----------
    *modules : Module
        The layers, or one dict that names them.

    Examples
    --------
    >>> from pynn import nn
    >>> model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    >>> model
    Sequential(
      (0): Linear(in_features=784, out_features=128, bias=True)
      (1): ReLU()
      (2): Linear(in_features=128, out_features=10, bias=True)
    )
    """

    def __init__(self, *modules: Module | dict[str, Module]) -> None:
        for module in modules:
            if isinstance(module, dict) and len(modules) == 1:
                for name, child in module.items():
                    self.add_module(name, child)
            else:
                self.append(module)  # type: ignore[arg-type]  # append names what it got

    def forward(self, x: Any) -> Any:
        """Return the output of the last module, or `x` if there is none."""
        layers: list[Any] = [layer for layer in vars(self).values() if isinstance(layer, Module)]
        # What one kernel may stand for, by exact type, since a subclass may define its own forward; and None where
        # somebody would notice that a module is not called: a hook wants its output, a forward of its own counts.
        kinds = [None if m._forward_hooks or m._backward_hooks or "forward" in m.__dict__ else type(m) for m in layers]
        kinds += (None, None)  # what follows the last
        i = 0
        while i < len(layers):
            layer, kind = layers[i], kinds[i]
            if (kind is not Linear and kind is not Conv2d) or not isinstance(x, Tensor):
                x = layer(x)
                i += 1
            elif kind is Linear:
                activation = _ACTIVATIONS.get(kinds[i + 1], "none")
                if activation == "leaky_relu" and layers[i + 1].negative_slope != 0.01:  # the slope of the kernel
                    activation = "none"
                x = F.linear(x, layer.weight, layer.bias, activation)
                i += 1 if activation == "none" else 2
            else:
                relu = kinds[i + 1] is ReLU
                pool = kinds[i + 1 + relu] is MaxPool2d and _is_halving(layers[i + 1 + relu])
                op = F.conv2d_max_pool2d if pool else F.conv2d
                how = layer.stride, layer.padding, layer.dilation, layer.groups, "relu" if relu else "none"
                x = op(x, layer.weight, layer.bias, *how)
                i += 1 + relu + pool
        return x


_ACTIVATIONS: dict[type[Module] | None, str] = {
    ReLU: "relu",
    LeakyReLU: "leaky_relu",
    Sigmoid: "sigmoid",
    Tanh: "tanh",
}


def _is_halving(module: MaxPool2d) -> bool:
    """Whether its windows are [2, 2], side by side."""
    return (
        module.kernel_size == (2, 2)
        and module.stride == (2, 2)
        and module.padding == (0, 0)
        and module.dilation == (1, 1)
        and not module.ceil_mode
    )


class ModuleList(_List):
    """A list of modules whose parameters belong to the module that holds it.

    Examples
    --------
    >>> from pynn import nn
    >>> layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
    >>> len(layers), len(list(layers.parameters()))
    (3, 6)
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        self.extend(modules)

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add modules at the end; returns the list."""
        for module in modules:
            self.append(module)
        return self
