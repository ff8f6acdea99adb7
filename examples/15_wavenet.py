"""Names letter by letter, each guessed from the eight before, which are joined in pairs, and pairs of pairs.

Karpathy's makemore, part 5: https://github.com/karpathy/nn-zero-to-hero; after WaveNet (van den Oord et al. 2016).
"""

import argparse
import random
import time

import numpy as np

import pynn
from pynn import functional as F
from pynn import nn, optim
from pynn.data import Vocabulary, load_names, take

PUBLISHED = 1.994  # mean negative log-likelihood of a letter of the development split
CONTEXT, EMBEDDING, HIDDEN = 8, 24, 128


def windows(names: list[str], vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """Return the letters before each letter, [N, CONTEXT], and the letter itself, [N]; dots stand around names."""
    parts = []
    for name in names:
        letters = vocabulary.encode("." * CONTEXT + name + ".")
        parts.append(np.lib.stride_tricks.sliding_window_view(letters, CONTEXT + 1))
    table = np.concatenate(parts)
    return np.ascontiguousarray(table[:, :-1]), np.ascontiguousarray(table[:, -1])


class JoinPairs(nn.Module):
    """[N · L, C] to [N · L / 2, 2 C]: positions follow each other as rows, so two of them are one row of twice C."""

    def forward(self, x: pynn.Tensor) -> pynn.Tensor:
        """Return the same numbers in another shape."""
        return x.reshape(-1, 2 * x.shape[-1])


def build_model() -> nn.Sequential:
    """Return three layers, each of which halves the positions: 8, 4, 2, 1; for letters [N · 8]."""
    layers: list[nn.Module] = [nn.Embedding(27, EMBEDDING)]
    for inputs in (EMBEDDING, HIDDEN, HIDDEN):
        linear = nn.Linear(2 * inputs, HIDDEN, bias=False)
        nn.init.normal_(linear.weight, std=1 / np.sqrt(2 * inputs))
        layers += [JoinPairs(), linear, nn.BatchNorm1d(HIDDEN), nn.Tanh()]
    output = nn.Linear(HIDDEN, 27)
    nn.init.normal_(output.weight, std=0.1 / np.sqrt(HIDDEN))  # the first guesses are nearly uniform
    nn.init.zeros_(output.bias)
    return nn.Sequential(*layers, output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2,000 steps instead of 200,000")
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
    model = build_model()
    print(f"data: {len(x):,} letters; model: {sum(p.size for p in model.parameters()):,} parameters (makemore 76,579)")

    optimizer = optim.SGD(model.parameters(), lr=0.1)

    @pynn.capture
    def step(x: np.ndarray, y: np.ndarray) -> pynn.Tensor:
        loss = F.cross_entropy(model(x.reshape(-1)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    steps = 2_000 if args.quick else 200_000
    for i in range(steps):
        if i == steps * 3 // 4:
            optimizer.param_groups[0]["lr"] = 0.01
        batch = rng.integers(0, len(x), 32)
        loss = step(take(x, batch), take(y, batch))
        if i % (steps // 5) == 0:
            print(f"step {i:6}  loss {loss.item():.4f}", flush=True)

    model.eval()
    with pynn.no_grad():
        print(f"train loss {F.cross_entropy(model(x.reshape(-1)), y).item():.4f}")
        print(f"dev loss {F.cross_entropy(model(dev[0].reshape(-1)), dev[1]).item():.4f}   makemore {PUBLISHED}")
    print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
