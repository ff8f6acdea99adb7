"""Eight classic methods on pynn's operations, each beside its closed form or an optimum that is known.

Bishop, Pattern Recognition and Machine Learning (2006), tells of all; 1-nearest-neighbour on MNIST is in the table of
http://yann.lecun.com/exdb/mnist/ with 3.09 % errors.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np

import pynn
from pynn import functional as F
from pynn import optim
from pynn.data import load_mnist, make_blobs

PUBLISHED = {"nearest neighbour": 3.09}  # % of the test digits


def descend(parameters: Sequence[pynn.Tensor], loss: Callable[[], pynn.Tensor], lr: float, steps: int) -> None:
    """Minimise a loss by gradient descent on all data, with a rate that sinks to 0."""
    optimizer = optim.SGD(parameters, lr=lr, momentum=0.9)

    @pynn.capture
    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    for i in range(steps):
        optimizer.param_groups[0]["lr"] = lr * (1 - i / steps)
        step()


def zeros(*shape: int) -> pynn.Tensor:
    """Return a parameter in float64, so that only the method limits the precision."""
    return pynn.tensor(np.zeros(shape), requires_grad=True)


def linear_regression(rng: np.random.Generator) -> tuple[float, float]:
    """Least squares by gradient descent, and by the normal equations."""
    x = rng.normal(size=(200, 3))
    y = x @ [[1.0], [-2.0], [0.5]] + 3 + rng.normal(0, 0.1, (200, 1))
    w, b = zeros(3, 1), zeros(1)
    descend([w, b], lambda: F.mse_loss(x @ w + b, y), 0.05, 1000)
    solution = np.linalg.lstsq(np.hstack([x, np.ones((200, 1))]), y, rcond=None)[0]
    return w.data[0, 0], solution[0, 0]


def newton(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """Return the weights of logistic regression by Newton's method, which takes a handful of steps."""
    w = np.zeros((x.shape[1], 1))
    for _ in range(20):
        p = 1 / (1 + np.exp(-x @ w))
        slope = x.T @ (p - y) / len(x) + penalty * w
        w -= np.linalg.solve((x * p * (1 - p)).T @ x / len(x) + penalty * np.eye(len(w)), slope)
    return w


