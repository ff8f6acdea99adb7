"""MLPs on data that are mostly zeros, which are packed: scikit-learn's networks as the oracle, and changes between."""

import copy
import pickle
import threading
import warnings

import numpy as np
import pytest
from estimator_tools import SETTINGS, SGD, difference

pytest.importorskip("sklearn", reason="needs scikit-learn")
import sklearn.neural_network
from scipy import sparse
from sklearn import config_context

import pynn
from pynn import _core, nn
from pynn.sklearn import MLPClassifier, MLPRegressor

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*max_iter:sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:Stochastic Optimizer:sklearn.exceptions.ConvergenceWarning"),
]


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 5, 500)
    X = rng.random((500, 150)) * (rng.random((500, 150)) < 0.1 + 0.3 * (np.arange(150) % 5 == y[:, None]))
    X[:, 70:75] = 0
    X[17] = 0
    return X, y


@pytest.fixture
def dense(data):
    return data[0] + 0.125, data[1]


class Packed:
    """Whether a first layer was computed from packed rows since it was made or asked."""

    def __init__(self):
        self.before = self.now()

    @staticmethod
    def now():
        return _core.kernel_counts().get("packed_linear", 0)

    def __bool__(self):
        before, self.before = self.before, self.now()
        return self.before > before


SETTINGS = {**SETTINGS, "penalty": {**SGD, "alpha": 0.5, "hidden_layer_sizes": (37, 10, 10)}}


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_array], ids=["dense", "csr", "csc"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", SETTINGS)
def test_scikit_learn_trains_the_same_network(name, weighted, form, data):
    X, y = form(data[0]), data[1]
    settings = {"hidden_layer_sizes": (20,), "max_iter": 4, "random_state": 3, "alpha": 0.0, "epsilon": 1e-30}
    settings |= SETTINGS[name]
    weights = np.random.default_rng(1).uniform(0.5, 2, X.shape[0]) if weighted else None
    theirs = sklearn.neural_network.MLPClassifier(**settings).fit(X, y, sample_weight=weights)
    was_packed = Packed()
    ours = MLPClassifier(**settings).fit(X, y, sample_weight=weights)
    assert was_packed
    # Rounding, 1e-16, grows from step to step; Adam divides gradients of any size by their size.
    assert difference(ours, theirs) < (1e-7 if name == "adam" else 1e-11)
    assert np.abs(ours.predict_proba(X) - theirs.predict_proba(X)).max() < 1e-7
    assert ours.score(X, y) == theirs.score(X, y)
    if name != "penalty":
        assert np.allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-6)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array], ids=["dense", "csr"])
def test_epoch_by_epoch(form, data):
    X, y = form(data[0]), data[1]
    settings = {"hidden_layer_sizes": (20, 7), "random_state": 3, "alpha": 0.0, "epsilon": 1e-30}
    ours, theirs = MLPClassifier(**settings), sklearn.neural_network.MLPClassifier(**settings)
    for epoch in range(4):
        rows = slice(0, None if epoch % 2 else 317)
        for model in (ours, theirs):
            model.partial_fit(X[rows], y[rows], classes=range(5))
        assert difference(ours, theirs) < 1e-7


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_data_may_change_between_dense_sparse_and_packed(solver, data, dense):
    X, y = data
    settings = {"hidden_layer_sizes": (20,), "random_state": 3, "alpha": 0.0, "epsilon": 1e-30, "solver": solver}
    ours, theirs = MLPClassifier(**settings), sklearn.neural_network.MLPClassifier(**settings)
    was_packed = Packed()
    mostly_others = sparse.csr_array(dense[0])
    for each, packs in (
        (dense[0], False),
        (X, True),
        (X[:123], True),
        (mostly_others, False),
        (sparse.csr_array(X), True),
        (X * 0, True),
        (dense[0], False),
        (np.asfortranarray(X), True),
        (X.tolist(), True),
    ):
        rows = each.shape[0] if hasattr(each, "shape") else len(each)
        for model in (ours, theirs):
            model.partial_fit(each, y[:rows], classes=range(5))
        assert bool(was_packed) == packs
        assert difference(ours, theirs) < (1e-6 if solver == "adam" else 1e-11)


