"""The checks of the figures on made-up records, and what their runs have to be."""

import math

import numpy as np
import pytest
import torch

import lyaptorch as lt
from figures import holds, record
from lyaptorch.experiments.check import slopes
from lyaptorch.experiments.figure import coordinates
from lyaptorch.experiments.gradient_flossing.conditioning import Fig2a, Fig2b, Fig2c
from lyaptorch.experiments.gradient_flossing.cost import PARTS, Fig16, Sizes, Table1
from lyaptorch.experiments.gradient_flossing.directions import CovariantOverlap, Fig10, Fig11
from lyaptorch.experiments.gradient_flossing.episodes import Fig9
from lyaptorch.experiments.gradient_flossing.exponents import Fig15
from lyaptorch.experiments.gradient_flossing.trained_exponents import MODES, Frames


def test_slopes_are_those_of_least_squares():
    x, y = np.array([1.0, 2.0, 4.0]), np.array([[1.0, 0.0, 3.0], [2.0, 4.0, 8.0]])
    np.testing.assert_allclose(slopes(x, y), [np.polyfit(x, row, 1)[0] for row in y])
    assert slopes(x, y[1]) == pytest.approx(2.0)


def test_the_checks_of_figure_2a():
    time, gap = np.array([10, 20, 30]), np.array([[4.0, 4.4, 4.2], [0.4, 0.6, 0.5]])

    def found(faster=0.0, off=0.0, few=100.0, lower=1.0):
        wiggle = np.array([0.02, -0.02, 0.0])
        log_kappa = (gap + wiggle + faster)[..., None] * time
        log_kappa[1] *= lower
        exponents = np.stack([0 * gap, -gap * np.array([[1.0], [lower]])], -1)
        return holds(
            Fig2a(networks=3).checks(
                record(
                    {
                        "log_kappa": log_kappa,
                        "log_kappa_enough_bits": log_kappa[:, 0] + off,
                        "log_kappa_paper_bits": np.full((2, 3), few),
                        "exponents": exponents,
                        "bits": [650, 180],
                    },
                    {"time": time, "group": ["random", "flossed"]},
                )
            )
        )

    assert found() == [True] * 7
    assert found(faster=0.1) == [False, True, True, False, True, True, True]
    assert found(off=0.01) == [True, False, True, True, False, True, True]
    assert found(few=256 * math.log(2) + 16) == [True, True, False, True, True, False, True]
    assert found(lower=6.0)[-1] is False


def test_the_checks_of_figures_2b_and_2c():
    usable = np.array([[[1, 2], [1, 4]], [[2, 4], [2, 4]]])
    found = Fig2b().checks(record({"usable": usable}, {"kappa": [10.0, 1e4]}))
    assert [(c.expected, c.measured, c.holds) for c in found] == [(2.0, 2.0, True), (4.0, 4.0, True)]
    assert holds(Fig2b().checks(record({"usable": usable[::-1]}, {"kappa": [10.0, 1e4]}))) == [False] * 2
    gap = np.array([[2.0, 2.2, 2.4], [4.0, 4.2, 4.4]])
    for rate, expected in (
        (gap, [True] * 4),
        (gap[:, ::-1], [False, True] * 2),
        (1.2 * gap, [True, False] * 2),
    ):
        made = record({"gap": gap, "rate": rate}, {"size": [8, 16]})
        assert holds(Fig2c().checks(made)) == expected


def test_the_checks_of_figure_9():
    for chance, small, expected in (
        ([100.0, 200.0, math.nan, 50.0], [90.0, 100.0, 0.0, 0.0], [True, True, True]),
        ([100.0, 200.0, math.nan, 50.0], [100.0, 200.0, 0.0, 0.0], [True, False, False]),
        ([math.nan, 200.0, math.nan, math.nan], [0.0, 0.0, 0.0, 0.0], [False, True, True]),
        ([math.nan] * 4, [math.nan] * 4, [False, False, False]),
    ):
        made = record({"chance_ends": [chance], "small_ends": [small]})
        assert holds(Fig9().checks(made)) == expected


