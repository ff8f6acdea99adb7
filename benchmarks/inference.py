"""`compare.py --mode inference`, and `captured-inference`: networks applied to batches, beside others."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from timing import Step, alternate, summarize
from workloads import Application

import pynn
from pynn import nn

Array = npt.NDArray[Any]

BATCHES = 16  # different ones, taken in turn
TOLERANCE = 1e-4  # of the largest output


def measure(
    application: Application,
    others: list[str],
    repeats: int,
    seconds: float,
    seed: int,
    threads: int,
    captured: bool = False,
) -> dict[str, Any]:
    """Check and time one network; return its figures. If `captured`, pynn replays what it has recorded."""
    steps = make_steps(application, others, seed, threads, captured)
    difference = check(steps)
    blocks = alternate(steps, itertools.cycle(range(BATCHES)), repeats, seconds)
    return {**summarize(blocks), "output_difference": difference}


def make_steps(
    application: Application, others: list[str], seed: int, threads: int, captured: bool = False
) -> dict[str, Step]:
    """Return what applies the network to batch i, of pynn and others, with the same weights."""
    rng = np.random.default_rng(seed)
    pynn.seed(seed)
    model = application.build(nn)
    model.eval()
    batches = rng.standard_normal((BATCHES, application.batch, *application.shape)).astype(np.float32)
    steps = {"pynn": _pynn_step(pynn.capture(model) if captured else model, batches)}
    if "eager" in others:
        steps["eager"] = _pynn_step(model, batches)
    if "torch" in others:
        steps["torch"] = _torch_step(application, model, batches)
    if "onnxruntime" in others:
        steps["onnxruntime"] = _onnx_step(model, batches, threads)
    return steps


def _pynn_step(model: Callable[[Array], pynn.Tensor], batches: Array) -> Step:
    def step(i: int) -> Array:
        with pynn.no_grad():
            return model(batches[i]).data

    return step


def _torch_step(application: Application, model: nn.Sequential, batches: Array) -> Step:
    import torch

    theirs = application.build(torch.nn)
    theirs.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in model.state_dict().items()})
    theirs.eval()
    tensors = torch.from_numpy(batches)

    def step(i: int) -> Array:
        with torch.inference_mode():
            y: Array = theirs(tensors[i]).numpy()
            return y

    return step


def _onnx_step(model: nn.Sequential, batches: Array, threads: int) -> Step:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    file = pynn.onnx.export(model, batches[0], dynamic_axes={}).SerializeToString()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def step(i: int) -> Array:
        y: Array = session.run(None, {"x": batches[i]})[0]
        return y

    return step


def check(steps: dict[str, Step]) -> float:
    """Return the largest difference of outputs, relative to the largest output; SystemExit if too large."""
    worst = 0.0
    for i in range(2):
        ours = steps["pynn"](i)
        for name, step in steps.items():
            theirs = step(i)
            difference = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
            if not difference <= TOLERANCE:
                raise SystemExit(f"outputs of pynn and {name} differ by {difference:.1e} of the largest")
            worst = max(worst, difference)
    return worst
