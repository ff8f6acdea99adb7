"""The estimators: scikit-learn's own checks, its own network as the oracle, and its pipelines and searches."""

import copy
import functools
import os
import pickle
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from estimator_tools import SETTINGS, SGD, difference
from small_models import Network

import pynn
from pynn import optim

pytest.importorskip("sklearn", reason="needs scikit-learn")
import sklearn.neural_network
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits, make_classification, make_regression
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted

from pynn.sklearn import MLPClassifier, MLPRegressor, NeuralNetClassifier

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*max_iter:sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:Stochastic Optimizer:sklearn.exceptions.ConvergenceWarning"),
]


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X / 16, y


# -- scikit-learn's checks ---------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [MLPClassifier(), MLPRegressor(), NeuralNetClassifier(Network, lr=0.01, max_epochs=50)],
)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


# -- scikit-learn's network as the oracle ------------------------------------------------------------------------------
def labels(y):
    return (np.eye(10, dtype=int)[y] + np.eye(10, dtype=int)[y * 3 % 10]).clip(0, 1)


SETTINGS = {
    **SETTINGS,
    "adaptive": {**SGD, "learning_rate": "adaptive", "momentum": 0, "tol": 0.1, "n_iter_no_change": 1, "max_iter": 20},
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("target", ["multiclass", "binary", "multilabel", "numbers", "pairs"])
@pytest.mark.parametrize("name", SETTINGS)
def test_scikit_learn_trains_the_same_network(name, target, weighted, digits):
    X, y = digits
    X, y = X[:600], y[:600]
    y = {
        "multiclass": y,
        "binary": y % 2,
        "multilabel": labels(y),
        "numbers": y / 10,
        "pairs": np.stack([y, -y], axis=1) / 10,
    }[target]
    # scikit-learn adds epsilon to another term of Adam, and the penalty to the loss of each batch.
    settings = {"hidden_layer_sizes": (20, 10), "max_iter": 4, "random_state": 3, "alpha": 0.0, "epsilon": 1e-30}
    settings |= SETTINGS[name]
    if target in ("numbers", "pairs"):
        settings["learning_rate_init"] = 0.01
    weights = np.random.default_rng(1).uniform(0.5, 2, len(X)) if weighted else None
    kind = "MLPRegressor" if target in ("numbers", "pairs") else "MLPClassifier"
    theirs = getattr(sklearn.neural_network, kind)(**settings).fit(X, y, sample_weight=weights)
    # Of several numbers scikit-learn's loss is the mean, and its gradient that of the sum.
    scale = 2 if target == "pairs" else 1
    ours = getattr(pynn.sklearn, kind)(**{**settings, "tol": scale * settings.get("tol", 1e-4)})
    ours.fit(X, y, sample_weight=weights)
    assert ours.n_iter_ == theirs.n_iter_
    assert ours.t_ == theirs.t_
    # Rounding, 1e-16, grows from step to step; Adam divides gradients of any size by their size.
    assert difference(ours, theirs) < (1e-7 if name == "adam" else 1e-11)
    assert np.abs(ours.predict(X) - theirs.predict(X)).max() < 1e-7
    if kind == "MLPClassifier":
        assert np.abs(ours.predict_proba(X) - theirs.predict_proba(X)).max() < 1e-7
        assert np.allclose(ours.predict_log_proba(X), theirs.predict_log_proba(X), rtol=1e-6, atol=1e-6)
    if name != "penalty":
        assert np.allclose(ours.loss_curve_, scale * np.array(theirs.loss_curve_), rtol=1e-6)


def test_penalty_in_the_loss(digits):
    X, y = digits
    settings = {"solver": "sgd", "batch_size": 100, "max_iter": 1, "learning_rate_init": 1e-15, "random_state": 0}
    plain, penalised = (MLPRegressor((8,), alpha=alpha, **settings).fit(X, y) for alpha in (0.0, 0.3))
    squares, batches = sum((w**2).sum() for w in plain.coefs_), -(-len(X) // 100)
    assert penalised.loss_ - plain.loss_ == pytest.approx(0.5 * 0.3 * squares * batches / len(X), rel=1e-9)


# -- training ----------------------------------------------------------------------------------------------------------
ESTIMATORS = {
    "mlp": lambda **more: MLPClassifier((32,), learning_rate_init=0.01, random_state=0, **more),
    "module": lambda **more: NeuralNetClassifier(Network, lr=0.01, random_state=0, **more),
}


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_of_the_data_is_that_of_the_network(name, dtype, digits):
    X, y = digits
    model = ESTIMATORS[name]().fit(X.astype(dtype), y)
    assert next(model.module_.parameters()).dtype == dtype
    assert model.predict_proba(X).dtype == dtype
    assert model.score(X, y) > 0.95


@pytest.mark.parametrize("name", ESTIMATORS)
def test_texts_as_classes_and_probabilities(name, digits):
    X, y = digits
    names = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])[y]
    model = ESTIMATORS[name]().fit(X, names)
    assert model.classes_.tolist() == sorted(set(names))
    p = model.predict_proba(X)
    assert np.allclose(p.sum(axis=1), 1)
    assert (model.classes_[p.argmax(axis=1)] == model.predict(X)).all()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_same_seed_gives_the_same_bits_whatever_pynn_has_drawn(name, digits):
    X, y = digits
    pynn.seed(5)
    before = pynn.random.get_rng_state()
    a = ESTIMATORS[name]().fit(X, y)
    assert pynn.random.get_rng_state() == before
    pynn.seed(77)
    b = ESTIMATORS[name]().fit(X, y)
    assert a.loss_curve_ == b.loss_curve_
    assert np.array_equal(a.predict_proba(X), b.predict_proba(X))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_early_stopping_ends_with_the_best_weights(name, digits):
    X, y = digits
    limit = {"max_iter": 300} if name == "mlp" else {"max_epochs": 300}
    model = ESTIMATORS[name](early_stopping=True, n_iter_no_change=3, **limit).fit(X, y)
    scores = model.validation_scores_
    assert model.n_iter_ == len(scores) == len(model.loss_curve_) < 300
    assert model.best_validation_score_ == max(scores)
    assert max(scores[:-4]) >= max(scores[-4:]) - model.tol
    # The split again, with the same random numbers: weights of the best epoch score what was noted.
    again = ESTIMATORS[name](early_stopping=True, n_iter_no_change=3, **limit)
    if name == "mlp":
        again.set_params(max_iter=int(np.argmax(scores)) + 1)
    else:
        again.set_params(max_epochs=int(np.argmax(scores)) + 1)
    assert np.array_equal(again.fit(X, y).predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_sample_weights_count_like_repetitions(name):
    X, y = make_classification(60, 8, n_informative=4, random_state=2)
    weights = np.random.default_rng(0).integers(0, 4, len(X))
    one_batch = {"batch_size": 1000, "shuffle": False}
    weighted = ESTIMATORS[name](**one_batch).fit(X, y, sample_weight=weights)
    repeated = ESTIMATORS[name](**one_batch).fit(X.repeat(weights, axis=0), y.repeat(weights))
    plain = ESTIMATORS[name](**one_batch).fit(X, y)
    assert np.allclose(weighted.predict_proba(X), repeated.predict_proba(X), rtol=1e-6)
    assert not np.allclose(weighted.predict_proba(X), plain.predict_proba(X), rtol=1e-2)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_weights_whose_sum_overflows_are_refused(name, digits):
    X, y = digits[0].astype(np.float32), digits[1]
    with pytest.raises(ValueError, match="sample_weight has a sum that float32 does not hold"):
        ESTIMATORS[name]().fit(X, y, np.full(len(y), 3e38))


def test_a_batch_of_weights_zero_teaches_nothing():
    X, y = make_classification(40, 4, random_state=0)
    weights = np.repeat([1.0, 0.0], 20)
    settings = {"shuffle": False, "batch_size": 20, "random_state": 0, "max_iter": 5}
    half = MLPClassifier((5,), **settings).fit(X[:20], y[:20], sample_weight=weights[:20])
    whole = MLPClassifier((5,), **settings).fit(X, y, sample_weight=weights)
    assert np.array_equal(half.predict_proba(X), whole.predict_proba(X))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_partial_fit_is_fit_epoch_by_epoch(name, digits):
    X, y = digits
    whole = ESTIMATORS[name](shuffle=False, **({"max_iter": 3} if name == "mlp" else {"max_epochs": 3})).fit(X, y)
    parts = ESTIMATORS[name](shuffle=False)
    for epoch in range(3):
        parts.partial_fit(X, y, classes=np.unique(y) if epoch == 0 else None)
        if epoch == 1:
            parts = pickle.loads(pickle.dumps(parts))
    assert parts.loss_curve_ == whole.loss_curve_
    assert np.array_equal(parts.predict_proba(X), whole.predict_proba(X))
    with pytest.raises(ValueError, match="11"):
        parts.partial_fit(X, np.full(len(X), 11))
    with pytest.raises(ValueError, match="classes are"):
        parts.partial_fit(X, y, classes=[1, 2])
    with pytest.raises(ValueError, match="classes must be given"):
        ESTIMATORS[name]().partial_fit(X, y)
    with pytest.raises(ValueError, match="early_stopping"):
        ESTIMATORS[name](early_stopping=True).partial_fit(X, y, classes=np.unique(y))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_warm_start_goes_on(name, digits):
    X, y = digits
    limit = {"max_iter": 2} if name == "mlp" else {"max_epochs": 2}
    model = ESTIMATORS[name](warm_start=True, **limit).fit(X, y)
    first = model.loss_
    module = model.module_
    model.fit(X, y)
    assert model.module_ is module
    assert model.loss_ < first
    assert len(model.loss_curve_) == 4
    with pytest.raises(ValueError, match="warm_start needs the same classes"):
        model.fit(X[y > 2], y[y > 2])
    model.set_params(warm_start=False).fit(X, y)
    assert len(model.loss_curve_) == 2


@pytest.mark.parametrize("way", ["warm_start", "partial_fit"])
@pytest.mark.parametrize("classes", [2, 3])
def test_labels_do_not_follow_classes_nor_classes_labels(way, classes, digits):
    X, y = digits[0], digits[1] % classes
    indicators = np.eye(classes, dtype=int)[y]
    for before, after in ((y, indicators), (indicators, y)):
        model = MLPClassifier((4,), max_iter=1, warm_start=True).fit(X, before)
        with pytest.raises(ValueError, match=rf"{way}: y is .*, and was .* before|{way} needs .* classes"):
            (model.fit if way == "warm_start" else model.partial_fit)(X, after)
        assert model.predict(X).shape == before.shape


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("early_stopping", [True, False])
def test_early_stopping_may_be_set_between(name, early_stopping, digits):
    X, y = digits
    limit = {"max_iter": 2} if name == "mlp" else {"max_epochs": 2}
    model = ESTIMATORS[name](warm_start=True, early_stopping=not early_stopping, **limit).fit(X, y)
    model.set_params(early_stopping=early_stopping).fit(X, y)
    assert len(model.loss_curve_) == 4
    if early_stopping:
        assert len(model.validation_scores_) == 2
        assert model.best_validation_score_ == max(model.validation_scores_)
        assert model.best_loss_ is None
    else:
        assert model.best_loss_ == min(model.loss_curve_[2:])
        assert model.validation_scores_ is model.best_validation_score_ is None
        model.partial_fit(X, y)
        assert len(model.loss_curve_) == 5


def test_sparse_data_are_dense_data(digits):
    X, y = digits
    dense = MLPClassifier((16,), random_state=0, max_iter=3).fit(X, y)
    for form in (sparse.csr_matrix, sparse.csc_array):
        model = MLPClassifier((16,), random_state=0, max_iter=3).fit(form(X), y)
        assert np.array_equal(model.predict_proba(form(X)), dense.predict_proba(X))


def test_feature_names():
    pandas = pytest.importorskip("pandas")
    X, y = make_regression(50, 3, random_state=0)
    frame = pandas.DataFrame(X, columns=["a", "b", "c"])
    model = MLPRegressor((4,), max_iter=2, random_state=0).fit(frame, y)
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[["b", "a", "c"]])


