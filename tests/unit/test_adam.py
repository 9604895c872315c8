"""Our Adam against torch's: the same numbers, the same state, and what goes around it."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch

from lpm.train.adam import Adam


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_steps_are_torchs_own(dtype, weight_decay):
    torch.manual_seed(0)
    start = torch.randn(1000, 3, dtype=dtype)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    a = Adam([ours], lr=1e-2, eps=1e-15, weight_decay=weight_decay)
    b = torch.optim.Adam([theirs], lr=1e-2, eps=1e-15, weight_decay=weight_decay, fused=True)
    for _ in range(5):
        gradient = torch.randn_like(start)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        a.step()
        b.step()
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, start)
    mine, other = a.state_dict(), b.state_dict()
    assert mine["state"][0].keys() == other["state"][0].keys()
    assert all(torch.equal(mine["state"][0][key], other["state"][0][key]) for key in other["state"][0])


def test_state_goes_on_from_a_checkpoint_of_torchs():
    torch.manual_seed(0)
    first = torch.nn.Parameter(torch.randn(10))
    theirs = torch.optim.Adam([first], lr=1e-2, fused=True)
    first.grad = torch.randn(10)
    theirs.step()
    second = torch.nn.Parameter(first.detach().clone())
    ours = Adam([second], lr=1e-2)
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    first.grad = second.grad = torch.randn(10)
    theirs.step()
    ours.step()
    assert torch.equal(first, second)


def test_parameters_without_a_gradient_stay():
    one, other = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    optimizer = Adam([one, other], lr=0.1, eps=1e-15)
    one.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(other, torch.ones(3))
    assert not optimizer.state[other]
    assert torch.allclose(one, torch.full((3,), 0.9))  # Adam's first step is the rate, whatever the gradient's size
    optimizer.zero_grad()
    assert one.grad is None


def test_a_scheduler_changes_the_rate():
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = Adam([parameter], lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    before = parameter.item()
    for rate in (1.0, 0.5, 0.25):
        parameter.grad = torch.ones(1)
        optimizer.step()
        scheduler.step()
        assert before - parameter.item() == pytest.approx(rate, rel=1e-5)
        before = parameter.item()


def test_a_share_of_the_rate():
    both = [torch.nn.Parameter(torch.ones(5)) for _ in range(2)]
    whole, part = Adam([both[0]], lr=1e-3), Adam([both[1]], lr=1e-2)
    part.share = 0.1
    for parameter, optimizer in zip(both, (whole, part), strict=True):
        parameter.grad = torch.arange(5.0) - 2
        optimizer.step()
    torch.testing.assert_close(*both)
    assert not torch.equal(both[0], torch.ones(5))


def test_torchs_compiler_is_not_imported():
    """It takes longer to import than all else that a run needs before its first step."""
    code = """
import sys, torch
from lpm.train.adam import Adam
from lpm.train.optimizers import Falling
parameter = torch.nn.Parameter(torch.ones(3))
optimizer = Adam([parameter])
schedule = Falling(optimizer, lambda step: 0.5)
parameter.grad = torch.ones(3)
optimizer.step(), schedule.step(), optimizer.zero_grad(), optimizer.state_dict()
assert 'torch._dynamo' not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
