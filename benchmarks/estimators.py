"""`compare.py --mode sklearn`: `pynn.sklearn.MLPClassifier` beside scikit-learn's, to the same accuracy on MNIST."""

from __future__ import annotations

import functools
import time
from typing import Any

import numpy as np
from timing import SETTLE_S, summarize
from workloads import Classifier

from pynn.data import load_mnist

MOST_EPOCHS = 20


@functools.cache
def data() -> tuple[Any, ...]:
    """Return images [N, 784] in 0 … 1, float32, and labels: of the training and the test set."""
    mnist = load_mnist()
    print(f"{mnist.name}, {len(mnist.train_images):,} and {len(mnist.test_images):,} images")
    images = [part.reshape(len(part), -1) / np.float32(255) for part in (mnist.train_images, mnist.test_images)]
    return images[0], mnist.train_labels, images[1], mnist.test_labels


def train(kind: Any, case: Classifier, seed: int, most_epochs: int) -> dict[str, float]:
    """Train epoch by epoch up to the accuracy; return seconds of training, epochs and the accuracy on the test set."""
    x, y, x_test, y_test = data()
    model = kind(case.hidden, batch_size=case.batch, random_state=np.random.RandomState(seed))
    classes, seconds, accuracy, epochs = np.arange(10), 0.0, 0.0, 0
    while accuracy < case.accuracy and epochs < most_epochs:
        time.sleep(SETTLE_S)
        start = time.perf_counter()
        model.partial_fit(x, y, classes=classes)
        seconds += time.perf_counter() - start
        epochs += 1
        accuracy = model.score(x_test, y_test)
    return {"seconds": seconds, "epochs": epochs, "accuracy": accuracy}


def measure(case: Classifier, others: list[str], repeats: int, seed: int, most_epochs: int) -> dict[str, Any]:
    """Train with both in turn, on other weights and in another order each time; return the case's figures."""
    from pynn.sklearn import MLPClassifier

    kinds = {"pynn": MLPClassifier}
    if "sklearn" in others:
        from sklearn.neural_network import MLPClassifier as Theirs

        kinds["sklearn"] = Theirs
    train(MLPClassifier, case, seed, 1)  # wakes threads, not counted
    runs = {name: [] for name in kinds}
    for repeat in range(repeats):
        for name, kind in kinds.items():
            runs[name].append(train(kind, case, seed + repeat, most_epochs))
    blocks = {name: [1e6 * run["seconds"] for run in all_runs] for name, all_runs in runs.items()}
    return {**summarize(blocks), "runs": runs}


def cell(result: dict[str, Any], side: str) -> str:
    """Return a side's mean test accuracy and epochs."""
    accuracies, epochs = ([run[key] for run in result["runs"][side]] for key in ("accuracy", "epochs"))
    return f"{100 * np.mean(accuracies):.2f} in {np.mean(epochs):.1f}"
