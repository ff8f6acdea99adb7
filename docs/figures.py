"""Figures, drawn by the programs of the pages that show them, and a page for each example."""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
from pathlib import Path
from typing import Any

import pynn

DOCS = Path(__file__).parent
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def draw() -> None:
    """Run the programs of each page that shows figures, in docs/figures, where they leave them."""
    folder = DOCS / "figures"
    folder.mkdir(exist_ok=True)
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text()
        if "](figures/" in text:
            source = "\n".join(_program(block) for block in FENCE.findall(text))
            names: dict[str, Any] = {}
            pynn.seed(0)
            with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
                exec(compile(source, page, "exec"), names)


def _program(block: str) -> str:
    """A block as a program: of a session its input."""
    return doctest.script_from_examples(block) if block.startswith(">>>") else block


def write_example_pages() -> None:
    """Write a page for each program of the learning path: what its docstring says, and the program."""
    folder = DOCS / "examples"
    folder.mkdir(exist_ok=True)
    for program in sorted((DOCS.parent / "examples").glob("*.py")):
        number, _, name = program.stem.partition("_")
        _, docstring, _ = program.read_text().split('"""', 2)
        path = os.path.relpath(program, folder)
        page = f"# {int(number)} {name.replace('_', ' ')}\n\n{docstring.strip()}\n\n"
        page += f"    python examples/{program.name}\n\n```{{literalinclude}} {path}\n:language: python\n```\n"
        target = folder / f"{program.stem}.md"
        if not target.exists() or target.read_text() != page:
            target.write_text(page)