def test_a_gradient_that_fades_after_learning_was_not_small(monkeypatch):
    """Only what happens before accuracy leaves chance for good counts."""
    accuracy = np.concatenate([np.full(50, 0.5), np.ones(50)])[None, None]
    norms = np.array([1e-9, 1e-9, 1e-9, 1.0, 1.0, 1.0, 1e-9, 1e-9, 1e-9, 1e-9])[None, None]
    figure = Fig9(delays=(4,), seeds=1, epochs=100, window=20)
    variables = {
        "accuracy": (("delay", "seed", "epoch"), accuracy),
        "gradient_norm": (("delay", "seed", "measurement"), norms),
        "measured_at": (("measurement",), np.arange(0, 100, 10)),
    }
    made = variables, coordinates(delay=figure.delays)
    monkeypatch.setattr(Fig9.__mro__[1], "run", lambda *_: made)
    found = figure.record()
    assert found["chance_ends"].item() == 49 - 6
    assert found["small_ends"].item() == 30
    np.testing.assert_array_equal(found["aligned_norm"][0, 0], norms[0, 0, 2:7])
    np.testing.assert_array_equal(found["aligned_accuracy"][0, 0], accuracy[0, 0, 10:51])


def episodes_record(jump, risen):
    """Two flossed networks: the first learns at epoch 60; values jump at 40."""
    at = np.arange(0, 100, 10)
    flossed = np.where(at >= 40, jump, 1.0)[None, None, None, :, None] * np.ones((1, 1, 2, 10, 3))
    none = np.full((1, 1, 2, 10, 3), jump / risen)
    learns, never = np.repeat([0.5, 1.0], [60, 40]), np.full(100, 0.5)
    accuracy = np.stack([np.stack([never, never])[None], np.stack([learns, never])[None]])
    return record(
        {"singular_values": np.concatenate([none, flossed]), "accuracy": accuracy, "measured_at": at}
    )


def test_the_checks_of_figure_10():
    figure = Fig10(delays=(4,), seeds=2, epochs=100, episodes=(40,), ranks=(2, 3))
    assert holds(figure.checks(episodes_record(2.0, 20.0))) == [True] * 4
    assert holds(figure.checks(episodes_record(1.2, 20.0))) == [False, False, True, True]
    assert holds(figure.checks(episodes_record(2.0, 5.0))) == [True, True, False, False]


def test_figures_10_and_11_draw_the_first_and_the_last_to_learn():
    left = torch.tensor([[30.0, math.nan, 10.0], [math.nan, math.nan, math.nan]])
    assert Fig10().shown(left).tolist() == [2, 0]
    assert Fig11().shown(left).tolist() == [0, 0]


def test_the_checks_of_the_overlap_with_covariant_vectors():
    at, learns = np.arange(0, 100, 10), np.repeat([0.5, 1.0], [60, 40])
    rises = np.where(at < 50, 0.1, 0.3)
    accuracy = np.stack([np.full((1, 2, 100), 0.5), np.stack([learns, learns])[None]])
    for overlap, expected in ((rises, [False, True]), (rises[::-1], [False, False])):
        made = record(
            {"overlap": np.broadcast_to(overlap, (2, 1, 2, 10)), "accuracy": accuracy, "measured_at": at},
            {"condition": ["none", "flossed"]},
        )
        assert holds(CovariantOverlap().checks(made)) == expected


