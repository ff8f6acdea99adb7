"""Two networks against each other (Goodfellow et al. 2014, arXiv:1406.2661): one draws digits, one doubts them.

https://github.com/lyeoni/pytorch-mnist-GAN, with Adam's β₁ of 0.5 (Radford et al. 2015, arXiv:1511.06434).
"""

import argparse
import time
from itertools import pairwise

import numpy as np

import pynn
from pynn import functional as F
from pynn import nn, optim, viz
from pynn.data import DataLoader, load_mnist

NOISE = 128  # random numbers that a digit is made from


def build_models() -> tuple[nn.Sequential, nn.Sequential]:
    """Return the generator 128-256-512-1024-784, and the discriminator, which runs the same widths backwards."""
    widths = (NOISE, 256, 512, 1024, 784)
    generator: list[nn.Module] = []
    for inputs, outputs in pairwise(widths[:-1]):
        generator += [nn.Linear(inputs, outputs), nn.LeakyReLU(0.2)]
    discriminator: list[nn.Module] = []
    for inputs, outputs in pairwise(widths[:0:-1]):
        discriminator += [nn.Linear(inputs, outputs), nn.LeakyReLU(0.2), nn.Dropout(0.3)]
    return (
        nn.Sequential(*generator, nn.Linear(1024, 784), nn.Tanh()),
        nn.Sequential(*discriminator, nn.Linear(256, 1)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="60 steps instead of 30 epochs")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights, batches and noise (%(default)s)")
    parser.add_argument("--data-dir", help="folder of MNIST; by default it is looked for, then downloaded")
    parser.add_argument("--picture", help="write 64 drawn digits to this PNG (needs matplotlib)")
    args = parser.parse_args()
    pynn.seed(args.seed)
    rng = np.random.default_rng(args.seed)
    start = time.perf_counter()

    data = load_mnist(args.data_dir)
    note = " (SYNTHETIC DIGITS, not MNIST)" if data.is_synthetic else ""
    images = data.train_images.reshape(-1, 784) / np.float32(127.5) - np.float32(1)  # -1 to 1, as tanh gives
    loader = DataLoader(images[: 60 * 128] if args.quick else images, batch_size=128, shuffle=True, drop_last=True)
    generator, discriminator = build_models()
    sizes = [sum(p.size for p in model.parameters()) for model in (generator, discriminator)]
    print(f"data: {data.name}{note}; generator {sizes[0]:,} parameters, discriminator {sizes[1]:,}", flush=True)

    draws = optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    doubts = optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    true, false = np.ones((128, 1), np.float32), np.zeros((128, 1), np.float32)

    @pynn.capture
    def step(x: np.ndarray, noise: np.ndarray) -> tuple[pynn.Tensor, pynn.Tensor]:
        drawn = generator(noise)
        told = F.binary_cross_entropy_with_logits(discriminator(x), true)
        told += F.binary_cross_entropy_with_logits(discriminator(drawn.detach()), false)
        doubts.zero_grad()
        told.backward()
        doubts.step()
        fooled = F.binary_cross_entropy_with_logits(discriminator(drawn), true)  # the generator wants to be believed
        draws.zero_grad()
        fooled.backward()
        draws.step()
        return told, fooled

    shown = np.random.default_rng(args.seed).standard_normal((64, NOISE), dtype=np.float32)

    def draw() -> np.ndarray:
        with pynn.no_grad():
            digits = generator(shown).numpy()
        if args.picture:
            viz.image_grid(digits.reshape(64, 28, 28), limits=(-1, 1)).savefig(args.picture)
        return digits

    draw()  # of the untrained generator: that a picture cannot be written is better known now than after the training
    for epoch in range(1, (1 if args.quick else 30) + 1):
        losses = np.zeros(2)
        for (x,) in loader:
            told, fooled = step(x, rng.standard_normal((128, NOISE), dtype=np.float32))
            losses += told.item(), fooled.item()
        discriminator_loss, generator_loss = losses / len(loader)
        print(
            f"epoch {epoch:2}  discriminator loss {discriminator_loss:.3f}  generator loss {generator_loss:.3f}{note}",
            flush=True,
        )

    digits = draw()
    print(f"ink {np.mean(digits + 1) / 2:.3f}   MNIST {np.mean(images + 1) / 2:.3f}{note}")
    print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
