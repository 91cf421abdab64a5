import math
import os
from pathlib import Path

import pytest
import torch

import lyaptorch as lt
from lyaptorch import residuals
from lyaptorch.analysis import characteristic_frequency
from lyaptorch.tasks import archives
from lyaptorch.tasks.batch import Draw

pytestmark = pytest.mark.usefixtures("double")


def wave(period, t=280, phase=0.0, height=1.0):
    return height * torch.sin(2 * math.pi / period * torch.arange(float(t)) + phase)


def test_the_power_adds_up_to_that_of_the_data():
    x = torch.randn(50, 30)  # Parseval, of a spectrum folded at t/2
    power = characteristic_frequency(x).power
    folded = power[0] + 2 * power[1:-1].sum() + power[-1]
    torch.testing.assert_close(folded, x.square().sum(0).mean(), rtol=1e-12, atol=0)


def test_peaks_are_the_waves_the_strongest_first_whatever_their_phases_and_offset():
    x = torch.stack([wave(28, phase=p) + wave(10, phase=2 * p, height=0.5) + 7 for p in torch.rand(40) * 6])
    found = characteristic_frequency(x.T)
    assert [peak.bin for peak in found.peaks[:2]] == [10, 28]
    assert found.frequency == pytest.approx(2 * math.pi / 28, rel=1e-12)
    assert found.peaks[0].error == pytest.approx(math.pi / 280)
    # 140 bins, and 4/5 of their power in one
    assert found.peaks[0].ratio == pytest.approx(140 * 0.8, rel=1e-9)
    assert found.peaks[0].stderr < 1e-6


def test_the_standard_error_is_that_of_the_mean_over_sequences():
    x = torch.randn(16, 5000)
    each = torch.fft.rfft(x, dim=0).abs().square() / 16
    found = characteristic_frequency(x)
    torch.testing.assert_close(found.power, each.mean(1), rtol=1e-12, atol=0)
    torch.testing.assert_close(found.stderr, each.std(1) / 5000**0.5, rtol=1e-9, atol=0)
    assert characteristic_frequency(x[:, :1]).stderr.isinf().all()


def test_what_follows_time_are_sequences():
    x = torch.randn(20, 2, 3, 4)
    a, b = characteristic_frequency(x), characteristic_frequency(x.reshape(20, 24))
    assert torch.equal(a.power, b.power)


def test_a_maximum_at_either_end_is_a_peak():
    alternating = torch.tensor([1.0, -1.0] * 10)[:, None]
    assert characteristic_frequency(alternating).peaks[0].bin == 10
    slow = wave(20, t=20)[:, None]
    assert characteristic_frequency(slow).peaks[0].bin == 1


def test_constants_have_no_frequency():
    with pytest.raises(ValueError, match=r"no frequency above zero"):
        assert characteristic_frequency(torch.zeros(20, 3)).frequency


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3, 5), r"sequences must be \(t, \.\.\.\) with t >= 4, got \(3, 5\)"),
        (torch.zeros(5, 0), r"got \(5, 0\)"),
        (torch.zeros(()), r"got \(\)"),
        (torch.full((5, 2), torch.nan), r"sequences must be finite"),
        (torch.zeros(5, 2, dtype=torch.int64), r"sequences must be a floating tensor"),
    ],
)
def test_bad_sequences(x, message):
    with pytest.raises(ValueError, match=message):
        characteristic_frequency(x)


class Known:
    frequency = 0.25


def test_informed_heterogeneity_has_the_ranges_of_the_data():
    found = residuals.informed(Known(), 400, ensemble=(3,))
    for drawn, low, high, size in (
        (found.angles, 0, 0.5, 200),
        (found.decays, 0.98, 1.0, 400),
        (found.couplings, 0.01, 0.2, 400),
    ):
        assert drawn.shape == (3, size)
        assert low <= drawn.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < drawn.max() <= high
        assert (drawn[0] - drawn[1]).abs().max() > 0.1 * (high - low)
    cell = lt.ResidualCell(1, 400, residual=found.residual, coupling=found.couplings, ensemble=(3,))
    assert cell.residual.shape == (3, 200, 2, 2)
    alone = residuals.informed(Known(), 400, member_ids=2)
    assert torch.equal(alone.angles, found.angles[2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 5}, r"n must be even, because rotations turn pairs of units, got 5; take 6"),
        ({"n": 4, "decays": (1.0, 0.9)}, r"decays must be a range \(low, high\), got \(1\.0, 0\.9\)"),
    ],
)
def test_bad_arguments_of_informed(settings, message):
    with pytest.raises(ValueError, match=message):
        residuals.informed(Known(), **settings)


FOLDER = os.environ.get("LYAPTORCH_DATA")


@pytest.mark.skipif(
    FOLDER is None or not Path(FOLDER, "mnist").is_dir(), reason="needs MNIST in LYAPTORCH_DATA"
)
def test_rows_of_digits_make_bin_28_stand_out_unless_pixels_are_permuted(monkeypatch):
    monkeypatch.setattr(archives, "_loaded", {})
    ids = torch.tensor(0)
    spectra = {}
    for permuted in (False, True):
        task = lt.tasks.SequentialImages("mnist", permuted=permuted)
        x = task.draw(Draw(0, 784, 60000, member_ids=ids, dtype=torch.float32)).inputs
        spectra[permuted] = characteristic_frequency(x)
    (peak, *_), mean = spectra[False].peaks, spectra[False].mean
    assert peak.bin == 28
    assert spectra[False].power[1:].argmax() == 27
    assert peak.ratio > 30
    assert (spectra[True].power[1:] / spectra[True].mean).max() < 5
    assert mean > 0
