"""Checks of the figures over epochs, flossed and not, hold, fail, and are left undecided."""

import math

import numpy as np
import pytest
import torch

from figures import record, told
from lyaptorch.experiments.gradient_flossing.alignment import CovariantOverlap, Fig9, ends, random_overlap
from lyaptorch.experiments.gradient_flossing.comparisons import leaves_chance
from lyaptorch.experiments.gradient_flossing.directions import Fig10, Fig11, shown
from lyaptorch.experiments.gradient_flossing.episodes import Fig8, jumps
from lyaptorch.experiments.gradient_flossing.throughout import Fig12

AT = np.arange(0, 600, 10)
EPISODES = (100, 200)
SETTING = {"delays": (4,), "seeds": 2, "epochs": 600, "episodes": EPISODES}


def learner(*epochs):
    """Accuracy that is 1 from the first epoch to the second, from the third on, and so on; else a half."""
    curve, level = np.full(600, 0.5), 1.0
    for epoch in epochs:
        curve[epoch:], level = level, 1.5 - level
    return curve


NEVER = learner()


def given(name, none, flossed, accuracies, config=None):
    """Values of twins `(seed, measurement, *axes)` at one delay, and their accuracies."""
    values = np.stack([none, flossed])[:, None]
    accuracy = np.array(accuracies)[:, None]
    made = {name: values, "accuracy": accuracy, "measured_at": AT}
    return record(made, {"condition": ["none", "flossed"]}, {"episodes": EPISODES, **(config or {})})


def spiking(height, base=1e-2):
    """Two networks whose values are so many times their base at each episode."""
    rows = np.full((2, len(AT)), base)
    rows[:, np.isin(AT, EPISODES)] *= height
    return rows


def test_a_dip_after_an_episode_is_no_learning():
    curves = np.stack([NEVER, learner(300), learner(50, 205, 215), learner(50, 90, 130)])
    found = leaves_chance(curves, EPISODES)
    assert np.isnan(found[[0, 2, 3]]).all()
    assert found[1] == 293
    # without episodes the same curves fall back by themselves, and leave chance in the end
    assert np.isfinite(leaves_chance(curves, ())[1:]).all()


def test_jumps_are_those_at_the_episodes():
    np.testing.assert_allclose(jumps(spiking(50.0), AT, EPISODES), 50.0)
    deep = np.stack([spiking(50.0), spiking(2.0)], -1)
    np.testing.assert_allclose(jumps(deep, AT, EPISODES, axis=1)[0, 0], [50.0, 2.0])


def test_the_checks_of_figure_8():
    def found(height, small, learns, twins=(NEVER, NEVER)):
        none = np.full((2, len(AT)), small)
        return told(Fig8(**SETTING).claims(given("gradient_norm", none, spiking(height), [twins, learns])))

    both = (learner(300), learner(400))
    assert found(50.0, 1e-8, both) == "++++"
    assert found(5.0, 1e-2, (NEVER, learner(20))) == "---+"
    assert found(50.0, 1e-8, (NEVER, NEVER)) == "+++?"
    # twins that learn are not said to have small gradients, and leave nothing to learn better
    assert found(50.0, 1e-8, both, both) == "+???"
    # a spike of both is none of flossing
    rows = spiking(50.0)
    made = given("gradient_norm", rows, rows, [(NEVER, NEVER), both])
    assert told(Fig8(**SETTING).claims(made), "spike") == "-"


def growing(until, decades, base=-4.0):
    """A value that grows by so many decades in the 100 epochs before an epoch."""
    grown = np.clip((AT - (until - 100)) / 100, 0, 1)
    return 10.0 ** (base + decades * grown)


def test_the_checks_of_figure_9():
    figure = Fig9(**SETTING)
    config = {"norm_level": 1e-3, "accuracy_level": 0.6}
    learns, never = (learner(400),) * 3, (NEVER,) * 3

    def found(flossed, none, accuracies=None, at=400):
        accuracies = accuracies or [never, learns]
        made = given("gradient_norm", np.stack([none] * 3), np.stack([flossed] * 3), accuracies, config)
        return told(figure.claims(made), "flossed grows", "lead", "precedes", "none grows")

    flat = growing(400, 0.0)
    assert found(growing(390, 2.0), flat) == "+++?"
    # three of which one hardly grows are too few
    rows = np.stack([growing(390, decades) for decades in (1.9, 0.07, 0.6)])
    mixed = given("gradient_norm", np.stack([flat] * 3), rows, [never, learns], config)
    assert told(figure.claims(mixed), "flossed grows") == "?"
    # the twin's gradient grows over the same epochs, too
    assert found(growing(390, 2.0), growing(390, 2.0)) == "-++?"
    # accuracy leaves chance while the gradient is still small
    slow = learner(350)
    slow[350:450] = 0.75
    assert found(growing(500, 3.0), flat, [never, (slow,) * 3])[1:3] == "--"
    assert found(growing(390, 2.0), flat, [never, never]) == "????"
    # one network of three that learns, and two, say nothing
    assert found(growing(390, 2.0), flat, [never, (learner(400), NEVER, NEVER)]) == "????"
    assert found(growing(390, 2.0), flat, [never, (learner(400), learner(400), NEVER)]) == "????"
    # what an episode ends is no lead of a gradient that grows
    ended = np.where(AT < 200, 1e-4, 1.0)
    assert found(ended, flat)[1:3] == "??"
    assert found(flat + 1.0, flat)[1:3] == "??"
    # networks without flossing that learn are compared with themselves, earlier
    assert found(flat, growing(390, 2.0), [learns, never]) == "???+"
    assert found(flat, flat, [learns, never]) == "???-"


