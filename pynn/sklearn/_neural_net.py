"""`NeuralNetClassifier`: any module as a classifier of scikit-learn."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from pynn import functional as F
from pynn import nn, optim
from pynn.random import fork_rng
from pynn.sklearn._base import COMMON, Check, NetworkEstimator, accuracy, count, positive, validated
from pynn.sklearn._network import Array, Network, outputs
from pynn.tensor import Tensor

PREFIXES = ("module", "criterion", "optimizer")


class NeuralNetClassifier(ClassifierMixin, NetworkEstimator):  # type: ignore[misc]
    """A classifier that trains a module, with skorch's names of parameters.

    Parameters
    ----------
    module : Module class or callable that returns a Module
        Called with the parameters ``module__…``; besides, if it has parameters `n_features` and `n_classes` that are
        not given, with what the data have. Maps ``[N, ...]`` to logits ``[N, classes]``. A Module is copied.
    criterion : class or function, default nn.CrossEntropyLoss
        The loss of logits and classes, with parameters ``criterion__…``. Sample weights need one that takes
        ``reduction="none"``.
    optimizer : class, default optim.Adam
        With parameters ``optimizer__…``.
    lr : float, default 1e-3
        The optimiser's.
    max_epochs : int, default 10
        How many epochs `fit` trains, unless early stopping ends it.
    batch_size : int, default 128
    shuffle : bool, default True
    random_state : int, RandomState or None
        Decides weights, dropout, order and validation samples; `pynn.seed` has no effect.
    warm_start : bool, default False
        `fit` goes on with the module that is there, and a new optimiser.
    early_stopping : bool, default False
        Keep `validation_fraction` of the samples, stratified, to stop when the accuracy has not improved by `tol` for
        more epochs than `n_iter_no_change`, and end with the weights of the best epoch.
    validation_fraction, n_iter_no_change, tol : default 0.1, 10, 1e-4
    dtype : dtype, optional
        What X is converted to. None keeps float32 and converts all else to float64; the module computes in the same.
        Integers (``dtype="int64"``) are for a module that begins with an Embedding.
    verbose : bool, default False
    **parameters
        ``module__…``, ``criterion__…``, ``optimizer__…``; also for `set_params` and searches.

    Attributes
    ----------
    module_ : Module
        The trained module.
    classes_ : ndarray
    loss_curve_, validation_scores_ : list of float
        For each epoch; the scores are None without early stopping.
    n_iter_, n_features_in_ : int
    feature_names_in_ : ndarray
        If X had names.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn
    >>> from pynn.sklearn import NeuralNetClassifier
    >>> def network(n_features, n_classes, width=16):
    ...     return nn.Sequential(nn.Linear(n_features, width), nn.ReLU(), nn.Linear(width, n_classes))
    >>> X = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    >>> y = np.where(X[:, 0] > X[:, 1], "right", "left")
    >>> model = NeuralNetClassifier(network, lr=0.01, max_epochs=20, module__width=32, random_state=0).fit(X, y)
    >>> model.predict([[3.0, -3.0]]).tolist(), model.score(X, y) > 0.95
    (['right'], True)
    """

    classes_: Array
    _checks: ClassVar[dict[str, Check]] = {
        **COMMON,
        "module": (callable, "a Module, or a class or function that makes one"),
        "criterion": (callable, "a class or function, such as nn.CrossEntropyLoss"),
        "optimizer": (callable, "a class or function, such as optim.Adam"),
        "lr": positive,
        "max_epochs": count,
        "batch_size": count,
    }

    def __init__(
        self,
        module: Callable[..., nn.Module] | nn.Module,
        *,
        criterion: Callable[..., Any] = nn.CrossEntropyLoss,
        optimizer: Callable[..., optim.Optimizer] = optim.Adam,
        lr: float = 1e-3,
        max_epochs: int = 10,
        batch_size: int = 128,
        shuffle: bool = True,
        random_state: Any = None,
        warm_start: bool = False,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        dtype: Any = None,
        verbose: bool = False,
        **parameters: Any,
    ) -> None:
        self.module = module
        self.criterion = criterion
        self.optimizer = optimizer
        self.lr = lr
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.random_state = random_state
        self.warm_start = warm_start
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.dtype = dtype
        self.verbose = verbose
        self.__dict__.update(parameters)

    # -- parameters ----------------------------------------------------------------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return all parameters, also those of module, criterion and optimiser."""
        given = {k: v for k, v in vars(self).items() if k[0] != "_" and (_is_nested(k) or k[-1] != "_")}
        return {**super().get_params(deep=False), **given}

    def set_params(self, **params: Any) -> Self:
        """Set parameters, also those of module, criterion and optimiser; ValueError for an unknown one."""
        super().set_params(**{name: value for name, value in params.items() if not _is_nested(name)})
        self.__dict__.update({name: value for name, value in params.items() if _is_nested(name)})
        return self

    def _check_parameters(self) -> None:
        super()._check_parameters()
        # A subclass may pass on **parameters, which scikit-learn does not list.
        known = {*super().get_params(deep=False), *NeuralNetClassifier._get_param_names()}
        for name in self.get_params():
            if name not in known and not _is_nested(name):
                raise TypeError(
                    f"NeuralNetClassifier: unknown parameter {name!r}; those of module, criterion and optimizer begin "
                    "with module__, criterion__ and optimizer__"
                )

    def _parameters_of(self, prefix: str) -> dict[str, Any]:
        start = f"{prefix}__"
        return {name.removeprefix(start): value for name, value in vars(self).items() if name.startswith(start)}

    # -- training ------------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for `max_epochs` epochs.

        Parameters
        ----------
        X : array ``[N, ...]``
        y : array ``[N]``
            Classes of any kind: numbers, texts.
        sample_weight : array ``[N]``, optional
            Not negative; a batch counts by its weighted mean.

        Raises
        ------
        ValueError
            For data, parameters or a module that do not fit, and when the loss is NaN or infinite. The estimator is
            then as it was before.
        TypeError
            If `module` does not give a Module.
        """
        self._check_parameters()
        with self._all_or_nothing():
            return self._fit(X, y, sample_weight, None, incremental=False)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Train for one epoch; all `classes` must be given the first time. Early stopping raises ValueError."""
        self._check_parameters()
        if self.early_stopping:
            raise ValueError("partial_fit: does not support early_stopping=True")
        first = not hasattr(self, "module_")
        if first and classes is None:
            raise ValueError("partial_fit: classes must be given in the first call")
        if not first and classes is not None and not np.array_equal(self.classes_, np.unique(classes)):
            raise ValueError(f"partial_fit: classes are {classes!r}, and were {self.classes_!r} in the first call")
        with self._all_or_nothing():
            return self._fit(X, y, sample_weight, np.unique(classes) if first else self.classes_, incremental=True)

    def _fit(self, X: Any, y: Any, sample_weight: Any, classes: Array | None, incremental: bool) -> Self:
        first = not hasattr(self, "module_") or not (self.warm_start or incremental)
        X, y = validated(self, X, y, dtype=self._dtypes(first), order="C", allow_nd=True, reset=first)
        check_classification_targets(y)
        y = column_or_1d(y, warn=True)
        if classes is None:
            classes = np.unique(y)
        if len(classes) < 2:
            raise ValueError(f"NeuralNetClassifier: y has one class, {classes[0]!r}, needs at least two")
        unknown = np.setdiff1d(y, classes)
        if len(unknown):
            raise ValueError(f"partial_fit: y has classes {unknown}, the classes of the first call are {classes}")
        if not first and not np.array_equal(classes, self.classes_):
            raise ValueError(f"fit: warm_start needs the same classes: got {classes}, had {self.classes_}")
        floating = X.dtype if X.dtype.kind == "f" else np.dtype(np.float32)
        weights = self._check_weights(sample_weight, X, floating)
        rng = check_random_state(self.random_state)
        with fork_rng(int(rng.randint(2**32, dtype=np.uint64))):
            if first:
                module = self._make_module(X, len(classes)).astype(floating)
                _check_outputs(module, X, len(classes))
                self.module_ = module
                self.classes_ = classes
                self._start_history()
            if first or not incremental:
                optimizer = self.optimizer(self.module_.parameters(), lr=self.lr, **self._parameters_of("optimizer"))
                dtype = next(self.module_.parameters()).dtype
                criterion = _Criterion(self.criterion, self._parameters_of("criterion"), dtype)
                self._network = Network(self.module_, criterion, optimizer)
            epochs = 1 if incremental else self.max_epochs
            self._train(X, np.searchsorted(classes, y), weights, rng, epochs, stratify=True, tolerant=True)
        return self

    def _make_module(self, X: Array, n_classes: int) -> nn.Module:
        given = self._parameters_of("module")
        if isinstance(self.module, nn.Module):
            if given:
                raise TypeError(f"NeuralNetClassifier: module is made already, it takes no parameters {sorted(given)}")
            return copy.deepcopy(self.module)
        wanted = inspect.signature(self.module).parameters
        found = {"n_features": self.n_features_in_, "n_classes": n_classes}
        module = self.module(**{name: value for name, value in found.items() if name in wanted} | given)
        if not isinstance(module, nn.Module):
            raise TypeError(f"NeuralNetClassifier: module gave a {type(module).__name__}, needs a Module")
        return module

    def _dtypes(self, first: bool) -> Any:
        if self.dtype is not None:
            return self.dtype
        return (np.float64, np.float32) if first else next(self.module_.parameters()).dtype

    def _score_of(self, outputs: Array, y: Array, weights: Array | None) -> float:
        return accuracy(outputs, y, weights)

    # -- prediction ----------------------------------------------------------------------------------------------------

    def predict(self, X: Any) -> Array:
        """Return the classes ``[N]`` with the greatest logits."""
        best = self._outputs(X).argmax(axis=1)
        labels: Array = self.classes_[best]
        return labels

    def predict_proba(self, X: Any) -> Array:
        """Return the probabilities ``[N, classes]``, in the order of `classes_`.

        The softmax of the module's outputs, or their exponential if the criterion is `nn.NLLLoss`.
        """
        return self._outputs(X, Tensor.exp if self.criterion in (nn.NLLLoss, F.nll_loss) else F.softmax)

    def _outputs(self, X: Any, then: Callable[[Tensor], Tensor] = lambda z: z) -> Array:
        check_is_fitted(self, "module_")
        X = validated(self, X, dtype=self._dtypes(False), order="C", allow_nd=True, reset=False)
        return outputs(self.module_, X, then)


