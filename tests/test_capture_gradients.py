"""Gradients that a captured function finds, assigns or drops."""

import numpy as np
import pytest
from captured_steps import X, Y

import pynn
from pynn import CaptureError, nn, optim
from pynn import functional as F


@pytest.mark.parametrize("clips", [False, True])
def test_a_gradient_that_another_step_left_is_not_passed_over(clips):
    """The second head has none while the step is recorded; later the step would use the one that it has."""
    pynn.seed(0)
    first, second = nn.Linear(6, 3), nn.Linear(6, 3)
    params = [*first.parameters(), *second.parameters()]
    optimizer = optim.SGD(first.parameters() if clips else params, lr=0.1)

    @pynn.capture
    def step(x, y):
        F.cross_entropy(first(x), y).backward()
        if clips:
            optim.clip_grad_norm_(params, 0.01)
        optimizer.step()

    for _ in range(2):
        step(X, Y)
        optimizer.zero_grad()
    assert repr(step) == "Captured(step, plans=1)"
    F.cross_entropy(second(X), Y).backward()
    before = first.weight.data.copy()
    with pytest.raises(CaptureError, match=r"a gradient \[3, 6\] from before is used, at .*call backward inside"):
        step(X, Y)
    np.testing.assert_array_equal(first.weight.data, before)
