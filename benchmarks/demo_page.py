"""The page of `pynn demo` in headless Chromium: how to open it, draw on it, and learn how long its answers took."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Of playwright's `chromium.launch`. The sandbox needs privileges that containers lack; the only page it opens is ours.
LAUNCH = {"executable_path": CHROMIUM, "args": ["--no-sandbox"]}

# To be evaluated on the page, which then has the ms from stroke to answer in `latencies`.
WATCH = """() => {
  window.latencies = [];
  const latency = document.querySelector("#latency");
  new MutationObserver(() => {
    const found = /([0-9.]+) ms/.exec(latency.textContent);
    if (found) latencies.push(Number(found[1]));
  }).observe(latency, { childList: true });
}"""

# Strokes of digits, in shares of the paper.
STROKES = {
    1: [[(0.5, 0.15), (0.5, 0.85)]],
    3: [[(0.3, 0.2), (0.5, 0.13), (0.68, 0.22), (0.66, 0.4), (0.45, 0.48), (0.68, 0.56), (0.7, 0.76), (0.5, 0.87),
         (0.28, 0.78)]],
    4: [[(0.4, 0.15), (0.3, 0.55), (0.72, 0.55)], [(0.62, 0.3), (0.62, 0.9)]],
    7: [[(0.25, 0.2), (0.75, 0.2), (0.45, 0.85)]],
}  # fmt: skip


def positions(page: Any, stroke: Sequence[tuple[float, float]], steps: int = 8) -> Iterator[tuple[float, float]]:
    """Yield where a hand is while it draws a stroke, in pixels of the window."""
    box = page.locator("#pad").bounding_box()
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
    yield points[0]
    for (x0, y0), (x1, y1) in pairwise(points):
        yield from ((x0 + (x1 - x0) * i / steps, y0 + (y1 - y0) * i / steps) for i in range(1, steps + 1))