def test_ctrl_c_keeps_what_was_trained(digits, monkeypatch):
    X, y = digits
    model = MLPClassifier((16,), random_state=0, max_iter=50)
    note = model._note_loss
    monkeypatch.setattr(
        type(model), "_note_loss", lambda self, loss: note(loss) if self.n_iter_ < 3 else signal_interrupt()
    )

    def signal_interrupt():
        raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted in epoch"):
        model.fit(X, y)
    assert model.n_iter_ == 3
    assert model.predict(X).shape == y.shape


def test_convergence_warning(digits):
    X, y = digits
    with pytest.warns(ConvergenceWarning, match=r"2 epochs \(max_iter\) are over"):
        MLPClassifier((4,), max_iter=2).fit(X, y)


def test_where_convergence_warnings_are_errors_the_training_stays(digits):
    X, y = digits
    model, same = (MLPClassifier((4,), max_iter=2, warm_start=True, random_state=0) for _ in range(2))
    for epochs in (2, 4):
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            with pytest.raises(ConvergenceWarning):
                model.fit(X, y)
        assert np.array_equal(model.predict_proba(X), same.fit(X, y).predict_proba(X))
        assert len(model.loss_curve_) == len(same.loss_curve_) == epochs


# -- copies, pickles, pipelines, searches ------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ESTIMATORS)
def test_copies(name, digits):
    X, y = digits
    model = ESTIMATORS[name]().fit(X, y)
    expected = model.predict_proba(X)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert np.array_equal(other.predict_proba(X), expected)
        assert other.module_ is other._network.module
    fresh = clone(model)
    assert not hasattr(fresh, "module_")
    assert np.array_equal(fresh.fit(X, y).predict_proba(X), expected)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_pipeline(name, digits):
    X, y = digits
    model = make_pipeline(StandardScaler(), ESTIMATORS[name]())
    assert cross_val_score(model, X, y, cv=3).min() > 0.9


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_searches_with_two_jobs_find_what_one_finds(name, backend, digits):
    import joblib

    X, y = digits
    grid = {"alpha": [1e-4, 100.0]} if name == "mlp" else {"module__width": [2, 40], "optimizer__weight_decay": [0.0]}
    searches = [GridSearchCV(ESTIMATORS[name](), grid, cv=2, n_jobs=n_jobs) for n_jobs in (1, 2)]
    threads = pynn.num_threads()
    searches[0].fit(X, y)
    with joblib.parallel_config(backend):
        searches[1].fit(X, y)
    one, two = (search.cv_results_["mean_test_score"] for search in searches)
    assert np.array_equal(one, two)
    assert searches[1].best_params_ == {"alpha": 1e-4} or searches[1].best_params_["module__width"] == 40
    assert pynn.num_threads() == threads


