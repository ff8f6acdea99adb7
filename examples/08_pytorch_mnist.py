"""MNIST with two convolutions: the network of PyTorch's `examples/mnist`, trained by Adadelta.

https://github.com/pytorch/examples/tree/main/mnist
"""

import argparse
import time

import numpy as np

import pynn
from pynn import functional as F
from pynn import nn, optim
from pynn.data import DataLoader, load_mnist, normalize_images

PUBLISHED = {1: 98.4, 14: 99.2}  # % after so many epochs; the first is measured with the original


def build_model() -> nn.Sequential:
    """Return conv 32, conv 64, max-pool, 128, 10 with dropout between; for images [N, 1, 28, 28]."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),  # [N, 64, 12, 12]
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(9216, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )


def test_accuracy(model: nn.Sequential, images: np.ndarray, labels: np.ndarray) -> float:
    """Return the percentage of images [N, 28, 28] whose digit the model finds."""
    model.eval()
    correct = 0
    with pynn.no_grad():
        for x, y in DataLoader(images, labels, batch_size=500):
            correct += np.count_nonzero(np.asarray(model(normalize_images(x)).argmax(axis=1)) == y)
    model.train()
    return 100 * correct / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="60 steps, and a fifth of the test images")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights, batches and dropout (%(default)s)")
    parser.add_argument("--epochs", type=int, help="14 by default, one with --quick")
    parser.add_argument("--data-dir", help="folder of MNIST; by default it is looked for, then downloaded")
    args = parser.parse_args()
    if args.epochs is not None and args.epochs < 1:
        parser.error(f"--epochs {args.epochs}: needs at least 1")
    pynn.seed(args.seed)
    begin = time.perf_counter()

    data = load_mnist(args.data_dir)
    note = " (SYNTHETIC DIGITS, not MNIST)" if data.is_synthetic else ""
    images, labels = (x[: 60 * 64] for x in data.train) if args.quick else data.train
    test_images, test_labels = (x[::5] for x in data.test) if args.quick else data.test
    model = build_model()
    print(f"data: {data.name}{note}; model: {sum(p.size for p in model.parameters()):,} parameters (PyTorch 1,199,882)")

    loader = DataLoader(images, labels, batch_size=64, shuffle=True)
    optimizer = optim.Adadelta(model.parameters(), lr=1.0)
    scheduler = optim.StepLR(optimizer, step_size=1, gamma=0.7)

    @pynn.capture
    def step(x: np.ndarray, y: np.ndarray) -> pynn.Tensor:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    epochs = args.epochs or (1 if args.quick else 14)
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        for i, (x, y) in enumerate(loader, 1):
            loss = step(normalize_images(x), y)
            if i % 300 == 0:
                print(f"epoch {epoch}  step {i:4}/{len(loader)}  loss {loss.item():.4f}{note}", flush=True)
        scheduler.step()
        seconds = time.perf_counter() - start
        accuracy = test_accuracy(model, test_images, test_labels)
        published = f"   PyTorch's example {PUBLISHED[epoch]} %" if epoch in PUBLISHED and not args.quick else ""
        print(f"epoch {epoch}  test accuracy {accuracy:.2f} %{note}  {seconds:.1f} s{published}", flush=True)
    print(f"{time.perf_counter() - begin:.1f} s")


if __name__ == "__main__":
    main()