def test_a_gradient_that_fades_after_learning_was_not_small():
    norms = np.where((AT < 300) | (AT > 450), 1e-9, 1.0)
    accuracies = [(NEVER, NEVER), (learner(400), learner(300, 450))]
    config = {"norm_level": 1e-3, "accuracy_level": 0.6}
    made = given("gradient_norm", np.stack([norms] * 2), np.stack([norms] * 2), accuracies, config)
    chance, small = ends(made)
    assert chance[1, 0, 0] == 393
    assert small[1, 0, 0] == 290
    assert np.isnan(chance[0]).all()
    assert np.isnan(small[0]).all()
    assert np.isnan(chance[1, 0, 1])


RANKS = (2, 3)


def directions(heights, none=0.01, grown=(0.0, 0.0, 0.0), twins_learn=False, learns=(400, 500, 500)):
    """Singular values of twins: jumps at episodes, then growth before the networks learn."""
    base = np.array([1.0, 0.1, 0.1])
    rows = [np.stack([base * spiking(h, 1.0)[0, :, None] for h in heights], -1)] * len(learns)
    flossed = np.stack(rows)[..., np.arange(3), np.arange(3)]
    for seed, epoch in enumerate(learns):
        rise = np.stack([growing(epoch - 10, g, 0.0) for g in grown], -1) if epoch else 1.0
        flossed[seed] *= rise
    twins = np.broadcast_to(base * np.array([1.0, none, none]), flossed.shape)
    twin = learner(30) if twins_learn else NEVER
    accuracy = [[twin] * len(learns), [learner(e) if e else NEVER for e in learns]]
    return given("singular_values", twins, flossed, accuracy)


def test_the_checks_of_figure_10():
    figure = Fig10(**SETTING, ranks=RANKS)
    peaks = ("jump 2", "jump 3", "jump 1")
    assert told(figure.claims(directions((1.1, 4.0, 4.0))), *peaks) == "+++"
    assert told(figure.claims(directions((8.0, 4.0, 1.2))), *peaks) == "+--"
    low = ("small 2", "small 3", "leading alike")
    assert told(figure.claims(directions((1.1, 4.0, 4.0))), *low) == "+++"
    assert told(figure.claims(directions((1.1, 4.0, 4.0), none=0.5)), *low) == "--+"
    assert told(figure.claims(directions((1.1, 4.0, 4.0), twins_learn=True)), *low) == "???"
    larger = directions((1.1, 4.0, 4.0), none=1.0, grown=(1.0, 0.0, 0.0), learns=(120, 120, 120))
    assert told(figure.claims(larger), "leading alike") == "-"
    before = ("rises before 2", "rises before 3")
    assert told(figure.claims(directions((1.1, 4.0, 4.0), grown=(0.0, 1.0, 0.1))), *before) == "+-"
    assert told(figure.claims(directions((1.1, 4.0, 4.0), learns=(None, None, None))), *before) == "??"
    # one that learns says nothing of others
    alone = directions((1.1, 4.0, 4.0), grown=(0.0, 1.0, 0.1), learns=(400, None, None))
    assert told(figure.claims(alone), *before) == "??"
    # what the twin does as well is no effect of an episode
    alike = directions((1.1, 4.0, 4.0))["singular_values"][1, 0]
    same = given("singular_values", alike, alike, [(NEVER,) * 3] * 2)
    assert told(figure.claims(same), "jump 2", "rank") == "-?"
    assert told(figure.claims(directions((1.1, 4.0, 4.0))), "rank") == "+"
    # the rank of a matrix with one direction is 1, whatever its size
    even = directions((1.1, 4.0, 4.0), none=10.0)
    assert told(figure.claims(even), "rank") == "-"
    # what has been learned before the first later episode is no effect of it
    learned = directions((1.1, 4.0, 4.0), learns=(30, 30, 30))
    assert told(figure.claims(learned), "rank") == "?"


