"""What `MLPClassifier` and `MLPRegressor` share."""

from __future__ import annotations

import itertools
import math
import warnings
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from pynn import _core, nn, optim
from pynn.sklearn._base import (
    COMMON,
    Check,
    NetworkEstimator,
    at_least,
    count,
    flag,
    is_count,
    is_number,
    is_taken,
    one_of,
    positive,
    validated,
)
from pynn.sklearn._network import Array, Loss, Network, outputs, share_of_threads
from pynn.sklearn._packed import LEAST_COLUMNS, LEAST_OUTPUTS, LEAST_ROWS, packed

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "identity": nn.Identity,
    "logistic": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
}
LEAST_LEARNING_RATE = 1e-6  # at which "adaptive" gives up
PARAMETERS = """
    hidden_layer_sizes : int or sequence of int, default (100,)
        Widths of the hidden layers.
    activation : {"identity", "logistic", "tanh", "relu"}, default "relu"
        Of the hidden layers.
    solver : {"adam", "sgd"}, default "adam"
        scikit-learn's "lbfgs" is not there.
    alpha : float, default 1e-4
        L2 penalty alpha / 2 · ‖weights‖² / samples of a batch; biases have none.
    batch_size : int or "auto", default "auto"
        "auto" is 200, or all samples if they are fewer.
    learning_rate : {"constant", "invscaling", "adaptive"}, default "constant"
        For "sgd": as it is; learning_rate_init / t ** power_t after t samples; or a fifth whenever the loss (the score)
        has not improved, until it is 1e-6.
    learning_rate_init : float, default 1e-3
    power_t : float, default 0.5
    max_iter : int, default 200
        The most epochs of `fit`; ConvergenceWarning if they are reached.
    shuffle : bool, default True
    random_state : int, RandomState or None
        Decides weights, order and validation samples. It is the only source of randomness: `pynn.seed` has no effect.
    tol : float, default 1e-4
        What counts as an improvement of the loss, or of the validation score.
    verbose : bool, default False
    warm_start : bool, default False
        `fit` goes on from the weights that are there.
    momentum, nesterovs_momentum : float, default 0.9, and bool, default True
        For "sgd".
    early_stopping : bool, default False
        Keep `validation_fraction` of the samples (stratified by a single label) to stop by the score, and end with the
        weights of the best epoch.
    validation_fraction : float, default 0.1
    beta_1, beta_2, epsilon : float, default 0.9, 0.999, 1e-8
        For "adam".
    n_iter_no_change : int, default 10
        Stop after more epochs without an improvement than this.
"""
ATTRIBUTES = """
    module_ : Sequential
        The trained network, which may be used without the estimator.
    coefs_, intercepts_ : list of ndarray
        Copies of weights ``[inputs, outputs]`` and biases of each layer.
    loss_, best_loss_, loss_curve_ : float, float, list of float
        Mean losses of the epochs with the L2 penalty, whose weights are those at the end of the epoch (scikit-learn
        takes those before each step, and may so stop in another epoch). `best_loss_` is None with early stopping.
    validation_scores_, best_validation_score_ : list of float, float
        With early stopping, else None.
    n_iter_, t_ : int
        Epochs of the latest call, and samples seen in all of them.
    n_features_in_, n_outputs_, n_layers_ : int
    feature_names_in_ : ndarray
        If X had names.
    out_activation_ : str
"""


