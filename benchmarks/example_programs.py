"""The training steps of the examples, each written once on the modules of pynn or PyTorch.

What an example computes in a step is here again, on digits of MNIST where it learns from them, and on random numbers
in place of other data. Left out are those that train nothing (01, 14, 18, 20), that do not capture their steps (02,
REINFORCE of 23), and the small ones of 04.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import attention
import numpy as np
import numpy.typing as npt
from networks import makemore, mlp, two_convs
from workloads import ATTENTION, SEQUENCES, Sequences, Transformer

from pynn.data import load_mnist
from pynn.data.mnist import MNIST

Array = npt.NDArray[Any]
Library = Any  # `nn`, `optim`, `F` and a few functions, of pynn or PyTorch: see example_steps.py
Model = Any
Step = Callable[..., Any]  # takes a batch's arrays or tensors, returns the loss


@dataclass(frozen=True)
class Program:
    """The training step of an example. The target is the ratio of PyTorch's time to pynn's."""

    name: str
    title: str
    make: Callable[[Library], tuple[Model, Step]]
    batch: Callable[[np.random.Generator], tuple[Array, ...]]
    target: float | None = None
    tolerance: float = 1e-3  # of the losses after the first step: Adam makes full steps of the smallest gradients


# -- steps -------------------------------------------------------------------------------------------------------------


def cross_entropy(library: Library, model: Model, x: Any, y: Any) -> Any:
    """Return the loss of scores [N, C] against classes [N]."""
    return library.F.cross_entropy(model(x), y)


def squared_error(library: Library, model: Model, x: Any, y: Any) -> Any:
    """Return the mean squared difference of the outputs and y, of one shape."""
    return library.F.mse_loss(model(x), y)


def supervised(
    build: Callable[[Any], Model],
    optimizer: str,
    loss: Callable[..., Any] = cross_entropy,
    max_norm: float | None = None,
    **options: Any,
) -> Callable[[Library], tuple[Model, Step]]:
    """Return what makes a model, from a function of `nn`, and its usual step: loss, backward, optimiser."""

    def make(library: Library) -> tuple[Model, Step]:
        model = build(library.nn)
        updates = getattr(library.optim, optimizer)(model.parameters(), **options)

        def step(*batch: Any) -> Any:
            value = loss(library, model, *batch)
            updates.zero_grad()
            value.backward()
            if max_norm is not None:
                library.clip(model.parameters(), max_norm)
            updates.step()
            return value

        return model, step

    return make


@functools.cache
def digits() -> MNIST:
    """Return MNIST, or what stands for it, and say which."""
    data = load_mnist()
    print(f"{data.name}, {len(data.train_images):,} images", file=sys.stderr)  # not into the table
    return data


def images(n: int, *shape: int) -> Callable[[np.random.Generator], tuple[Array, ...]]:
    """Return what draws digits of MNIST [n, *shape], pixels in 0 to 1, and their classes [n]."""

    def draw(rng: np.random.Generator) -> tuple[Array, ...]:
        data = digits()
        rows = rng.integers(0, len(data.train_labels), n)
        return data.train_images[rows].reshape(n, *shape) / np.float32(255), data.train_labels[rows]

    return draw


def letters(n: int, *context: int) -> Callable[[np.random.Generator], tuple[Array, ...]]:
    """Return what draws letters [n, *context], and those that follow [n]."""
    return lambda rng: (rng.integers(0, 27, (n, *context)), rng.integers(0, 27, n))


def normal(*shapes: tuple[int, ...]) -> Callable[[np.random.Generator], tuple[Array, ...]]:
    """Return what draws arrays of standard normal numbers."""
    return lambda rng: tuple(rng.standard_normal(shape, dtype=np.float32) for shape in shapes)


# -- 03, 05, 07, 08, 09, 10: points and digits -------------------------------------------------------------------------


def spiral(library: Library) -> tuple[Model, Step]:
    """Return the network of the spiral, whose weights decay and whose biases do not."""
    model = mlp(2, 100, 3)(library.nn)
    matrices, vectors = ([p for p in model.parameters() if (p.ndim == 2) == two] for two in (True, False))
    updates = library.optim.SGD([{"params": matrices, "weight_decay": 1e-3}, {"params": vectors}], lr=1.0)

    def step(x: Any, y: Any) -> Any:
        loss = cross_entropy(library, model, x, y)
        updates.zero_grad()
        loss.backward()
        updates.step()
        return loss

    return model, step


def no_biases(nn: Any) -> Model:
    """Return the network of tinygrad's first MNIST."""
    return nn.Sequential(nn.Linear(784, 128, bias=False), nn.ReLU(), nn.Linear(128, 10, bias=False))