def test_the_checks_of_figures_15_and_16():
    made = Fig15(steps=2).record()
    assert all(holds(Fig15(steps=2).checks(made)))
    broken = {name: made[name] for name in made.variables} | {"frames3": 2 * made["frames3"]}
    assert holds(Fig15(steps=2).checks(record(broken))) == [True, True, False, True]
    factors = {name: made[name] for name in made.variables} | {"factors2": 1.01 * made["factors2"]}
    assert holds(Fig15(steps=2).checks(record(factors))) == [True, False, True, True]
    # the same frame before and after, evolved by the cell's own Jacobian
    np.testing.assert_allclose(
        made["evolved2"], made["frames2"][1:] @ made["factors2"], rtol=1e-12, atol=1e-14
    )
    time = np.geomspace(1, 10_000, 30)
    sign = np.array([1.0, -1.0, 0.5, -0.5])[:, None]
    for power, expected in ((-0.5, [True, True]), (-1.0, [False, True]), (-0.2, [False, False])):
        running = sign * (0.4 * time**power)[:, None, None] * np.ones((1, 1, 3))
        assert holds(Fig16().checks(record({"running": running, "time": time}))) == expected


def test_what_table_1_measures():
    """Each part does what its name says, on the sizes it is given."""
    sizes, network = Sizes(6, b=2, t=5, k=3, interval=2), Table1().network
    gradients = PARTS["RNN"](network, sizes)()
    assert [tuple(g.shape) for g in gradients] == [(6, 6), (6, 1), (6,)]
    after, pushed = PARTS["Jacobian"](network, sizes)()
    assert (after.shape, pushed.shape) == ((2, 6), (2, 6, 3))
    assert PARTS["QR"](network, sizes)().R.shape == (2, 3, 3)
    assert [tuple(g.shape) for g in PARTS["flossing"](network, sizes)()] == [(6, 6), (6, 1), (6,)]
    for _, size, _, largest in Table1().rows():
        assert getattr(largest, size) % 4 == 0


def test_the_checks_of_table_1():
    made = {"power": [1.8, 1.5, -0.2, 0.1], "theory": [2.0, 1.0, 0.0, 0.0]}
    made |= {"flossing_epoch": 1.0, "task_epoch": 1.0}
    names = {"part": ["RNN", "QR", "flossing", "again"], "doubled": ["n", "b", "interval", "interval"]}
    found = Table1().checks(record(made, names))
    assert holds(found) == [True, False, True, False, True]
    assert found[-1].measured == pytest.approx(500 / 10_500)
    assert holds(Table1(task_epochs=1000).checks(record(made, names)))[-1] is False


def test_the_checks_of_the_frames():
    exponents = np.zeros((3, 1, 4, 2))
    exponents[1, 0, :, 0] = [0.3, -0.3, 0.3, -0.3]
    final = np.array([[[1.0, 1.0, 0.5, 0.5]], [[1.0] * 4], [[0.5, 0.5, 0.5, 1.0]]])
    made = record({"exponents": exponents, "final_accuracy": final}, {"mode": list(MODES)})
    assert holds(Frames().checks(made)) == [True, True, False, True, True, False]


def test_frames_differ_where_they_should(monkeypatch):
    """The frames handed to the scan: one for all epochs, a new one in each, or the end of the last scan."""
    figure = Frames(**Frames.scales["smoke"])
    given, ends = [], []
    from lyaptorch.experiments.gradient_flossing import trained_exponents as module

    def spy(cell, inputs, **keywords):
        spectrum = lt.lyapunov_spectrum(cell, inputs, **keywords)
        if "frame" in keywords:
            given.append(keywords["frame"])
            ends.append(spectrum.final_frame.detach())
        return spectrum

    monkeypatch.setattr(module, "lyapunov_spectrum", spy)
    figure.record(False)
    assert len(given) == figure.floss_epochs
    fixed, redrawn, carried = (torch.stack([frame[i, 0, :, 0] for frame in given]) for i in range(3))
    for frames in (fixed, redrawn, carried):
        # the two networks of a way have frames of their own
        assert (frames[0, 0] - frames[0, 1]).abs().max() > 0.1
        torch.testing.assert_close(frames[0], fixed[0])
    assert (fixed == fixed[0]).all()
    assert ((redrawn[1:] - redrawn[:-1]).abs().amax((1, 2, 3)) > 0.1).all()
    torch.testing.assert_close(carried[1:], torch.stack([end[2, 0, :, 0] for end in ends[:-1]]))
