"""Numbers below the smallest normal one count as 0 in the core, and stay what they are outside of it."""

import numpy as np
import pytest

import pynn
from pynn import _core, nn, optim
from pynn import functional as F


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threads", [1, 2])
def test_operands_and_results_are_flushed_on_every_thread(dtype: type, threads: int) -> None:
    tiny = np.finfo(dtype).tiny
    before = pynn.num_threads()
    pynn.set_num_threads(threads)
    try:
        x = np.full(1 << 20, tiny / 2, dtype)
        assert not _core.mul(x, np.full_like(x, 4)).any()
        assert not _core.mul(np.full_like(x, tiny), np.full_like(x, 0.5)).any()
        np.testing.assert_array_equal(_core.mul(np.full_like(x, tiny), np.ones_like(x)), np.full_like(x, tiny))
    finally:
        pynn.set_num_threads(before)


def test_numpy_keeps_them_after_a_call() -> None:
    one, tiny = np.ones(8, np.float32), np.full(8, 1e-40, np.float32)
    _core.mul(tiny, one)
    with pytest.raises(ValueError, match="shape"):
        _core.mul(tiny, np.ones(9, np.float32))
    np.testing.assert_array_equal(tiny * one, tiny)
    assert (tiny * one).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_what_computes_nothing_keeps_them(sign: int) -> None:
    tiny = np.full(40, sign * 1e-40, np.float32)
    np.testing.assert_array_equal(_core.neg(tiny), -tiny)
    np.testing.assert_array_equal(_core.abs(tiny), np.abs(tiny))


@pytest.mark.parametrize("capture", [False, True])
def test_momentum_without_gradient_becomes_zero(capture: bool) -> None:
    weight = nn.Parameter(np.ones(4, np.float32))
    optimizer = optim.SGD([weight], lr=0.1, momentum=0.5)

    def step(x: pynn.Tensor) -> pynn.Tensor:
        optimizer.zero_grad()
        loss = F.sum(weight * x)
        loss.backward()
        optimizer.step()
        return loss

    run = pynn.capture(step) if capture else step
    run(pynn.tensor(np.ones(4, np.float32)))
    for _ in range(130):  # 2^-126 is the smallest normal number
        run(pynn.tensor(np.zeros(4, np.float32)))
    (momentum,) = [array for state in optimizer.state_dict()["state"].values() for array in state.values()]
    np.testing.assert_array_equal(momentum, np.zeros(4))
