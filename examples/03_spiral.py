"""A spiral of three arms: a linear classifier fails, one hidden layer succeeds. The case study of Stanford's cs231n.

https://cs231n.github.io/neural-networks-case-study/
"""

import argparse
import time

import numpy as np

import pynn
from pynn import functional as F
from pynn import nn, optim
from pynn.data import make_spiral

PUBLISHED = {"linear": 49.0, "two layers": 98.0}  # % of the 300 points


def train(model: nn.Sequential, points: np.ndarray, arms: np.ndarray, steps: int) -> float:
    """Run full-batch gradient descent; return the accuracy in %."""
    weights = [p for p in model.parameters() if p.ndim == 2]
    biases = [p for p in model.parameters() if p.ndim == 1]
    for p in weights:
        nn.init.normal_(p, std=0.01)
    for p in biases:
        nn.init.zeros_(p)
    # The penalty 0.5 · 1e-3 · Σw² on the weights has the gradient 1e-3 · w, which is what weight_decay adds.
    optimizer = optim.SGD([{"params": weights, "weight_decay": 1e-3}, {"params": biases}], lr=1.0)

    @pynn.capture
    def step(x: np.ndarray, y: np.ndarray) -> pynn.Tensor:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    for i in range(1, steps + 1):
        loss = step(points, arms)
        if i % (steps // 2) == 0:
            print(f"step {i:5}  loss {loss.item():.4f}")
    with pynn.no_grad():
        return 100 * np.mean(model(points).numpy().argmax(axis=1) == arms)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3,000 steps of the network instead of 10,000")
    parser.add_argument("--seed", type=int, default=0, help="of points and initial weights (%(default)s)")
    args = parser.parse_args()
    pynn.seed(args.seed)
    start = time.perf_counter()

    points, arms = make_spiral()
    linear = nn.Sequential(nn.Linear(2, 3))
    network = nn.Sequential(nn.Linear(2, 100), nn.ReLU(), nn.Linear(100, 3))
    accuracy = {
        "linear": train(linear, points, arms, 200),
        "two layers": train(network, points, arms, 3000 if args.quick else 10000),
    }
    for name, value in accuracy.items():
        print(f"{name}: accuracy {value:.0f} %   cs231n {PUBLISHED[name]:.0f} %")
    print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
