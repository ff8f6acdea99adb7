"""Byte-pair encoding: the pairs that are frequent become tokens, as in minbpe and GPT-2.

https://github.com/karpathy/minbpe
"""

import argparse
import time
from collections import Counter
from itertools import pairwise

from pynn.data import load_shakespeare

PUBLISHED = [258, 100, 258, 97, 99]  # of "aaabdaaabac" after 3 merges


def merge(tokens: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """Return `tokens` with each occurrence of `pair`, from the left, replaced by `new`."""
    merged, i = [], 0
    while i < len(tokens):
        if i + 1 < len(tokens) and (tokens[i], tokens[i + 1]) == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(tokens[i])
            i += 1
    return merged


class Tokenizer:
    """Numbers of bytes, and from 256 on of pairs of earlier tokens."""

    def __init__(self) -> None:
        self.merges: dict[tuple[int, int], int] = {}
        self.bytes = {i: bytes([i]) for i in range(256)}

    def train(self, text: str, num_merges: int) -> list[int]:
        """Learn `num_merges` pairs, each time the most frequent one (the first seen of equals); return the tokens."""
        tokens = list(text.encode())
        for new in range(256, 256 + num_merges):
            counts = Counter(pairwise(tokens))
            if not counts:
                break
            pair = max(counts, key=counts.__getitem__)
            tokens = merge(tokens, pair, new)
            self.merges[pair] = new
            self.bytes[new] = self.bytes[pair[0]] + self.bytes[pair[1]]
        return tokens

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text: pairs are merged in the order in which they were learnt."""
        tokens = list(text.encode())
        while known := set(pairwise(tokens)) & self.merges.keys():
            pair = min(known, key=self.merges.__getitem__)
            tokens = merge(tokens, pair, self.merges[pair])
        return tokens

    def decode(self, tokens: list[int]) -> str:
        """Return the text; bytes that are no UTF-8 become the replacement character."""
        return b"".join(self.bytes[token] for token in tokens).decode(errors="replace")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the first 20,000 characters only")
    parser.add_argument("--seed", type=int, default=0, help="nothing here is random")
    parser.add_argument("--merges", type=int, default=100, help="pairs to learn from the text (%(default)s)")
    parser.add_argument(
        "--data-dir", help="folder of tinyshakespeare.txt; by default it is looked for, then downloaded"
    )
    args = parser.parse_args()
    if args.merges < 1:
        parser.error(f"--merges {args.merges}: needs at least 1")
    start = time.perf_counter()

    print(f"aaabdaaabac, 3 merges: {Tokenizer().train('aaabdaaabac', 3)}   minbpe {PUBLISHED}")

    text = load_shakespeare(args.data_dir)[: 20_000 if args.quick else 200_000]
    tokenizer = Tokenizer()
    tokens = tokenizer.train(text, args.merges)
    print(f"{len(text):,} characters become {len(tokens):,} tokens: {len(text) / len(tokens):.2f} characters each")
    print("the longest:", sorted(tokenizer.bytes.values(), key=len)[-8:])

    unseen = "To be, or not to be: that is the question \N{EM DASH} Prinzessin Größe."
    encoded = tokenizer.encode(unseen)
    assert tokenizer.decode(encoded) == unseen
    assert tokenizer.encode(text) == tokens
    print("|".join(tokenizer.decode([token]) for token in encoded))
    print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
