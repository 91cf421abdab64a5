"""Curves: running means, scores of sweeps, and events for TensorBoard."""

import sys
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from lyaptorch.plots.curves import write_events
from lyaptorch.plots.primitives import footnote, smooth
from lyaptorch.record import Record


def by_hand(row, width):
    means = []
    for end, value in enumerate(row, 1):
        there = [z for z in row[max(0, end - width) : end] if np.isfinite(z)]
        means.append(np.mean(there, dtype=float) if there and not np.isnan(value) else np.nan)
    return means


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [1, 5, 40])
@pytest.mark.filterwarnings("error")
def test_a_running_mean_forgets_what_lies_before_its_window(width, dtype):
    rows = np.random.default_rng(0).random((2, 3, 30)).astype(dtype)
    rows[0, 0, 3], rows[0, 1, 4], rows[0, 2, 8:20] = 1e8, np.inf, -np.inf
    rows[1, 0, 20:], rows[1, 1, 10:15], rows[1, 2] = np.nan, np.nan, np.nan
    expected = np.array([[by_hand(row, width) for row in rows_of] for rows_of in rows])
    # a sum of 40 numbers in float64, of which one is 1e8
    np.testing.assert_allclose(smooth(rows, width), expected, rtol=1e-14)
    assert smooth(rows[..., :0], width).shape == (2, 3, 0)


AXES = {"delay": [10, 20, 30], "k": [1, 16], "network": [0, 1]}


@pytest.mark.parametrize(
    "order", [*permutations(AXES), ("k", "delay"), ("network", "k"), ("network",), ("k",)]
)
def test_a_sweep_is_drawn_by_its_names_whatever_the_order_of_its_axes(order):
    axes = {name: AXES[name] for name in order}
    grid = dict(zip(order, np.meshgrid(*axes.values(), indexing="ij"), strict=True))
    score = sum(100 * values if name == "k" else values for name, values in grid.items())
    coordinates = {name: ((name,), values) for name, values in axes.items()}
    curves = {"curve": ((*order, "epoch"), np.zeros((*score.shape, 5)))}
    record = Record("sweep", {"axes": axes}, {**curves, "final_loss": (order, score)}, coordinates)
    (panel,) = record.plot().axes
    settings = sorted(name for name in order if name != "network")
    across, others = settings[:1], settings[1:]
    known = panel.get_legend_handles_labels()
    found = {label: line.get_ydata() for line, label in zip(*known, strict=True)}
    # the mean over the two networks, of a sum
    network = 0.5 if "network" in order else 0.0
    worth = {"delay": 1, "k": 100}
    at = (
        np.array([worth[name] * np.array(AXES[name]) for name in across]).reshape(-1)
        if across
        else np.zeros(1)
    )
    expected = {f"{n} {value}": at + worth[n] * value + network for n in others for value in AXES[n]}
    if not others:
        assert not found
        found, expected = {"": panel.lines[-1].get_ydata()}, {"": at + network}
    assert found.keys() == expected.keys()
    for label, values in expected.items():
        np.testing.assert_allclose(found[label], values)


def test_a_sweep_of_curves_alone_has_an_empty_picture():
    record = Record(
        "sweep",
        {"axes": {"k": [1, 2]}},
        {"curve": (("k", "epoch"), np.zeros((2, 5)))},
        {"k": (("k",), [1, 2])},
    )
    assert not record.plot().axes[0].lines


class Writer:
    """As TensorBoard's `SummaryWriter`."""

    written: dict

    def __init__(self, folder):
        self.own = self.written.setdefault(folder.rpartition("/")[2], {})

    def add_scalar(self, tag, value, step):
        self.own.setdefault(tag, []).append((step, value))

    def close(self):
        pass


@pytest.mark.parametrize("own", [True, False])
def test_measurements_stand_at_their_epochs(monkeypatch, own):
    monkeypatch.setattr(Writer, "written", {}, raising=False)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    each = ("member", "measurement")
    at = (each, [[0.0, 100.0, 200.0], [0.0, 50.0, np.nan]]) if own else (("measurement",), [0, 100, 200])
    variables = {
        "loss": (("member", "epoch"), [[5.0, 4.0], [3.0, np.nan]]),
        "test_loss": (each, [[1.0, 0.5, 0.25], [1.0, 0.75, np.nan]]),
        "curvature": ((*each, "index"), [[[1.0], [2.0], [3.0]], [[4.0], [5.0], [np.nan]]]),
        "measured_at": at,
    }
    write_events(Record("training", {}, variables), "events")
    first, second = (Writer.written[f"member{i}"] for i in range(2))
    later = 50 if own else 100
    assert first["loss"] == [(0, 5.0), (1, 4.0)]
    assert second["loss"] == [(0, 3.0)]
    assert first["test_loss"] == [(0, 1.0), (100, 0.5), (200, 0.25)]
    assert second["test_loss"] == [(0, 1.0), (later, 0.75)]
    assert second["curvature/1"] == [(0, 4.0), (later, 5.0)]


def test_one_network_is_no_networks():
    for number, said in ((1, "n = 1 network each; mean"), (11, "n = 11 networks each; mean")):
        figure = Figure()
        footnote(figure.subplots(), f"n = {number} networks each", "mean")
        assert figure.get_supxlabel() == said
