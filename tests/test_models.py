"""Files of the small models of the command line."""

import numpy as np
import pytest

from pynn.models import Classifier, build


@pytest.mark.parametrize("number", [float, np.float32, np.float64])
def test_a_classifier_comes_back_with_the_statistics_of_any_kind_of_float(tmp_path, number):
    classifier = Classifier("mlp", build("mlp"), number(0.1307), number(0.3081), "mnist", False)
    classifier.save(tmp_path / "w.npz")
    other = Classifier.load(tmp_path / "w.npz")
    assert (other.mean, other.std) == (classifier.mean, classifier.std)
    assert (other.dataset, other.is_synthetic) == ("mnist", False)
    for ours, theirs in zip(other.model.parameters(), classifier.model.parameters(), strict=True):
        np.testing.assert_array_equal(ours.data, theirs.data)
