"""The first convolutional network in use (LeCun et al. 1989), and with ``--modern`` what 33 years of methods add to it.

Karpathy's reproduction, whose digits are MNIST's as small as those of 1989: https://github.com/karpathy/lecun1989-repro
"""

import argparse
import time

import numpy as np

import pynn
from pynn import functional as F
from pynn import nn, optim
from pynn.data import load_mnist

PUBLISHED = {False: 4.09, True: 1.59}  # % errors of the test digits: then, modern


class Network(nn.Module):
    """Two layers of 12 maps with a bias for each pixel, 30 units, 10 outputs; the second sees 8 of the first's maps."""

    def __init__(self, modern: bool) -> None:
        self.modern = modern
        self.w1, self.b1 = self._weights(25, 12, 1, 5, 5), nn.Parameter(pynn.zeros(12, 8, 8))
        self.w2, self.b2 = self._weights(200, 12, 8, 5, 5), nn.Parameter(pynn.zeros(12, 4, 4))
        self.w3, self.b3 = self._weights(192, 30, 192), nn.Parameter(pynn.zeros(30))
        self.w4, self.b4 = self._weights(30, 10, 30), nn.Parameter(np.full(10, 0.0 if modern else -1.0, np.float32))
        self.activation = F.relu if modern else F.tanh
        self.dropout = nn.Dropout(0.25 if modern else 0)

    def _weights(self, inputs: int, *shape: int) -> nn.Parameter:
        limit = 2.4 / np.sqrt(inputs)
        return nn.Parameter(nn.init.uniform_(pynn.zeros(*shape), -limit, limit))

    def forward(self, x: pynn.Tensor) -> pynn.Tensor:
        """Return outputs [N, 10] for images [N, 1, 16, 16] in -1 ... 1, around which all is background."""
        act = self.activation
        x = act(F.conv2d(F.pad(x, (2, 2, 2, 2), -1.0), self.w1, stride=2) + self.b1)  # [N, 12, 8, 8]
        x = F.pad(x, (2, 2, 2, 2), 0.0 if self.modern else -1.0)
        seen = x[:, 0:8], x[:, 4:12], F.concatenate([x[:, 0:4], x[:, 8:12]], axis=1)
        maps = [F.conv2d(part, self.w2[4 * i : 4 * i + 4], stride=2) for i, part in enumerate(seen)]
        x = self.dropout(act(F.concatenate(maps, axis=1) + self.b2))  # [N, 12, 4, 4]
        x = act(F.linear(x.flatten(1), self.w3, self.b3))
        x = F.linear(x, self.w4, self.b4)
        return x if self.modern else x.tanh()


def digits(images: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return chosen images resized to [N, 1, 16, 16] in -1 ... 1, and their labels."""
    x = images[rows][:, None] / np.float32(127.5) - np.float32(1)
    return F.interpolate(x, 16, mode="bilinear").numpy(), labels[rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 passes instead of 23, or 80 with --modern")
    parser.add_argument("--modern", action="store_true", help="cross-entropy, AdamW, ReLU, dropout, shifted digits")
    parser.add_argument("--seed", type=int, default=0, help="of digits, initial weights and dropout (%(default)s)")
    parser.add_argument("--data-dir", help="folder of MNIST; by default it is looked for, then downloaded")
    args = parser.parse_args()
    pynn.seed(args.seed)
    rng = np.random.default_rng(args.seed)
    start = time.perf_counter()

    data = load_mnist(args.data_dir)
    note = " (SYNTHETIC DIGITS, not MNIST)" if data.is_synthetic else ""
    x, labels = digits(*data.train, rng.permutation(len(data.train_images))[:7291])
    test_x, test_labels = digits(*data.test, rng.permutation(len(data.test_images))[:2007])
    targets = labels if args.modern else 2 * np.eye(10, dtype=np.float32)[labels] - 1  # classes, or [N, 10] of -1 and 1
    model = Network(args.modern)
    print(f"data: {data.name}{note}; model: {sum(p.size for p in model.parameters()):,} parameters (LeCun 9,760)")
    optimizer = (optim.AdamW if args.modern else optim.SGD)(model.parameters(), lr=3e-4 if args.modern else 0.03)

    @pynn.capture
    def step(x: pynn.Tensor, target: pynn.Tensor) -> None:
        loss = F.cross_entropy(model(x), target) if args.modern else F.mse_loss(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    passes = 2 if args.quick else 80 if args.modern else 23
    for i in range(passes):
        model.train()
        if args.modern:
            optimizer.param_groups[0]["lr"] = 3e-4 * (1 - 2 / 3 * i / (passes - 1))
        for j in range(len(x)):  # one digit after the other
            digit = np.roll(x[j : j + 1], rng.integers(-1, 2, 2), (2, 3)) if args.modern else x[j : j + 1]
            step(digit, targets[j : j + 1])
        model.eval()
        with pynn.no_grad():
            error = 100 * np.mean(model(test_x).numpy().argmax(axis=1) != test_labels)
        if (i + 1) % max(1, passes // 8) == 0:
            print(f"pass {i + 1:2}  test error {error:.2f} %{note}", flush=True)
    print(f"test error {error:.2f} %{note}   Karpathy {PUBLISHED[args.modern]} %")
    print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
