"""MNIST in 70 steps: tinygrad's `beautiful_mnist`, convolutions with batch normalisation and large batches.

https://github.com/tinygrad/tinygrad/blob/master/examples/beautiful_mnist.py
"""

import argparse
import time

import numpy as np

import pynn
from pynn import functional as F
from pynn import nn, optim
from pynn.data import load_mnist, take

PUBLISHED = 98.0  # % of the test digits after 70 steps


def build_model() -> nn.Sequential:
    """Return tinygrad's network for images [N, 1, 28, 28]."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 5),
        nn.ReLU(),
        nn.Conv2d(32, 32, 5),
        nn.ReLU(),
        nn.BatchNorm2d(32),
        nn.MaxPool2d(2),  # [N, 32, 10, 10]
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3),
        nn.ReLU(),
        nn.BatchNorm2d(64),
        nn.MaxPool2d(2),  # [N, 64, 3, 3]
        nn.Flatten(),
        nn.Linear(576, 10),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="12 steps instead of 70, and a fifth of the test digits")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights and batches (%(default)s)")
    parser.add_argument("--data-dir", help="folder of MNIST; by default it is looked for, then downloaded")
    args = parser.parse_args()
    pynn.seed(args.seed)
    rng = np.random.default_rng(args.seed)
    start = time.perf_counter()

    data = load_mnist(args.data_dir)
    note = " (SYNTHETIC DIGITS, not MNIST)" if data.is_synthetic else ""
    images = data.train_images[:, None].astype(np.float32)  # raw pixels, 0 to 255, as in the original
    test_images, test_labels = (x[:: 5 if args.quick else 1] for x in data.test)
    model = build_model()
    print(f"data: {data.name}{note}; model: {sum(p.size for p in model.parameters()):,} parameters", flush=True)

    optimizer = optim.Adam(model.parameters())

    @pynn.capture
    def step(x: np.ndarray, y: np.ndarray) -> pynn.Tensor:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    for i in range(1, (12 if args.quick else 70) + 1):
        batch = rng.integers(0, len(images), 512)
        loss = step(take(images, batch), data.train_labels[batch])
        if i % 10 == 0:
            print(f"step {i:2}  loss {loss.item():.4f}{note}", flush=True)

    model.eval()
    correct = 0
    with pynn.no_grad():
        for x, y in zip(np.split(test_images, 10), np.split(test_labels, 10), strict=True):
            correct += np.count_nonzero(np.asarray(model(x[:, None].astype(np.float32)).argmax(axis=1)) == y)
    print(f"test accuracy {100 * correct / len(test_labels):.2f} %{note}   tinygrad {PUBLISHED:.0f} %")
    print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