def two_blobs(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return overlapping points [200, 2] with labels [200]."""
    points, labels = make_blobs(200, [[-1.0, 0.0], [1.0, 0.5]], rng=rng)
    return points.astype(np.float64), labels


def logistic_regression(rng: np.random.Generator) -> tuple[float, float]:
    """Two classes: gradient descent, and Newton's method."""
    x, labels = two_blobs(rng)
    y = labels[:, None].astype(np.float64)
    w = zeros(2, 1)
    descend([w], lambda: F.binary_cross_entropy_with_logits(x @ w, y) + 0.005 * (w * w).sum(), 0.5, 1000)
    return w.data[0, 0], newton(x, y, 0.01)[0, 0]


def softmax_regression(rng: np.random.Generator) -> tuple[float, float]:
    """The same classes with weights for each: with twice the penalty their difference is that of Newton's method."""
    x, labels = two_blobs(rng)
    w = zeros(2, 2)
    descend([w], lambda: F.cross_entropy(x @ w, labels) + 0.01 * (w * w).sum(), 0.5, 1000)
    return w.data[0, 1] - w.data[0, 0], newton(x, labels[:, None], 0.01)[0, 0]


def support_vectors(rng: np.random.Generator) -> tuple[float, float]:
    """A linear support-vector machine: the widest strip between points that keep |x| >= 1 is 2 wide, 1 / |w| = 1."""
    y = np.where(np.arange(100) % 2, 1.0, -1.0)[:, None]
    x = np.hstack([y * (1 + rng.exponential(1, (100, 1))), rng.uniform(-3, 3, (100, 1))])
    x[:8] = [[side, height] for side in (-1, 1) for height in (-3, -1, 1, 3)]  # the support vectors
    y[:8] = x[:8, :1]
    w, b = zeros(2, 1), zeros(1)
    descend([w, b], lambda: F.hinge_loss(x @ w + b, y) + 0.01 * (w * w).sum(), 0.1, 5000)
    return 1 / np.linalg.norm(w.data), 1.0


def nearest_neighbour(data_dir: str | None, quick: bool) -> tuple[float, float]:
    """Name a digit after the most similar one; |a - b|² = |a|² - 2 a·b + |b|² makes that a product of matrices."""
    data = load_mnist(data_dir)
    train, labels, test = data.train_images, data.train_labels, data.test_images
    if quick:
        train, labels, test = train[:10_000], labels[:10_000], test[::10]
    a = pynn.tensor(train.reshape(-1, 784).astype(np.float32) / 255)
    squares = (a * a).sum(axis=1)
    wrong = 0
    for start in range(0, len(test), 500):
        b = test[start : start + 500].reshape(-1, 784).astype(np.float32) / 255
        nearest = (squares - 2 * F.matmul(b, a, transpose_b=True)).numpy().argmin(axis=1)  # [500]
        wrong += np.count_nonzero(labels[nearest] != data.test_labels[:: 10 if quick else 1][start : start + 500])
    return 100 * wrong / len(test), PUBLISHED["nearest neighbour"]


def k_means(rng: np.random.Generator) -> tuple[float, float]:
    """Lloyd's algorithm: mean squared distance to the nearest centre, and that of the blobs as they were drawn."""
    x, labels = make_blobs(600, [[-6.0, 0.0], [0.0, 6.0], [6.0, 0.0]], rng=rng)
    centres = x[:1]
    for _ in range(2):  # begin with points that are far from each other
        far = ((x[:, None] - centres) ** 2).sum(axis=2).min(axis=1).argmax()
        centres = np.vstack([centres, x[far]])
    for _ in range(10):
        near = F.argmax(-((pynn.tensor(x[:, None]) - centres) ** 2).sum(axis=2), axis=1).numpy()  # [600]
        members = pynn.tensor(np.eye(3, dtype=np.float32)[near])
        centres = (members.T @ x / members.sum(axis=0).reshape(3, 1)).numpy()
    means = np.stack([x[labels == k].mean(axis=0) for k in range(3)])
    return ((x - centres[near]) ** 2).sum(axis=1).mean(), ((x - means[labels]) ** 2).sum(axis=1).mean()


def principal_components(rng: np.random.Generator) -> tuple[float, float]:
    """What two components leave over: a linear auto-encoder (Baldi and Hornik 1989), and the other eigenvalues."""
    x = rng.normal(size=(300, 6)) * [3, 2, 1, 0.5, 0.5, 0.2] @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    x -= x.mean(axis=0)
    w = pynn.tensor(0.1 * rng.normal(size=(6, 2)), requires_grad=True)
    descend([w], lambda: ((x @ w @ w.T - x) ** 2).sum() / 300, 0.005, 1000)
    return float(((x @ w @ w.T - x) ** 2).sum() / 300), np.linalg.eigvalsh(x.T @ x / 300)[:4].sum()


def gaussian_mixture(rng: np.random.Generator) -> tuple[float, float]:
    """Expectation and maximisation by turns: mean log-likelihood of the mixture, and of the one the data come from."""
    share, mean, std = np.array([0.3, 0.7]), np.array([-1.5, 1.0]), np.array([0.5, 1.0])
    which = (rng.random(2000) > 0.3).astype(int)
    x = pynn.tensor(rng.normal(mean[which], std[which])[:, None])  # [2000, 1]

    def log_densities(share: pynn.Tensor, mean: pynn.Tensor, var: pynn.Tensor) -> pynn.Tensor:
        return share.log() - 0.5 * ((x - mean) ** 2 / var + (2 * np.pi * var).log())  # [2000, 2]

    def log_likelihood(*parameters: np.ndarray) -> float:
        return float(log_densities(*map(pynn.tensor, parameters)).exp().sum(axis=1).log().mean())

    shares, means, variances = (pynn.tensor(np.array(v)) for v in ([0.5, 0.5], [-1.0, 0.5], [1.0, 1.0]))
    for _ in range(200):
        membership = F.softmax(log_densities(shares, means, variances), dim=1)  # expectation
        count = membership.sum(axis=0)  # maximisation
        shares, means = count / 2000, (membership * x).sum(axis=0) / count
        variances = (membership * (x - means) ** 2).sum(axis=0) / count
    return log_likelihood(shares.data, means.data, variances.data), log_likelihood(share, mean, std**2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer digits for the nearest neighbour")
    parser.add_argument("--seed", type=int, default=0, help="of the data (%(default)s)")
    parser.add_argument("--data-dir", help="folder of MNIST; by default it is looked for, then downloaded")
    args = parser.parse_args()
    start = time.perf_counter()

    def report(name: str, figures: tuple[float, float], what: str) -> None:
        print(f"{name:22} {figures[0]:9.5f}   {what} {figures[1]:9.5f}", flush=True)

    report("linear regression", linear_regression(np.random.default_rng(args.seed)), "normal equations")
    report("logistic regression", logistic_regression(np.random.default_rng(args.seed)), "Newton's method")
    report("softmax regression", softmax_regression(np.random.default_rng(args.seed)), "Newton's method")
    report("support vectors", support_vectors(np.random.default_rng(args.seed)), "half the widest strip")
    report("nearest neighbour, %", nearest_neighbour(args.data_dir, args.quick), "errors published")
    report("k-means", k_means(np.random.default_rng(args.seed)), "blobs as drawn")
    report("principal components", principal_components(np.random.default_rng(args.seed)), "eigenvalues")
    report("Gaussian mixture", gaussian_mixture(np.random.default_rng(args.seed)), "true parameters")
    print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
