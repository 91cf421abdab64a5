"""Reference systems: their divergence, their exponents in short and at length."""

import math

import pytest
import torch

import lyaptorch as lt
from lyaptorch.testing import SYSTEMS

pytestmark = pytest.mark.usefixtures("double")
every = pytest.mark.parametrize("name", SYSTEMS)
LENGTHS = {
    "lorenz": (48, 100, 20),
    "roessler": (48, 500, 60),
    "sprott b": (48, 500, 60),
    "rucklidge": (48, 500, 60),
    "thomas": (48, 1000, 200),
    "chen": (48, 30, 6),
    "arneodo": (48, 500, 60),
    "linz-sprott": (48, 800, 100),
    "lorenz-96": (8, 40, 20),
    "beer": (48, 1500, 200),
}
"""Trajectories, units of time that count, and those before them."""


@torch.no_grad()
def measured(name, trajectories, time, wait):
    system = SYSTEMS[name]
    counted, settling = (math.ceil(span / system.dt) for span in (time, wait))
    inputs = torch.zeros(settling + counted, trajectories, 0)
    first = settling - settling // 5
    return lt.lyapunov_spectrum(
        *(system.flow(), inputs),
        h0=system.start(trajectories),
        transient=first,
        tangent_transient=settling - first,
    )


def compare(system, spec):
    """Within three standard errors, of both; where none is known, 2%."""
    # that of fluctuations alone: the steps are short enough, and of a field with a kink they tell nothing
    found, error = spec.exponents.mean(0), spec.growth.stderr_of_mean(spec.dt)
    for i, (expected, own) in enumerate(zip(system.exponents, system.errors, strict=True)):
        tolerance = 0.02 * abs(expected) if math.isnan(own) else own
        off = abs(found[i].item() - expected)
        assert off <= 3 * math.hypot(tolerance, error[i].item()), (i, found[i], error[i], expected)


@every
def test_the_sum_of_exponents_is_the_mean_divergence(name):
    system = SYSTEMS[name]
    spec = measured(name, 2, 50 * system.dt, 0)
    h, n = system.start(2), len(system.point)
    D = torch.func.vmap(torch.func.jacrev(lambda y: system.field(torch.zeros(0), y)))(h)
    divergence = D.diagonal(dim1=-2, dim2=-1).sum(-1).mean().item()
    if name in ("roessler", "beer"):
        assert math.isnan(system.divergence)
    else:
        assert system.divergence == pytest.approx(divergence, abs=1e-9)
        assert spec.exponents.sum(-1).mean().item() == pytest.approx(divergence, rel=1e-3)
    assert spec.exponents.shape == (2, n)
    known = sum(system.exponents)
    assert len(system.exponents) < 3 or not known - system.divergence > 0.01
    assert spec.dt == system.dt


@pytest.mark.parametrize(("name", "time"), [("lorenz", 5), ("sprott b", 20), ("thomas", 40), ("beer", 40)])
def test_exponents_in_short(name, time):
    compare(SYSTEMS[name], measured(name, 24, time, time / 2))


@pytest.mark.slow
@every
def test_exponents_at_length(name, capsys):
    system, spec = SYSTEMS[name], measured(name, *LENGTHS[name])
    found, error = spec.exponents.mean(0), spec.growth.stderr_of_mean(spec.dt)
    with capsys.disabled():
        told = ", ".join(f"{r:.4f} +- {e:.4f}" for r, e in zip(found[:3], error, strict=False))
        print(f"\n{name}: {told}; known {system.exponents}")
    compare(system, spec)
    if name == "lorenz-96":
        assert spec.entropy().mean().item() == pytest.approx(system.entropy, rel=0.05)
        assert spec.kaplan_yorke().mean().item() == pytest.approx(system.dimension, rel=0.02)
        assert (found > 0).sum() == 13


def test_starts_are_as_many_as_asked_for_and_the_same_twice(unchecked):
    start = SYSTEMS["chen"].start(5)
    assert start.shape == (5, 3)
    assert torch.equal(start, SYSTEMS["chen"].start(5))
    assert torch.equal(start[:2], SYSTEMS["chen"].start(2))
    assert len(start.unique(dim=0)) == 5
    with pytest.raises(ValueError, match=r"trajectories must be an integer >= 1, got 0"):
        SYSTEMS["chen"].start(0)
