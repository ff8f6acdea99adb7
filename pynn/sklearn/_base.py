"""The training loop that the estimators share: epochs, early stopping, history."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn import get_config
from sklearn.base import BaseEstimator
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.utils import shuffle
from sklearn.utils.validation import _check_sample_weight, validate_data

from pynn import _core
from pynn.sklearn._network import Array, Network, share_of_threads

Check = tuple[Callable[[Any], bool], str]


def is_number(value: Any) -> bool:
    """Whether this is a number, and not True or False."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_count(value: Any) -> bool:
    """Whether this is an integer of at least 1."""
    return isinstance(value, Integral) and is_number(value) and int(value) >= 1


def at_least(low: float, below: float = np.inf) -> Check:
    """Accept numbers from `low` on, and less than `below`."""
    text = f"a number of at least {low:g}" if below == np.inf else f"a number from {low:g} to below {below:g}"
    return lambda v: is_number(v) and low <= v < below, text


def one_of(*values: str) -> Check:
    """Accept these texts."""
    return lambda v: isinstance(v, str) and v in values, " or ".join(map(repr, values))


positive: Check = (lambda v: is_number(v) and 0 < v < np.inf, "a number above 0")
count: Check = (is_count, "an integer of at least 1")
flag: Check = (lambda v: isinstance(v, bool | np.bool_), "True or False")

COMMON: dict[str, Check] = {
    "shuffle": flag,
    "warm_start": flag,
    "early_stopping": flag,
    "validation_fraction": (lambda v: is_number(v) and 0 < v < 1, "a number between 0 and 1"),
    "n_iter_no_change": (lambda v: is_count(v) or (is_number(v) and v == np.inf), f"{count[1]}, or infinity"),
    "tol": at_least(0),
}


def validated(estimator: BaseEstimator, X: Any, *y: Any, dtype: Any, known_finite: bool = False, **options: Any) -> Any:
    """Return what `validate_data` does, which looks for NaN and infinity only where all threads have found some."""
    is_finite = known_finite or _is_finite(X, dtype)
    return validate_data(estimator, X, *y, dtype=dtype, ensure_all_finite=not is_finite, **options)


def is_taken(X: Any, dtype: Any) -> bool:
    """Whether X is an array of floats that is taken as it is."""
    taken = dtype if isinstance(dtype, tuple) else (dtype,)
    if type(X) is not np.ndarray or X.dtype not in (np.float32, np.float64) or X.dtype not in taken:
        return False
    return bool(X.flags.c_contiguous and X.flags.aligned)


def _is_finite(X: Any, dtype: Any) -> bool:
    """Whether X is an array that is taken as it is, and is known to hold neither NaN nor infinity."""
    if get_config()["assume_finite"] or not is_taken(X, dtype):  # with the first scikit-learn does not look either
        return False
    try:
        with share_of_threads():
            _core.require_finite([X], "X")
    except FloatingPointError:  # scikit-learn says where, and in its words
        return False
    return True


