"""`compare.py --mode gemm`: matrix products, in GFLOP/s and in shares of the peak measured in the same run."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from timing import Step, alternate, summarize
from workloads import Product

import pynn
from pynn import functional

TOLERANCE = 1e-4  # of the largest element


def measure(product: Product, others: list[str], repeats: int, seconds: float, seed: int) -> dict[str, Any]:
    """Check and time one product; return its figures."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((product.m, product.k)).astype(np.float32)
    b = rng.standard_normal((product.k, product.n)).astype(np.float32)
    x, y = pynn.tensor(a), pynn.tensor(b)
    steps: dict[str, Step] = {"pynn": lambda _: functional.matmul(x, y).data}
    if "torch" in others:
        import torch

        s, t = torch.from_numpy(a), torch.from_numpy(b)
        steps["torch"] = lambda _: torch.matmul(s, t).numpy()
    if "numpy" in others:
        steps["numpy"] = lambda _: a @ b
    want = a.astype(np.float64) @ b
    for name, step in steps.items():
        error = np.abs(step(None) - want).max() / np.abs(want).max()
        if not error <= TOLERANCE:
            raise SystemExit(f"{name}: product {product.name} is wrong by {error:.1e} of the largest element")
    peak = pynn.debug.peak_flops()
    result = summarize(alternate(steps, itertools.repeat(None), repeats, seconds))
    flops = 2.0 * product.m * product.n * product.k
    rates = {name: flops / (1e-6 * us) for name, us in result["us"].items()}
    return {**result, "flops": flops, "peak_flops": peak, "shares": {name: rate / peak for name, rate in rates.items()}}
