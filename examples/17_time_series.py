"""A forecast: an LSTM reads the last 32 values of a series and says the next one.

Two guesses must be beaten: that nothing changes, and the linear formula of these values with the least squares.
"""

import argparse
import time

import numpy as np

import pynn
from pynn import functional as F
from pynn import nn, optim
from pynn.data import DataLoader

WINDOW, HIDDEN = 32, 32


def make_series(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return a swing whose height follows a slower one, bent, with noise; its clock drifts, so no period is exact."""
    t = np.arange(n) + np.cumsum(rng.normal(0, 0.1, n))
    swing = np.sin(2 * np.pi * t / 12) * (1 + 0.8 * np.sin(2 * np.pi * t / 75))
    return (np.tanh(2 * swing) + rng.normal(0, 0.02, n)).astype(np.float32)


def windows(series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all windows [N, WINDOW, 1], and the value behind each [N, 1]."""
    table = np.lib.stride_tricks.sliding_window_view(series, WINDOW + 1)
    return np.ascontiguousarray(table[:, :-1, None]), np.ascontiguousarray(table[:, -1:])


class Forecast(nn.Module):
    """Windows [N, T, 1] to the next value [N, 1]."""

    def __init__(self) -> None:
        self.lstm = nn.LSTM(1, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, 1)

    def forward(self, x: pynn.Tensor) -> pynn.Tensor:
        """Return what the state after the window says."""
        _, (h, _) = self.lstm(x)
        return self.head(h[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 epochs instead of 30")
    parser.add_argument("--seed", type=int, default=0, help="of the series, initial weights and batches (%(default)s)")
    args = parser.parse_args()
    pynn.seed(args.seed)
    start = time.perf_counter()

    series = make_series(6000, np.random.default_rng(args.seed))
    (x, y), (test_x, test_y) = windows(series[:5000]), windows(series[5000:])
    model = Forecast()
    print(f"data: {len(x):,} / {len(test_x):,} windows; model: {sum(p.size for p in model.parameters()):,} parameters")

    epochs = 5 if args.quick else 30
    loader = DataLoader(x, y, batch_size=64, shuffle=True, drop_last=True)
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    schedule = optim.CosineAnnealingLR(optimizer, epochs * len(loader))

    @pynn.capture
    def step(x: np.ndarray, y: np.ndarray) -> pynn.Tensor:
        loss = F.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optim.clip_grad_norm_(model.parameters(), 1)
        optimizer.step()
        return loss

    for epoch in range(epochs):
        losses = []
        for batch in loader:
            losses.append(step(*batch).item())
            schedule.step()
        if epoch % 5 == 4:
            print(f"epoch {epoch + 1:2}  loss {np.mean(losses):.5f}", flush=True)

    def error(guess: np.ndarray) -> float:
        return float(np.sqrt(np.mean((guess - test_y) ** 2)))

    formula = np.linalg.lstsq(np.c_[x[:, :, 0], np.ones(len(x))], y, rcond=None)[0]
    with pynn.no_grad():
        network = model(test_x).numpy()
    print(f"last value: error {error(test_x[:, -1]):.4f}")
    print(f"linear: error {error(np.c_[test_x[:, :, 0], np.ones(len(test_x))] @ formula):.4f}")
    print(f"LSTM: error {error(network):.4f}")
    print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
