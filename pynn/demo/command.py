"""What ``pynn demo`` does."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path

from pynn.demo.recognizer import Recognizer
from pynn.demo.server import DemoServer, check_port
from pynn.models import Classifier, newest_weights, weights_file

__all__ = ["find_weights", "run"]

RUNS = Path("runs")


def run(weights: str | os.PathLike[str] | None, port: int, browser: bool = True) -> bool:
    """Serve the page until Ctrl-C; without `weights` that of the newest run, which is trained first if there is none.

    Returns
    -------
    bool
        Whether Ctrl-C ended that training, and nothing was served.

    Raises
    ------
    FileNotFoundError, ValueError
        If the weights are not there, or are not those of a model of `pynn train`.
    OSError
        If the port is in use, or not allowed; before anything is trained.
    """
    path = find_weights(weights)
    if path is None:
        from pynn.train.mnist import Settings, train_mnist

        check_port(port)
        print(f"no weights in {RUNS}{os.sep}, so train a model first: pynn train mnist", flush=True)
        if train_mnist(Settings.of()):
            return True
        path = find_weights(None)
        assert path is not None
    from pynn.train.mnist import SYNTHETIC_PREFIX

    classifier = Classifier.load(path)
    prefix = SYNTHETIC_PREFIX if classifier.is_synthetic else ""
    with DemoServer(Recognizer(classifier), port) as server:
        print(f"{prefix}{classifier.name} trained on {classifier.dataset}, {path}")
        print(f"{prefix}draw a digit at {server.url} (Ctrl-C ends it)", flush=True)
        try:
            if browser and _has_screen():
                webbrowser.open(server.url)
            server.serve_forever()
        except KeyboardInterrupt:
            print()  # what follows does not stand behind ^C
    return False


def find_weights(weights: str | os.PathLike[str] | None) -> Path | None:
    """Return the file of weights: `weights`, the newest in that folder, or in ``runs/*``; None if there is no run.

    Raises
    ------
    FileNotFoundError
        If the folder has no weights.
    """
    return newest_weights(RUNS, "*/weights.*") if weights is None else weights_file("demo", weights)


def _has_screen() -> bool:
    """Whether a browser would have a window: one for the terminal would take it from this command."""
    return not sys.platform.startswith("linux") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())
