"""Networks as scikit-learn's estimators, for its pipelines and searches; needs the package scikit-learn.

`MLPClassifier` and `MLPRegressor` have the parameters of `sklearn.neural_network`, `NeuralNetClassifier` trains any
module.
"""

try:
    import sklearn  # noqa: F401
except ImportError as error:
    raise ImportError(
        "pynn.sklearn: needs the package scikit-learn: pip install 'pynn-cpu[sklearn]'", name=error.name
    ) from error

from pynn.sklearn._mlp import MLPClassifier, MLPRegressor
from pynn.sklearn._neural_net import NeuralNetClassifier

__all__ = ["MLPClassifier", "MLPRegressor", "NeuralNetClassifier"]
