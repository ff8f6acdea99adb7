"""The result of a call has the same bits for every number of threads, and for every repetition."""

import numpy as np
import pytest
from core_cases import CASES, Case

from pynn import _core

THREADS = [1, 2, 3, 1]


def normal(*shape):
    return np.random.default_rng(3).normal(size=shape)


def cases():
    """Return calls large enough to be split over threads, in sizes that three threads do not divide evenly."""
    big, rows, image = normal(700, 1501), normal(20_011, 10), normal(37, 16, 29, 31)
    wide, pooled = normal(37, 32, 29, 31), normal(37, 32, 14, 15)
    digits, digits_dy, pooled_digits = normal(257, 1, 28, 28), normal(257, 8, 24, 24), normal(257, 8, 12, 12)
    heads = normal(1, 3, 701, 40), normal(1, 3, 901, 40), normal(1, 3, 901, 40)
    all_three = True, True, True
    sparse = normal(201, 785) * (normal(201, 785) > 1)
    # Sequences that are cut into rows, and a wide layer that is cut by hidden units.
    lstm = normal(23, 37, 20), normal(37, 65), normal(37, 65), normal(260, 20) / 5, normal(260, 65) / 8
    lstm_dy, lstm_kept = normal(23, 37, 65), [normal(23, 37, n) for n in (260, 65, 65)]
    gru = normal(3, 7, 40), None, normal(1011, 40) / 9, normal(1011, 337) / 20
    gru_kept = [normal(3, 7, n) for n in (1011, 337, 337)]
    table = {
        "matmul": [
            (normal(513, 385), normal(385, 641)),
            (normal(513, 385), normal(641, 385), False, True),
            (normal(20_000, 33), normal(20_000, 65), True, False),
            (normal(37, 65, 129), normal(37, 129, 33)),
            (normal(1, 5001), normal(5001, 1)),
        ],
        "linear": [
            (normal(1001, 785), normal(129, 785), normal(129), "relu"),
            (normal(3, 4001), normal(1000, 4001), None),
            (normal(33, 784), normal(500, 784), normal(500), "relu"),  # turned
            (normal(255, 784), normal(100, 784), normal(100), "relu", False),
            (normal(1001, 2100), normal(11, 2100), normal(11), "relu"),  # dot products
            (sparse, normal(129, 785), normal(129), "tanh"),
        ],
        "rotate_pairs": [(big[:700, :1500], *np.split(np.sin(big[:700, :1500]), 2, axis=1))],
        "scaled_dot_product_attention": [
            (*heads, None, 3, 0.2, 0.1, 3, 4),
            (normal(1, 1, 3, 40), normal(1, 1, 1501, 40), normal(1, 1, 1501, 40), None, None, 0.2, 0.0, 0, 0),
        ],
        "scaled_dot_product_attention_backward": [
            (heads[0], heads[0], normal(1, 3, 701), *heads, None, 3, 0.2, 0.1, 3, 4)
        ],
        "linear_backward": [
            (normal(201, 129), normal(201, 129), sparse, normal(129, 785), "relu", False, True, True),
            (normal(1001, 129), normal(1001, 129), normal(1001, 785), normal(129, 785), "tanh", True, True, True),
            (normal(20_011, 10), normal(20_011, 10), normal(20_011, 64), normal(10, 64), "none", True, True, True),
            (
                normal(127, 300),
                normal(127, 300),
                normal(127, 402),
                normal(300, 402),
                "relu",
                True,
                True,
                True,
            ),  # large weight
        ],
        "conv2d": [
            (image, normal(32, 16, 3, 3), normal(32), (1, 1), (1,) * 4, (1, 1), 1, "relu"),
            (image, normal(16, 1, 5, 5), None, (2, 2), (2,) * 4, (1, 1), 16, "none"),
            (normal(1, 64, 57, 57), normal(64, 64, 3, 3), None, (1, 1), (1,) * 4, (1, 1), 1, "none"),
        ],
        "conv2d_backward": [
            (wide, wide, image, normal(32, 16, 3, 3), (1, 1), (1,) * 4, (1, 1), 1, "relu", *all_three),
            (
                normal(37, 16, 15, 16),
                None,
                image,
                normal(16, 1, 5, 5),
                (2, 2),
                (2,) * 4,
                (1, 1),
                16,
                "none",
                *all_three,
            ),
            (digits_dy, None, digits, normal(8, 1, 5, 5), (1, 1), (0,) * 4, (1, 1), 1, "none", *all_three),
        ],
        "conv2d_max_pool2d": [
            (image, normal(32, 16, 3, 3), normal(32), (1, 1), (1,) * 4, (1, 1), 1, "relu"),
            (digits, normal(8, 1, 5, 5), None, (1, 1), (0,) * 4, (1, 1), 1, "none"),
        ],
        "conv2d_max_pool2d_backward": [
            (
                *(pooled, pooled, np.arange(pooled.size, dtype=np.uint8).reshape(pooled.shape) % 4),
                *(image, normal(32, 16, 3, 3), (1, 1), (1,) * 4, (1, 1), 1, "relu", *all_three),
            ),
            (
                *(pooled_digits, pooled_digits, np.zeros(pooled_digits.shape, np.uint8)),
                *(digits, normal(8, 1, 5, 5), (1, 1), (0,) * 4, (1, 1), 1, "none", *all_three),
            ),
        ],
        "max_pool2d": [(image, (3, 3), (2, 2), (1, 1), (1, 1), True)],
        "avg_pool2d": [(image, (3, 3), (2, 2), (1, 1), True, False)],
        "avg_pool2d_backward": [(normal(37, 16, 15, 16), image.shape, (3, 3), (2, 2), (1, 1), True)],
        "gelu": [(big, False)],
        "exp": [(big,)],
        "div": [(big, big[:, :1]), (big, big[0])],
        "sum": [(big, axes, False) for axes in ((0,), (1,), (0, 1))] + [(image, (0, 2, 3), False)],
        "mean": [(image, (0, 2), True)],
        "var": [(big, axes, 1, False) for axes in ((0,), (1,), (0, 1))],
        "max": [(big, (0,), False), (big, (0, 1), False)],
        "argmax": [(big.round(1), 0), (big.round(1), 1)],
        "sum_to": [(big, (1501,)), (big, (700, 1)), (big, ())],
        "transpose": [(big, (1, 0)), (image, (0, 2, 3, 1))],
        "softmax": [(rows,), (big,)],
        "softmax_backward": [(rows, rows)],
        "cross_entropy": [(rows, np.arange(20_011) % 10, -100, 0.1, reduction, True) for reduction in ("mean", "none")],
        "mse_loss": [(big, big + 1, "mean", True)],
        "binary_cross_entropy_with_logits": [(big, big / 9, "sum", True)],
        "hinge_loss": [(big, big, "mean", True)],
        "nll_loss": [(rows, np.arange(20_011) % 10, -100, reduction, True) for reduction in ("mean", "none")],
        "l1_loss": [(big, big / 2, "mean", True)],
        "kl_div": [(big, big**2, False, "mean", True)],
        "smooth_l1_loss": [(big, big / 2, 1.0, "sum", True)],
        "silu": [(big,)],
        "elu": [(big, 1.0)],
        "softplus": [(big, 1.0, 20.0)],
        "batch_norm": [(image, normal(16), normal(16), np.zeros(16), np.ones(16), True, 0.1, 1e-5)],
        "batch_norm_backward": [(image, image, normal(16), normal(16), np.ones(16), True)],
        "layer_norm": [(big, normal(1501), normal(1501), 1e-5)],
        "layer_norm_backward": [(rows, rows, normal(10), normal(20_011), np.ones(20_011))],
        "dropout": [(big, 0.3, 5, 7)],
        "embedding": [(normal(100, 65), np.arange(20_000) ** 2 % 97)],
        "embedding_backward": [(normal(20_000, 65), np.arange(20_000) ** 2 % 97, 100)],
        "rnn": [(normal(50, 19, 33), normal(19, 129), normal(129, 33), normal(129, 129) / 12, None, None, False, True)],
        "lstm": [(*lstm, normal(260), normal(260), False)],
        "lstm_backward": [(lstm_dy, None, lstm[1], *lstm_kept, *lstm, False, *all_three, True)],
        "gru": [(*gru, normal(1011), normal(1011), False)],
        "gru_backward": [(None, normal(7, 337), *gru_kept, *gru, True, *all_three)],
        "sgd_": [([big, rows], [big, rows], [big, rows], 0.1, 0.9, 0.0, 0.1, True, False)],
        "adam_": [([big, rows], [big, rows], [big + 1, rows], [big**2, rows**2], 3, 0.1, 0.9, 0.999, 1e-8, 0.1, True)],
        "rmsprop_": [
            ([big, rows], [big, rows], [big**2, rows**2], [big / 9, rows / 9], [big, rows], 0.1, 0.9, 1e-8, 0.1, 0.9)
        ],
        "adagrad_": [([big, rows], [big, rows], [big**2, rows**2], 3, 0.1, 0.1, 1e-8, 0.1)],
        "adadelta_": [([big, rows], [big, rows], [big**2, rows**2], [big**2, rows**2], 0.1, 0.9, 1e-6, 0.1)],
        "l2_norm": [([big, rows, image],)],
    }
    return [Case(name, args, 0) for name, calls in table.items() for args in calls]


