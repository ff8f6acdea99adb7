"""Gradients of an expression: the one in the README of Karpathy's micrograd, whose values everybody can check.

https://github.com/karpathy/micrograd
"""

import argparse
import time

import pynn
from pynn.graph import Graph

PUBLISHED = {"g": 24.7041, "dg/da": 138.8338, "dg/db": 645.5773}


def expression(a: pynn.Tensor, b: pynn.Tensor) -> pynn.Tensor:
    """Return g(a, b): a graph in which most values are used several times."""
    c = a + b
    d = a * b + b**3
    c += c + 1
    c += 1 + c + (-a)
    d += d * 2 + (b + a).relu()
    d += 3 * d + (b - a).relu()
    e = c - d
    f = e**2
    g = f / 2.0
    g += 10.0 / f
    return g


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="no effect: the example is quick")
    parser.add_argument("--seed", type=int, default=0, help="no effect: nothing is random here")
    parser.add_argument("--picture", metavar="PATH", help="draw the graph: .svg (needs Graphviz) or .dot")
    args = parser.parse_args()
    start = time.perf_counter()

    a = pynn.tensor(-4.0, requires_grad=True, dtype="float64")
    b = pynn.tensor(2.0, requires_grad=True, dtype="float64")
    with Graph() as graph:  # keeps the values in between, for the picture
        g = expression(a, b)
    g.backward()

    ours = {"g": g.item(), "dg/da": a.grad.item(), "dg/db": b.grad.item()}
    for name, value in ours.items():
        print(f"{name:5}  {value:8.4f}   micrograd {PUBLISHED[name]:8.4f}")
    print(f"{time.perf_counter() - start:.1f} s")
    if args.picture:
        graph.save(args.picture, a=a, b=b, g=g)
        print(f"picture: {args.picture}")


if __name__ == "__main__":
    main()
