"""Statistics of spike trains."""

import math

import pytest
import torch

import lyaptorch as lt
from lyaptorch.analysis import spike_statistics

pytestmark = pytest.mark.usefixtures("double")


def states(U):
    """Packed states of a network with these potentials, `(t, b, n)`."""
    return torch.cat([U, torch.zeros_like(U)], -1)


def test_rates_intervals_and_excursions_of_trains_written_by_hand():
    U = torch.full((60, 1, 4), 0.5)
    U[::10, 0, 0] = 2.0  # a clock
    U[[5, 10, 30], 0, 1] = 3.0  # intervals of 5 and 20
    U[7, 0, 2] = 1.5
    U[20:35, 0, 2] = -1.5
    U[[3, 9], 0, 3] = 2.0  # one interval has no variation
    found = spike_statistics(lt.LIFCell(1, 4), states(U))
    expected = torch.tensor([[6.0, 3.0, 1.0, 2.0]]) / 0.12
    torch.testing.assert_close(found.rates, expected)
    torch.testing.assert_close(found.cv[0, :2], torch.tensor([0.0, 7.5 / 12.5]))
    assert found.cv[0, 2:].isnan().all()
    assert found.lowest.tolist() == [[0.5, 0.5, -1.5, 0.5]]
    assert found.highest.tolist() == [[2.0, 3.0, 1.5, 2.0]]
    assert found.below.tolist() == [[0.0, 0.0, 0.25, 0.0]]


def test_independent_spikes_are_nearly_poisson():
    U = 2.0 * (torch.rand(20000, 2, 10) < 0.1)
    found = spike_statistics(lt.LIFCell(1, 10), states(U))
    # geometric intervals vary by sqrt(1 - p)
    assert found.cv.mean().item() == pytest.approx(math.sqrt(0.9), abs=5 * 0.7 / math.sqrt(20 * 2000))
    assert found.rates.mean().item() == pytest.approx(50.0, abs=5 * 50 * 0.95 / math.sqrt(20 * 2000))


def test_a_fluctuation_driven_network_fires_irregularly():
    cell = lt.weights.fluctuation_driven(
        lt.LIFCell(50, 60, ensemble=(2,)), input_rate=10.0, rate=10.0, std=0.6
    )
    x = (torch.rand(1500, 1, 50) < 0.02).double()
    found = spike_statistics(cell, lt.cells.unroll(cell, x, torch.zeros(2, 1, 120)))
    assert found.rates.shape == (2, 1, 60)
    assert 2.0 < found.rates.mean() < 60.0
    assert 0.5 < found.cv.nanmean() < 1.3


def test_it_asks_for_a_cell_that_spikes(unchecked):
    with pytest.raises(ValueError, match=r"need a spiking cell, got RateCell; pass a LIFCell"):
        spike_statistics(lt.RateCell(1, 4), torch.zeros(5, 1, 4))
