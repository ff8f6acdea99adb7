"""Modules made of a list of modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any, Self, overload

from pynn import functional as F
from pynn.nn.activations import LeakyReLU, ReLU, Sigmoid, Tanh
from pynn.nn.layers import Linear
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

    `Linear` followed by ReLU, LeakyReLU(0.01), Sigmoid or Tanh is computed by one kernel, with the same bits.

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
        modules = iter(self.children())
        layer = next(modules, None)
        while layer is not None:
            after = next(modules, None)
            activation = _fusable(layer, after)
            if activation and isinstance(x, Tensor):
                x = F.linear(x, layer.weight, layer.bias, activation=activation)  # type: ignore[attr-defined]
                after = next(modules, None)
            else:
                x = layer(x)
            layer = after
        return x


_ACTIVATIONS: dict[type[Module], str] = {ReLU: "relu", LeakyReLU: "leaky_relu", Sigmoid: "sigmoid", Tanh: "tanh"}


def _fusable(layer: Module, after: Module | None) -> str | None:
    """Return the activation that `F.linear` can compute for `layer` followed by `after`, if it can."""
    # Exact types, since a subclass may define its own forward; a hook wants to see both outputs.
    if type(layer) is not Linear or layer._forward_hooks or after is None or after._forward_hooks:
        return None
    if type(after) is LeakyReLU and after.negative_slope != 0.01:  # the slope of the kernel
        return None
    return _ACTIVATIONS.get(type(after))


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
