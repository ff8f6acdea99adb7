"""Shakespeare letter by letter: a recurrent network that carries its state from one piece of the text to the next.

Karpathy's char-rnn: https://karpathy.github.io/2015/05/21/rnn-effectiveness/
"""

import argparse
import time
from typing import Any

import numpy as np

import pynn
from pynn import functional as F
from pynn import nn, optim
from pynn.data import Vocabulary, load_shakespeare

PUBLISHED = (2.16, 1.86, 1.70)  # mean negative log-likelihood of a letter of the validation text after 1, 2, 3 epochs
STEPS, BATCH, HIDDEN = 50, 50, 128


class CharRNN(nn.Module):
    """Letters [T, N] to the logits of those that follow, [T · N, vocabulary], and the state after them."""

    def __init__(self, kind: str, vocabulary: int) -> None:
        self.recurrent = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[kind](vocabulary, HIDDEN, num_layers=2)
        # One letter chooses one column, so that a column may be as large as the sum of many columns is elsewhere.
        nn.init.normal_(self.recurrent.weight_ih_l0, std=0.5)
        self.head = nn.Linear(HIDDEN, vocabulary)

    def forward(self, letters: pynn.Tensor, state: Any = None) -> tuple[pynn.Tensor, Any]:
        """Return logits and state; the letters stand for one-hot vectors."""
        y, state = self.recurrent(letters, state)
        return self.head(y.reshape(-1, HIDDEN)), state


def pieces(letters: np.ndarray, batch: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cut a text into `batch` columns, and these into pieces [STEPS, batch] with the letters that follow each."""
    rows = (len(letters) - 1) // (batch * STEPS) * STEPS
    x, y = (np.ascontiguousarray(a[: rows * batch].reshape(batch, rows).T) for a in (letters, letters[1:]))
    return [(x[t : t + STEPS], y[t : t + STEPS].reshape(-1)) for t in range(0, rows, STEPS)]


def sample(model: CharRNN, vocabulary: Vocabulary, n: int, temperature: float) -> str:
    """Return `n` letters, each drawn after all before it."""
    letters, state = [*vocabulary.encode("\n")], None
    for _ in range(n):
        logits, state = model(np.array([letters[-1:]]), state)
        letters.append(int(pynn.categorical(logits[0], temperature)))
    return vocabulary.decode(letters)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100 steps instead of three epochs")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights and letters (%(default)s)")
    parser.add_argument("--model", choices=("lstm", "gru", "rnn"), default="lstm", help="(%(default)s)")
    parser.add_argument("--temperature", type=float, default=0.7, help="of the sample (%(default)s)")
    parser.add_argument("--data-dir", help="folder of tinyshakespeare.txt; by default looked for, then downloaded")
    args = parser.parse_args()
    if not 0 <= args.temperature < float("inf"):
        parser.error(f"--temperature {args.temperature}: needs at least 0")
    pynn.seed(args.seed)
    start = time.perf_counter()
    vocabulary = Vocabulary(text := load_shakespeare(args.data_dir))
    letters = vocabulary.encode(text)
    train, val = (pieces(part, BATCH) for part in np.split(letters, [int(0.9 * len(letters))]))
    model = CharRNN(args.model, len(vocabulary))
    optimizer = optim.RMSprop(model.parameters(), lr=2e-3, alpha=0.95)
    parameters = sum(p.size for p in model.parameters())
    print(f"data: {len(letters):,} letters of {len(vocabulary)} kinds; model: {parameters:,} parameters", flush=True)

    @pynn.capture
    def step(x: np.ndarray, y: np.ndarray, state: Any) -> tuple[pynn.Tensor, Any]:
        logits, state = model(x, state)
        loss = F.cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()
        optim.clip_grad_norm_(model.parameters(), 5)
        optimizer.step()
        return loss, state  # without its history: the gradient ends where a piece begins

    for epoch, published in enumerate(PUBLISHED[:1] if args.quick else PUBLISHED):
        state, losses, val_losses = None, [], []
        for x, y in train[:100] if args.quick else train:
            loss, state = step(x, y, state)
            losses.append(loss.item())
        with pynn.no_grad():
            state = None
            for x, y in val:
                logits, state = model(x, state)
                val_losses.append(F.cross_entropy(logits, y).item())
        print(f"epoch {epoch + 1}  train loss {np.mean(losses):.4f}", end="  ")
        print(f"val loss {np.mean(val_losses):.4f}   char-rnn {published}", flush=True)
    print(sample(model, vocabulary, 300, args.temperature))
    print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
