"""Muon against PyTorch's, and what its steps are."""

import math

import numpy as np
import pytest

from pynn import nn, optim

try:
    import torch
except ImportError:
    torch = None
needs_torch = pytest.mark.skipif(torch is None, reason="PyTorch is not installed")


MATRICES = [(6, 4), (4, 6), (5, 5), (1, 7), (7, 1), (40, 24)]


def matrices(seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(dtype) for shape in MATRICES]


MUON = {
    "default": {},
    "plain": {"lr": 0.05, "momentum": 0.8, "nesterov": False, "weight_decay": 0.0},
    "options": {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.3, "adjust_lr_fn": "match_rms_adamw", "ns_steps": 3},
    "coefficients": {"lr": 0.02, "ns_coefficients": (2.0, -1.5, 0.5), "ns_steps": 12, "adjust_lr_fn": "original"},
}
each_muon = pytest.mark.parametrize("options", MUON.values(), ids=MUON)


def muon_steps(options, dtype):
    params = [nn.Parameter(value) for value in matrices(0, dtype)]
    optimizer = optim.Muon(params, **options)
    for seed in range(1, 8):
        for p, g in zip(params, matrices(seed, dtype), strict=True):
            p.grad = g
        optimizer.step()
    return params


@each_muon
@needs_torch
def test_muon_equals_pytorchs(options, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)  # in which PyTorch iterates
    theirs = [torch.from_numpy(value).requires_grad_() for value in matrices(0)]
    reference = torch.optim.Muon(theirs, **options)
    for seed in range(1, 8):
        for p, g in zip(theirs, matrices(seed), strict=True):
            p.grad = torch.from_numpy(g)
        reference.step()
    for p, q in zip(muon_steps(options, np.float64), theirs, strict=True):
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-9, atol=1e-12)


@each_muon
def test_muon_in_float32(options):
    for single, double in zip(muon_steps(options, np.float32), muon_steps(options, np.float64), strict=True):
        assert single.dtype == np.float32
        # Singular values near 0 grow by 3.4 in each step of Newton-Schulz, and float32's errors with them.
        np.testing.assert_allclose(single.data, double.data, atol=1e-4)


def test_muon_makes_steps_orthogonal():
    """From the polynomial with the fixed point 1, u becomes U Vᵀ; a gradient of 0 stays 0."""
    rng = np.random.default_rng(4)
    for shape in MATRICES[:3]:
        p, g = nn.Parameter(np.zeros(shape)), rng.normal(size=shape)
        p.grad = g.copy()
        optimizer = optim.Muon([p], lr=1.0, momentum=0.0, ns_coefficients=(1.875, -1.25, 0.375), ns_steps=40)
        optimizer.step()
        u, _, vt = np.linalg.svd(g, full_matrices=False)
        np.testing.assert_allclose(-p.data, math.sqrt(max(1, shape[0] / shape[1])) * (u @ vt), atol=1e-9)
        before = p.data.copy()
        p.grad = np.zeros(shape)
        optimizer.step()
        np.testing.assert_allclose(p.data, 0.9 * before, rtol=1e-12)  # weight decay alone


def test_muon_state_and_checkpoint():
    params = [nn.Parameter(value) for value in matrices(0)]
    optimizer = optim.Muon(params, lr=0.02)
    for p, g in zip(params, matrices(1), strict=True):
        p.grad = g
    optimizer.step()
    others = [nn.Parameter(p.data.copy()) for p in params]
    other = optim.Muon(others)
    other.load_state_dict(optimizer.state_dict())
    assert list(other.state_dict()["state"][0]) == ["momentum_buffer"]
    for p, q, g in zip(params, others, matrices(2), strict=True):
        p.grad, q.grad = g.copy(), g.copy()
    optimizer.step()
    other.step()
    for p, q in zip(params, others, strict=True):
        np.testing.assert_array_equal(p.data, q.data)


def test_a_step_that_a_parameter_refuses_changes_no_other():
    params = [nn.Parameter(np.eye(3)), nn.Parameter(np.eye(2))]
    optimizer = optim.Muon(params)
    for p in params:
        p.grad = np.ones(p.shape)
    params[1].data.flags.writeable = False
    with pytest.raises(ValueError, match=r"^Muon: parameter \[2, 2\] is read-only, and a step writes to it$"):
        optimizer.step()
    np.testing.assert_array_equal(params[0].data, np.eye(3))
    assert optimizer.state == {}
