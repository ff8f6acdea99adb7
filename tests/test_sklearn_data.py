"""What the estimators do with data: NaN, infinity, integers as classes."""

import copy

import numpy as np
import pytest
from small_models import Network

pytest.importorskip("sklearn", reason="needs scikit-learn")
import sklearn
import sklearn.neural_network
from sklearn.datasets import load_digits

from pynn import _core
from pynn.sklearn import MLPClassifier, NeuralNetClassifier

MAKERS = {"mlp": lambda: MLPClassifier((8,), random_state=0), "module": lambda: NeuralNetClassifier(Network)}


@pytest.fixture
def digits():
    X, y = load_digits(return_X_y=True)
    return X / 16, y


def error_of(call, *args):
    with pytest.raises(ValueError, match=r"^Input X contains") as caught:
        call(*args)
    return str(caught.value)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_scikit_learns_error(name, dtype, value, digits):
    X, y = digits[0].astype(dtype), digits[1]
    model = MAKERS[name]().partial_fit(X, y, classes=np.unique(y))
    theirs = sklearn.neural_network.MLPClassifier((8,), max_iter=1, random_state=0)
    theirs.partial_fit(X, y, classes=np.unique(y))
    before, history = copy.deepcopy(model.module_.state_dict()), list(model.loss_curve_)
    bad = X.copy()
    bad[-1, -1] = value  # behind all whole vectors of the last thread's part
    for method, args in [("fit", (bad, y)), ("partial_fit", (bad, y)), ("predict", (bad,))]:
        told = error_of(getattr(theirs, method), *args).replace("MLPClassifier", type(model).__name__)
        assert error_of(getattr(model, method), *args) == told
    for key, weight in model.module_.state_dict().items():
        assert np.array_equal(weight, before[key])
    assert model.loss_curve_ == history
    with pytest.raises(ValueError, match="Input y contains"):
        model.partial_fit(X, np.where(np.arange(len(y)) == 3, value, y))
    fresh = MAKERS[name]()
    error_of(fresh.fit, bad, y)
    assert not hasattr(fresh, "module_")
    assert not hasattr(fresh, "n_features_in_")


def test_what_is_converted_is_looked_at_afterwards(digits):
    X, y = digits
    model = MLPClassifier((8,), random_state=0).partial_fit(X.astype(np.float32), y, classes=np.unique(y))
    X[5, 5] = 1e300  # infinite in float32
    with np.errstate(over="ignore"):
        assert "infinity" in error_of(model.partial_fit, X, y)


def test_a_sum_that_overflows_is_no_infinity(digits):
    X, y = digits
    X[:, 0] = np.finfo(np.float64).max
    model = MLPClassifier((8,), solver="sgd", learning_rate_init=1e-320, alpha=0.0)
    with pytest.raises(ValueError, match="the loss is"):  # of the network, which X has passed
        model.fit(X, y)


def test_nobody_looks_where_data_are_assumed_to_be_finite(digits, monkeypatch):
    X, y = digits
    model = MLPClassifier((8,), random_state=0).partial_fit(X, y, classes=np.unique(y))
    monkeypatch.setattr(_core, "require_finite", lambda *args: pytest.fail("data are looked at"))
    with sklearn.config_context(assume_finite=True):
        assert model.predict(X).shape == y.shape


@pytest.mark.parametrize("classes", [[-1, 0, 1], [3, 4, 5], [-7, 2, 90], [-(2**63), 0, 2**63 - 1]])
@pytest.mark.parametrize("shuffled", [False, True])
def test_integers_as_classes(classes, shuffled, digits):
    X, y = digits
    X, codes = X[y < 3], y[y < 3]
    plain, named = (MLPClassifier((8,), shuffle=shuffled, random_state=0) for _ in range(2))
    for _ in range(2):
        plain.partial_fit(X, codes, classes=np.arange(3))
        named.partial_fit(X, np.array(classes)[codes], classes=classes)
    assert named.loss_curve_ == plain.loss_curve_
    assert np.array_equal(named.predict(X), np.array(classes)[plain.predict(X)])
    for unknown in (classes[0] + 2**62, 1, -(2**62)):
        with pytest.raises(ValueError, match="partial_fit needs known classes"):
            named.partial_fit(X, np.where(codes == 2, unknown if unknown not in classes else 77, codes[0]))