def threads_in_a_job(_):
    import pynn

    return pynn.num_threads()


@pytest.mark.skipif(pynn.info()["max_threads"] < 2, reason="needs two cores")
def test_processes_of_joblib_share_the_cores():
    code = """
import joblib, test_sklearn
print(joblib.Parallel(2)(joblib.delayed(test_sklearn.threads_in_a_job)(i) for i in (1, 2)))
"""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYNN_NUM_THREADS", "OMP_NUM_THREADS")}
    tests = Path(__file__).parent
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(pynn.__path__[0]).parent), str(tests)])
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tests, capture_output=True, text=True)
    share = pynn.info()["max_threads"] // 2
    assert done.stdout.strip() == f"[{share}, {share}]", done.stderr


def test_fits_in_threads_share_the_threads(digits):
    X, y = digits
    before = pynn.num_threads()
    seen = []
    both = threading.Barrier(2)

    class Watching(MLPClassifier):
        def _note_loss(self, loss):
            both.wait(60)
            seen.append(pynn.num_threads())
            both.wait(60)
            super()._note_loss(loss)

    pynn.set_num_threads(4)
    try:
        workers = [threading.Thread(target=Watching((4,), max_iter=2).fit, args=(X, y)) for _ in range(2)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        assert seen == [2] * 4
        assert pynn.num_threads() == 4
    finally:
        pynn.set_num_threads(before)


# -- refusals ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("hidden_layer_sizes", (3, 0)),
        ("hidden_layer_sizes", "wide"),
        ("activation", "gelu"),
        ("solver", "lbfgs"),
        ("alpha", -1),
        ("batch_size", 0),
        ("batch_size", "all"),
        ("learning_rate", 0.1),
        ("learning_rate_init", 0),
        ("max_iter", 0),
        ("max_iter", 2.5),
        ("shuffle", "yes"),
        ("tol", -1e-9),
        ("momentum", 1.1),
        ("beta_1", 1.0),
        ("epsilon", 0),
        ("validation_fraction", 1.0),
        ("n_iter_no_change", 0),
    ],
)
def test_bad_parameters_are_named_when_fitting(parameter, value):
    with pytest.raises(ValueError, match=f"MLPClassifier: {parameter} is .*, needs "):
        MLPClassifier(**{parameter: value}).fit([[0.0], [1.0]], [0, 1])


