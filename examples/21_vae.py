"""A variational auto-encoder (Kingma and Welling 2013, arXiv:1312.6114): 20 numbers for a digit, and digits from them.

https://github.com/pytorch/examples/tree/main/vae
"""

import argparse
import time

import numpy as np

import pynn
from pynn import functional as F
from pynn import nn, optim, viz
from pynn.data import DataLoader, load_mnist

PUBLISHED = 105.2  # loss of a test digit, in nats, after 10 epochs; measured with the original


class VAE(nn.Module):
    """784-400-20 and back: the encoder gives mean and log-variance of a normal distribution, the decoder logits."""

    def __init__(self) -> None:
        self.encoder = nn.Sequential(nn.Linear(784, 400), nn.ReLU())
        self.mean, self.log_var = nn.Linear(400, 20), nn.Linear(400, 20)
        self.decoder = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784))

    def forward(self, x: pynn.Tensor, noise: np.ndarray) -> tuple[pynn.Tensor, pynn.Tensor, pynn.Tensor]:
        """Return logits [N, 784], mean and log-variance [N, 20]; `noise` [N, 20] is standard normal."""
        hidden = self.encoder(x)
        mean, log_var = self.mean(hidden), self.log_var(hidden)
        return self.decoder(mean + (0.5 * log_var).exp() * noise), mean, log_var


def loss_of(model: VAE, x: np.ndarray, noise: np.ndarray) -> pynn.Tensor:
    """Return the sum over the batch of reconstruction error and divergence from the standard normal distribution."""
    logits, mean, log_var = model(x, noise)
    error = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    return error - 0.5 * (1 + log_var - mean * mean - log_var.exp()).sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one epoch of 20,000 digits instead of 10 of 60,000")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights, batches and noise (%(default)s)")
    parser.add_argument("--data-dir", help="folder of MNIST; by default it is looked for, then downloaded")
    parser.add_argument("--picture", help="write digits decoded from random numbers to this PNG (needs matplotlib)")
    args = parser.parse_args()
    pynn.seed(args.seed)
    rng = np.random.default_rng(args.seed)
    start = time.perf_counter()

    data = load_mnist(args.data_dir)
    note = " (SYNTHETIC DIGITS, not MNIST)" if data.is_synthetic else ""
    images, test = (x.reshape(-1, 784) / np.float32(255) for x in (data.train_images, data.test_images))
    loader = DataLoader(images[:20_000] if args.quick else images, batch_size=128, shuffle=True)
    model = VAE()
    print(f"data: {data.name}{note}; model: {sum(p.size for p in model.parameters()):,} parameters", flush=True)

    optimizer = optim.Adam(model.parameters(), lr=1e-3)

    @pynn.capture
    def step(x: np.ndarray, noise: np.ndarray) -> pynn.Tensor:
        loss = loss_of(model, x, noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    def noise_for(x: np.ndarray) -> np.ndarray:
        return rng.standard_normal((len(x), 20), dtype=np.float32)

    shown = np.random.default_rng(args.seed).standard_normal((64, 20), dtype=np.float32)

    def draw() -> None:
        if args.picture:
            with pynn.no_grad():
                digits = model.decoder(shown).sigmoid()
            viz.image_grid(digits.reshape(64, 28, 28), limits=(0, 1)).savefig(args.picture)

    draw()  # of the untrained model: that a picture cannot be written is better known now than after the training
    for epoch in range(1, (1 if args.quick else 10) + 1):
        total = sum(step(x, noise_for(x)).item() for (x,) in loader)
        with pynn.no_grad():
            tested = loss_of(model, test, noise_for(test)).item() / len(test)
        print(f"epoch {epoch:2}  train loss {total / loader.num_samples:.2f}  test {tested:.2f}{note}", flush=True)

    draw()
    print(f"test loss {tested:.1f}{note}   PyTorch {PUBLISHED}")
    print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