class MLP(NetworkEstimator):
    _checks: ClassVar[dict[str, Check]] = {
        **COMMON,
        "activation": one_of(*ACTIVATIONS),
        "solver": one_of("adam", "sgd"),
        "alpha": at_least(0),
        "batch_size": (lambda v: (isinstance(v, str) and v == "auto") or is_count(v), f"'auto' or {count[1]}"),
        "learning_rate": one_of("constant", "invscaling", "adaptive"),
        "learning_rate_init": positive,
        "power_t": at_least(0),
        "max_iter": count,
        "momentum": (lambda v: is_number(v) and 0 <= v <= 1, "a number from 0 to 1"),
        "nesterovs_momentum": flag,
        "beta_1": at_least(0, 1),
        "beta_2": at_least(0, 1),
        "epsilon": positive,
    }

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train until the loss (with early stopping the score) stops improving, or for `max_iter` epochs.

        Parameters
        ----------
        X : array or sparse matrix ``[N, features]``
            Computed with in its own dtype if that is float32, else in float64, which takes about twice as long. Zeros
            of an array or a sparse matrix in which two thirds or more are zeros are left out of the first layer;
            a sparse matrix with fewer, or for small layers or batches, is made dense batch by batch.
        y : array ``[N]`` or ``[N, outputs]``
        sample_weight : array ``[N]``, optional
            Not negative; a batch counts by its weighted mean.

        Raises
        ------
        ValueError
            For data or parameters that do not fit, and when the loss is NaN or infinite. The estimator is then as it
            was before.
        """
        with self._all_or_nothing():
            stopped = self._fit(X, y, sample_weight, incremental=False)
        if not stopped:  # what was trained stays also where warnings are errors, as in scikit-learn
            warnings.warn(
                f"{type(self).__name__}: {self.max_iter} epochs (max_iter) are over, and the training has not "
                "converged yet",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    @property
    def coefs_(self) -> list[Array]:
        """Copies of the weights of each layer, ``[inputs, outputs]``."""
        return [np.array(layer.weight.data.T) for layer in self._layers()]

    @property
    def intercepts_(self) -> list[Array]:
        """Copies of the biases of each layer."""
        return [np.array(layer.bias.data) for layer in self._layers() if layer.bias is not None]

    def _layers(self) -> list[nn.Linear]:
        if not hasattr(self, "module_"):
            raise AttributeError(f"{type(self).__name__}: has no weights before fit")
        return [layer for layer in self.module_ if isinstance(layer, nn.Linear)]

    def _fit(self, X: Any, y: Any, sample_weight: Any, incremental: bool) -> bool:
        """Train; return whether it stopped by itself."""
        self._check_parameters()
        if incremental and self.early_stopping:
            raise ValueError("partial_fit: does not support early_stopping=True")
        hidden = self._hidden_sizes()
        first = not hasattr(self, "module_") or not (self.warm_start or incremental)
        dtype, rows, pack = self._dtypes(first), None, self._pack
        if incremental and is_taken(X, dtype):  # packing looks for NaN and infinity on its way, for each epoch
            rows = self._pack(X)
            pack = lambda X: rows  # noqa: E731
        X, y = validated(
            self,
            X,
            y,
            accept_sparse="csr",
            multi_output=True,
            dtype=dtype,
            order="C",
            reset=first,
            known_finite=rows is not None,
        )
        loss, targets = self._encode(y, X.dtype, incremental)
        weights = self._check_weights(sample_weight, X, X.dtype)
        rng = check_random_state(self.random_state)
        if first:
            self.n_outputs_ = self._count_outputs(targets)
            self.n_layers_ = len(hidden) + 2
            self._start_history()
            self.module_ = self._build([X.shape[1], *hidden, self.n_outputs_], X.dtype, rng)
        if first or not incremental:
            self._network = Network(self.module_, loss, self._optimizer(), self.alpha)
        stratify = self.out_activation_ != "identity" and (targets.ndim == 1 or targets.shape[1] == 1)
        epochs = 1 if incremental else self.max_iter
        return self._train(X, targets, weights, rng, epochs, stratify, tolerant=incremental, pack=pack)

    def _pack(self, X: Any) -> _core.PackedRows | None:
        """Return the rows packed if that pays: most elements are 0, and layer and batches are no small ones."""
        hidden = self._hidden_sizes()
        if X.ndim != 2 or not hidden or hidden[0] < LEAST_OUTPUTS or X.shape[1] < LEAST_COLUMNS:
            return None
        if self._batch_rows(X.shape[0]) < LEAST_ROWS:
            return None
        with share_of_threads():
            return packed(X)

    def _hidden_sizes(self) -> list[int]:
        given = self.hidden_layer_sizes
        sizes: list[Any] = list(given) if hasattr(given, "__iter__") else [given]
        if not all(map(is_count, sizes)):
            raise ValueError(f"{type(self).__name__}: hidden_layer_sizes is {given!r}, needs integers of at least 1")
        return [int(size) for size in sizes]

    def _dtypes(self, first: bool) -> Any:
        return (np.float64, np.float32) if first else next(self.module_.parameters()).dtype

    def _build(self, sizes: list[int], dtype: Any, rng: Any) -> nn.Sequential:
        """Make the layers, initialised as scikit-learn does (Glorot and Bengio 2010), with the same random numbers."""
        layers: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise(sizes):
            layer = nn.Linear.__new__(nn.Linear)
            bound = math.sqrt((2 if self.activation == "logistic" else 6) / (fan_in + fan_out))
            layer.in_features, layer.out_features = fan_in, fan_out
            layer.weight = nn.Parameter(rng.uniform(-bound, bound, (fan_in, fan_out)).T.astype(dtype, order="C"))
            layer.bias = nn.Parameter(rng.uniform(-bound, bound, fan_out).astype(dtype))
            layers += [layer, ACTIVATIONS[self.activation]()]
        return nn.Sequential(*layers[:-1])

    def _optimizer(self) -> optim.Optimizer:
        layers = self._layers()
        groups: list[dict[str, Any]] = [
            {"params": [layer.weight for layer in layers]},
            {"params": [layer.bias for layer in layers]},
        ]
        if self.solver == "sgd":
            nesterov = bool(self.nesterovs_momentum and self.momentum > 0)
            return optim.SGD(groups, lr=self.learning_rate_init, momentum=self.momentum, nesterov=nesterov)
        return optim.Adam(groups, lr=self.learning_rate_init, betas=(self.beta_1, self.beta_2), eps=self.epsilon)

    def _ends_epoch(self, tolerant: bool) -> bool:
        groups = self._network.optimizer.param_groups
        if self.solver == "sgd" and self.learning_rate == "invscaling":
            for group in groups:
                group["lr"] = self.learning_rate_init / (self.t_ + 1) ** self.power_t
        if not super()._ends_epoch(tolerant):
            return False
        if self.solver != "sgd" or self.learning_rate != "adaptive" or groups[0]["lr"] <= LEAST_LEARNING_RATE:
            return True
        self._stale_epochs = 0
        for group in groups:
            group["lr"] /= 5
        if self.verbose:
            print(f"Setting learning rate to {groups[0]['lr']:f}")
        return False

    def _outputs(self, X: Any, then: Any = lambda z: z) -> Array:
        X = validated(self, X, accept_sparse="csr", dtype=self._dtypes(False), order="C", reset=False)
        return outputs(self.module_, X, then)

    def _encode(self, y: Any, dtype: Any, incremental: bool) -> tuple[Loss, Array]:
        """Return the loss, and targets for it."""
        raise NotImplementedError

    def _count_outputs(self, targets: Array) -> int:
        return int(targets.shape[1])
