"""MNIST as in Keras' first example: two convolutions, a validation split, and `fit`, `evaluate` and `summary`.

https://keras.io/examples/vision/mnist_convnet/
"""

import argparse
import time

import numpy as np

import pynn
from pynn import nn, optim
from pynn.data import DataLoader, load_mnist
from pynn.train import Trainer

PUBLISHED = 99.2  # % of the test digits after 15 epochs


def build_model() -> nn.Sequential:
    """Return Keras' network for images [N, 1, 28, 28], with its initial values (Glorot's; biases 0)."""
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(1600, 10),
    )
    for p in model.parameters():
        if p.ndim > 1:
            nn.init.xavier_uniform_(p)
        else:
            nn.init.zeros_(p)
    return model


def scaled(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return images [N, 1, 28, 28] in 0 ... 1, and the labels as they are."""
    return images[:, None] / np.float32(255), labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one epoch of 9,000 digits instead of 15 of 54,000")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights, batches and dropout (%(default)s)")
    parser.add_argument("--data-dir", help="folder of MNIST; by default it is looked for, then downloaded")
    args = parser.parse_args()
    pynn.seed(args.seed)
    start = time.perf_counter()

    data = load_mnist(args.data_dir)
    note = " (SYNTHETIC DIGITS, not MNIST)" if data.is_synthetic else ""
    images, labels = (x[:10_000] if args.quick else x for x in data.train)
    split = len(images) * 9 // 10  # Keras' validation_split=0.1 keeps the last tenth
    train = DataLoader(images[:split], labels[:split], batch_size=128, shuffle=True, transform=scaled)
    validation = DataLoader(images[split:], labels[split:], batch_size=500, transform=scaled)
    test = DataLoader(*data.test, batch_size=500, transform=scaled)

    model = build_model()
    print(f"data: {data.name}{note}; model (Keras: 34,826 parameters):\n{model.summary((1, 28, 28))}", flush=True)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters(), eps=1e-7))  # Keras' epsilon
    trainer.fit(train, epochs=1 if args.quick else 15, val=validation, restore_best=False)
    accuracy = 100 * trainer.evaluate(test)["accuracy"]
    print(f"test accuracy {accuracy:.2f} %{note}   Keras {PUBLISHED} %")
    print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
