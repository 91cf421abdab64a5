"""A state too large for its Jacobian: 20 000 states take less than 2 GB, in a process of their own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lyaptorch as lt

EXAMPLE = Path(__file__).parents[2] / "examples" / "convolutional.py"


def run(*arguments):
    """The states, the exponents and the peak memory in MB that the example prints."""
    # by a shell: the peak of a process counts that of the one that started it, and this one is large
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, str(EXAMPLE), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    print(done.stdout)
    states, *rates = re.findall(r"[+-]?\d+\.\d+|^\d+", done.stdout, re.MULTILINE)
    return int(states), [float(r) for r in rates[:-1]], float(re.search(r"peak memory (\d+)", done.stdout)[1])


def test_the_example_runs():
    states, rates, peak = run("--side", "20", "--steps", "12", "--k", "2")
    assert states == 800
    assert len(rates) == 2
    assert peak < 1000


@pytest.mark.slow
def test_20_000_states_take_less_than_2_gigabytes():
    states, rates, peak = run()
    assert states == 20_000
    assert len(rates) == 8
    assert max(map(abs, rates)) < 0.2
    assert peak < 2000


def test_the_work_of_a_step_does_not_grow_with_the_square_of_the_state():
    """One forward pass of k copies per step; neither n copies nor an n by n matrix."""
    largest = 0

    def step(x, h):
        nonlocal largest
        largest = max(largest, h.numel())
        return 0.9 * h.roll(1, -1) + 0.05 * torch.tanh(h)

    n, k = 20_000, 3
    spec = lt.lyapunov_spectrum(step, torch.zeros(3, 1, 1), h0=torch.randn(1, n), k=k)
    assert largest <= k * n
    assert ((spec.exponents - torch.tensor(0.9).log()).abs() < 0.1).all()


def test_states_kept_for_the_adjoint_do_not_hold_the_copies_of_the_batch():
    """A view of one of the k copies of a state would keep all of them alive."""
    cell = lt.as_cell(lambda x, h: torch.sin(h))
    after, _ = cell.pushforward(torch.zeros(1, 1), torch.randn(1, 50), torch.randn(1, 50, 8))
    assert after.untyped_storage().nbytes() == 50 * after.element_size()
