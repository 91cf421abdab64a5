"""The demo at a tiny size, and every figure."""

import io
from dataclasses import asdict

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

import lyaptorch as lt
from lyaptorch.experiments import Demo
from lyaptorch.tasks import TemporalXOR

TINY = {
    "delay": 4,
    "seeds": 2,
    "hidden_size": 8,
    "k": 5,
    "floss_epochs": 12,
    "epochs": 3,
    "batch": 2,
    "length": 20,
    "measure": 60,
}
PLAIN, FLOSSED = slice(0, 2), slice(2, 4)


@pytest.fixture(scope="module")
def record():
    return Demo(**TINY).run(show_progress=False)


def drawn(figure):
    """The figure, after it was really drawn, warnings being errors."""
    before = dict(mpl.rcParams)
    assert isinstance(figure, Figure)
    figure.savefig(buffer := io.BytesIO(), format="png")
    assert buffer.getvalue().startswith(b"\x89PNG")
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == before
    return figure


def lines(axes):
    """Data of all lines with more than one point, thick ones first."""
    several = sorted(
        (line for line in axes.lines if len(line.get_xdata()) > 2), key=lambda x: -x.get_linewidth()
    )
    return [np.asarray(line.get_ydata(), dtype=float) for line in several]


def test_the_record_holds_what_is_documented(record):
    dims = {name: v.dims for name, v in record.variables.items()}
    assert dims == {
        "accuracy": ("member", "epoch"),
        "loss": ("member", "epoch"),
        "exponents": ("member", "floss_epoch", "index"),
        "floss_loss": ("member", "floss_epoch"),
        "spectrum": ("member", "rank"),
        "spectrum_error": ("member", "rank"),
        "final_accuracy": ("member",),
    }
    shapes = {name: v.values.shape for name, v in record.variables.items()}
    assert (shapes["accuracy"], shapes["exponents"], shapes["spectrum"]) == ((4, 3), (4, 12, 5), (4, 8))
    assert record["flossed"].tolist() == [False, False, True, True]
    assert record["network"].tolist() == [0, 1, 0, 1]
    assert record.kind == "demo"
    assert record.config == asdict(Demo(**TINY))
    assert np.isnan(record["exponents"][PLAIN]).all()
    for name in ("accuracy", "loss", "spectrum", "spectrum_error", "final_accuracy"):
        assert np.isfinite(record[name]).all()
    assert np.isfinite(record["exponents"][FLOSSED]).all()


def test_the_groups_are_copies_that_differ_by_flossing_alone(record):
    never = Demo(**{**TINY, "floss_clip": 0.0}).run(show_progress=False)
    # a clip of zero leaves the weights as they were: then nothing tells the groups apart
    for name in ("accuracy", "loss", "spectrum", "final_accuracy"):
        np.testing.assert_array_equal(never[name][PLAIN], never[name][FLOSSED])
    np.testing.assert_allclose(record["spectrum"][PLAIN], never["spectrum"][PLAIN], rtol=1e-5, atol=1e-5)
    assert (record["spectrum"][FLOSSED] != record["spectrum"][PLAIN]).any(-1).all()


def test_flossing_moves_the_first_k_exponents_towards_zero(record):
    squares = (record["spectrum"][:, :5] ** 2).mean(-1)
    assert (squares[FLOSSED] < squares[PLAIN]).all()


def test_it_is_deterministic_and_the_seed_matters(record):
    assert Demo(**TINY).run(show_progress=False) == record
    assert Demo(**TINY, seed=2).run(show_progress=False) != record


def test_a_demo_without_flossing_is_refused():
    with pytest.raises(ValueError, match="floss_epochs must be an integer >= 1, got 0"):
        Demo(**{**TINY, "floss_epochs": 0}).run(show_progress=False)


def test_the_figure_of_the_demo(record, tmp_path):
    figure = drawn(record.plot())
    left, middle, right = figure.axes
    assert left.get_title() == "Spectrum before training"
    np.testing.assert_allclose(lines(left)[:2], [record["spectrum"][g].mean(0) for g in (PLAIN, FLOSSED)])
    np.testing.assert_allclose(lines(middle)[0], record["exponents"][FLOSSED, :, 0].mean(0))
    assert right.get_title() == "XOR, delay 4"
    # it needs the file alone
    again = lt.Record.load(record.save(tmp_path / "demo.nc")).plot()
    assert [len(axes.lines) for axes in again.axes] == [len(axes.lines) for axes in figure.axes]


