"""GPT-2 in its published format: loads `model.safetensors`, continues a text, token by token.

https://github.com/jaymody/picoGPT; checkpoints are at https://huggingface.co/openai-community/gpt2
"""

import argparse
import time
from pathlib import Path

import numpy as np

import pynn
from pynn import functional as F
from pynn import nn, serialize

PUBLISHED = 1e-4  # how far the logits of two programs with the same weights may lie apart


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: pynn.Tensor, cache: nn.KeyValueCache | None) -> pynn.Tensor:
        x = x + self.attn(self.ln_1(x), is_causal=True, cache=cache)[0]
        return x + self.c_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class GPT2(nn.Module):
    """Tokens [N, L] to logits [N, L, vocabulary]; the vocabulary's matrix also is the last layer."""

    def __init__(self, vocabulary: int, length: int, width: int, layers: int, heads: int) -> None:
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.h = nn.ModuleList([Block(width, heads) for _ in range(layers)])
        self.ln_f = nn.LayerNorm(width)

    def forward(self, tokens: pynn.Tensor, caches: list[nn.KeyValueCache] | None = None) -> pynn.Tensor:
        start = caches[0].length if caches else 0
        x = self.wte(tokens) + self.wpe.weight[start : start + tokens.shape[1]]
        for i, block in enumerate(self.h):
            x = block(x, caches[i] if caches else None)
        return F.linear(self.ln_f(x), self.wte.weight)

    def generate(self, prompt: list[int], count: int, temperature: float, top_k: int | None) -> list[int]:
        """Return `count` more tokens; each step computes one token, and reads the others' keys and values."""
        caches = [nn.KeyValueCache(len(prompt) + count) for _ in self.h]
        tokens = np.array([prompt])
        with pynn.no_grad():
            for _ in range(count):
                logits = self(tokens[:, caches[0].length :], caches)[:, -1]
                tokens = np.append(tokens, pynn.categorical(logits, temperature, top_k).numpy()[None], axis=1)
        return tokens[0, len(prompt) :].tolist()

    def cache_error(self, tokens: np.ndarray) -> float:
        """Return the largest difference of logits with the cache, token by token, from those of all tokens at once."""
        caches = [nn.KeyValueCache(tokens.shape[1]) for _ in self.h]
        with pynn.no_grad():
            steps = [self(tokens[:, i : i + 1], caches).numpy() for i in range(tokens.shape[1])]
            return np.abs(self(tokens).numpy() - np.concatenate(steps, axis=1)).max()


def load(path: Path, heads: int | None = None) -> GPT2:
    """Return the model of a published checkpoint; its heads have 64 features unless their number is given."""
    state = {}
    for name, array in serialize.load(path)[0].items():
        name = name.removeprefix("transformer.")
        if name.endswith((".attn.bias", ".masked_bias")) or name == "lm_head.weight":
            continue  # the causal mask, and a second name of wte.weight
        if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
            array = array.T  # "Conv1D" keeps [in, out]
        for theirs, ours in (("c_attn.", "in_proj_"), ("attn.c_proj", "attn.out_proj"), ("mlp.", "")):
            name = name.replace(theirs, ours)
        state[name] = array
    (vocabulary, width), layers = state["wte.weight"].shape, sum(name.endswith("ln_1.bias") for name in state)
    model = GPT2(vocabulary, len(state["wpe.weight"]), width, layers, heads or width // 64)
    model.load_state_dict(state)
    return model


def load_tokenizer(folder: Path):
    """Return GPT-2's byte-pair encoding from the `vocab.json` and `merges.txt` beside a checkpoint."""
    try:
        from tokenizers import ByteLevelBPETokenizer
    except ImportError as error:
        raise ImportError("20_gpt2: text needs the tokenizers package: pip install 'pynn-cpu[gpt2]'") from error
    return ByteLevelBPETokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8 tokens")
    parser.add_argument("--seed", type=int, default=0, help="of the random model and of the sample (%(default)s)")
    parser.add_argument("--checkpoint", type=Path, help="model.safetensors; without one, a small random model")
    parser.add_argument("--prompt", default="Alan Turing theorized that computers would one day become")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (%(default)s)")
    parser.add_argument("--top-k", type=int)
    args = parser.parse_args()
    pynn.seed(args.seed)
    start = time.perf_counter()
    model = load(args.checkpoint) if args.checkpoint else GPT2(vocabulary=256, length=128, width=64, layers=2, heads=4)
    print(f"model: {sum(p.size for p in model.parameters()):,} parameters")
    tokenizer = load_tokenizer(args.checkpoint.parent) if args.checkpoint else None
    prompt = tokenizer.encode(args.prompt).ids if tokenizer else list(args.prompt.encode())
    count, most = 8 if args.quick else 40, len(model.wpe.weight)
    if not 1 <= len(prompt) <= most - count:
        parser.error(f"--prompt: {len(prompt)} tokens, needs 1 to {most - count} so that {count} more have a position")
    written = model.generate(prompt, count, args.temperature, args.top_k)
    print(args.prompt + tokenizer.decode(written) if tokenizer else f"a random model's tokens: {written}")
    error = model.cache_error(np.array([prompt + written]))
    print(f"logits with the cache: largest difference {error:.1e}   at most {PUBLISHED:.0e}")
    print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