def keras(nn: Any) -> Model:
    """Return Keras' network for MNIST."""
    *layers, last = two_convs((1, 32, 64), 3, 0, 1600)(nn)
    return nn.Sequential(*layers, nn.Dropout(0.5), last)


def pytorch_mnist(nn: Any) -> Model:
    """Return the network of PyTorch's example."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25)),
        *(nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10)),
    )


def beautiful_mnist(nn: Any) -> Model:
    """Return the network of tinygrad's `beautiful_mnist`."""
    layers: list[Any] = []
    for before, after, kernel in ((1, 32, 5), (32, 64, 3)):
        layers += [nn.Conv2d(before, after, kernel), nn.ReLU(), nn.Conv2d(after, after, kernel), nn.ReLU()]
        layers += [nn.BatchNorm2d(after), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(576, 10))


def lecun1989(library: Library) -> tuple[Model, Step]:
    """Return the network of 1989; the units of the second layer see 8 of the first's 12 maps."""
    nn, functional = library.nn, library.F

    class Network(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = (nn.Conv2d(maps, 12, 5, stride=2, bias=False) for maps in (1, 8))
            self.first_bias, self.second_bias = (nn.Parameter(library.zeros(12, size, size)) for size in (8, 4))
            self.head = nn.Sequential(nn.Flatten(), nn.Linear(192, 30), nn.Tanh(), nn.Linear(30, 10), nn.Tanh())

        def forward(self, x: Any) -> Any:
            x = (self.first(functional.pad(x, (2, 2, 2, 2), value=-1.0)) + self.first_bias).tanh()
            x = functional.pad(x, (2, 2, 2, 2), value=-1.0)
            seen = x[:, 0:8], x[:, 4:12], library.concatenate((x[:, 0:4], x[:, 8:12]), 1)
            weights = (self.second.weight[i : i + 4] for i in (0, 4, 8))
            maps = [functional.conv2d(part, weight, stride=2) for part, weight in zip(seen, weights, strict=True)]
            return self.head((library.concatenate(maps, 1) + self.second_bias).tanh())

    return supervised(lambda nn: Network(), "SGD", squared_error, lr=0.03)(library)


def signs(rng: np.random.Generator) -> tuple[Array, ...]:
    """Return an image of 16x16 pixels in -1 to 1, and 1 at its class, -1 elsewhere."""
    target = 2 * np.eye(10, dtype=np.float32)[[rng.integers(10)]] - 1
    return rng.uniform(-1, 1, (1, 1, 16, 16)).astype(np.float32), target


# -- 11, 13, 15: letters -----------------------------------------------------------------------------------------------


def bigram_loss(library: Library, model: Model, x: Any, y: Any) -> Any:
    """Return the loss of the letters, with a penalty on the weights."""
    return library.F.cross_entropy(model(x), y) + 0.01 * (model.weight * model.weight).mean()


def batch_norm_by_hand(library: Library) -> tuple[Model, Step]:
    """Return makemore's network with batch normalisation written out."""
    nn = library.nn

    class Network(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.hidden = nn.Embedding(27, 10), nn.Linear(30, 200, bias=False)
            self.gain, self.shift = nn.Parameter(library.ones(200)), nn.Parameter(library.zeros(200))
            self.output = nn.Linear(200, 27)

        def forward(self, x: Any) -> Any:
            h = self.hidden(self.embedding(x).reshape(-1, 30))
            h = (h - h.mean(0)) / (h.var(0) + 1e-5).sqrt() * self.gain + self.shift
            return self.output(h.tanh())

    return supervised(lambda nn: Network(), "SGD", lr=0.1)(library)


def wavenet(nn: Any) -> Model:
    """Return three layers, each of which joins neighbouring letters; for letters [N * 8]."""

    class JoinPairs(nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return x.reshape(-1, 2 * x.shape[-1])

    layers: list[Any] = [nn.Embedding(27, 24)]
    for before in (24, 128, 128):
        layers += [JoinPairs(), nn.Linear(2 * before, 128, bias=False), nn.BatchNorm1d(128), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(128, 27))


# -- 17, 19: sequences -------------------------------------------------------------------------------------------------


def forecast(nn: Any) -> Model:
    """Return an LSTM and what its last state says."""

    class Forecast(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(1, 32, batch_first=True), nn.Linear(32, 1)

        def forward(self, x: Any) -> Any:
            _, (h, _) = self.lstm(x)
            return self.head(h[-1])

    return Forecast()


def gpt(case: Transformer) -> Program:
    """Return nanoGPT's program."""

    def make(library: Library) -> tuple[Model, Step]:
        model = attention.gpt(case, library.nn, library.F)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                library.nn.init.normal_(parameter, std=0.02)
        return model, attention.Side(model, library.optim.AdamW, library.clip, library.F.cross_entropy).step

    def batch(rng: np.random.Generator) -> tuple[Array, ...]:
        text = rng.integers(0, case.vocabulary, (case.batch, case.length + 1))
        return np.ascontiguousarray(text[:, :-1]), text[:, 1:].reshape(-1)

    return Program(case.name, f"19 {case.title}", make, batch, case.target)


# -- 21, 22, 23: several networks, several losses ----------------------------------------------------------------------


def vae(nn: Any) -> Model:
    """Return the encoder and the decoder of the variational auto-encoder."""

    class VAE(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(784, 400), nn.ReLU())
            self.mean, self.log_var = nn.Linear(400, 20), nn.Linear(400, 20)
            self.decoder = mlp(20, 400, 784)(nn)

    return VAE()


def vae_loss(library: Library, model: Model, x: Any, noise: Any) -> Any:
    """Return the loss of digits [N, 784], given noise [N, 20]."""
    hidden = model.encoder(x)
    mean, log_var = model.mean(hidden), model.log_var(hidden)
    logits = model.decoder(mean + (0.5 * log_var).exp() * noise)
    error = library.F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    return error - 0.5 * (1 + log_var - mean * mean - log_var.exp()).sum()


def gan(library: Library) -> tuple[Model, Step]:
    """Return generator and discriminator, and a step of both; its loss is the sum of theirs."""
    nn, likely = library.nn, library.F.binary_cross_entropy_with_logits
    widths = (128, 256, 512, 1024, 784)
    up, down = [], []
    for before, after in itertools.pairwise(widths[:-1]):
        up += [nn.Linear(before, after), nn.LeakyReLU(0.2)]
    for before, after in itertools.pairwise(widths[:0:-1]):
        down += [nn.Linear(before, after), nn.LeakyReLU(0.2), nn.Dropout(0.3)]
    generator = nn.Sequential(*up, nn.Linear(1024, 784), nn.Tanh())
    discriminator = nn.Sequential(*down, nn.Linear(256, 1))
    draws, doubts = (
        library.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999)) for network in (generator, discriminator)
    )
    true, false = library.ones(128, 1), library.zeros(128, 1)

    def step(x: Any, noise: Any) -> Any:
        drawn = generator(noise)
        told = likely(discriminator(x), true) + likely(discriminator(drawn.detach()), false)
        doubts.zero_grad()
        told.backward()
        doubts.step()
        fooled = likely(discriminator(drawn), true)
        draws.zero_grad()
        fooled.backward()
        draws.step()
        return told.detach() + fooled.detach()

    return nn.ModuleList([generator, discriminator]), step


def q_learning(library: Library) -> tuple[Model, Step]:
    """Return a network and its target, and a step that learns from remembered ones; the target stays as it is."""
    networks = library.nn.ModuleList([mlp(4, 128, 2)(library.nn) for _ in range(2)])
    network, target = networks
    updates = library.optim.Adam(network.parameters(), lr=1e-3)

    def step(state: Any, taken: Any, after: Any, stands: Any) -> Any:
        with library.no_grad():
            worth = 1 + 0.99 * stands * library.amax(target(after), 1)
        loss = library.F.mse_loss((network(state) * taken).sum(1), worth)
        updates.zero_grad()
        loss.backward()
        updates.step()
        return loss

    return networks, step


def remembered(rng: np.random.Generator) -> tuple[Array, ...]:
    """Return states, one-hot actions, the states after them, and whether the pole stands."""
    states, after = normal((128, 4), (128, 4))(rng)
    taken, stands = np.eye(2, dtype=np.float32)[rng.integers(0, 2, 128)], rng.integers(0, 2, 128).astype(np.float32)
    return states, taken, after, stands


# -- the list ----------------------------------------------------------------------------------------------------------

EXAMPLES: list[Program | Sequences] = [
    Program(
        "spiral", "03 spiral 2-100-3, B 300, SGD", spiral, lambda rng: (*normal((300, 2))(rng), rng.integers(0, 3, 300))
    ),
    Program("mnist-mlp", "05 MLP 784-128-10, B 128, SGD", supervised(no_biases, "SGD", lr=1e-3), images(128, 784)),
    Program(
        "digits-split", "06 MLP 784-30-10, B 16, SGD", supervised(mlp(784, 30, 10), "SGD", lr=0.01), images(16, 784)
    ),
    Program("keras", "07 Keras' convnet, B 128, Adam", supervised(keras, "Adam", eps=1e-7), images(128, 1, 28, 28)),
    Program(
        *("pytorch-mnist", "08 PyTorch's convnet, B 64, Adadelta"),
        *(supervised(pytorch_mnist, "Adadelta", lr=1.0), images(64, 1, 28, 28)),
    ),
    Program(
        *("beautiful-mnist", "09 tinygrad's convnet, B 512, Adam"),
        *(supervised(beautiful_mnist, "Adam"), images(512, 1, 28, 28)),
        tolerance=2e-2,  # the loss of PyTorch's third step in float32 is 7e-3 beside that in float64
    ),
    Program("lecun1989", "10 LeCun 1989, B 1, SGD", lecun1989, signs),
    Program(
        *("bigram", "11 bigrams, all 228,146 pairs, SGD"),
        *(supervised(lambda nn: nn.Embedding(27, 27), "SGD", bigram_loss, lr=50.0), letters(228_146)),
    ),
    Program("makemore", "12 makemore MLP, B 32, SGD", supervised(makemore, "SGD", lr=0.1), letters(32, 3)),
    Program("makemore-bn", "13 makemore BatchNorm, B 32, SGD", batch_norm_by_hand, letters(32, 3)),
    Program(
        *("wavenet", "15 makemore WaveNet, B 32, SGD"),
        *(supervised(wavenet, "SGD", lr=0.1), lambda rng: (rng.integers(0, 27, 32 * 8), rng.integers(0, 27, 32))),
    ),
    replace(SEQUENCES[0], title=f"16 {SEQUENCES[0].title}"),
    Program(
        *("forecast", "17 LSTM 1x32, 32 steps, B 64, Adam"),
        *(supervised(forecast, "Adam", squared_error, max_norm=1.0, lr=0.01), normal((64, 32, 1), (64, 1))),
    ),
    gpt(ATTENTION[-1]),
    Program(
        *("vae", "21 variational auto-encoder, B 128, Adam", supervised(vae, "Adam", vae_loss, lr=1e-3)),
        *(lambda rng: (images(128, 784)(rng)[0], *normal((128, 20))(rng)), 2.5),
    ),
    Program("gan", "22 generator and discriminator, B 128, Adam", gan, normal((128, 784), (128, 128))),
    Program("q-learning", "23 Q-learning 4-128-2, B 128, Adam", q_learning, remembered),
]
