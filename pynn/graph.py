"""Pictures of the tape: every value of an expression, with its gradient and the operations between them.

>>> import pynn
>>> a, b = pynn.tensor(2.0, requires_grad=True), pynn.tensor(-3.0, requires_grad=True)
>>> with pynn.graph.Graph() as graph:
...     y = a * b + 1
>>> y.backward()
>>> print(graph.dot(a=a, b=b, y=y))
digraph {
  rankdir=LR
  t0 [shape=record, label="a | data 2 | grad -3"]
  t1 [shape=record, label="b | data -3 | grad 2"]
  t2 [shape=record, label="data -6 | grad 1"]
  o2 [label="mul"]
  t0 -> o2
  t1 -> o2
  o2 -> t2
  t3 [shape=record, label="data 1"]
  t4 [shape=record, label="y | data -5 | grad 1"]
  o4 [label="add"]
  t2 -> o4
  t3 -> o4
  o4 -> t4
}
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pynn._dot import field, label
from pynn._files import atomic_file
from pynn.grad_mode import mode, observers
from pynn.tensor import Tensor

__all__ = ["Graph"]


class Graph:
    """What is computed within `with Graph() as graph:`, kept so that it can be drawn, before or after `backward`.

    Every result keeps its gradient, too, and none is freed before the graph is: this is for small expressions.
    """

    def __init__(self) -> None:
        self._results: list[tuple[str, Tensor, Sequence[Tensor]]] = []
        self._outer: list[Any] = []  # of each `with` of this graph, which may be nested, the graph around it

    def __enter__(self) -> Self:
        self._outer.append(mode.watcher)
        mode.watcher = self
        observers.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        mode.watcher = self._outer.pop()
        observers.remove(self)

    def saw(self, name: str, result: Tensor, parents: Sequence[Tensor]) -> None:
        """Keep a result that the tape has just recorded."""
        result.retain_grad()
        self._results.append((name, result, tuple(parents)))

    def dot(self, **names: Tensor) -> str:
        """Return the graph in the DOT language: a box for each value, an ellipse for each operation.

        Boxes show a number, or the shape of a larger tensor; `names` are written into them.
        """
        numbers: dict[int, int] = {}
        lines = ["digraph {", "  rankdir=LR"]

        def box(tensor: Tensor) -> int:
            if id(tensor) not in numbers:
                numbers[id(tensor)] = len(numbers)
                fields = [*(field(name) for name, t in names.items() if t is tensor), *_facts(tensor)]
                lines.append(f'  t{numbers[id(tensor)]} [shape=record, label="{" | ".join(fields)}"]')
            return numbers[id(tensor)]

        for name, result, parents in self._results:
            sources = [box(parent) for parent in parents]
            target = box(result)
            lines.append(f'  o{target} [label="{label(name)}"]')
            lines += [f"  t{source} -> o{target}" for source in sources]
            lines.append(f"  o{target} -> t{target}")
        return "\n".join([*lines, "}"])

    def svg(self, **names: Tensor) -> str:
        """Return the picture as SVG, drawn by Graphviz's program `dot`.

        Raises
        ------
        RuntimeError
            If the program is missing or fails.
        """
        program = shutil.which("dot")
        if program is None:
            raise RuntimeError(
                "graph: SVG needs Graphviz's program dot, such as from `apt install graphviz`; save as .dot"
            )
        try:
            text = self.dot(**names)
            done = subprocess.run([program, "-Tsvg"], input=text, capture_output=True, text=True, check=True)
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"graph: dot failed: {error.stderr.strip()}") from error
        return done.stdout

    def save(self, path: str | os.PathLike[str], **names: Tensor) -> None:
        """Write the picture to a file: `svg` for the ending ".svg", the text of `dot` for ".dot" and ".gv".

        Raises
        ------
        ValueError
            For another ending.
        RuntimeError
            As `svg`.
        """
        suffix = Path(path).suffix
        if suffix not in (".svg", ".dot", ".gv"):
            raise ValueError(f"graph: {os.fspath(path)} ends in {suffix!r}, needs .svg, .dot or .gv")
        text = self.svg(**names) if suffix == ".svg" else self.dot(**names) + "\n"
        with atomic_file(path) as file:
            file.write(text.encode())

    def _repr_svg_(self) -> str | None:
        """Show the picture in a notebook."""
        return self.svg() if shutil.which("dot") else None


def _facts(tensor: Tensor) -> list[str]:
    """Value and gradient of a number; of others the shape."""
    if tensor.size != 1:
        return [f"{list(tensor.shape)}"]
    facts = [f"data {tensor.data.item():.4g}"]
    return facts if tensor.grad is None else [*facts, f"grad {tensor.grad.item():.4g}"]
