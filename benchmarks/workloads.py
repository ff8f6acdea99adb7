"""What is trained and applied: six networks, neighbours that show that the six are no special cases, two small ones.

The list was fixed before anything was measured; a slow one stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from networks import (
    Builder,
    batch_norm_net,
    bottleneck_net,
    cifar_tutorial,
    cnn,
    late_layers,
    lecun1989,
    lenet,
    makemore,
    mlp,
    network_in_network,
    separable_mnist,
    separable_net,
    stem_net,
    strided_mnist,
    strided_net,
    two_convs,
    vgg,
    wide_kernel_net,
)

MNIST = (1, 28, 28)
CIFAR = (3, 32, 32)


@dataclass(frozen=True)
class Workload:
    """One network and how it is trained. The targets are ratios of PyTorch's time to pynn's."""

    name: str
    title: str
    build: Builder
    optimizer: str  # "sgd" or "adam"
    batch: int
    shape: tuple[int, ...]  # of one sample
    target: float | None = None
    target_avx2: float | None = None  # where AVX2 is forced
    momentum: float = 0.9  # of "sgd"
    lr: float | None = None  # otherwise the optimiser's in sides.py
    classes: int = 10
    symbols: int = 0  # the inputs are not pixels but this many different indices
    loss: str = "cross_entropy"  # or "mse_loss", with 1 at the class and -1 elsewhere


@dataclass(frozen=True)
class Application:
    """One network applied to batches. The targets are ratios of the other's time to pynn's, by its name."""

    name: str
    title: str
    build: Builder
    batch: int
    shape: tuple[int, ...]
    targets: dict[str, float]


@dataclass(frozen=True)
class Product:
    """A matrix product [m, k] @ [k, n]."""

    m: int
    n: int
    k: int
    target: float | None = None
    target_share: float | None = None  # of the peak

    @property
    def name(self) -> str:
        """The three sizes."""
        return f"{self.m}x{self.n}x{self.k}"


@dataclass(frozen=True)
class Attention:
    """Attention alone, forward and backward. The target is the ratio of PyTorch's time to pynn's."""

    length: int
    is_causal: bool
    target: float | None = None
    heads: int = 4
    features: int = 64

    @property
    def name(self) -> str:
        """The length, and whether keys in the future are hidden."""
        return f"attention{self.length}" + ("-causal" if self.is_causal else "")


@dataclass(frozen=True)
class Transformer:
    """A small GPT on characters. The target is the ratio of PyTorch's time to pynn's."""

    name: str
    title: str
    vocabulary: int
    layers: int
    heads: int
    width: int
    length: int
    batch: int
    target: float | None = None


@dataclass(frozen=True)
class Sequences:
    """A recurrent network on characters, and a Linear layer. The target is the ratio of PyTorch's time to pynn's."""

    name: str
    title: str
    kind: str  # the class in nn
    vocabulary: int
    layers: int
    hidden: int
    steps: int
    batch: int
    target: float | None = None


@dataclass(frozen=True)
class Classifier:
    """scikit-learn's MLPClassifier on MNIST, Adam. The target is the ratio of its time to pynn's."""

    name: str
    title: str
    hidden: tuple[int, ...]
    batch: int
    accuracy: float = 0.97  # to reach on the test set
    target: float = 5.0


MAIN = [
    Workload("mlp128", "MLP 784-128-10, B 128, SGD momentum", mlp(784, 128, 10), "sgd", 128, (784,), 3.5, 1),
    Workload("mlp128-b32", "MLP 784-128-10, B 32, SGD momentum", mlp(784, 128, 10), "sgd", 32, (784,), 5, 1),
    Workload("mlp512", "MLP 784-512-256-10, B 128, Adam", mlp(784, 512, 256, 10), "adam", 128, (784,), 1.8, 1),
    Workload("mlp2048", "MLP 784-2048-2048-10, B 128, Adam", mlp(784, 2048, 2048, 10), "adam", 128, (784,), 1.5, 0.75),
    Workload("lenet", "LeNet, B 128, Adam", lenet, "adam", 128, MNIST, 4.5, 1),
    Workload("cnn", "CNN 32-64, B 128, Adam", cnn, "adam", 128, MNIST, 3, 1),
]

LOWEST_TARGET, MEDIAN_TARGET = 1.0, 1.8  # of the neighbours' ratios

NEIGHBOURS = [
    Workload("mlp50-b16", "MLP 784-50-10, B 16, SGD", mlp(784, 50, 10), "sgd", 16, (784,)),
    Workload("mlp100-b64", "MLP 784-100-10, B 64, Adam", mlp(784, 100, 10), "adam", 64, (784,)),
    Workload("mlp256-b512", "MLP 784-256-10, B 512, SGD", mlp(784, 256, 10), "sgd", 512, (784,)),
    Workload("mlp1000", "MLP 784-1000-10, B 128, SGD", mlp(784, 1000, 10), "sgd", 128, (784,)),
    Workload("mlp1000x2", "MLP 784-1000-1000-10, B 64, Adam", mlp(784, 1000, 1000, 10), "adam", 64, (784,)),
    Workload("mlp100x4", "MLP 100-100-100-100-10, B 32, Adam", mlp(100, 100, 100, 100, 10), "adam", 32, (100,)),
    Workload("mlp-table", "MLP 60-200-50-10, B 256, Adam", mlp(60, 200, 50, 10), "adam", 256, (60,)),
    Workload("mlp3072", "MLP 3072-300-100-10, B 256, SGD", mlp(3072, 300, 100, 10), "sgd", 256, (3072,)),
    Workload(
        *("mlp-bn", "MLP 784-500-500-10 BatchNorm, B 128, Adam", mlp(784, 500, 500, 10, batch_norm=True)),
        *("adam", 128, (784,)),
    ),
    Workload("lenet-b16", "LeNet, B 16, SGD", lenet, "sgd", 16, MNIST),
    Workload("lenet-b512", "LeNet, B 512, Adam", lenet, "adam", 512, MNIST),
    Workload("cnn-b16", "CNN 32-64, B 16, Adam", cnn, "adam", 16, MNIST),
    Workload("conv8-16", "Conv 8-16 5x5, B 128, Adam", two_convs((1, 8, 16), 5, 2, 784), "adam", 128, MNIST),
    Workload(
        *("conv32-64-k5", "Conv 32-64 5x5, 1000 units, B 50, Adam", two_convs((1, 32, 64), 5, 2, 3136, 1000)),
        *("adam", 50, MNIST),
    ),
    Workload("conv-k7", "Conv 16 7x7, B 32, Adam", wide_kernel_net, "adam", 32, MNIST),
    Workload("conv-s2", "Conv 16-32 5x5 stride 2, B 256, SGD", strided_mnist, "sgd", 256, MNIST),
    Workload("separable-mnist", "depthwise separable 16-32, B 128, Adam", separable_mnist, "adam", 128, MNIST),
    Workload("cifar-tutorial", "CIFAR tutorial's Conv 6-16 5x5, B 16, SGD", cifar_tutorial, "sgd", 16, CIFAR),
    Workload("cifar-conv", "CIFAR Conv 32-64 3x3, B 64, Adam", two_convs((3, 32, 64), 3, 1, 4096), "adam", 64, CIFAR),
    Workload("cifar-vgg", "CIFAR VGG 32-32-64-64, B 64, Adam", vgg, "adam", 64, CIFAR),
    Workload("cifar-bn", "CIFAR Conv 16-32-64 BatchNorm, B 128, SGD", batch_norm_net, "sgd", 128, CIFAR),
    Workload("cifar-s2", "CIFAR Conv 32-64-128 stride 2, B 128, Adam", strided_net, "adam", 128, CIFAR),
    Workload("cifar-separable", "CIFAR depthwise separable to 128, B 64, SGD", separable_net, "sgd", 64, CIFAR),
    Workload("cifar-bottleneck", "CIFAR 1x1 bottlenecks 64-16, B 64, SGD", bottleneck_net, "sgd", 64, CIFAR),
    Workload("cifar-nin", "CIFAR network in network 96-64-48, B 32, Adam", network_in_network, "adam", 32, CIFAR),
    Workload("stem", "7x7 stem 32-64, 64x64 images, B 32, SGD", stem_net, "sgd", 32, (3, 64, 64)),
    Workload("late-layers", "Conv 64-128-128 3x3 on 8x8, B 256, SGD", late_layers, "sgd", 256, (64, 8, 8)),
]

SMALL = [
    Workload(
        *("makemore", "makemore MLP 3x10-200-27, B 32, SGD", makemore, "sgd", 32, (3,)),
        momentum=0.0,
        lr=0.1,
        classes=27,
        symbols=27,
    ),
    Workload(
        *("lecun1989", "LeCun 1989, B 1, SGD", lecun1989, "sgd", 1, (1, 16, 16)),
        momentum=0.0,
        lr=0.03,
        loss="mse_loss",
    ),
]

CAPTURED = [*MAIN[:2], SMALL[0], *MAIN[4:], SMALL[1]]
# Of a captured step: to PyTorch's time, and to that of the faster of two compilers, torch.compile and JAX.
CAPTURED_TARGETS: dict[str, tuple[float, float | None]] = {
    **{"mlp128": (5, 4), "mlp128-b32": (10, 6), "makemore": (10, None)},
    **{"lenet": (5.5, 8), "cnn": (3.4, 4), "lecun1989": (20, None)},
}
CAPTURE_TARGET, EMPTY_TARGET = 5, 3  # the first call in eager steps, and µs of a step that does nothing

APPLICATIONS = [
    Application(f"{name}-b{batch}", f"{title}, B {batch}", build, batch, shape, {"torch": torch, "onnxruntime": onnx})
    for name, title, build, shape, targets in (
        ("mlp128", "MLP 784-128-10", mlp(784, 128, 10), (784,), ((2, 1), (1.5, 1.3))),
        ("lenet", "LeNet", lenet, MNIST, ((6, 1.2), (8, 3))),
        ("cnn", "CNN 32-64", cnn, MNIST, ((3.5, 1.2), (4, 1.1))),
    )
    for batch, (torch, onnx) in zip((1, 256), targets, strict=True)
]

ATTENTION = [
    *(Attention(length, is_causal, 1.0) for length in (64, 128, 256, 4096) for is_causal in (False, True)),
    Transformer("nanogpt", "nanoGPT 4 x 128, 64 characters, B 12, AdamW", 65, 4, 4, 128, 64, 12, 1.5),
]

SEQUENCES = [
    *(
        Sequences(f"char-{kind.lower()}", f"char-rnn {kind} 2x128, 50 steps, B 50", kind, 65, 2, 128, 50, 50, target)
        for kind, target in (("LSTM", 2.0), ("GRU", None), ("RNN", None))
    ),
    *(
        Sequences(f"names-{kind.lower()}", f"names {kind} 1x64, 16 steps, B 32", kind, 27, 1, 64, 16, 32)
        for kind in ("LSTM", "GRU", "RNN")
    ),
]

PRODUCTS = [
    *(Product(size, size, size, 1.0, 0.88) for size in (1024, 2048)),
    *(Product(256, 256, 256), Product(128, 2048, 2048), Product(128, 128, 784), Product(32, 128, 784)),
    *(Product(2048, 128, 2048), Product(512, 10, 512), Product(1000, 1000, 50)),
]

CLASSIFIERS = [
    Classifier("sklearn-default", "MLP 784-100-10, B 200 (scikit-learn's defaults)", (100,), 200),
    Classifier("sklearn-128", "MLP 784-128-10, B 32", (128,), 32),
    Classifier("sklearn-512", "MLP 784-512-10, B 32", (512,), 32),
]


def choose(items: list[Any], text: str) -> list[Any]:
    """Return the items with one of the comma-separated names, each a whole name or else a part of it.

    >>> [w.name for w in choose(MAIN, "mlp128,len")]
    ['mlp128', 'lenet']
    """
    names = {item.name for item in items}
    parts = text.split(",")
    return [item for item in items if any(item.name == p if p in names else p in item.name for p in parts)]
