"""MNIST with 30 hidden units and a split of its own: 50,000 digits to learn from, 10,000 to choose by, 10,000 to test.

https://github.com/kdexd/digit-classifier
"""

import argparse
import time

import numpy as np

import pynn
from pynn import functional as F
from pynn import nn, optim
from pynn.data import DataLoader, load_mnist

PUBLISHED = 96.3  # % of the test digits, measured with PyTorch


def accuracy(model: nn.Sequential, images: np.ndarray, labels: np.ndarray) -> float:
    """Return the percentage of images [N, 784] whose digit the model finds."""
    with pynn.no_grad():
        return 100 * np.mean(np.asarray(model(images).argmax(axis=1)) == labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 epochs instead of 100")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights and batches (%(default)s)")
    parser.add_argument("--data-dir", help="folder of MNIST; by default it is looked for, then downloaded")
    args = parser.parse_args()
    pynn.seed(args.seed)
    start = time.perf_counter()

    data = load_mnist(args.data_dir)
    note = " (SYNTHETIC DIGITS, not MNIST)" if data.is_synthetic else ""
    images, test_images = (x.reshape(-1, 784) / np.float32(255) for x in (data.train_images, data.test_images))
    labels, test_labels = data.train_labels, data.test_labels
    validation = images[50_000:], labels[50_000:]
    loader = DataLoader(images[:50_000], labels[:50_000], batch_size=16, shuffle=True)
    model = nn.Sequential(nn.Linear(784, 30), nn.ReLU(), nn.Linear(30, 10))
    print(f"data: {data.name}{note}; model: 784-30-10, {sum(p.size for p in model.parameters()):,} parameters")

    optimizer = optim.SGD(model.parameters(), lr=0.01)

    @pynn.capture
    def step(x: np.ndarray, y: np.ndarray) -> pynn.Tensor:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    epochs = 3 if args.quick else 100
    best, best_weights = 0.0, model.state_dict()
    for epoch in range(1, epochs + 1):
        for x, y in loader:
            step(x, y)
        if (score := accuracy(model, *validation)) > best:
            best, best_weights = score, model.state_dict()
        if epoch % max(1, epochs // 10) == 0:
            print(f"epoch {epoch:3}  validation {score:.2f} %{note}", flush=True)

    model.load_state_dict(best_weights)  # the epoch that the validation digits chose: the test digits choose nothing
    tested = accuracy(model, test_images, test_labels)
    print(f"test accuracy {tested:.2f} %{note}   digit-classifier {PUBLISHED} %")
    print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
