"""Settings of MLPs that scikit-learn and pynn both train, and how far two of them are apart."""

import numpy as np

SGD = {"solver": "sgd", "learning_rate_init": 0.1}
SETTINGS = {
    "sgd": SGD,
    "momentum": {**SGD, "nesterovs_momentum": False, "batch_size": 33, "activation": "tanh"},
    "plain": {**SGD, "momentum": 0, "activation": "logistic", "shuffle": False},
    "invscaling": {**SGD, "learning_rate": "invscaling", "momentum": 0, "activation": "identity"},
    "penalty": {**SGD, "alpha": 0.5},
    "adam": {"solver": "adam"},
}


def difference(ours, theirs):
    pairs = zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True)
    return max(np.abs(a - b).max() for a, b in pairs)