def test_weights_may_change_between(data):
    X, y = data
    results = []
    for changed in (X, X + 1e-300):  # the second is nowhere 0, and computes the same
        model = MLPClassifier((20,), random_state=0, epsilon=1e-5).partial_fit(changed, y, classes=range(5))
        first = model.module_[0]
        with pynn.no_grad():
            first.weight *= 0.5
        results.append(model.partial_fit(changed, y))
    assert difference(*results) < 1e-9


def test_layers_may_be_frozen_or_replaced(data):
    X, y = data
    model = MLPClassifier((20,), random_state=0).partial_fit(X, y, classes=range(5))
    model.module_[0].weight.requires_grad = False
    before = model.coefs_
    model.partial_fit(X, y)
    assert (model.coefs_[0] == before[0]).all()
    assert (model.coefs_[1] != before[1]).any()
    model.module_[0].weight.requires_grad = True
    was_packed = Packed()
    model.partial_fit(X, y)
    assert was_packed
    model.module_[1] = nn.Tanh()
    model.partial_fit(X, y)
    z = np.tanh(X @ model.coefs_[0] + model.intercepts_[0]) @ model.coefs_[1] + model.intercepts_[1]
    assert (model.predict(X) == z.argmax(axis=1)).all()


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array], ids=["dense", "csr"])
def test_early_stopping_and_warm_start(form, data):
    X, y = data
    settings = {"hidden_layer_sizes": (20,), "random_state": 0, "early_stopping": True, "max_iter": 8, "epsilon": 1e-5}
    was_packed = Packed()
    ours = MLPClassifier(**settings, warm_start=True).fit(form(X), y)
    assert was_packed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MLPClassifier, "_pack", lambda self, X: None)
        other = MLPClassifier(**settings, warm_start=True).fit(form(X), y)
        other_again = copy.deepcopy(other).fit(form(X), y)
    assert not was_packed
    assert ours.validation_scores_ == other.validation_scores_
    assert difference(ours, other) < 1e-7
    assert difference(ours.fit(form(X), y), other_again) < 1e-6


def test_regression(data):
    X = data[0].astype(np.float32)
    y = X[:, :3].sum(axis=1)
    was_packed = Packed()
    model = MLPRegressor((32, 16), random_state=0, max_iter=150, learning_rate_init=0.01).fit(X, y)
    assert was_packed
    assert model.coefs_[0].dtype == np.float32
    assert model.score(X, y) > 0.95


def test_small_layers_and_batches_are_dense(data):
    X, y = data
    was_packed = Packed()
    for settings in ({"hidden_layer_sizes": ()}, {"hidden_layer_sizes": (8,)}, {"batch_size": 4}):
        MLPClassifier(**{"hidden_layer_sizes": (20,), "max_iter": 1, **settings}).fit(X, y)
    MLPClassifier((20,), max_iter=1).fit(X[:, :20], y)
    assert not was_packed


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array], ids=["dense", "csr"])
def test_nan_and_infinity_in_the_data(form, data):
    X, y = data
    model = MLPClassifier((20,), random_state=0).partial_fit(form(X), y, classes=range(5))
    before = model.coefs_
    for value, name in ((np.nan, "NaN"), (np.inf, "infinity")):
        bad = X.copy()
        bad[499, 149] = value
        for call in (model.partial_fit, MLPClassifier((20,)).fit):
            with pytest.raises(ValueError, match=rf"^Input X contains {name}"):
                call(form(bad), y)
        with config_context(assume_finite=True), pytest.raises(ValueError, match=r"^fit: the loss is nan"):
            MLPClassifier((20,)).fit(form(bad), y)
    assert all((a == b).all() for a, b in zip(before, model.coefs_, strict=True))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(value, data):
    X, y = data
    model = MLPClassifier((20,), random_state=0, alpha=0.0).partial_fit(X, y, classes=range(5))
    model.module_[0].weight.data[3, 72] = value  # of a column of zeros
    with pytest.raises(ValueError, match=r"^fit: the loss is nan"):
        model.partial_fit(X, y)


