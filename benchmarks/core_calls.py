"""What a step asks of the core: its calls, with their multiply-adds, bytes and times."""

from __future__ import annotations

import ast
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pynn import _core

kernel_counts = _core.kernel_counts  # itself, while the functions of the core are replaced
WRITTEN = {
    "sgd_": ("params", "momentum_buffers"),
    "adam_": ("params", "exp_avgs", "exp_avg_sqs"),
    "rmsprop_": ("params", "square_avgs", "grad_avgs", "momentum_buffers"),
}
RECURRENT = {"rnn", "lstm", "gru"}
NO_PRODUCTS = {"embedding", "batch_norm", "batch_norm_backward", "layer_norm", "layer_norm_backward"}  # have a weight


@dataclass(frozen=True)
class Call:
    """One call of the core in a step."""

    name: str
    shapes: str
    multiply_adds: int
    nbytes: int  # of all arrays together
    moved: int  # bytes between cache and core: read; read and written back; fetched for writing and written back


def signatures() -> dict[str, list[str]]:
    """Return the names of the arguments of each function of the core."""
    stub = ast.parse(Path(_core.__file__).with_name("_core.pyi").read_text())
    return {node.name: [a.arg for a in node.args.args] for node in stub.body if isinstance(node, ast.FunctionDef)}


def arrays(value: Any) -> list[Any]:
    """Return the arrays in arguments or results."""
    if isinstance(value, (list, tuple)):
        return [array for v in value for array in arrays(v)]
    return [value] if isinstance(value, np.ndarray) else []


def size(parts: list[Any]) -> int:
    """Return the bytes of arrays."""
    return sum(array.nbytes for array in parts)


def describe(name: str, arguments: dict[str, Any], result: Any, winograd: bool = False) -> Call:
    """Count a call. SystemExit for one with weights whose multiply-adds are not known here."""
    inputs, outputs = arrays(list(arguments.values())), arrays(result)
    if name == "take_rows":  # of the array it takes from, it reads what it returns
        inputs = [result, arguments["rows"]]
    in_place = size(arrays([arguments[key] for key in WRITTEN.get(name, ())]))
    shown = next((arguments[key] for key in ("dy", "x", "logits", "weight") if key in arguments), None)
    shapes = "x".join(map(str, shown.shape)) if isinstance(shown, np.ndarray) else f"{len(inputs)} arrays"
    moved = size(inputs) + in_place + 2 * size(outputs)
    return Call(name, shapes, multiply_adds(name, arguments, result, winograd), size(inputs) + size(outputs), moved)


def multiply_adds(name: str, arguments: dict[str, Any], result: Any, winograd: bool = False) -> int:
    """Return the multiply-adds that a call needs.

    Winograd's F(2 x 2, 3 x 3) needs 4 in place of 9, in the forward or for dx; its transforms are not counted.

    Behind a max-pool the gradient is zero but for one element of a window, and with ReLU only where that one was
    positive: the backward of the pooled convolution is counted with the elements that were so in this step. Likewise
    that of a linear layer with ReLU.
    """
    base, backward, _ = name.partition("_backward")
    if base in RECURRENT:
        return recurrent_multiply_adds(arguments, bool(backward))
    if "weight" not in arguments or name in NO_PRODUCTS:
        return 0
    per_output = int(np.prod(arguments["weight"].shape[1:]))
    of_data = 4 / 9 if winograd else 1.0
    products = of_data * int(arguments["need_dx"]) + int(arguments["need_dweight"]) if backward else of_data
    output = arguments["dy"] if backward else arrays(result)[0]
    if base == "linear" and backward and arguments["activation"] == "relu":
        return round(products * int(np.count_nonzero(arguments["y"])) * per_output)
    if base in ("linear", "conv2d"):
        return round(products * int(output.size) * per_output)
    if base == "conv2d_max_pool2d":
        live = 4 * output.size
        if backward:
            live = np.count_nonzero(arguments["y"]) if arguments["activation"] == "relu" else output.size
        return round(products * int(live) * per_output)
    raise SystemExit(f"core_calls.py does not know the multiply-adds of {name}")


def recurrent_multiply_adds(arguments: dict[str, Any], backward: bool) -> int:
    """Return those of a recurrent layer: integers look their part of the gates up, and dh0 takes one step more."""
    x = arguments["x"]
    steps, batch = x.shape[:2]
    of_x = 0 if x.dtype.kind in "iu" else steps * batch * arguments["weight_ih"].size
    of_h = steps * batch * arguments["weight_hh"].size
    if not backward:
        return int(of_x + of_h)
    through_time = of_h if arguments["need_dh0"] else max(0, steps - 1) * batch * arguments["weight_hh"].size
    weights = of_x + of_h if arguments["need_dweights"] else 0
    return int(of_x * int(arguments["need_dx"]) + through_time + weights)


@contextmanager
def wrapped(wrap: Callable[[str, Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Replace every function of the core by ``wrap(name, function)`` for the time of the block."""
    originals = {name: getattr(_core, name) for name in signatures()}
    try:
        for name, function in originals.items():
            setattr(_core, name, wrap(name, function))
        yield
    finally:
        for name, function in originals.items():
            setattr(_core, name, function)


def record(step: Callable[[], object]) -> list[Call]:
    """Take a step and return the calls that it made."""
    names, calls = signatures(), []

    def wrap(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            before = kernel_counts().get("conv2d.winograd", 0)
            result = function(*args, **options)
            arguments = dict(zip(names[name], args, strict=False)) | options
            calls.append(describe(name, arguments, result, kernel_counts().get("conv2d.winograd", 0) > before))
            return result

        return counted

    with wrapped(wrap):
        step()
    return calls


def time_calls(step: Callable[[], object], repeats: int) -> tuple[list[float], float]:
    """Return the median µs of each call of a step, in order, and of the whole step as it was while they were timed."""
    times: list[list[float]] = []
    totals = []

    def wrap(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = function(*args, **options)
            times[-1].append(time.perf_counter() - start)
            return result

        return timed

    with wrapped(wrap):
        for _ in range(repeats):
            times.append([])
            start = time.perf_counter()
            step()
            totals.append(time.perf_counter() - start)
    return [1e6 * float(t) for t in np.median(np.array(times), axis=0)], 1e6 * float(np.median(totals))