def test_a_loss_that_overflows_is_an_error_that_helps(digits):
    X, y = digits
    with pytest.raises(ValueError, match=r"fit: the loss is (nan|inf); scale the data"):
        MLPRegressor((8,), solver="sgd", learning_rate_init=1e6, random_state=0).fit(1e3 * X, y)


def trained_once(kind, **options):
    """An estimator that is soon trained, and the name of its learning rate."""
    options = {"shuffle": False, "random_state": 0, **options}
    if kind == "MLP":
        return MLPClassifier((4,), solver="sgd", max_iter=1, **options), "learning_rate_init"
    return NeuralNetClassifier(Network, optimizer=optim.SGD, max_epochs=1, **options), "lr"


@pytest.mark.parametrize("kind", ["MLP", "module"])
def test_after_a_loss_that_is_nan_it_is_not_fitted(digits, kind):
    X, y = digits
    model, rate = trained_once(kind)
    model.set_params(**{rate: 1e300})
    before = dict(vars(model))
    with pytest.raises(ValueError, match=r"fit: the loss is (nan|inf); scale the data"):
        model.fit(X, y)
    assert vars(model) == before
    for fails in (check_is_fitted, lambda model: model.predict(X)):
        with pytest.raises(NotFittedError):
            fails(model)


@pytest.mark.parametrize("kind", ["MLP", "module"])
@pytest.mark.parametrize("way", ["fit", "warm fit", "partial_fit", "partial_fit of one batch"])
def test_a_loss_that_is_nan_leaves_what_was_fitted_as_it_was(digits, kind, way):
    X, y = (part[: 100 if "one batch" in way else None] for part in digits)
    model = trained_once(kind, warm_start=way == "warm fit")[0]
    call = model.fit if "partial" not in way else functools.partial(model.partial_fit, classes=range(10))
    call(X, y)
    other = copy.deepcopy(model)
    module, answers, curve = model.module_, model.predict_proba(X), list(model.loss_curve_)
    wrong = X.copy()
    wrong[-1] = 1.7e308  # in the last step
    with pytest.raises(ValueError, match=r"fit: the loss is (nan|inf); scale the data"):
        call(wrong, y)
    assert model.module_ is module
    np.testing.assert_array_equal(model.predict_proba(X), answers)
    assert (model.loss_curve_, model.n_iter_) == (curve, 1)
    for goes_on in (model, other):
        (goes_on.fit if "partial" not in way else goes_on.partial_fit)(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), other.predict_proba(X))


