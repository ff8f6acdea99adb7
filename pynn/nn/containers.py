"""Modules made of a list of modules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count, groupby
from typing import Any, NamedTuple, Self, overload

from pynn import functional as F
from pynn._snapshot import Snapshot
from pynn.functional import _unrecorded
from pynn.functional._args import iterable
from pynn.grad_mode import mode, observers
from pynn.nn.activations import LeakyReLU, ReLU, Sigmoid, Tanh
from pynn.nn.layers import Conv2d, Dropout, Flatten, Identity, Linear, MaxPool2d
from pynn.nn.module import Module
from pynn.tape import constant
from pynn.tensor import Tensor


class _List(Module):
    """Children in order, by position and by name."""

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __iter__(self) -> Iterator[Module]:
        self._tell()
        return self.children()

    @overload
    def __getitem__(self, index: int) -> Any: ...  # Any: a caller knows which layer it is

    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: int | slice) -> Any:
        """Return a child, or a module of the same kind that shares the children of the slice.

        A `Sequential` keeps their names, a `ModuleList` counts them anew, as in PyTorch.
        """
        self._tell()
        if isinstance(index, slice):
            part = type(self).__new__(type(self))
            part.training = self.training
            for name, module in list(self.named_children())[index]:
                part._take(name, module)
            return part
        return self._child(index)[1]

    def __setitem__(self, index: int, module: Module) -> None:
        """Replace a child; it keeps its name."""
        if isinstance(index, slice):
            raise TypeError(f"{type(self).__name__}: a slice cannot be replaced, needs an integer as index")
        self._tell()
        self.add_module(self._child(index)[0], module)

    def append(self, module: Module) -> Self:
        """Add a child at the end, named by its position; returns the module."""
        name = next(name for name in map(str, count(len(self))) if name not in vars(self))
        self.add_module(name, module)
        return self

    def _take(self, name: str, module: Module) -> None:
        """Add a child of another list."""
        self.add_module(name, module)

    def _tell(self) -> None:
        """Let a captured function know that it depends on what is in here."""
        if observers and mode.recorder is not None:
            mode.recorder.takes(self)

    def _child(self, index: int) -> tuple[str, Module]:
        children = list(self.named_children())
        if not hasattr(index, "__index__"):
            raise TypeError(f"{type(self).__name__}: index is {index!r}, needs an integer or a slice")
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
    _plan: _Plan

    def __init__(self, *modules: Module | dict[str, Module]) -> None:
        for module in modules:
            if isinstance(module, dict) and len(modules) == 1:
                for name, child in module.items():
                    self.add_module(name, child)
            else:
                self.append(module)  # type: ignore[arg-type]  # append names what it got

    def forward(self, x: Any) -> Any:
        """Return the output of the last module, or `x` if there is none."""
        try:
            plan = self._plan
        except AttributeError:  # the first forward; a try takes no time where there is one
            plan = self._plan = _Plan(self)
        if not plan.snapshot.holds():
            plan = self._plan = _Plan(self)
        while True:
            for steps, on_arrays, behind in plan.stretches:
                if on_arrays and not mode.enabled and mode.recorder is None and isinstance(x, Tensor):
                    y = x.data
                    for compute in on_arrays:
                        y = compute(y)
                    x = constant(y)
                else:
                    for step in steps:
                        x = step(x)
                if behind and type(x) is tuple:
                    self._check_takes(behind, x)
                if behind and not plan.snapshot.holds():  # the layer has changed what follows
                    plan = _Plan(self, behind)
                    break
            else:
                return x

    def _check_takes(self, position: int, outputs: tuple[Any, ...]) -> None:
        """Raise TypeError if several outputs go to one of the layers that take one tensor."""
        before, layer = list(self.children())[position - 1 : position + 1]
        kind = type(layer)
        if kind.__module__.startswith("pynn.nn.") and not isinstance(layer, (_List, Identity)):
            raise TypeError(
                f"Sequential: layer {position - 1}, {type(before).__name__}, returns a tuple of {len(outputs)}, and "
                f"layer {position}, {kind.__name__}, takes a tensor; put a module between them that returns the one "
                "that is needed"
            )

    def __getstate__(self) -> dict[str, Any]:
        return vars(self)  # a copy has other layers, and makes a plan of its own


class _Plan:
    """The functions that compute the layers of a Sequential from `start` on, and what was relied on to choose them.

    To choose takes longer than to look whether anything has changed, half of the time of a forward of small layers.
    The values of parameters are read when it is their turn; a parameter that was replaced is held until the next
    forward.

    Attributes
    ----------
    stretches
        Functions of tensors that compute layers in a row; functions of arrays that compute the same where nothing is
        recorded, or none; and the position behind the layer if it runs code that may change those that follow, else 0.
    """

    def __init__(self, container: Sequential, start: int = 0) -> None:
        layers: list[Any] = list(container.children())[start:]
        self.snapshot = Snapshot(container, [layer for layer in layers if type(layer) in _INERT])
        self.stretches: list[tuple[list[Callable[[Any], Any]], list[_unrecorded.Operation], int]] = []
        # What one kernel may stand for, by exact type, since a subclass may define its own forward; and None where
        # somebody would notice that a module is not called: a hook wants its output, a forward of its own counts.
        kinds = [type(layer) if _is_replaceable(layer) else None for layer in layers]
        kinds += (None, None)  # what follows the last
        pieces: list[_Piece] = []
        i = 0
        while i < len(layers):
            layer, kind = layers[i], kinds[i]
            i += 1
            if kind is Linear:
                activation = _ACTIVATIONS.get(kinds[i], "none")
                if activation == "leaky_relu" and layers[i].negative_slope != 0.01:  # the slope of the kernel
                    activation = "none"
                pieces.append(_linear(layer, activation))
                i += activation != "none"
            elif kind is Conv2d:
                relu = kinds[i] is ReLU
                pool = kinds[i + relu] is MaxPool2d and _is_halving(layers[i + relu])
                pieces.append(_conv2d(layer, "relu" if relu else "none", pool))
                i += relu + pool
            elif kind is Flatten:
                pieces.append(_Piece(layer, _unrecorded.flatten(layer.start_dim), shares=True))
            elif kind is Dropout:
                pieces.append(_Piece(layer, _dropout(layer), shares=True))
            else:
                pieces.append(_Piece(layer, behind=0 if kind in _INERT or i == len(layers) else start + i))
        for is_stretch, run in groupby(pieces, lambda piece: piece.on_array is not None):
            group = list(run)
            if is_stretch and not all(piece.shares for piece in group):
                self.stretches.append(([piece.step for piece in group], [piece.on_array for piece in group], 0))
            else:
                self.stretches += [([piece.step], [], piece.behind) for piece in group]


class _Piece(NamedTuple):
    """A layer, or several that one kernel computes."""

    step: Callable[[Any], Any]  # of a tensor
    on_array: Any = None  # of an array, if that is known
    shares: bool = False  # the result may be the argument, or share its memory and version
    behind: int = 0  # the position behind it if it may change the layers that follow


def _is_replaceable(layer: Any) -> bool:
    """Whether nobody would notice if an operation of its class ran in place of the layer."""
    if layer._forward_hooks or layer._backward_hooks or "forward" in vars(layer):
        return False
    if type(layer) not in (Linear, Conv2d):
        return True
    weight, bias = vars(layer).get("weight"), vars(layer).get("bias", False)
    return isinstance(weight, Tensor) and (bias is None or isinstance(bias, Tensor))


def _linear(layer: Linear, activation: str) -> _Piece:
    weight, bias = layer.weight, layer.bias
    return _Piece(lambda x: F.linear(x, weight, bias, activation), _unrecorded.linear(weight, bias, activation))


def _conv2d(layer: Conv2d, activation: str, pool: bool) -> _Piece:
    args = layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups, activation
    if pool:
        return _Piece(lambda x: F.conv2d_max_pool2d(x, *args), _unrecorded.conv2d_max_pool2d(*args))
    return _Piece(lambda x: F.conv2d(x, *args), _unrecorded.conv2d(*args))


def _dropout(layer: Dropout) -> _unrecorded.Operation | None:
    p = layer.p
    if type(p) not in (float, int) or not 0 <= p <= 1:
        return None
    return lambda x: F.dropout(x, p, True).data if layer.training else x


_ACTIVATIONS: dict[type[Module] | None, str] = {
    ReLU: "relu",
    LeakyReLU: "leaky_relu",
    Sigmoid: "sigmoid",
    Tanh: "tanh",
}
_INERT = {Linear, Conv2d, MaxPool2d, Flatten, Dropout, *_ACTIVATIONS}  # no other module changes in their forward


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
        for module in iterable(type(self).__name__, "modules", modules, "modules"):
            self.append(module)
        return self

    def _take(self, name: str, module: Module) -> None:
        self.append(module)
