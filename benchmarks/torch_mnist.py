"""The recipe of `pynn train mnist --model lenet` in PyTorch, as one would write it to be quick.

time_to_accuracy.py runs it. The images are normalised once and stay in memory as one tensor; a batch is an index into
it.
"""

# ruff: noqa: E402 (the clock starts before the imports)
import time

start = time.perf_counter()

import argparse
import gzip
import json
from pathlib import Path

import numpy as np
import torch
from networks import lenet
from torch import nn

imported = time.perf_counter()

TEST_BATCH = 250


def read_idx(folder: Path, name: str, header: int) -> np.ndarray:
    packed = folder / f"{name}.gz"
    data = gzip.decompress(packed.read_bytes()) if packed.exists() else (folder / name).read_bytes()
    return np.frombuffer(data, np.uint8, offset=header)


def load(folder: Path, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = torch.tensor(read_idx(folder, f"{part}-images-idx3-ubyte", 16).reshape(-1, 1, 28, 28))
    labels = torch.tensor(read_idx(folder, f"{part}-labels-idx1-ubyte", 8))
    return pixels.to(torch.float32).div_(255).sub_(0.1307).div_(0.3081), labels.to(torch.int64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of the IDX files")
    for name in ("epochs", "batch-size", "seed", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("lr", "label-smoothing"):
        parser.add_argument(f"--{name}", type=float, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    images, labels = load(args.folder, "train")
    test_images, test_labels = load(args.folder, "t10k")
    model = lenet(nn)
    loss_function = nn.CrossEntropyLoss(label_smoothing=args.label_smoothing)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    steps = args.epochs * -(-len(images) // args.batch_size)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=steps)
    for _ in range(args.epochs):
        for rows in torch.randperm(len(images)).split(args.batch_size):
            optimizer.zero_grad()
            loss = loss_function(model(images[rows]), labels[rows])
            loss.backward()
            optimizer.step()
            scheduler.step()
    model.eval()
    with torch.inference_mode():
        guesses = torch.cat([model(batch).argmax(1) for batch in test_images.split(TEST_BATCH)])
    accuracy = (guesses == test_labels).to(torch.float64).mean().item()
    print(json.dumps({"accuracy": accuracy, "import_s": imported - start}), flush=True)


if __name__ == "__main__":
    main()
