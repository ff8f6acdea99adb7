"""Every gradient of makemore's network by hand, operation by operation, and then beside those of the tape.

Karpathy's makemore, part 4: https://github.com/karpathy/nn-zero-to-hero
"""

import argparse
import time

import numpy as np

import pynn
from pynn import functional as F
from pynn.data import Vocabulary, load_names

PUBLISHED = 1e-8  # the largest difference between a gradient by hand and one of the tape, in float64
CONTEXT, N = 3, 32


def forward(x: np.ndarray, y: np.ndarray, p: dict[str, pynn.Tensor]) -> dict[str, pynn.Tensor]:
    """Return every intermediate value; the last is the loss."""
    v = {"embedded": F.embedding(x, p["C"]).reshape(N, -1)}  # [N, 30]
    v["sums"] = v["embedded"] @ p["W1"] + p["b1"]  # [N, 64]
    v["mean"] = v["sums"].sum(0, keepdims=True) / N
    v["diff"] = v["sums"] - v["mean"]
    v["squares"] = v["diff"] ** 2
    v["var"] = v["squares"].sum(0, keepdims=True) / (N - 1)
    v["inv_std"] = (v["var"] + 1e-5) ** -0.5
    v["normal"] = v["diff"] * v["inv_std"]
    v["scaled"] = p["gain"] * v["normal"] + p["shift"]
    v["hidden"] = v["scaled"].tanh()
    v["logits"] = v["hidden"] @ p["W2"] + p["b2"]  # [N, 27]
    v["counts"] = v["logits"].exp()
    v["total"] = v["counts"].sum(1, keepdims=True)
    v["probs"] = v["counts"] / v["total"]
    v["log_probs"] = v["probs"].log()
    v["loss"] = -v["log_probs"][np.arange(N), y].mean()
    return v


def backward(x: np.ndarray, y: np.ndarray, p: dict[str, np.ndarray], v: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the gradient of the loss with respect to every value and parameter, in the reverse order of `forward`."""
    d = {"loss": np.ones(()), "log_probs": np.zeros((N, 27))}
    d["log_probs"][np.arange(N), y] = -1 / N
    d["probs"] = d["log_probs"] / v["probs"]
    d["total"] = -(d["probs"] * v["counts"] / v["total"] ** 2).sum(1, keepdims=True)
    d["counts"] = d["probs"] / v["total"] + d["total"]  # the counts are used twice
    d["logits"] = d["counts"] * v["counts"]
    d["hidden"] = d["logits"] @ p["W2"].T
    d["W2"] = v["hidden"].T @ d["logits"]
    d["b2"] = d["logits"].sum(0)
    d["scaled"] = d["hidden"] * (1 - v["hidden"] ** 2)
    d["gain"] = (d["scaled"] * v["normal"]).sum(0)
    d["shift"] = d["scaled"].sum(0)
    d["normal"] = d["scaled"] * p["gain"]
    d["inv_std"] = (d["normal"] * v["diff"]).sum(0, keepdims=True)
    d["var"] = -0.5 * (v["var"] + 1e-5) ** -1.5 * d["inv_std"]
    d["squares"] = np.broadcast_to(d["var"] / (N - 1), (N, 64))
    d["diff"] = d["normal"] * v["inv_std"] + 2 * v["diff"] * d["squares"]
    d["mean"] = -d["diff"].sum(0, keepdims=True)
    d["sums"] = d["diff"] + d["mean"] / N
    d["embedded"] = d["sums"] @ p["W1"].T
    d["W1"] = v["embedded"].T @ d["sums"]
    d["b1"] = d["sums"].sum(0)
    d["C"] = np.zeros_like(p["C"])
    np.add.at(d["C"], x, d["embedded"].reshape(N, CONTEXT, -1))  # a letter may occur more than once
    return d


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="no effect: the example is quick")
    parser.add_argument("--seed", type=int, default=0, help="of the parameters (%(default)s)")
    parser.add_argument("--data-dir", help="folder of names.txt; by default it is looked for, then downloaded")
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    start = time.perf_counter()
    text = "." + ".".join(load_names(args.data_dir))
    table = np.lib.stride_tricks.sliding_window_view(Vocabulary(text).encode(text), CONTEXT + 1)[:N]
    x, y = table[:, :-1], table[:, -1]
    shapes = {"C": (27, 10), "W1": (30, 64), "b1": (64,), "gain": (64,), "shift": (64,), "W2": (64, 27), "b2": (27,)}
    params = {name: pynn.tensor(0.3 * rng.normal(size=s), requires_grad=True) for name, s in shapes.items()}
    print(f"model: {sum(p.size for p in params.values()):,} parameters (makemore 4,137)")

    values = forward(x, y, params)
    for value in values.values():
        value.retain_grad()
    values["loss"].backward()
    ours = backward(x, y, *({name: t.numpy() for name, t in part.items()} for part in (params, values)))
    tape = {name: t.grad for name, t in {**values, **params}.items()}
    worst = {name: np.abs(ours[name] - grad).max() for name, grad in tape.items()}
    print("\n".join(f"{name:9}  {list(tape[name].shape)!s:10}  difference {worst[name]:.1e}" for name in worst))
    short = (values["probs"].numpy() - np.eye(27)[y]) / N  # of softmax and cross-entropy together, much simpler
    print(f"shortcut   {list(short.shape)!s:10}  difference {np.abs(short - tape['logits']).max():.1e}")
    print(f"largest difference {max(worst.values()):.1e}   makemore {PUBLISHED:.0e}")
    print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
