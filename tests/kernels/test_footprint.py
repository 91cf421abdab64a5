"""The footprint in memory, against what interpreted kernels take, and what it says when nothing fits."""

import os
import subprocess
import sys

import pytest
import torch
from torch.overrides import TorchFunctionMode

import lyaptorch as lt
from lyaptorch.kernels import Need, footprint, library, scan_need, unroll_need
from lyaptorch.kernels.footprint import check_memory

MEASURED = """
import torch, lyaptorch as lt
from torch.profiler import ProfilerActivity, profile
from lyaptorch.cells import unroll
from lyaptorch.cells.unroll import use

class Everywhere(lt.kernels.FusedRecurrence):
    def serves(self, form, h):
        return lt.kernels.refusal("triton", form, h) is None

def peak(step):
    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        step()
    now = top = 0
    for event in run.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            top = max(top, now)
    return top

use(Everywhere("triton"))
torch.set_num_threads(1)
t, e, b, n, k = 4, 2, 32, 16, 6
residual = lt.residuals.rotation(0.3) @ lt.residuals.decay(0.9)
for cell in (
    lt.RateCell(1, n, ensemble=(e,)),
    lt.ElmanCell(1, n, ensemble=(e,)),
    lt.ResidualCell(1, n, residual=residual, coupling=0.1, ensemble=(e,)),
    lt.LIFCell(1, n, ensemble=(e,)),
):
    x, h = torch.ones(t, e, b, 1), torch.zeros(e, b, cell.state_size)
    wanted, form = [p for p in cell.parameters() if p.requires_grad], cell.form()
    step = lambda: torch.autograd.grad(unroll(cell, x, h).square().sum(), wanted)
    print(lt.kernels.unroll_need(form, t).bytes(e, b), peak(step))
    with torch.no_grad():
        print(lt.kernels.unroll_need(form, t, gradient=False).bytes(e, b), peak(lambda: unroll(cell, x, h)))
    x, h, b1, frame = x[:, :, :1], h[:, :1], 1, torch.eye(cell.state_size)[:, :k]
    floss = lambda: lt.lyapunov_spectrum(cell, x, h0=h, k=k, frame=frame, backend="triton")
    step = lambda: torch.autograd.grad(floss().exponents.sum(), wanted)
    print(lt.kernels.scan_need(form, t, t, k).bytes(e, b1), peak(step))
"""


@pytest.mark.slow
def test_what_is_planned_is_what_the_kernels_take():
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURED],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
    pairs = [tuple(map(int, line.split())) for line in done.stdout.splitlines() if line[:1].isdigit()]
    assert len(pairs) == 12
    for planned, measured in pairs:
        # never less than is taken, nor so much more that what fits is refused for long
        assert 1.0 <= planned / measured < 2.0


def test_what_grows_with_what():
    form = lt.RateCell(1, 80).form()
    one, two = unroll_need(form, 300), unroll_need(form, 600)
    assert two.network == one.network
    assert two.trajectory == pytest.approx(2 * one.trajectory, rel=0.01)
    assert unroll_need(form, 300, gradient=False).trajectory < one.trajectory / 2
    scans = [scan_need(form, 55, 55, k).trajectory for k in (20, 75)]
    # at least a frame of each step, and its cotangent
    assert scans[1] - scans[0] > 2 * 55 * 80 * 55 * 4
    assert scan_need(form, 55, 11, 75).trajectory < scans[1]
    assert scan_need(form, 55, 55, 75, gradient=False).trajectory < scans[1] / 2
    double = lt.RateCell(1, 80).double().form()
    assert unroll_need(double, 300).trajectory == 2 * one.trajectory


NEED = Need(network=100, trajectory=50)


def test_what_fits_is_planned_to_the_last_byte():
    assert footprint(NEED, 4, 2, free=800) == 800
    with pytest.raises(
        ValueError, match=r"got 4 networks with a batch of 2.*; 3 networks or a batch of 1 would"
    ):
        footprint(NEED, 4, 2, free=799)


@pytest.mark.parametrize(("free", "networks", "batch"), [(799, 3, 1), (10_000, 3, 7), (400, 2, 2)])
def test_the_size_that_is_named_is_the_largest(free, networks, batch):
    with pytest.raises(ValueError, match="would fit") as error:
        footprint(NEED, 1000 * networks, batch, free)
    fitting = int(str(error.value).split("; ")[1].split()[0])
    assert NEED.bytes(fitting, batch) <= free < NEED.bytes(fitting + 1, batch)


def test_where_not_even_one_network_fits():
    with pytest.raises(ValueError, match="take fewer steps: not one network would fit"):
        footprint(NEED, 1, 1, free=100)
    with pytest.raises(ValueError, match="; 1 network would fit"):
        footprint(NEED, 8, 2, free=300)
    with pytest.raises(ValueError, match="; a batch of 1 would fit"):
        footprint(NEED, 1, 9, free=150)


def test_a_gpu_is_asked_what_is_free(monkeypatch):
    """Its answers are made up: all of its memory, what torch holds and uses, what the driver has left."""
    properties = type("Properties", (), {"total_memory": 1600})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 300)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (600, 1600))
    gpu = torch.device("cuda")
    check_memory(NEED, 4, 2, gpu)
    with pytest.raises(ValueError, match="4 networks or a batch of 1 would fit"):
        check_memory(NEED, 5, 2, gpu)
    check_memory(NEED, 5, 2, torch.device("cpu"))
    monkeypatch.setattr("lyaptorch._checks.can_look", lambda: False)
    check_memory(NEED, 5, 2, gpu)
    monkeypatch.undo()


def test_memory_is_given_back_while_functions_of_torch_are_watched():
    lent = [library.reuse_buffer((1 << 16,), torch.float64)]
    address = lent[0].data_ptr()

    class Watched(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            raise AssertionError(f"{function} was called")

    with Watched():
        # as the garbage collector does, at any time
        lent.clear()
    assert library.reuse_buffer((1 << 16,), torch.float64).data_ptr() == address
