"""What a person at a prompt meets: short reprs, arrays, and files by their names."""

import copy
import io

import numpy as np
import pytest
import torch
import xarray
from matplotlib.figure import Figure
from torch import nn

import lyaptorch as lt
from lyaptorch.analysis import condition_number
from lyaptorch.record import Record
from lyaptorch.tangent.spectrum import Rates, rates
from lyaptorch.tasks.batch import Draw

SUFFIXES = {
    ".html": b"<!doctype html>",
    ".png": b"\x89PNG",
    ".pdf": b"%PDF",
    ".svg": b"<?xml",
    ".nc": b"\x89HDF",
}


@pytest.fixture(scope="module")
def inputs():
    return torch.randn(120, 3, 1, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def spectrum(inputs):
    torch.manual_seed(0)
    return lt.lyapunov_spectrum(nn.RNN(1, 40), inputs, transient=20)


@pytest.fixture(scope="module")
def diagnosis(inputs):
    torch.manual_seed(0)
    return lt.diagnose(nn.RNN(1, 40), inputs)


def test_a_spectrum_says_in_a_few_lines_what_was_measured(spectrum):
    text = repr(spectrum)
    assert text.count("\n") <= 4
    assert "40 exponents, 3 trajectories, 100 steps" in text
    mean, error = spectrum.exponents.detach().mean(0)[0], spectrum.stderr().mean(0)[0]
    assert f"{mean:+.4g} ± {error:.1g}" in text
    assert "nats per step" in text
    assert f"{int(spectrum.reliable.sum())} of 120 reliable" in text


@pytest.mark.filterwarnings("ignore:every tangent vector has died")
def test_a_dead_trajectory_does_not_darken_what_is_said_of_the_others():
    halves = lt.lyapunov_spectrum(
        lambda x, h: h * torch.tensor([[0.5], [0.0]]), torch.zeros(40, 2, 1), h0=torch.ones(2, 1), dt=0.5
    )
    assert "-1.386 ± 0 nats per unit of time" in repr(halves)
    dead = lt.lyapunov_spectrum(lambda x, h: 0 * h, torch.zeros(40, 1, 1), h0=torch.ones(1, 1))
    assert "-inf nats per step" in repr(dead)


def test_an_ensemble_is_cut_short():
    cells = lt.RateCell(1, 4, ensemble=(50,))
    text = repr(lt.lyapunov_spectrum(cells, torch.zeros(20, 1, 1)))
    assert "ensemble (50,) of 1 trajectory" in text
    assert "... 47 more" in text
    assert text.count("\n") <= 6


def test_a_diagnosis_says_the_verdict_and_prints_all(diagnosis):
    text = repr(diagnosis)
    assert text.count("\n") <= 4
    assert text.startswith(f"Diagnosis of network: {diagnosis.verdict}")
    assert diagnosis.findings[0].text in text
    assert str(diagnosis) == diagnosis.summary()


def test_no_result_prints_its_numbers(spectrum, diagnosis, inputs):
    cell = lt.RateCell(1, 16).double()
    x = inputs.double()
    clv = lt.covariant_vectors(cell, x, k=4)
    measured = diagnosis.measured
    results = [spectrum, spectrum.growth, diagnosis, measured, measured.parts, clv, clv.growth]
    results += [condition_number(cell, x), spectrum.record(), diagnosis.record()]
    results += [lt.tasks.TemporalXOR(4).draw(Draw(0, 20, 2))]
    for result in results:
        assert repr(result).startswith(type(result).__name__)
        assert repr(result).count("\n") <= 4, type(result)
        assert len(repr(result)) < 1200, type(result)
    assert "4 of 16 numbers, 3 trajectories, 120 steps" in repr(clv)


def test_exponents_are_arrays_and_still_train(inputs):
    rnn = nn.RNN(1, 5)
    spectrum = lt.lyapunov_spectrum(rnn, inputs)
    assert spectrum.exponents.requires_grad
    with torch.no_grad():
        plain = lt.lyapunov_spectrum(rnn, inputs)
    for name in ("exponents", "running", "local", "kaplan_yorke", "entropy"):
        value, same = (getattr(s, name) for s in (spectrum, plain))
        value, same = (v() if callable(v) else v for v in (value, same))
        assert type(same) is torch.Tensor
        np.testing.assert_allclose(value.numpy(), same.numpy(), rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(np.asarray(value, dtype=np.float64), same, rtol=1e-6, atol=1e-7)
        np.testing.assert_array_equal(value[0].numpy(), value.numpy()[0])
        assert [row.numpy().tolist() for row in value] == value.tolist()
    Figure().subplots().plot(spectrum.exponents[0])
    lt.flossing_loss(spectrum.exponents).backward()
    assert rnn.weight_hh_l0.grad.norm() > 0
    # what is computed from them is torch's own, with its own warning
    assert type(spectrum.exponents + 0) is torch.Tensor
    with pytest.raises(RuntimeError, match="requires grad"):
        spectrum.exponents.mean(0).numpy()


def test_exponents_are_saved_copied_and_printed_as_plain_tensors(inputs):
    value = lt.lyapunov_spectrum(nn.RNN(1, 5), inputs).exponents
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert type(loaded) is torch.Tensor
    assert torch.equal(loaded, value)
    assert repr(value).startswith("tensor(")
    assert f"{value[0, 0]:.3f}" == f"{value[0, 0].item():.3f}"
    assert type(copy.deepcopy(value.detach().as_subclass(Rates))) is torch.Tensor


def test_readable_rates_pass_through_the_transforms_of_torch():
    weight = torch.randn(3, 4)
    assert type(rates(weight)) is torch.Tensor
    inside = torch.func.grad(lambda w: (2 * w).as_subclass(Rates).square().sum())
    torch.testing.assert_close(inside(weight), 8 * weight)
    each = torch.func.vmap(lambda w: (2 * w).as_subclass(Rates).square().sum())
    torch.testing.assert_close(each(weight), 4 * weight.square().sum(1))


def test_every_result_is_saved_as_its_name_says(spectrum, diagnosis, tmp_path):
    for result in (spectrum, diagnosis, spectrum.record()):
        folder = tmp_path / "new" / type(result).__name__
        # all draw by the same way
        for suffix, magic in SUFFIXES.items() if result is spectrum else list(SUFFIXES.items())[::4]:
            path = result.save(folder / f"result{suffix}")
            assert path == folder / f"result{suffix}"
            assert path.read_bytes().startswith(magic)
        loaded = Record.load(folder / "result.nc")
        assert loaded == (result if isinstance(result, Record) else result.record())
        default = ".nc" if isinstance(result, Record) else ".html"
        # digits after a dot are part of a name
        assert result.save(folder / "gain-0.5").name == f"gain-0.5{default}"
        before = set(folder.iterdir())
        with pytest.raises(
            ValueError, match=r"must end in one of .nc \(the Record\).* got 'result.csv'; rename"
        ):
            result.save(folder / "result.csv")
        assert set(folder.iterdir()) == before


def test_a_record_is_a_mapping_and_a_dataset(spectrum):
    record = spectrum.record()
    assert list(record) == ["exponents", "stderr", "error_of_mean", "reliable", "running", "elapsed"]
    assert list(record) == list(record.keys())
    assert len(record) == 6
    assert "running" in record
    assert "time" not in record
    assert {name: values.shape for name, values in dict(record).items()}["stderr"] == (3, 40)
    assert isinstance(record.dataset, xarray.Dataset)
    assert Record("empty", {}, {})
    many = Record("many", {}, {f"x{i}": ((), i) for i in range(40)})
    assert repr(many).endswith("x11 (), ... 28 more, see list(record))")


def test_a_record_without_a_figure_says_so_in_a_sentence(tmp_path):
    own = Record("spectrun", {}, {"x": ((), 1.0)})
    with pytest.raises(
        ValueError,
        match="a Record 'spectrun' cannot be drawn, there is no figure for it; did you mean 'spectrum'",
    ) as caught:
        own.save(tmp_path / "own.png")
    assert len(str(caught.value)) < 200
    with pytest.raises(
        ValueError, match="'zzz' cannot be drawn, there is no figure for it; its page shows what it holds"
    ):
        Record("zzz", {}, {}).plot()
    assert own.save(tmp_path / "own.html").exists()
