"""What the tests of `pynn demo` share: a model, and a server for it."""

import threading
from contextlib import contextmanager

import pynn
from pynn.demo import DemoServer
from pynn.models import Classifier, build


def classifier(name="lenet", **changes):
    pynn.seed(3)
    return Classifier(**{"name": name, "model": build(name), "mean": 0.13, "std": 0.3, "dataset": "mnist"} | changes)


@contextmanager
def serving(recognizer):
    """Yield a server that answers in a thread of its own."""
    with DemoServer(recognizer, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
