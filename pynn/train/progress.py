"""The progress line of an epoch: on a terminal only, through tqdm where it is installed."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Any, TextIO

REDRAW_S = 0.1


class Progress:
    """A line on standard error that is redrawn at most every `REDRAW_S` seconds, or nothing if that is no terminal.

    `batches` is the length of the epoch if known; `batches_after` that of the epochs still to come, for the time left;
    `elapsed` the seconds that the epoch has taken before, in the process that it is resumed from.
    """

    def __init__(
        self,
        label: str,
        batches: int | None,
        batches_after: int = 0,
        *,
        elapsed: float = 0.0,
        enabled: bool = True,
    ) -> None:
        stream = sys.stderr
        self._line: _Line | None = None
        if enabled and stream is not None and stream.isatty():
            self._line = _open_line(stream, batches)
        self._label = label
        self._batches = batches
        self._batches_after = batches_after
        now = time.perf_counter()
        self._start = now - elapsed
        self._next = now + REDRAW_S

    def update(self, batch: int, images: int, loss: float, accuracy: float | None) -> None:
        """Show the figures of the epoch after `batch` batches and `images` images."""
        if self._line is None:
            return
        now = time.perf_counter()
        if now < self._next:
            return
        self._next = now + REDRAW_S
        elapsed = now - self._start
        text = f"{self._label}  {format_figures(loss, accuracy)}  {images / elapsed:,.0f} images/s"
        if self._batches is not None:
            left = elapsed / batch * (max(self._batches - batch, 0) + self._batches_after)
            text += f"  {format_seconds(left)} left"
        self._line.draw(batch, text)

    def close(self) -> None:
        """Remove the line; what stays on the screen is up to the caller."""
        if self._line is not None:
            self._line.close()
            self._line = None


def format_figures(loss: float, accuracy: float | None, prefix: str = "") -> str:
    """Return the figures as text, such as ``loss 0.1234  accuracy 96.31 %``."""
    text = f"{prefix}loss {loss:.4f}"
    return text if accuracy is None else f"{text}  {prefix}accuracy {100 * accuracy:.2f} %"


def format_seconds(seconds: float) -> str:
    """Return a duration as minutes:seconds or hours:minutes:seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


class _Line:
    """Plain text after a carriage return, cut to the width of the terminal."""

    def __init__(self, stream: TextIO, batches: int | None) -> None:
        self._stream = stream
        self._batches = batches
        self._width = 0

    def draw(self, batch: int, text: str) -> None:
        if self._batches:
            text = f"{100 * batch // self._batches:3d} % {text}"
        room = shutil.get_terminal_size().columns - 1  # a full line would wrap, and each redraw then scroll
        self._stream.write("\r" + text.ljust(self._width)[:room])
        self._stream.flush()
        self._width = min(len(text), room)

    def close(self) -> None:
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()


class _TqdmLine(_Line):
    def __init__(self, stream: TextIO, batches: int | None, tqdm: Any) -> None:
        bar_format = "{percentage:3.0f}%|{bar:20}| {desc}" if batches else "{desc}"
        self._bar = tqdm(total=batches, file=stream, leave=False, bar_format=bar_format, dynamic_ncols=True)

    def draw(self, batch: int, text: str) -> None:
        self._bar.n = batch
        self._bar.set_description_str(text)  # redraws

    def close(self) -> None:
        self._bar.close()


def _open_line(stream: TextIO, batches: int | None) -> _Line:
    try:
        from tqdm import tqdm  # type: ignore[import-untyped]
    except ImportError:
        return _Line(stream, batches)
    return _TqdmLine(stream, batches, tqdm)
