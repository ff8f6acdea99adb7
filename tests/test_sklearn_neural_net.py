"""NeuralNetClassifier: modules of all kinds as estimators, and what it refuses."""

import numpy as np
import pytest
from small_models import Network

from pynn import functional as F
from pynn import nn, optim

pytest.importorskip("sklearn", reason="needs scikit-learn")
from sklearn.base import clone
from sklearn.datasets import load_digits

from pynn.sklearn import NeuralNetClassifier

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*max_iter:sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:Stochastic Optimizer:sklearn.exceptions.ConvergenceWarning"),
]


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X / 16, y


class Images(nn.Module):
    def __init__(self, channels, n_classes):
        self.conv = nn.Conv2d(1, channels, 3)
        self.out = nn.Linear(channels * 9, n_classes)

    def forward(self, x):
        return self.out(F.max_pool2d(F.relu(self.conv(x)), 2).flatten(1))


def test_images_and_module_parameters(digits):
    X, y = digits
    images = X.reshape(-1, 1, 8, 8).astype(np.float32)
    model = NeuralNetClassifier(
        Images,
        module__channels=4,
        optimizer=optim.SGD,
        optimizer__momentum=0.9,
        criterion__label_smoothing=0.1,
        lr=0.05,
        random_state=0,
    )
    assert clone(model).get_params()["module__channels"] == 4
    model.set_params(module__channels=8).fit(images, y)
    assert model.module_.conv.weight.shape == (8, 1, 3, 3)
    assert model._network.optimizer.param_groups[0]["momentum"] == 0.9
    assert model.score(images, y) > 0.9


@pytest.mark.parametrize(("before", "dtype"), [(np.float64, np.float32), (np.float32, np.float64)])
def test_the_dtype_does_not_depend_on_an_earlier_fit(before, dtype, digits):
    X, y = digits
    model = NeuralNetClassifier(Network, max_epochs=1).fit(X.astype(before), y)
    model.fit(X.astype(dtype), y)
    assert next(model.module_.parameters()).dtype == dtype


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_class_weights_take_the_dtype_of_the_data(dtype, digits):
    X, y = digits[0].astype(dtype), digits[1] == 3
    found = []
    for weight in ([1.0, 100.0], np.array([1.0, 100.0]), np.array([1, 100], np.float32)):
        model = NeuralNetClassifier(Network, criterion__weight=weight, max_epochs=2, random_state=0).fit(X, y)
        found.append(model.predict_proba(X))
        assert model.fit(X, y, np.ones(len(X))).predict(X).mean() > y.mean()
    assert all(np.array_equal(p, found[0]) for p in found)


def test_integers_for_an_embedding():
    rng = np.random.default_rng(0)
    words = rng.integers(0, 20, (300, 5))
    y = (words == 3).any(axis=1)

    def model(n_classes):
        return nn.Sequential(nn.Embedding(20, 8), nn.Flatten(), nn.Linear(40, 16), nn.ReLU(), nn.Linear(16, n_classes))

    net = NeuralNetClassifier(model, dtype="int64", lr=0.02, max_epochs=40, random_state=0).fit(words, y)
    assert net.score(words, y) > 0.95


@pytest.mark.parametrize("weighted", [False, True])
def test_a_module_that_cannot_be_captured_trains_to_the_same_weights(digits, weighted):
    X, y = digits
    weights = np.random.default_rng(0).random(len(y)) if weighted else None

    class Reading(nn.Sequential):
        def forward(self, x):
            z = super().forward(x)
            assert np.isfinite(z.data).all()  # reads values, which a replay could not repeat
            return z

    nets = [
        NeuralNetClassifier(
            lambda kind=kind: kind(nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 10)),
            max_epochs=3,
            random_state=0,
        )
        for kind in (Reading, nn.Sequential)
    ]
    with pytest.warns(UserWarning, match="^fit: trains without capture, which takes longer: capture: ") as seen:
        nets[0].fit(X, y, weights)
    assert len(seen) == 1
    assert seen[0].filename == __file__
    nets[1].fit(X, y, weights)
    assert nets[0].loss_curve_ == nets[1].loss_curve_
    for ours, captured in zip(nets[0].module_.parameters(), nets[1].module_.parameters(), strict=True):
        np.testing.assert_array_equal(ours.data, captured.data)