def test_one_step_to_weights_whose_penalty_overflows_is_done_or_not(digits):
    X, y = (part[:100].astype(np.float32) for part in digits)
    model = MLPRegressor((4,), solver="sgd", alpha=1.0, random_state=0).partial_fit(X, y)
    model._network.optimizer.param_groups[0]["lr"] = 1e30
    model.partial_fit(X, y)
    assert model.t_ == 200
    before = model.coefs_
    with pytest.raises(ValueError, match=r"^fit: the loss is inf; scale the data"):
        model.partial_fit(X, y)
    assert model.t_ == 200
    assert all((a == b).all() for a, b in zip(before, model.coefs_, strict=True))


def test_classes_of_a_first_call_that_failed_are_forgotten(digits):
    X, y = digits
    model = MLPClassifier((4,))
    with pytest.raises(ValueError, match="partial_fit needs known classes"):
        model.partial_fit(X, y, classes=[0, 1])
    assert not hasattr(model, "classes_")
    model.partial_fit(X, y, classes=range(10))


def test_too_few_validation_samples():
    with pytest.raises(ValueError, match="1 validation samples of 10 are too few"):
        MLPRegressor((8,), early_stopping=True).fit(np.eye(10), np.arange(10))


def test_without_scikit_learn_the_extra_is_named():
    code = "import sys; sys.modules['sklearn'] = None; import pynn; pynn.sklearn"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert "pip install 'pynn-cpu[sklearn]'" in done.stderr