def _check_outputs(module: nn.Module, X: Array, n_classes: int) -> None:
    found = outputs(module, X[:1]).shape
    if found != (1, n_classes):
        raise ValueError(
            f"NeuralNetClassifier: module gives {list(found)} for one sample, needs [1, {n_classes}], a logit for each "
            "class of y"
        )


def _is_nested(name: str) -> bool:
    prefix, mark, rest = name.partition("__")
    return prefix in PREFIXES and bool(mark) and bool(rest)


class _Criterion:
    """The criterion as the loss of a `Network` of this dtype, to which class weights are converted."""

    def __init__(self, criterion: Callable[..., Any], parameters: dict[str, Any], dtype: np.dtype[Any]) -> None:
        self.criterion, self.parameters, self.dtype = criterion, parameters, dtype
        self.mean = self._make()
        self.each: Callable[..., Tensor] | None = None  # one loss for each sample; made for sample weights

    def _make(self, **more: str) -> Callable[..., Tensor]:
        parameters = {**self.parameters, **more}
        if isinstance(self.criterion, type):
            made: Callable[..., Tensor] = self.criterion(**parameters)
            return made.astype(self.dtype) if isinstance(made, nn.Module) else made
        return functools.partial(self.criterion, **parameters)

    def __call__(self, z: Tensor, y: Tensor, share: Tensor | None) -> Tensor:
        if share is None:
            return self.mean(z, y)
        if self.each is None:
            self.each = self._make(reduction="none")
        return (self.each(z, y) * share).sum()
