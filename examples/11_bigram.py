"""Names letter by letter, each guessed from the one before: by counting pairs, and by a network that learns the counts.

Karpathy's makemore, part 1: https://github.com/karpathy/nn-zero-to-hero
"""

import argparse
import time

import numpy as np

import pynn
from pynn import functional as F
from pynn import nn, optim
from pynn.data import Vocabulary, load_names

PUBLISHED = {"counting": 2.4546, "network": 2.49}  # mean negative log-likelihood of a letter; the second at most


def sample(logits: np.ndarray, vocabulary: Vocabulary) -> str:
    """Return a name drawn letter by letter, given the logits [27, 27] of a letter after a letter."""
    letters = [0]
    while len(letters) == 1 or letters[-1] != 0:
        letters.append(int(pynn.categorical(logits[letters[-1]])))
    return vocabulary.decode(letters[1:-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="no effect: the example is quick")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights and sampled names (%(default)s)")
    parser.add_argument("--data-dir", help="folder of names.txt; by default it is looked for, then downloaded")
    args = parser.parse_args()
    pynn.seed(args.seed)
    start = time.perf_counter()

    names = load_names(args.data_dir)
    letters = "." + ".".join(names) + "."  # a dot ends a name and begins the next
    vocabulary = Vocabulary(letters)
    ids = vocabulary.encode(letters)
    x, y = ids[:-1], ids[1:]
    print(f"data: {len(names):,} names, {len(x):,} pairs of {len(vocabulary)} letters")

    # Counting: the share of each pair, with one more of every pair so that none is impossible.
    counts = np.ones((27, 27))
    np.add.at(counts, (x, y), 1)
    log_shares = np.log(counts / counts.sum(axis=1, keepdims=True))
    losses = {"counting": -log_shares[x, y].mean()}

    # A network of one layer: a one-hot letter times the weights is a row of the weights, which is what embedding takes.
    weight = nn.Parameter(pynn.randn(27, 27))
    optimizer = optim.SGD([weight], lr=50)

    @pynn.capture
    def step(x: np.ndarray, y: np.ndarray) -> pynn.Tensor:
        logits = F.embedding(x, weight)  # [N, 27]
        loss = F.cross_entropy(logits, y)
        penalty = 0.01 * (weight * weight).mean()  # draws the weights to 0 as the added counts draw the shares together
        optimizer.zero_grad()
        (loss + penalty).backward()
        optimizer.step()
        return loss

    for i in range(1, 151):
        loss = step(x, y)
        if i % 50 == 0:
            print(f"step {i:3}  loss {loss.item():.4f}")
    losses["network"] = loss.item()

    for name, logits in {"counting": log_shares, "network": weight.numpy()}.items():
        print(f"{name}: {', '.join(sample(logits, vocabulary) for _ in range(5))}")
    for name, value in losses.items():
        print(f"{name}: loss {value:.4f}   makemore {'<= ' if name == 'network' else ''}{PUBLISHED[name]}")
    print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
