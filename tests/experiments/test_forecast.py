"""What a figure will cost: the epochs that it will train, at the cost of a few of them."""

from dataclasses import replace

import pytest

from lyaptorch.experiments import FIGURES
from lyaptorch.experiments import forecast as forecasts
from lyaptorch.experiments.figure import Study
from lyaptorch.experiments.forecast import FEW, MORE, MOST, forecast

SMOKE = FIGURES["gradient-flossing"]["fig4c"]


def smoke(**changes):
    return replace(SMOKE(**SMOKE.scales["smoke"]), **changes)


def test_every_epoch_of_every_network_is_foreseen():
    figure = smoke(delays=(4, 6), seeds=3, epochs=900, floss_epochs=70, episode=500)
    found = forecast(figure)
    # never, before, before and during: two of three are flossed before, one during
    assert [(s.what, s.networks, s.epochs) for s in found.stretches] == [
        ("floss", 12, 70),
        ("fit", 18, 900),
        ("floss", 6, 70),
    ]
    assert not found.unknown
    assert found.memory > 1e7
    assert found.seconds > found.rest > 0


def test_operations_are_those_that_a_training_counts():
    figure = smoke(delays=(4,), seeds=1, epochs=8, floss_epochs=4, episode=3)
    networks = figure.networks(figure.conditions())
    record = Study(figure.seed, False).train(*networks[:2], member_ids=networks.ids, **figure.treatment())
    counted = record["fit_flops"].sum() + record["floss_flops"].sum()
    assert forecast(figure).operations == pytest.approx(float(counted))


def test_time_is_that_of_many_epochs(monkeypatch):
    """Trainings take 5 s, 2 s an epoch, and no time passes elsewhere."""
    now = [0.0]

    def train(model, task, schedule, **settings):
        now[0] += 5 + 2 * schedule[0].epochs
        return real(model, task, schedule, **settings)

    real = forecasts.train
    monkeypatch.setattr(forecasts, "train", train)
    found = forecast(smoke(delays=(4,), seeds=1, epochs=100, floss_epochs=10, episode=50), lambda: now[0])
    assert [s.seconds for s in found.stretches] == [2, 2, 2]
    assert found.seconds == pytest.approx(2 * 120 + found.rest)


@pytest.mark.parametrize(
    ("name", "trainings"),
    [
        # asks what flossing took
        ("horizon-per-cost", ["floss", "fit", "fit", "fit"]),
        # compares the curves of several trainings
        pytest.param("flossed-cells", ["floss", "fit"] * 3, marks=pytest.mark.slow),
    ],
)
def test_figures_of_several_trainings_are_foreseen_to_their_end(name, trainings):
    figure = FIGURES["beyond"][name]
    found = forecast(figure(**figure.scales["smoke"]))
    assert not found.unknown
    assert [s.what for s in found.stretches] == trainings


def test_seeds_one_after_another_take_so_many_times_as_long():
    found = forecast(smoke(delays=(4,), seeds=1, epochs=30, floss_epochs=10, episode=20))
    thrice = found.repeated(3)
    assert [(s.networks, s.epochs) for s in thrice.stretches] == [
        (3 * s.networks, s.epochs) for s in found.stretches
    ]
    assert thrice.seconds == pytest.approx(3 * found.seconds)
    assert thrice.operations == pytest.approx(3 * found.operations)


def test_quick_epochs_are_measured_for_long_enough(monkeypatch):
    """A thousandth of a second an epoch, 30 s a training for what is made once."""
    now, lengths = [0.0], []

    def train(model, task, schedule, **settings):
        now[0] += 30 + 1e-3 * schedule[0].epochs
        lengths.append(schedule[0].epochs)
        return real(model, task, schedule, **settings)

    real = forecasts.train
    monkeypatch.setattr(forecasts, "train", train)
    found = forecast(smoke(delays=(4,), seeds=1, epochs=100, floss_epochs=10, episode=50), lambda: now[0])
    assert [s.seconds for s in found.stretches] == pytest.approx([1e-3] * 3)
    assert lengths == 3 * [FEW, FEW, FEW + MORE, FEW + MOST]
    assert found.rest == pytest.approx(30 * len(lengths) + 3e-3 * FEW)


@pytest.mark.parametrize(("paper", "name"), [("gradient-flossing", "fig1b"), ("surrogate-flossing", "fig2a")])
def test_flossing_outside_of_a_training_is_foreseen_and_not_made(monkeypatch, paper, name):
    """A second an epoch, and no time elsewhere."""
    now, lengths = [0.0], []

    def floss(cell, source, *, epochs, **settings):
        now[0] += epochs
        lengths.append(epochs)
        return real(cell, source, epochs=epochs, **settings)

    real = forecasts.floss
    monkeypatch.setattr(forecasts, "floss", floss)
    figure = replace(FIGURES[paper][name](**FIGURES[paper][name].scales["smoke"]), epochs=300)
    found = forecast(figure, lambda: now[0])
    assert not found.unknown
    (stretch,) = found.stretches
    assert (stretch.what, stretch.epochs, stretch.seconds) == ("floss", 300, 1.0)
    assert lengths == [FEW, FEW, FEW + MORE]
    # the first call, which pays for what is made once, is told with all else
    assert found.seconds == 300 + FEW
