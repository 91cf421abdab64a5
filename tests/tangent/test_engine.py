"""The choice of an engine: what is taken, and the reason why each other one is not."""

import re

import pytest
import torch

import cases
import lyaptorch as lt
from fused import CPU, graph
from lyaptorch import surrogates
from lyaptorch.kernels import FusedRecurrence, dispatch, preferred, refusal
from lyaptorch.tangent.engine import ENGINES, choose, engines, segments
from lyaptorch.tangent.scan import Problem, spans

kernels = pytest.mark.skipif(not CPU.available, reason=f"no compiled kernels: {CPU.detail}")
INPUTS = torch.linspace(-1, 1, 24).reshape(6, 2, 2)


def tau():
    return torch.nn.Parameter(torch.full((4,), 8e-3))


def parted():
    """A cell whose input weights are in float64, all else in float32."""
    cell = lt.RateCell(2, 4)
    cell.weight_ih = torch.nn.Parameter(cell.weight_ih.double())
    return cell


CELLS = {
    "no form": (lambda: torch.nn.GRU(2, 4), {}, "the cell has no Form"),
    "activation": (
        lambda: lt.RateCell(2, 4, activation=cases.softplus()),
        {},
        "the kernels know the activations of this library",
    ),
    "constants": (lambda: lt.LIFCell(2, 4, tau_mem=tau()), {}, "train no time constants or thresholds"),
    "checkpoint": (lambda: lt.RateCell(2, 4), {"checkpoint": 2}, "checkpoint was given"),
    "lengths": (lambda: lt.RateCell(2, 4), {"lengths": [3, 6]}, "lengths were given"),
    "method": (
        lambda: lt.RateCell(2, 4),
        {"qr_method": "householder"},
        "it knows qr_method \"auto\", and 'householder' was given",
    ),
}
"""Problems that compiled code does not serve: a cell, settings, and the reason."""


@kernels
@pytest.mark.parametrize("name", CELLS)
def test_the_reason_is_told_and_an_explicit_backend_is_refused_with_it(name):
    make, settings, reason = CELLS[name]
    cell = make()
    found = engines(cell, INPUTS, **settings)
    assert tuple(found) == ENGINES
    assert reason in found["cpu"]
    assert found["torch"] == "chosen"
    assert found["autograd"] == "serves"
    message = f'backend "cpu" cannot serve: {found["cpu"]}; pass backend="torch"'
    with pytest.raises(ValueError, match=re.escape(message)):
        lt.lyapunov_spectrum(cell, INPUTS, backend="cpu", **settings)
    # left alone it is served, by what was said
    rates = lt.lyapunov_spectrum(lt.as_cell(cell), INPUTS.clone().requires_grad_(), **settings).exponents
    assert "TorchEngine" in graph(rates)


@kernels
def test_what_is_chosen_is_what_runs(monkeypatch):
    cell, inputs = lt.RateCell(2, 4), INPUTS.clone().requires_grad_()
    assert engines(cell, inputs)["cpu"] == "chosen"
    assert engines(cell, inputs)["torch"] == "serves"
    for backend, name in ((None, "FusedEngine"), ("cpu", "FusedEngine"), ("torch", "TorchEngine")):
        assert name in graph(lt.lyapunov_spectrum(cell, inputs, backend=backend).exponents)
    assert "Engine" not in graph(lt.lyapunov_spectrum(cell, inputs, backend="autograd").exponents)
    # one segment is no reason, nor is one end for all
    assert engines(cell, inputs, checkpoint=6, lengths=[6, 6])["cpu"] == "chosen"
    monkeypatch.setenv("LYAPTORCH_KERNELS", "0")
    found = engines(cell, inputs)
    assert found["cpu"] == found["triton"] == "switched off by LYAPTORCH_KERNELS=0"
    assert found["torch"] == "chosen"


def test_a_missing_backend_says_what_is_missing():
    for name, here in lt.kernels.available().items():
        if not here.available:
            assert engines(lt.RateCell(2, 4), INPUTS)[name] == here.detail


@kernels
def test_reasons_of_states_and_weights():
    form, h = lt.RateCell(2, 4).form(), torch.zeros(1, 4)
    assert refusal("cpu", form, h) is None
    assert refusal("cpu", form, h.to("meta")) == "the state is on meta"
    assert refusal("cpu", form, h.half()).startswith("the dtype is torch.float16")
    assert refusal("cpu", parted().form(), h).startswith("a weight is torch.float64 on cpu, and the state")
    assert refusal("cpu", form, torch.zeros(3, 1, 4)).startswith("the recurrent weights have shape (4, 4)")
    trained = surrogates.sech2(torch.nn.Parameter(torch.ones(())), through="surrogate")
    assert refusal("cpu", lt.RateCell(2, 4, activation=trained).form(), h).endswith("'surrogate'")


def test_of_triton_the_size_counts_and_of_a_frame_less_than_of_states(monkeypatch):
    monkeypatch.setattr(dispatch, "missing", lambda name: None)
    monkeypatch.setattr(dispatch, "_interpreted", lambda: True)
    rate, spiking = lt.RateCell(1, 129).form(), lt.LIFCell(1, 65).form()
    assert refusal("triton", rate, torch.zeros(1, 129)) is None
    assert refusal("triton", rate, torch.zeros(1, 129), frame=True).startswith("its tiles hold up to 128")
    assert refusal("triton", spiking, torch.zeros(1, 130), frame=True).startswith("its tiles hold up to 64")
    large = lt.RateCell(1, 1025).form()
    assert refusal("triton", large, torch.zeros(1, 1025)).startswith("its tiles hold up to 1024 units")
    # interpreted it serves where it is not at home, and is not taken by itself
    assert preferred(torch.zeros(1)) == "cpu"
    assert not FusedRecurrence("triton").serves(rate, torch.zeros(1, 129))


def test_torch_and_autograd_always_serve():
    cell = lt.as_cell(torch.nn.GRU(2, 4))
    over = segments(spans(0, 6, 1), 2)
    for name in ("torch", "autograd"):
        assert choose(Problem(cell, None, over, None, "householder"), torch.zeros(1, 4), name) == name


def test_bad_arguments_are_refused_as_a_scan_refuses_them():
    with pytest.raises(ValueError, match="unknown qr_method 'qr'"):
        engines(lt.RateCell(2, 4), INPUTS, qr_method="qr")
    with pytest.raises(ValueError, match="checkpoint must be"):
        engines(lt.RateCell(2, 4), INPUTS, checkpoint=0)
    with pytest.raises(ValueError, match="inputs"):
        engines(lt.RateCell(3, 4), INPUTS)