def test_figure_11_is_of_the_network_that_learns_last():
    figure = Fig11(**SETTING, ranks=RANKS)
    grown = directions((1.1, 4.0, 4.0), grown=(0.0, 1.0, 0.1))
    assert told(figure.claims(grown)) == "++"
    assert {check.kind for check in figure.claims(grown)} == {"question"}
    assert told(figure.claims(directions((1.1, 4.0, 4.0), learns=(150, 150)))) == "--"
    assert told(figure.claims(directions((1.1, 4.0, 4.0), learns=(None, 400)))) == "+?"
    assert told(figure.claims(directions((1.1, 4.0, 4.0), learns=(None, None)))) == "??"


def test_figures_10_and_11_draw_the_first_and_the_last_to_learn():
    made = directions((1.0, 1.0, 1.0), learns=(400, 500))
    assert [shown(made, latest).tolist() for latest in (False, True)] == [[0], [1]]
    made = directions((1.0, 1.0, 1.0), learns=(None, 500))
    assert [shown(made, latest).tolist() for latest in (False, True)] == [[1], [1]]
    made = directions((1.0, 1.0, 1.0), learns=(None, None))
    assert [shown(made, latest).tolist() for latest in (False, True)] == [[0], [0]]


def test_the_overlap_of_random_directions():
    random = torch.nn.functional.normalize(torch.randn(20_000, 8, generator=torch.Generator().manual_seed(0)))
    assert random_overlap(8) == pytest.approx(random[:, 0].abs().mean().item(), rel=0.02)
    assert random_overlap(80) == pytest.approx(math.sqrt(2 / (80 * math.pi)), rel=0.01)


def test_the_checks_of_the_overlap_with_covariant_vectors():
    figure, learns = CovariantOverlap(**SETTING), (learner(400), learner(420), learner(450))
    null = random_overlap(80)

    def found(before, after, accuracies):
        rows = np.where(AT < 400, before, after) * null
        rows = np.stack([rows, 1.01 * rows, 1.02 * rows])
        return told(figure.claims(given("overlap", rows, rows, accuracies)))

    assert found(1.0, 4.0, [(NEVER,) * 3, learns]) == "??++"
    # of three of which two learn nothing is said
    assert found(1.0, 4.0, [(NEVER,) * 3, (*learns[:2], NEVER)]) == "????"
    assert found(4.0, 3.0, [learns, learns]) == "-+-+"
    # a rise among random directions is none
    assert found(0.5, 1.5, [learns, learns]) == "+-+-"


def test_the_checks_of_figure_12():
    epochs, period = 600, 100
    figure = Fig12(delays=(4,), seeds=3, epochs=epochs, episodes=(100, 200), period=period)
    time = np.arange(epochs)
    chance, early = np.full(epochs, 0.5), np.where(time < 250, 0.5, 1.0)
    norms = np.full(len(AT), 1e-2)

    def dips(high, width=30):
        return np.where((time < 250) | (time % period < width), 0.5, high)

    asked = ("drops", "recovers", "end", "never", "norms alike")

    def found(throughout, others=norms, twin=early, keys=asked, loss=None):
        accuracy, gradient = (
            np.stack([np.broadcast_to(row, (1, 3, row.shape[-1])) for row in rows])
            for rows in ((chance, twin, throughout), (norms, norms, others))
        )
        made = {"accuracy": accuracy, "gradient_norm": gradient}
        made["loss"] = 2.0 - accuracy if loss is None else loss
        return told(figure.claims(record({**made, "measured_at": AT})), *keys)

    assert found(dips(0.95)) == "+++++"
    assert found(dips(1.0)) == "++--+"
    # one of three that ends lower says nothing of others
    assert found(np.stack([dips(0.6), early, early]), keys=("end",)) == "?"
    # by a tenth is not to chance; an error that jumps by half is not doubled
    few = ("drops", "drops to chance", "error jumps")
    error = np.ones((3, 1, 3, epochs))
    error[2] += 1.5 * (dips(1.0) == 0.5)
    assert found(dips(0.95), keys=few, loss=error) == "+++"
    shallow = np.where(dips(1.0) == 0.5, 0.85, 0.95)
    assert found(shallow, keys=few) == "+--"
    # where nothing drops nothing recovers
    assert found(early) == "-?--+"
    # an episode that throws networks back for good
    assert found(np.where((time >= 250) & (time < 400), 0.95, 0.5))[1] == "-"
    assert found(dips(0.95), 100 * norms)[-1] == "-"
    assert found(chance) == "??++?"
    assert found(chance, twin=chance) == "?????"
    # the twin drops as well: it is not the episodes
    assert found(dips(0.95), twin=dips(0.95))[0] == "-"
