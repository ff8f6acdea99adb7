"""makemore's network with batch normalisation (Ioffe and Szegedy 2015), written out in five lines of operations.

Karpathy's makemore, part 3: https://github.com/karpathy/nn-zero-to-hero
"""

import argparse
import random
import time

import numpy as np

import pynn
from pynn import functional as F
from pynn import nn, optim
from pynn.data import Vocabulary, load_names, take

PUBLISHED = 2.106  # mean negative log-likelihood of a letter of the development split
CONTEXT = 3


def windows(names: list[str], vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """Return the letters before each letter, [N, CONTEXT], and the letter itself, [N]; dots stand around names."""
    parts = []
    for name in names:
        letters = vocabulary.encode("." * CONTEXT + name + ".")
        parts.append(np.lib.stride_tricks.sliding_window_view(letters, CONTEXT + 1))
    table = np.concatenate(parts)
    return np.ascontiguousarray(table[:, :-1]), np.ascontiguousarray(table[:, -1])


class Network(nn.Module):
    """27 letters, embedding 10, 200 normalised tanh units."""

    def __init__(self) -> None:
        self.embedding = nn.Embedding(27, 10)
        self.hidden = nn.Linear(10 * CONTEXT, 200, bias=False)  # a bias would fall out with the mean
        self.gain, self.shift = nn.Parameter(pynn.ones(200)), nn.Parameter(pynn.zeros(200))
        self.output = nn.Linear(200, 27)
        nn.init.normal_(self.hidden.weight, std=(5 / 3) / np.sqrt(10 * CONTEXT))  # Kaiming's, with the gain of tanh
        nn.init.normal_(self.output.weight, std=0.01)  # the first guesses are nearly uniform
        nn.init.zeros_(self.output.bias)

    def sums(self, x: np.ndarray) -> pynn.Tensor:
        """Return the weighted sums [N, 200] that are to be normalised."""
        return self.hidden(self.embedding(x).reshape(-1, 10 * CONTEXT))

    def forward(self, x: np.ndarray, statistics: tuple[pynn.Tensor, pynn.Tensor] | None = None) -> pynn.Tensor:
        """Return logits [N, 27], normalised by the batch's own statistics unless others are given."""
        h = self.sums(x)
        mean, var = statistics or (h.mean(0), h.var(0))  # the unbiased variance; nn.BatchNorm1d takes the biased one
        h = (h - mean) / (var + 1e-5).sqrt() * self.gain + self.shift
        return self.output(h.tanh())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5,000 steps instead of 200,000")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights and batches (%(default)s)")
    parser.add_argument("--data-dir", help="folder of names.txt; by default it is looked for, then downloaded")
    args = parser.parse_args()
    pynn.seed(args.seed)
    rng = np.random.default_rng(args.seed)
    start = time.perf_counter()
    names = load_names(args.data_dir)
    random.Random(42).shuffle(names)  # makemore's split
    vocabulary = Vocabulary([".", *names])
    (x, y), dev = (windows(part, vocabulary) for part in (names[:25626], names[25626:28829]))  # 80 % and 10 %
    model = Network()
    print(f"data: {len(x):,} letters; model: {sum(p.size for p in model.parameters()):,} parameters (makemore 12,097)")

    optimizer = optim.SGD(model.parameters(), lr=0.1)

    @pynn.capture
    def step(x: np.ndarray, y: np.ndarray) -> pynn.Tensor:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    steps = 5_000 if args.quick else 200_000
    for i in range(steps):
        if i == steps // 2:
            optimizer.param_groups[0]["lr"] = 0.01
        batch = rng.integers(0, len(x), 32)
        loss = step(take(x, batch), take(y, batch))
        if i % (steps // 5) == 0:
            print(f"step {i:6}  loss {loss.item():.4f}", flush=True)
    with pynn.no_grad():
        h = model.sums(x)
        statistics = h.mean(0), h.var(0)  # of all letters to learn from: a guess must not depend on its batch
        print(f"train loss {F.cross_entropy(model(x, statistics), y).item():.4f}")
        print(f"dev loss {F.cross_entropy(model(dev[0], statistics), dev[1]).item():.4f}   makemore {PUBLISHED}")
    print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
