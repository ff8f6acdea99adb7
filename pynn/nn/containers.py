"""Modules made of a list of modules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any, Self, overload

from pynn import functional as F
from pynn._snapshot import Snapshot
from pynn.nn.activations import LeakyReLU, ReLU, Sigmoid, Tanh
from pynn.nn.layers import Conv2d, Flatten, Linear, MaxPool2d
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

    __slots__ = ("_plan",)  # beside the attributes, which are the state of the module

    def __init__(self, *modules: Module | dict[str, Module]) -> None:
        for module in modules:
            if isinstance(module, dict) and len(modules) == 1:
                for name, child in module.items():
                    self.add_module(name, child)
            else:
                self.append(module)  # type: ignore[arg-type]  # append names what it got

    def forward(self, x: Any) -> Any:
        """Return the output of the last module, or `x` if there is none."""
        plan: _Plan | None = getattr(self, "_plan", None)
        if plan is None or not plan.snapshot.holds():
            plan = self._plan = _Plan(self)
        while True:
            for step, behind in plan.steps:
                x = step(x)
                if behind and not plan.snapshot.holds():  # the layer has changed what follows
                    plan = _Plan(self, behind)
                    break
            else:
                return x

    def __getstate__(self) -> dict[str, Any]:
        return vars(self)  # a copy has other layers, and makes a plan of its own


class _Plan:
    """The functions that compute the layers of a Sequential from `start` on, and what was relied on to choose them.

    To choose takes longer than to look whether anything has changed, half of the time of a forward of small layers.
    Parameters and options of a layer are read when it is its turn; a parameter that was replaced is held until the next
    forward. `steps` has with each function the position behind it if it runs code that may change the layers that
    follow, else 0.
    """

    def __init__(self, container: Sequential, start: int = 0) -> None:
        layers: list[Any] = list(container.children())[start:]
        self.snapshot = Snapshot(container, [layer for layer in layers if type(layer) in _INERT])
        self.steps: list[tuple[Callable[[Any], Any], int]] = []
        # What one kernel may stand for, by exact type, since a subclass may define its own forward; and None where
        # somebody would notice that a module is not called: a hook wants its output, a forward of its own counts.
        kinds = [None if m._forward_hooks or m._backward_hooks or "forward" in vars(m) else type(m) for m in layers]
        kinds += (None, None)  # what follows the last
        i = 0
        while i < len(layers):
            layer = layers[i]
            if kinds[i] is Linear:
                activation = _ACTIVATIONS.get(kinds[i + 1], "none")
                if activation == "leaky_relu" and layers[i + 1].negative_slope != 0.01:  # the slope of the kernel
                    activation = "none"
                self.steps.append((_linear(layer, activation), 0))
                i += 1 if activation == "none" else 2
            elif kinds[i] is Conv2d:
                relu = kinds[i + 1] is ReLU
                pool = kinds[i + 1 + relu] is MaxPool2d and _is_halving(layers[i + 1 + relu])
                self.steps.append((_conv2d(layer, "relu" if relu else "none", pool), 0))
                i += 1 + relu + pool
            else:
                i += 1
                self.steps.append((layer, 0 if kinds[i - 1] in _INERT or i == len(layers) else start + i))


def _linear(layer: Linear, activation: str) -> Callable[[Any], Tensor]:
    return lambda x: F.linear(x, layer.weight, layer.bias, activation)


def _conv2d(layer: Conv2d, activation: str, pool: bool) -> Callable[[Any], Tensor]:
    def step(x: Any) -> Tensor:
        op = F.conv2d_max_pool2d if pool else F.conv2d
        weight, bias, stride, padding = layer.weight, layer.bias, layer.stride, layer.padding
        return op(x, weight, bias, stride, padding, layer.dilation, layer.groups, activation)

    return step


_ACTIVATIONS: dict[type[Module] | None, str] = {
    ReLU: "relu",
    LeakyReLU: "leaky_relu",
    Sigmoid: "sigmoid",
    Tanh: "tanh",
}
_INERT = {Linear, Conv2d, MaxPool2d, Flatten, *_ACTIVATIONS}  # no other module changes in their forward


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