def test_a_made_module_is_copied(digits):
    X, y = digits
    given = Network(64, 10)
    before = given.state_dict()
    NeuralNetClassifier(given, max_epochs=1).fit(X.astype(np.float32), y)
    assert all(np.array_equal(array, given.state_dict()[name]) for name, array in before.items())
    with pytest.raises(TypeError, match="module is made already, it takes no parameters"):
        NeuralNetClassifier(given, module__width=3).fit(X, y)


def test_log_probabilities_as_outputs(digits):
    X, y = digits

    def module(n_features, n_classes):
        return nn.Sequential(nn.Linear(n_features, n_classes), nn.LogSoftmax())

    net = NeuralNetClassifier(module, criterion=F.nll_loss, lr=0.01, random_state=0).fit(X, y)
    assert np.allclose(net.predict_proba(X).sum(axis=1), 1)
    weighted = NeuralNetClassifier(module, criterion=F.nll_loss, lr=0.01, random_state=0)
    assert np.allclose(weighted.fit(X, y, np.full(len(y), 3.0)).loss_curve_, net.loss_curve_)


def test_dropout_follows_from_the_seed(digits):
    X, y = digits
    curves = [
        NeuralNetClassifier(Network, module__p=0.5, random_state=seed, max_epochs=2).fit(X, y).loss_curve_
        for seed in (0, 0, 1)
    ]
    assert curves[0] == curves[1] != curves[2]


class Deeper(NeuralNetClassifier):
    def __init__(self, module=Network, *, copies=1, **parameters):
        super().__init__(module, **parameters)
        self.copies = copies


def test_a_subclass_may_pass_parameters_on(digits):
    X, y = digits
    model = clone(Deeper(copies=2, max_epochs=1, lr=0.1, optimizer__weight_decay=0.5))
    assert model.set_params(lr=0.2).fit(X, y).n_iter_ == 1
    assert model._network.optimizer.param_groups[0]["lr"] == 0.2
    assert model.get_params()["copies"] == 2
    with pytest.raises(TypeError, match="unknown parameter 'learning_rate'"):
        Deeper(learning_rate=1).fit(X, y)


def test_refusals_of_the_neural_net():
    X, y = [[0.0], [1.0]], [0, 1]
    with pytest.raises(ValueError, match="NeuralNetClassifier: lr is -1, needs a number above 0"):
        NeuralNetClassifier(Network, lr=-1).fit(X, y)
    with pytest.raises(ValueError, match=r"NeuralNetClassifier: optimizer is 'adam', needs .* such as optim\.Adam"):
        NeuralNetClassifier(Network, optimizer="adam").fit(X, y)
    with pytest.raises(ValueError, match="NeuralNetClassifier: criterion is 'mse', needs a class or function"):
        NeuralNetClassifier(Network, criterion="mse").fit(X, y)
    with pytest.raises(ValueError, match="NeuralNetClassifier: module is None, needs a Module, or a class or function"):
        NeuralNetClassifier(None).fit(X, y)
    with pytest.raises(TypeError, match="unknown parameter 'learning_rate'"):
        NeuralNetClassifier(Network, learning_rate=1).fit(X, y)
    with pytest.raises(ValueError, match="Invalid parameter 'epochs'"):
        NeuralNetClassifier(Network).set_params(epochs=3)
    with pytest.raises(TypeError, match="module gave a list, needs a Module"):
        NeuralNetClassifier(lambda: []).fit(X, y)
    with pytest.raises(TypeError, match="unexpected keyword argument 'depth'"):
        NeuralNetClassifier(Network, module__depth=3).fit(X, y)


def test_outputs_that_are_not_one_for_each_class():
    X, y = np.eye(3, dtype=np.float32), [0, 1, 2]
    for n in (1, 2, 5):
        net = NeuralNetClassifier(nn.Linear(3, n))
        with pytest.raises(ValueError, match=rf"module gives \[1, {n}\] for one sample, needs \[1, 3\]"):
            net.fit(X, y)
        assert not hasattr(net, "module_")


def test_a_step_that_fails_leaves_running_averages_as_they_were(digits):
    X, y = digits
    module = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))
    model = NeuralNetClassifier(module, batch_size=len(X), random_state=0).partial_fit(X, y, classes=range(10))
    before = model.module_.state_dict()
    with pytest.raises(ValueError, match=r"^fit: the loss is nan"):
        model.partial_fit(1.7e308 * X, y)
    for name, array in model.module_.state_dict().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
