"""`MLPClassifier` and `MLPRegressor`: the estimators of `sklearn.neural_network` on pynn."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from scipy.sparse import issparse
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels
from sklearn.utils.validation import check_is_fitted

from pynn import functional as F
from pynn.sklearn._base import accuracy, r_squared
from pynn.sklearn._mlp_base import ATTRIBUTES, MLP, PARAMETERS
from pynn.sklearn._network import Array, Loss, binary_log_loss, half_squared_error, log_loss
from pynn.tensor import Tensor


class MLPClassifier(ClassifierMixin, MLP):  # type: ignore[misc]
    __doc__ = f"""A multi-layer perceptron for classes or labels: scikit-learn's, with its parameters and attributes.

    Softmax and cross-entropy for several classes, the logistic function and binary cross-entropy for two, and for
    multilabel targets. With the same `random_state`, scikit-learn draws the same weights and batches, and ends at the
    same network but for rounding, Adam's epsilon, which it adds to another term, momentum when the learning rate
    changes, which is PyTorch's here, and early stopping, which is stratified for several classes too.

    Parameters
    ----------{PARAMETERS}
    Attributes
    ----------
    classes_ : ndarray{ATTRIBUTES}
    Examples
    --------
    >>> import numpy as np
    >>> from pynn.sklearn import MLPClassifier
    >>> X = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    >>> y = np.where(X[:, 0] * X[:, 1] > 0, "same", "different")
    >>> model = MLPClassifier((16,), learning_rate_init=0.02, max_iter=500, random_state=0).fit(X, y)
    >>> model.predict([[1, 1], [1, -1]]).tolist(), model.score(X, y) > 0.95
    (['same', 'different'], True)
    """

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Train for one epoch; all `classes` must be given the first time.

        Parameters and errors are those of `fit`; ``early_stopping`` raises ValueError.
        """
        with self._all_or_nothing():
            if not hasattr(self, "_label_binarizer"):
                if classes is None:
                    raise ValueError("partial_fit: classes must be given in the first call")
                self._check_parameters()
                binarizer = LabelBinarizer().fit(
                    y if type_of_target(y).startswith("multilabel") else unique_labels(classes)
                )
                self._label_binarizer, self.classes_ = binarizer, binarizer.classes_
            elif classes is not None and not np.array_equal(self.classes_, unique_labels(classes)):
                raise ValueError(f"partial_fit: classes are {classes!r}, and were {self.classes_!r} in the first call")
            self._fit(X, y, sample_weight, incremental=True)
        return self

    def predict(self, X: Any) -> Array:
        """Return the classes ``[N]``, or 0 and 1 for each label ``[N, labels]``."""
        check_is_fitted(self, "module_")
        scores = self._outputs(X, F.sigmoid if self.out_activation_ == "logistic" else lambda z: z)
        labels: Array = self._label_binarizer.inverse_transform(scores.ravel() if self.n_outputs_ == 1 else scores)
        return labels

    def predict_proba(self, X: Any) -> Array:
        """Return the probabilities ``[N, classes]``, in the order of `classes_`."""
        check_is_fitted(self, "module_")
        p = self._outputs(X, F.sigmoid if self.out_activation_ == "logistic" else F.softmax)
        return np.hstack([1 - p, p]) if self.n_outputs_ == 1 else p

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithms of the probabilities, which are finite where those of `predict_proba` are 0."""
        check_is_fitted(self, "module_")
        if self.out_activation_ == "softmax":
            return self._outputs(X, F.log_softmax)
        z = self._outputs(X)
        log_p = _log_sigmoid(z)
        return np.hstack([_log_sigmoid(-z), log_p]) if self.n_outputs_ == 1 else log_p

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _score_of(self, outputs: Array, y: Array, weights: Array | None) -> float:
        return accuracy(outputs, y, weights)

    def _encode(self, y: Any, dtype: Any, incremental: bool) -> tuple[Loss, Array]:
        if incremental and y.ndim == 1 and y.dtype.kind == self.classes_.dtype.kind == "i":
            # Each check below looks for the distinct labels, 8 ms for 60,000, which are known already.
            first, most = self.classes_[0], len(self.classes_) - 1
            are_consecutive = int(self.classes_[-1]) - int(first) == most
            codes = (y - first).astype(np.int64) if are_consecutive else np.searchsorted(self.classes_, y)
            known = self.classes_[np.clip(codes, 0, most)] == y
            if self._label_binarizer.y_type_ == "multiclass" and known.all():
                self.out_activation_ = "softmax"
                return log_loss, codes
        check_classification_targets(y)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if not hasattr(self, "_label_binarizer") or not (self.warm_start or incremental):
            binarizer = LabelBinarizer().fit(y)
        else:
            binarizer = self._label_binarizer
            unknown = np.setdiff1d(unique_labels(y), self.classes_)
            missing = () if incremental else np.setdiff1d(self.classes_, unique_labels(y))
            if len(unknown) or len(missing):
                needs = "partial_fit needs known classes" if incremental else "fit: warm_start needs the same classes"
                raise ValueError(f"{needs}: y has {unique_labels(y)}, `self.classes_` are {self.classes_}")
            now, before = type_of_target(y), binarizer.y_type_
            if now.startswith("multilabel") != before.startswith("multilabel"):
                name = "partial_fit" if incremental else "fit: warm_start"
                raise ValueError(f"{name}: y is {now}, and was {before} before")
        self._label_binarizer, self.classes_ = binarizer, binarizer.classes_
        if binarizer.y_type_ == "multiclass":
            self.out_activation_ = "softmax"
            return log_loss, np.searchsorted(self.classes_, y)
        self.out_activation_ = "logistic"
        targets = binarizer.transform(y)
        return binary_log_loss, np.asarray(targets.toarray() if issparse(targets) else targets, dtype, order="C")

    def _count_outputs(self, targets: Array) -> int:
        return len(self.classes_) if targets.ndim == 1 else int(targets.shape[1])


def _log_sigmoid(z: Array) -> Array:
    result: Array = -F.softplus(Tensor(-z)).data
    return result


class MLPRegressor(RegressorMixin, MLP):  # type: ignore[misc]
    __doc__ = f"""A multi-layer perceptron for numbers: scikit-learn's, with its parameters and attributes.

    Minimises half of the squared error, summed over the outputs. With the same `random_state`, scikit-learn draws the
    same weights and batches (see `MLPClassifier`); of several outputs it reports the mean loss, and compares `tol` with
    that.

    Parameters
    ----------{PARAMETERS}
    Attributes
    ----------{ATTRIBUTES}
    Examples
    --------
    >>> import numpy as np
    >>> from pynn.sklearn import MLPRegressor
    >>> X = np.linspace(-1, 1, 100).reshape(-1, 1)
    >>> model = MLPRegressor((32,), learning_rate_init=0.02, max_iter=300, random_state=0).fit(X, X.ravel() ** 2)
    >>> model.score(X, X.ravel() ** 2) > 0.95
    True
    """

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one epoch. Parameters and errors are those of `fit`; ``early_stopping`` raises ValueError."""
        with self._all_or_nothing():
            self._fit(X, y, sample_weight, incremental=True)
        return self

    def predict(self, X: Any) -> Array:
        """Return the predictions ``[N]`` or ``[N, outputs]``."""
        check_is_fitted(self, "module_")
        values = self._outputs(X)
        return values.ravel() if self.n_outputs_ == 1 else values

    def _score_of(self, outputs: Array, y: Array, weights: Array | None) -> float:
        return r_squared(outputs, y, weights)

    def _encode(self, y: Any, dtype: Any, incremental: bool) -> tuple[Loss, Array]:
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        targets = np.asarray(y, dtype, order="C").reshape(len(y), -1)
        if hasattr(self, "module_") and (self.warm_start or incremental) and targets.shape[1] != self.n_outputs_:
            raise ValueError(f"fit: y has {targets.shape[1]} outputs, the network has {self.n_outputs_}")
        self.out_activation_ = "identity"
        return half_squared_error, targets
