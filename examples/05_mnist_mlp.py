"""MNIST with one hidden layer: the first network that tinygrad trained, no biases and the plainest gradient descent.

https://github.com/tinygrad/tinygrad/blob/91a352a8e2697828a4b1eafa2bdc1a9a3b7deffa/test/mnist.py
"""

import argparse
import math
import time

import numpy as np

import pynn
from pynn import functional as F
from pynn import nn, optim
from pynn.data import load_mnist, take

PUBLISHED = 95.0  # %, the lower limit that tinygrad's test asks for


def build_model() -> nn.Sequential:
    """Return 784-128-10 with weights from U(-1, 1) / √(inputs · outputs)."""
    model = nn.Sequential(nn.Linear(784, 128, bias=False), nn.ReLU(), nn.Linear(128, 10, bias=False))
    for weight in model.parameters():
        limit = 1 / math.sqrt(weight.size)
        nn.init.uniform_(weight, -limit, limit)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 steps instead of 1000")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights and batches (%(default)s)")
    parser.add_argument("--data-dir", help="folder of MNIST; by default it is looked for, then downloaded")
    args = parser.parse_args()
    pynn.seed(args.seed)
    rng = np.random.default_rng(args.seed)
    start = time.perf_counter()

    data = load_mnist(args.data_dir)
    note = " (SYNTHETIC DIGITS, not MNIST)" if data.is_synthetic else ""
    images, test_images = (x.reshape(-1, 784).astype(np.float32) for x in (data.train_images, data.test_images))
    model = build_model()
    print(f"data: {data.name}{note}; model: 784-128-10, {sum(p.size for p in model.parameters()):,} parameters")

    optimizer = optim.SGD(model.parameters(), lr=0.01)

    @pynn.capture  # recorded at the first call, then replayed without Python
    def step(x: np.ndarray, y: np.ndarray) -> pynn.Tensor:
        # Log-softmax and negative log-likelihood, whose mean the original takes over the batch and the ten classes.
        loss = F.cross_entropy(model(x), y) / 10
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    steps = 200 if args.quick else 1000
    for i in range(1, steps + 1):
        batch = rng.integers(0, len(images), 128)
        loss = step(take(images, batch), data.train_labels[batch])  # raw pixels, 0 to 255, as in the original
        if i % (steps // 5) == 0:
            print(f"step {i:4}  loss {10 * loss.item():.4f}{note}")

    with pynn.no_grad():
        predicted = model(test_images).argmax(axis=1)
    accuracy = 100 * np.mean(np.asarray(predicted) == data.test_labels)
    print(f"test accuracy {accuracy:.2f} %{note}   tinygrad > {PUBLISHED:.0f} %")
    print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
