"""Tell two moons apart: the demo of Karpathy's micrograd, a network of 337 parameters trained with the hinge loss.

https://github.com/karpathy/micrograd/blob/master/demo.ipynb
"""

import argparse
import time

import numpy as np

import pynn
from pynn import functional as F
from pynn import nn, optim
from pynn.data import make_moons

PUBLISHED = 100.0  # % of the 100 points


def build_model() -> nn.Sequential:
    """Return the network 2-16-16-1 with micrograd's initial values: weights from U(-1, 1), no biases."""
    model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
    for name, parameter in model.named_parameters():
        if name.endswith("weight"):
            nn.init.uniform_(parameter, -1, 1)
        else:
            nn.init.zeros_(parameter)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="60 steps instead of 100")
    parser.add_argument("--seed", type=int, default=1337, help="of points and initial weights (%(default)s)")
    args = parser.parse_args()
    pynn.seed(args.seed)
    start = time.perf_counter()

    points, moons = make_moons(100, noise=0.1)
    labels = (2 * moons[:, None] - 1).astype(np.float32)  # [100, 1], -1 and 1
    model = build_model()
    print(f"model: 2-16-16-1, {sum(p.size for p in model.parameters())} parameters (micrograd 337)")

    optimizer = optim.SGD(model.parameters(), lr=1.0)
    steps = 60 if args.quick else 100
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1.0 - 0.9 * step / 100
        scores = model(points)  # [100, 1]
        penalty = sum((p * p).sum() for p in model.parameters())
        loss = F.hinge_loss(scores, labels) + 1e-4 * penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0 or step == steps - 1:
            accuracy = 100 * np.mean((scores.numpy() > 0) == (labels > 0))
            print(f"step {step:3}  loss {loss.item():.4f}  accuracy {accuracy:.0f} %")

    with pynn.no_grad():
        accuracy = 100 * np.mean((model(points).numpy() > 0) == (labels > 0))
    print(f"accuracy {accuracy:.0f} %   micrograd {PUBLISHED:.0f} %")
    print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