@pytest.fixture
def threads():
    before = _core.num_threads()
    yield _core.set_num_threads
    _core.set_num_threads(before)


def result_bytes(case, dtype):
    """Return what the call gave and what its arguments hold afterwards, as bytes."""
    args = case.cast(dtype)
    result = getattr(_core, case.name)(*args)

    def dump(value):
        if isinstance(value, list | tuple):
            return [dump(v) for v in value]
        return value.tobytes() if isinstance(value, np.ndarray) else value

    return dump(result), dump(args)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_large_calls(threads, case, dtype):
    assert_same_bits(threads, case, dtype)


@pytest.mark.parametrize("name", CASES)
def test_small_calls(threads, name):
    for case in CASES[name]:
        assert_same_bits(threads, case, np.float32)


def unit_cuts():
    """Return recurrent gradients that six threads cut by hidden units, fewer by rows, and whose weight_ih is cached."""
    table, all_three = [], (True, True, True)
    for inputs in 1, 4:
        rnn = normal(5, 17, inputs), None, normal(305, inputs), normal(305, 305) / 18
        table.append(("rnn_backward", (normal(5, 17, 305), None, normal(5, 17, 305), *rnn, False, False, *all_three)))
        lstm = normal(9, 17, inputs), normal(17, 153), normal(17, 153), normal(612, inputs), normal(612, 153) / 13
        kept = [normal(9, 17, n) for n in (612, 153, 153)]
        table.append(("lstm_backward", (normal(9, 17, 153), None, None, *kept, *lstm, False, *all_three, True)))
        gru = normal(45, 17, inputs), None, normal(528, inputs), normal(528, 176) / 14  # two chunks of steps
        kept = [normal(45, 17, n) for n in (528, 176, 176)]
        table.append(("gru_backward", (None, normal(17, 176), *kept, *gru, True, *all_three)))
    return [Case(name, args, 0) for name, args in table]


@pytest.mark.parametrize("case", unit_cuts(), ids=lambda case: case.name)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_cuts_of_six_threads(threads, case, dtype):
    assert_same_bits(threads, case, dtype, [1, 6, 8])


def assert_same_bits(threads, case, dtype, numbers=THREADS):
    results = []
    for n in numbers:
        threads(n)
        results.append(result_bytes(case, dtype))
    assert all(result == results[0] for result in results[1:])