class NetworkEstimator(BaseEstimator):  # type: ignore[misc]
    """An estimator that trains a `Network`; a subclass builds it and checks the data."""

    _network: Network
    module_: Any  # a Module
    best_loss_: Any  # None with early stopping
    best_validation_score_: Any  # None without
    _checks: ClassVar[dict[str, Check]]  # of parameters

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "module_")

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Leave the attributes as they were if what is done here fails."""
        before = self.__dict__.copy()
        lengths = {name: len(value) for name, value in before.items() if isinstance(value, list)}
        try:
            yield
        except BaseException:
            self.__dict__ = before
            for name, length in lengths.items():  # of the history, which only grows
                del before[name][length:]
            raise

    def _check_parameters(self) -> None:
        for name, (accepts, text) in self._checks.items():
            value = getattr(self, name)
            if not accepts(value):
                raise ValueError(f"{type(self).__name__}: {name} is {value!r}, needs {text}")

    def _check_weights(self, sample_weight: Any, X: Any, dtype: Any) -> Array | None:
        if sample_weight is None:
            return None
        weights: Array = _check_sample_weight(sample_weight, X, dtype=dtype, ensure_non_negative=True)
        if not weights.any():
            raise ValueError(f"{type(self).__name__}: sample_weight holds only zeros, needs one that is above")
        with np.errstate(over="ignore"):
            if not np.isfinite(weights.sum()):  # by which those of a batch are divided
                raise ValueError(f"{type(self).__name__}: sample_weight has a sum that {weights.dtype} does not hold")
        return weights

    def _start_history(self) -> None:
        self.n_iter_, self.t_ = 0, 0
        self.loss_curve_: list[float] = []
        self._start_watching()

    def _start_watching(self) -> None:
        """Begin to look for improvements: of the score with early stopping, else of the loss."""
        self._stale_epochs = 0
        early = self.early_stopping
        self.best_loss_ = None if early else np.inf
        self.validation_scores_: list[float] | None = [] if early else None
        self.best_validation_score_ = -np.inf if early else None

    def _batch_rows(self, samples: int) -> int:
        if self.batch_size == "auto":
            return min(200, samples)
        return int(min(self.batch_size, samples))

    def _train(
        self,
        X: Any,
        y: Array,
        weights: Array | None,
        rng: Any,
        epochs: int,
        stratify: bool,
        tolerant: bool,
        pack: Callable[[Any], _core.PackedRows | None] = lambda X: None,
    ) -> bool:
        """Train for at most so many epochs; return whether it stopped by itself.

        `tolerant` is for one that goes on although the training loss does not improve; `pack` gives the rows packed if
        that pays.
        """
        validation = None
        if self.early_stopping:
            arrays = [X, y] if weights is None else [X, y, weights]
            parts = train_test_split(
                *arrays, random_state=rng, test_size=self.validation_fraction, stratify=y if stratify else None
            )
            if parts[1].shape[0] < 2:
                raise ValueError(
                    f"{type(self).__name__}: {parts[1].shape[0]} validation samples of {X.shape[0]} are too few; "
                    "needs a larger validation_fraction or more samples"
                )
            X, y, validation = parts[0], parts[2], parts[1::2]
            weights = None if weights is None else parts[4]
        if self.early_stopping != (self.best_loss_ is None):  # set since the epochs before
            self._start_watching()
        best = None
        samples = X.shape[0]
        rows, order = self._batch_rows(samples), np.arange(samples)
        stopped = False
        self.n_iter_ = 0
        restore = self._network.keep(is_one_step=epochs == 1 and samples <= rows)
        try:
            with share_of_threads(), self._network.training(pack(X)) as packed:
                while self.n_iter_ < epochs and not stopped:
                    if self.shuffle:
                        order = shuffle(order, random_state=rng)
                    loss = self._network.train_epoch(X, y, weights, order if self.shuffle else None, rows, packed)
                    self.n_iter_ += 1
                    self.t_ += samples
                    self.loss_ = loss
                    self.loss_curve_.append(loss)
                    if self.verbose:
                        print(f"Iteration {self.n_iter_}, loss = {loss:.8f}")
                    if validation is not None and self._note_score(*validation):
                        best = self._network.module.state_dict()
                    elif validation is None:
                        self._note_loss(loss)
                    stopped = self._ends_epoch(tolerant and validation is None)
        except KeyboardInterrupt:
            warnings.warn(f"{type(self).__name__}: interrupted in epoch {self.n_iter_ + 1}", stacklevel=2)
            stopped = True
        except BaseException:
            restore()
            raise
        if best is not None:
            self._network.module.load_state_dict(best)
        self._network.optimizer.zero_grad()
        return stopped

    def _note_loss(self, loss: float) -> None:
        self._stale_epochs = self._stale_epochs + 1 if loss > self.best_loss_ - self.tol else 0
        self.best_loss_ = min(self.best_loss_, loss)

    def _note_score(self, X: Any, y: Array, weights: Array | None = None) -> bool:
        """Score the validation samples; return whether it is the best score so far."""
        outputs = self._network.outputs(X)
        score = float(self._score_of(outputs, y, weights)) if np.isfinite(outputs).all() else np.nan
        assert self.validation_scores_ is not None
        self.validation_scores_.append(score)
        if self.verbose:
            print(f"Validation score: {score:.6f}")
        best = self.best_validation_score_
        self._stale_epochs = self._stale_epochs + 1 if score < best + self.tol else 0
        if score > best:
            self.best_validation_score_ = score
        return bool(score > best)

    def _ends_epoch(self, tolerant: bool) -> bool:
        """Return whether training stops here."""
        if tolerant or self._stale_epochs <= self.n_iter_no_change:
            return False
        if self.verbose:
            what = "Validation score" if self.early_stopping else "Training loss"
            print(f"{what} did not improve more than tol={self.tol:f} for {self.n_iter_no_change} consecutive epochs.")
        return True

    def _score_of(self, outputs: Array, y: Array, weights: Array | None) -> float:
        """Return the score of the module's outputs for encoded targets."""
        raise NotImplementedError


def accuracy(outputs: Array, y: Array, weights: Array | None) -> float:
    """Return the accuracy of logits: of classes [N], or of 0 and 1 [N, K]."""
    score: float = accuracy_score(
        y, outputs.argmax(axis=1) if y.ndim == 1 else (outputs > 0).astype(y.dtype), sample_weight=weights
    )
    return score


def r_squared(outputs: Array, y: Array, weights: Array | None) -> float:
    """Return the coefficient of determination."""
    score: float = r2_score(y, outputs, sample_weight=weights)
    return score
