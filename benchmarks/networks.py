"""The networks that are measured, of either library: pynn and PyTorch share the names of their layers.

A function builds a network from `nn`, or returns one that does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from importlib import import_module
from typing import Any

Builder = Callable[[Any], Any]  # nn -> model


def mlp(*widths: int, batch_norm: bool = False) -> Builder:
    """Return Linear layers with ReLU between, and BatchNorm before each ReLU if asked for."""

    def build(nn: Any) -> Any:
        layers: list[Any] = []
        for before, after in itertools.pairwise(widths):
            last = len(layers) == (3 if batch_norm else 2) * (len(widths) - 2)
            layers.append(nn.Linear(before, after, bias=last or not batch_norm))
            if not last:
                layers += [nn.BatchNorm1d(after), nn.ReLU()] if batch_norm else [nn.ReLU()]
        return nn.Sequential(*layers)

    return build


def lenet(nn: Any) -> Any:
    """Return LeNet-5 with ReLU and max-pooling."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def cnn(nn: Any) -> Any:
    """Return the network of PyTorch's examples/mnist, without dropout."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(9216, 128), nn.ReLU(), nn.Linear(128, 10)),
    )


def conv_bn(nn: Any, before: int, after: int, kernel: int, **options: Any) -> list[Any]:
    """Return convolution, BatchNorm and ReLU."""
    return [nn.Conv2d(before, after, kernel, bias=False, **options), nn.BatchNorm2d(after), nn.ReLU()]


def two_convs(channels: tuple[int, int, int], kernel: int, padding: int, features: int, hidden: int = 0) -> Builder:
    """Return twice convolution, ReLU and max-pooling, then one or two Linear layers."""

    def build(nn: Any) -> Any:
        first, second, third = channels
        head = [nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, 10)] if hidden else [nn.Linear(features, 10)]
        return nn.Sequential(
            *(nn.Conv2d(first, second, kernel, padding=padding), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(second, third, kernel, padding=padding), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), *head),
        )

    return build


def cifar_tutorial(nn: Any) -> Any:
    """Return the network of PyTorch's CIFAR-10 tutorial."""
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def vgg(nn: Any) -> Any:
    """Return two blocks of two padded 3x3 convolutions and a pool."""
    layers: list[Any] = []
    for before, after in ((3, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(after, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4096, 128), nn.ReLU(), nn.Linear(128, 10))


def batch_norm_net(nn: Any) -> Any:
    """Return three blocks of convolution, BatchNorm, ReLU and pool."""
    layers: list[Any] = []
    for before, after in ((3, 16), (16, 32), (32, 64)):
        layers += [*conv_bn(nn, before, after, 3, padding=1), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(64, 10))


def strided_net(nn: Any) -> Any:
    """Return convolutions of stride 2 in place of pools."""
    layers: list[Any] = []
    for before, after in ((3, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(128, 10))


def strided_mnist(nn: Any) -> Any:
    """Return two 5x5 convolutions of stride 2."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(16, 32, 5, stride=2, padding=2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(1568, 10)),
    )


def separable_net(nn: Any) -> Any:
    """Return depthwise 3x3 and pointwise 1x1 convolutions, as in MobileNet."""
    layers = conv_bn(nn, 3, 32, 3, stride=2, padding=1)
    for before, after, stride in ((32, 64, 1), (64, 128, 2), (128, 128, 1)):
        layers += conv_bn(nn, before, before, 3, stride=stride, padding=1, groups=before)
        layers += conv_bn(nn, before, after, 1)
    return nn.Sequential(*layers, nn.AvgPool2d(8), nn.Flatten(), nn.Linear(128, 10))


def separable_mnist(nn: Any) -> Any:
    """Return a small depthwise-separable network without BatchNorm."""
    layers: list[Any] = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU(), nn.Conv2d(16, 32, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1568, 10))


def bottleneck_net(nn: Any) -> Any:
    """Return 1x1 bottlenecks around 3x3 convolutions, as in ResNet-50, without the shortcuts."""
    layers = conv_bn(nn, 3, 64, 3, stride=2, padding=1)
    for _ in range(2):
        layers += [*conv_bn(nn, 64, 16, 1), *conv_bn(nn, 16, 16, 3, padding=1), *conv_bn(nn, 16, 64, 1)]
    return nn.Sequential(*layers, nn.AvgPool2d(16), nn.Flatten(), nn.Linear(64, 10))


def stem_net(nn: Any) -> Any:
    """Return ResNet's stem (7x7, stride 2, overlapping pool) and two convolutions, on 64x64 images."""
    layers = [*conv_bn(nn, 3, 32, 7, stride=2, padding=3), nn.MaxPool2d(3, 2, 1)]
    layers += [*conv_bn(nn, 32, 64, 3, padding=1), *conv_bn(nn, 64, 64, 3, stride=2, padding=1)]
    return nn.Sequential(*layers, nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64, 10))


def network_in_network(nn: Any) -> Any:
    """Return a 5x5 convolution followed by 1x1 convolutions (Lin, Chen and Yan 2013), one block."""
    return nn.Sequential(
        *(nn.Conv2d(3, 96, 5, padding=2), nn.ReLU(), nn.Conv2d(96, 64, 1), nn.ReLU(), nn.Conv2d(64, 48, 1), nn.ReLU()),
        *(nn.MaxPool2d(3, 2, 1), nn.Conv2d(48, 10, 1), nn.AvgPool2d(16), nn.Flatten()),
    )


def wide_kernel_net(nn: Any) -> Any:
    """Return one 7x7 convolution on MNIST."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 7),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1936, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def late_layers(nn: Any) -> Any:
    """Return what stands at the end of a larger network: 64 and 128 channels on 8x8 pixels."""
    return nn.Sequential(
        *(nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, 128, 3, padding=1), nn.ReLU()),
        *(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(128, 10)),
    )


def makemore(nn: Any) -> Any:
    """Return the model of Bengio et al. 2003 as in makemore: three letters of ten features, and 200 units."""
    return nn.Sequential(nn.Embedding(27, 10), nn.Flatten(), nn.Linear(30, 200), nn.Tanh(), nn.Linear(200, 27))


def lecun1989(nn: Any) -> Any:
    """Return the network of LeCun et al. 1989 for digits of 16x16 pixels: 9,760 parameters."""
    return nn.Sequential(
        *(unit_biased(nn, 1, 12, 8), nn.Tanh(), unit_biased(nn, 12, 12, 4), nn.Tanh()),
        *(nn.Flatten(), nn.Linear(192, 30), nn.Tanh(), nn.Linear(30, 10), nn.Tanh()),
    )


def unit_biased(nn: Any, before: int, after: int, size: int) -> Any:
    """Return a 5x5 convolution of stride 2 with a bias for each unit, on an image in a frame of -1.

    Of 12 planes a unit sees 8, and each third of the units other ones: of all planes twice over, 0-7, 8-15 or 16-23.
    """
    library: Any = import_module(nn.__name__.partition(".")[0])
    functional = library.functional if library.__name__ == "pynn" else nn.functional
    concatenate = getattr(functional, "concatenate", None) or library.concatenate

    class UnitBiased(nn.Module):  # type: ignore[misc] # of either library
        def __init__(self) -> None:
            super().__init__()
            self.thirds = before > 1
            groups = 3 if self.thirds else 1
            self.conv = nn.Conv2d(before * (1 + self.thirds), after, 5, stride=2, groups=groups, bias=False)
            self.bias = nn.Parameter(library.zeros(after, size, size))

        def forward(self, x: Any) -> Any:
            x = functional.pad(x, (2, 2, 2, 2), value=-1.0)
            if self.thirds:
                x = concatenate((x, x), 1)
            return self.conv(x) + self.bias

    return UnitBiased()