def test_a_loss_that_grows_to_infinity(data):
    X, y = data
    model = MLPRegressor((20,), solver="sgd", max_iter=1, warm_start=True, batch_size=50).fit(X, y)
    before = model.coefs_
    model.set_params(learning_rate_init=1e6)
    with pytest.raises(ValueError, match=r"^fit: the loss is "):
        model.fit(X * 1e3, y)
    assert all((a == b).all() for a, b in zip(before, model.coefs_, strict=True))


def test_hostile_csr(data):
    X, y = data
    csr = sparse.csr_array(X)
    order = np.concatenate([np.arange(a, b)[::-1] for a, b in zip(csr.indptr[:-1], csr.indptr[1:], strict=True)])
    doubled = np.repeat(order, 3)
    values = (csr.data[doubled].reshape(-1, 3) * [0.5, 0, 0.5]).ravel()  # unsorted, twice, with zeros between
    odd = sparse.csr_array((values, csr.indices[doubled], csr.indptr * 3), shape=X.shape)
    longer = sparse.csr_array((np.append(csr.data, 9.0), np.append(csr.indices, 3), csr.indptr), shape=X.shape)
    settings = {"hidden_layer_sizes": (20,), "max_iter": 2, "random_state": 0}
    expected = MLPClassifier(**settings).fit(csr, y)
    for form in (odd, longer):
        before = form.copy()
        assert difference(MLPClassifier(**settings).fit(form, y), expected) == 0
        assert (form.data == before.data).all()
        assert (form.indices == before.indices).all()
    broken = csr.copy()
    broken.indices[5] = 1000
    with pytest.raises((IndexError, ValueError)):
        MLPClassifier(**settings).fit(broken, y)


def test_interruption_keeps_what_was_learned(data):
    X, y = data
    model, steps = MLPClassifier((20,), random_state=0, batch_size=50).partial_fit(X, y, classes=range(5)), []
    original = model._network._packed_step

    def step(*args):
        steps.append(args)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return original(*args)

    before = model.coefs_[0]
    model._network._packed_step = step
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.partial_fit(X, y)
    assert "interrupted" in str(caught[0].message)
    assert (model.coefs_[0] != before).any()
    model._network._packed_step = original
    assert model._network.optimizer.param_groups[0]["params"][0] is model.module_[0].weight
    model.partial_fit(X, y)


def test_copies_and_pickles_go_on(data):
    X, y = data
    model = MLPClassifier((20,), random_state=0).partial_fit(X, y, classes=range(5))
    others = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    model.partial_fit(X, y)
    for other in others:
        assert difference(other.partial_fit(X, y), model) == 0


def test_memory_is_given_back(data):
    X, y = data
    model = MLPClassifier((20,), random_state=0).partial_fit(X, y, classes=range(5))
    model.partial_fit(X, y)
    before = _core.arena_stats()["bytes_in_use"]
    for _ in range(3):
        model.partial_fit(X, y)
    assert _core.arena_stats()["bytes_in_use"] == before
    assert model._network._packed.rows.shape is None


def test_fits_in_threads(data):
    X, y = data
    expected = MLPClassifier((20,), random_state=0, max_iter=3).fit(X, y)
    models = [MLPClassifier((20,), random_state=0, max_iter=3) for _ in range(3)]
    threads = [threading.Thread(target=model.fit, args=(X, y)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [difference(model, expected) for model in models] == [0, 0, 0]