def trained(*schedule, ensemble=(2,)):
    task = TemporalXOR(4)
    model = lt.presets.gf2023(task, hidden_size=6, rows=2, ensemble=ensemble)
    return lt.train(model, task, schedule, batch=2, steps=12)


FLOSS = {"k": 3, "steps": 12, "tangent_transient": 2}
SOME = torch.tensor([True, False])


def test_the_figure_of_a_training_with_and_without_flossing():
    assert len(drawn(trained(lt.FitPhase(4)).plot()).axes) == 2
    record = trained(lt.FlossPhase(3, **FLOSS), lt.FitPhase(4))
    figure = drawn(record.plot())
    assert [axes.get_title() for axes in figure.axes] == ["Accuracy", "Loss", "Flossing"]
    np.testing.assert_allclose(lines(figure.axes[2])[0], record["exponents"][:, :, 0].mean(0))
    drawn(trained().plot())


def test_members_who_took_no_part_hide_nobody():
    record = trained(lt.FlossPhase(3, **FLOSS, who=SOME), lt.FitPhase(4))
    mean = lines(drawn(record.plot()).axes[2])[0]
    np.testing.assert_allclose(mean, record["exponents"][0, :, 0])


def test_a_member_with_fewer_epochs_has_a_shorter_curve_that_does_not_sink():
    record = trained(lt.FitPhase(4, who=SOME), lt.FitPhase(30))
    curves = lines(drawn(record.plot()).axes[1])
    for row, (curve, epochs) in enumerate(zip(curves, (34, 30), strict=False)):
        expected = [record["loss"][row, max(0, i - 9) : i + 1].mean() for i in range(epochs)]
        np.testing.assert_allclose(curve[:epochs], expected, rtol=1e-5)
        assert np.isnan(curve[epochs:]).all()


def test_the_figure_of_a_flossing():
    record = lt.floss(lt.RateCell(1, 6, ensemble=(2,)), TemporalXOR(4), epochs=4, **FLOSS)
    figure = drawn(record.plot())
    assert [axes.get_title() for axes in figure.axes] == ["Flossing loss", "Flossing"]
    np.testing.assert_allclose(np.array(lines(figure.axes[0])), record["floss_loss"])


def spectrum(inputs, **kw):
    return lt.lyapunov_spectrum(lt.RateCell(1, 6, **kw), inputs)


@pytest.mark.parametrize(
    ("inputs", "kw"),
    [
        (torch.randn(50, 1, 1), {}),
        (torch.randn(50, 3, 1), {"ensemble": (2,)}),
        (torch.randn(2, 1, 1), {}),
        # all units die, and exponents lost to round-off
        (torch.randn(50, 1, 1), {"activation": "relu", "gain": 0.01}),
        (torch.randn(50, 2, 1), {"gain": 1e-3}),
    ],
    ids=["one", "ensemble", "short", "dead", "lost"],
)
@pytest.mark.filterwarnings("ignore:every tangent vector has died")
def test_the_figure_of_a_spectrum(inputs, kw):
    measured = spectrum(inputs, **kw)
    figure = drawn(measured.plot())
    assert [axes.get_title() for axes in figure.axes] == ["Lyapunov spectrum", "Convergence"]
    exponents = measured.exponents.detach().reshape(-1, 6)
    if torch.isfinite(exponents).all():
        np.testing.assert_allclose(lines(figure.axes[0])[0], exponents.mean(0), rtol=1e-5)
        np.testing.assert_allclose(lines(figure.axes[1])[0][-1], exponents.mean(0)[0], rtol=1e-5) if len(
            inputs
        ) > 2 else None


def test_the_axes_say_the_unit_of_time():
    cell = lt.RateCell(1, 6)
    steps = lt.lyapunov_spectrum(cell, torch.randn(50, 1, 1)).plot()
    timed = lt.lyapunov_spectrum(cell, torch.randn(50, 1, 1), dt=0.1).plot()
    labels = [(f.axes[0].get_ylabel(), f.axes[1].get_xlabel()) for f in (steps, timed)]
    assert labels[0] == (r"$\lambda_i$ (nats per step)", "time (steps)")
    assert labels[1] == (r"$\lambda_i$ (nats per unit of time)", "time (units of time)")
    assert timed.axes[1].lines[0].get_xdata()[-1] == pytest.approx(5.0)


def test_a_record_without_a_figure():
    with pytest.raises(
        ValueError,
        match=r"a Record 'trainn' cannot be drawn, there is no figure for it; did you mean 'train'\?$",
    ):
        lt.Record("trainn", {}, {}).plot()
