"""A small GPT that learns to write like Shakespeare, letter by letter: nanoGPT's recipe for a CPU.

https://github.com/karpathy/nanoGPT, "i only have a macbook"
"""

import argparse
import time

import numpy as np

import pynn
from pynn import functional as F
from pynn import nn, optim
from pynn.data import Vocabulary, load_shakespeare
from pynn.random import generator

LAYERS, HEADS, WIDTH, BLOCK, BATCH = 4, 4, 128, 64, 12
PUBLISHED = 1.88  # validation loss after all 2000 steps


class GPT(nn.Module):
    """Tokens [N, L] to logits [N, L, vocabulary] of the token that follows each."""

    def __init__(self, vocabulary: int) -> None:
        self.tokens = nn.Embedding(vocabulary, WIDTH)
        self.positions = nn.Embedding(BLOCK, WIDTH)
        options = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True, "bias": False}
        block = nn.TransformerEncoderLayer
        self.blocks = nn.ModuleList([block(WIDTH, HEADS, 4 * WIDTH, **options) for _ in range(LAYERS)])
        self.norm = nn.LayerNorm(WIDTH, bias=False)
        self.head = nn.Linear(WIDTH, vocabulary, bias=False)
        self.head.weight = self.tokens.weight  # one matrix reads and writes tokens
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                residual = name.endswith(("out_proj.weight", "linear2.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * LAYERS) ** 0.5 if residual else 0.02)

    def forward(self, tokens: pynn.Tensor, caches: list[nn.KeyValueCache] | None = None) -> pynn.Tensor:
        start = caches[0].length if caches else 0
        x = self.tokens(tokens) + self.positions.weight[start : start + tokens.shape[1]]
        for i, block in enumerate(self.blocks):
            x = block(x, is_causal=True, cache=caches[i] if caches else None)
        return self.head(self.norm(x))


def batch(text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return random pieces of the text [BATCH, BLOCK], and the tokens that follow [BATCH * BLOCK]."""
    starts = generator().integers(len(text) - BLOCK, size=BATCH)[:, None] + np.arange(BLOCK)
    return text[starts], text[starts + 1].reshape(-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100 steps")
    parser.add_argument("--seed", type=int, default=0, help="of weights, batches and the sample (%(default)s)")
    parser.add_argument("--data-dir", help="folder of tinyshakespeare.txt; else it is looked for, then downloaded")
    args = parser.parse_args()
    pynn.seed(args.seed)
    start = time.perf_counter()
    vocabulary = Vocabulary(text := load_shakespeare(args.data_dir))
    train, val = np.split(vocabulary.encode(text), [int(0.9 * len(text))])
    model = GPT(len(vocabulary))
    print(f"data: {len(text):,} characters; model: {sum(p.size for p in model.parameters()):,} parameters")

    steps = 100 if args.quick else 2000
    matrices, vectors = ([p for p in model.parameters() if (p.ndim == 2) == two] for two in (True, False))
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))
    schedule = optim.CosineWarmupLR(optimizer, steps, steps // 20, min_lr=1e-4)

    @pynn.capture
    def step(x: pynn.Tensor, y: pynn.Tensor) -> pynn.Tensor:
        loss = F.cross_entropy(model(x).reshape(-1, len(vocabulary)), y)
        optimizer.zero_grad()
        loss.backward()
        optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    for i in range(1, steps + 1):
        step(*batch(train))
        schedule.step()
        if i % 250 == 0 or i == steps:
            with pynn.no_grad():
                parts = [batch(val) for _ in range(20 if args.quick else 100)]
                loss = np.mean([F.cross_entropy(model(x).reshape(-1, len(vocabulary)), y).item() for x, y in parts])
            print(f"step {i:4}  validation loss {loss:.3f}   nanoGPT {PUBLISHED}", flush=True)

    with pynn.no_grad():
        caches, written = [nn.KeyValueCache(BLOCK) for _ in range(LAYERS)], vocabulary.encode("\n")[None]
        for _ in range(BLOCK):
            logits = model(written[:, -1:], caches)[:, -1]
            written = np.concatenate([written, pynn.categorical(logits, temperature=0.8).numpy()[None]], axis=1)
    print(vocabulary.decode(written[0]))
    print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
