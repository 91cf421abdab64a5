"""The checks of the figures on made-up records, and what their runs have to be."""

import warnings

import numpy as np
import pytest
import torch

import lyaptorch as lt
from figures import holds, made, outcomes, record, smoke
from lyaptorch.experiments.check import slopes
from lyaptorch.experiments.gradient_flossing.convergence import Fig16
from lyaptorch.experiments.gradient_flossing.cost import PARTS, Sizes, Table1
from lyaptorch.experiments.gradient_flossing.exponents import Fig15
from lyaptorch.experiments.gradient_flossing.frames import Frames
from lyaptorch.record import Record


def test_slopes_are_those_of_least_squares():
    x, y = np.array([1.0, 2.0, 4.0]), np.array([[1.0, 0.0, 3.0], [2.0, 4.0, 8.0]])
    np.testing.assert_allclose(slopes(x, y), [np.polyfit(x, row, 1)[0] for row in y])
    assert slopes(x, y[1]) == pytest.approx(2.0)


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


def test_frames_differ_where_they_should(monkeypatch):
    """The frames handed to the scan: one for all epochs, a new one in each, or the end of the last scan."""
    figure = Frames(**Frames.scales["smoke"])
    given, ends = [], []
    from lyaptorch.experiments.gradient_flossing import frames as module

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


def test_the_spread_of_exponents_leaves_out_those_that_die():
    found = made("gradient-flossing", "fig16")
    figure = smoke("gradient-flossing", "fig16")
    running = found["running"].copy()
    running[-1, 0, -1] = -np.inf
    variables = {**found.variables, "running": (("time", "state", "index"), running)}
    dead = Record(found.kind, found.config, variables, found.coordinates)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert outcomes(figure.checks(dead)) == outcomes(figure.checks(found))
        assert np.isfinite([check.measured for check in figure.checks(dead)]).all()
    # the others alone
    fewer = {**found.variables, "running": (("time", "state", "index"), running[..., :-1])}
    alone = figure.checks(Record(found.kind, found.config, fewer, found.coordinates))
    assert [c.measured for c in figure.checks(dead)] == pytest.approx([c.measured for c in alone])
