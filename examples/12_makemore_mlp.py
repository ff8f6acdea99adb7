"""Names letter by letter, each guessed from the three before: an embedding and one hidden layer (Bengio et al. 2003).

Karpathy's makemore, part 2: https://github.com/karpathy/nn-zero-to-hero
"""

import argparse
import itertools
import random
import time

import numpy as np

import pynn
from pynn import functional as F
from pynn import nn, optim
from pynn.data import Vocabulary, load_names, take

PUBLISHED = 2.17  # mean negative log-likelihood of a letter of the development split
CONTEXT = 3


def windows(names: list[str], vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """Return the letters before each letter, [N, CONTEXT], and the letter itself, [N]; dots stand around names."""
    parts = []
    for name in names:
        letters = vocabulary.encode("." * CONTEXT + name + ".")
        parts.append(np.lib.stride_tricks.sliding_window_view(letters, CONTEXT + 1))
    table = np.concatenate(parts)
    return np.ascontiguousarray(table[:, :-1]), np.ascontiguousarray(table[:, -1])


def sample(model: nn.Module, vocabulary: Vocabulary) -> str:
    """Return a name drawn letter by letter."""
    letters = [0] * CONTEXT
    while len(letters) == CONTEXT or letters[-1] != 0:
        logits = model(np.array([letters[-CONTEXT:]]))
        letters.append(int(pynn.categorical(logits[0])))
    return vocabulary.decode(letters[CONTEXT:-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10,000 steps instead of 200,000")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights, batches and names (%(default)s)")
    parser.add_argument("--data-dir", help="folder of names.txt; by default it is looked for, then downloaded")
    args = parser.parse_args()
    pynn.seed(args.seed)
    rng = np.random.default_rng(args.seed)
    start = time.perf_counter()

    names = load_names(args.data_dir)
    random.Random(42).shuffle(names)  # makemore's split
    vocabulary = Vocabulary([".", *names])
    cuts = [0, int(0.8 * len(names)), int(0.9 * len(names)), len(names)]
    (x, y), dev, test = (windows(names[a:b], vocabulary) for a, b in itertools.pairwise(cuts))
    print(f"data: {len(x):,} / {len(dev[0]):,} / {len(test[0]):,} letters (makemore 182,625 / 22,655 / 22,866)")

    model = nn.Sequential(nn.Embedding(27, 10), nn.Flatten(), nn.Linear(30, 200), nn.Tanh(), nn.Linear(200, 27))
    for p in model.parameters():
        nn.init.normal_(p)
    print(f"model: {sum(p.size for p in model.parameters()):,} parameters (makemore 11,897)", flush=True)

    optimizer = optim.SGD(model.parameters(), lr=0.1)

    @pynn.capture
    def step(x: np.ndarray, y: np.ndarray) -> pynn.Tensor:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    steps = 10_000 if args.quick else 200_000
    for i in range(steps):
        if i == steps // 2:
            optimizer.param_groups[0]["lr"] = 0.01
        batch = rng.integers(0, len(x), 32)
        loss = step(take(x, batch), take(y, batch))
        if i % (steps // 5) == 0:
            print(f"step {i:6}  loss {loss.item():.4f}", flush=True)

    with pynn.no_grad():
        print(", ".join(sample(model, vocabulary) for _ in range(8)))
        for name, (inputs, targets) in {"train": (x, y), "test": test}.items():
            print(f"{name} loss {F.cross_entropy(model(inputs), targets).item():.4f}")
        print(f"dev loss {F.cross_entropy(model(dev[0]), dev[1]).item():.4f}   makemore {PUBLISHED}")
    print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
