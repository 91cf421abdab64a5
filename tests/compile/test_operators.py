"""The whole-sequence functions as operators of torch.library: alone, and compiled."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import cases
import lyaptorch as lt
from fused import agree, bypassed, compiled, has_a_known_form, problem
from lyaptorch.cells import LIFForm, unroll
from lyaptorch.compile import operators
from lyaptorch.compile.operators import flatten, unflatten
from reference import random_frame

pytestmark = pytest.mark.usefixtures("double")

HERE = Path(__file__).parent

CASES = [pytest.param(case, id=case.name) for case in cases.CASES if has_a_known_form(case)]
FORMS = [p for p in CASES if not isinstance(cases.setup(p.values[0]).cell.form(), LIFForm)]


def sharpened(kind="dense", ensemble=()):
    """A residual network in which everything is trained: two sharpnesses too."""

    def sharp(bump, g):
        return bump(nn.Parameter(torch.tensor(g)), norm="area", value="step")

    activations = [sharp(lt.surrogates.sech2, 0.3), sharp(lt.surrogates.erfc, 0.4), cases.tanh()]
    return bypassed(4, kind, (4,), activations, ensemble=ensemble, t=5)


def spiking():
    return cases.setup(next(case for case in cases.CASES if case.name == "lif-full"), t=5)


def operands(cell, h0):
    """What an operator takes in the place of a form, every tensor that is trained asking for its gradient."""
    tensors, layout = flatten(cell.form())
    return [z.detach().requires_grad_(z.requires_grad) for z in tensors], layout


BY_AREA = lt.surrogates.gaussian(2.0, norm="area", through="surrogate")
AREAS = [
    cases.Case("form-area", lambda **kw: sharpened(ensemble=kw["ensemble"])[0]),
    cases.Case("lif-area", cases.spiking(surrogate=BY_AREA)),
]


@pytest.mark.parametrize("case", [*CASES, *(pytest.param(case, id=case.name) for case in AREAS)])
def test_what_is_packed_is_unpacked(case):
    cell = cases.setup(case, (2,) if case.ensembles else ()).cell
    tensors, layout = flatten(cell.form())
    form = unflatten(tensors, layout, [z.requires_grad for z in tensors])
    assert flatten(form)[1] == layout
    assert [z.shape for z in form.trained()] == [z.shape for z in tensors if z.requires_grad]
    assert all(a.data_ptr() == b.data_ptr() for a, b in zip(flatten(form)[0], tensors, strict=True))
    for f, g in zip(form.activations(), cell.form().activations(), strict=True):
        for what in ("name", "value", "norm", "through"):
            assert getattr(f, what, None) == getattr(g, what, None)


def test_an_activation_of_the_users_is_not_packed():
    assert flatten(lt.RateCell(2, 4, activation=cases.softplus()).form()) is None


SETTINGS = ([0, 1, 3, 5], [True, False, True], 2)


@compiled
@pytest.mark.parametrize("case", [lambda: sharpened("blocks", (2,)), spiking], ids=["form", "neurons"])
def test_operators_keep_the_contract_of_torch(case):
    cell, inputs, h0 = case()
    inputs, h0 = (z.detach().requires_grad_() for z in (inputs, h0))
    tensors, layout = operands(cell, h0)
    wanted = [True, *(z.requires_grad for z in tensors)]
    frame = random_frame(4, 3).expand(*h0.shape, 3).clone().requires_grad_()
    torch.library.opcheck(operators.unroll, (inputs, h0, tensors, layout))
    bar = torch.ones(len(inputs), *h0.shape)
    torch.library.opcheck(operators.unroll_adjoint, (*plainly(inputs, h0, tensors), layout, wanted, bar))
    given = (inputs, h0, frame, tensors, layout, *SETTINGS, "cpu")
    torch.library.opcheck(operators.scan, given)
    x, h, bare, Q = *plainly(inputs, h0, tensors), frame.detach()
    bars = (torch.ones(3, *h0.shape[:-1], 3), torch.ones(h0.shape))
    torch.library.opcheck(operators.scan_adjoint, (x, h, Q, bare, layout, *SETTINGS, "cpu", wanted, *bars))


def plainly(inputs, h0, tensors):
    """The same, asking for nothing: an adjoint has no derivative."""
    return inputs.detach(), h0.detach(), [z.detach() for z in tensors]


def derivatives(outputs, wanted):
    weights = [torch.linspace(-1, 2, z.numel()).reshape(z.shape).cos() for z in outputs]
    loss = sum((w * z).sum() for w, z in zip(weights, outputs, strict=True))
    return [*outputs, *torch.autograd.grad(loss, wanted, materialize_grads=True, allow_unused=True)]


@compiled
@pytest.mark.parametrize("case", CASES)
def test_the_unrolled_catalogue(case):
    cell, inputs, h0 = cases.setup(case, (2,) if case.ensembles else ())
    compare_unrolled(cell, inputs, h0)


@compiled
def test_a_sharpness_and_two_biases():
    compare_unrolled(*sharpened())
    compare_unrolled(*problem(lt.ElmanCell, 5, ensemble=(2,), b=3))


def compare_unrolled(cell, inputs, h0):
    inputs, h0 = (z.detach().requires_grad_() for z in (inputs, h0))
    wanted = [inputs, h0, *cell.form().trained()]
    operator = operators.unroll(inputs, h0, *flatten(cell.form()))
    agree(derivatives([operator], wanted), derivatives([unroll(cell, inputs, h0)], wanted), 1e-13)


@compiled
@pytest.mark.parametrize("case", FORMS)
def test_the_scanned_catalogue(case):
    compare_scanned(*cases.setup(case, t=5))


@compiled
def test_sharpnesses_scanned():
    compare_scanned(*sharpened(ensemble=(2,)))


def compare_scanned(cell, inputs, h0, backend="cpu"):
    frame = random_frame(4, 3)
    inputs, h0, frame = (z.detach().requires_grad_() for z in (inputs, h0, frame))
    wanted = [inputs, h0, frame, *cell.form().trained()]
    operator = operators.scan(
        inputs, h0, frame, *flatten(cell.form()), [0, 2, 4, 5], [False] * 3, None, backend
    )
    spec = lt.lyapunov_spectrum(cell, inputs, h0=h0, frame=frame, k=3, interval=2, backend="torch")
    healthy = spec.growth.healthy
    assert torch.equal(operator[1], healthy)
    for Q in (operator[3], spec.final_frame):
        assert not Q.requires_grad
    finite = [torch.where(healthy, log_r, 0.0) for log_r in (operator[0], spec.growth.log_r)]
    ends = [operator[2], spec.final_state]
    got, expected = (derivatives(list(pair), wanted) for pair in zip(finite, ends, strict=True))
    agree([*got, operator[3]], [*expected, spec.final_frame], 1e-9)


@compiled
def test_an_overflow_names_its_step():
    cell, inputs, h0 = problem(lt.RateCell, 4, activation="linear", t=4)
    with torch.no_grad():
        cell.weight_hh.mul_(1e100)
    with pytest.raises(FloatingPointError, match="the tangent vectors are not finite after step 4"):
        operators.scan(inputs, h0, random_frame(4, 2), *flatten(cell.form()), [0, 4], [False], None, "cpu")


def test_no_derivative_of_the_adjoint():
    cell, inputs, h0 = problem(lt.RateCell, 4, t=3)
    tensors, layout = flatten(cell.form())
    states = operators.unroll(inputs, h0, tensors, layout)
    (bar,) = torch.autograd.grad(states.square().sum(), h0, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        bar.sum().backward()


INTERPRETED = """
import torch
torch.set_default_dtype(torch.float64)
import lyaptorch as lt, test_operators as tests
from lyaptorch.cells.unroll import use

class Everywhere(lt.kernels.FusedRecurrence):
    def serves(self, form, h):
        return lt.kernels.refusal("triton", form, h) is None

case = tests.sharpened("dense")
tests.compare_scanned(*case, backend="triton")
tests.compare_scanned(*tests.spiking(), backend="triton")
use(Everywhere("triton"))
tests.compare_unrolled(*case)
"""


def test_on_triton():
    pytest.importorskip("triton")
    # a process of its own: whether Triton interprets is decided when it is imported
    run(INTERPRETED, TRITON_INTERPRET="1")


COMPILED = """
import torch, lyaptorch as lt
torch.set_default_dtype(torch.float64)
rule = lt.residuals.rotation(0.3) @ lt.residuals.decay(0.9)
cell = lt.ResidualCell(2, 6, residual=rule, coupling=0.3, ensemble=(2,))
model = lt.Model(cell, lt.Readout(6, 1, ensemble=(2,)), loss="mean_squared_error")
x, y = torch.ones(9, 2, 3, 2).cumsum(0).cos(), torch.ones(9, 2, 3, 1)

def fit():
    return (model(x) - y).square().mean((0, 2, 3)).sum()

def last():
    return (model.readout(model.states(x, first=8)) - y[-1]).square().sum()

def floss():
    spec = lt.lyapunov_spectrum(cell, x, k=3, tangent_transient=2, interval=2)
    return spec.exponents.square().sum()

parameters = [p for p in model.parameters() if p.requires_grad]
for loss in (fit, last, floss):
    seen = []
    def backend(graph, example):
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return lookup_backend("aot_eager")(graph, example)
    from torch._dynamo import lookup_backend
    for own in (torch.compile(loss, fullgraph=True, backend=backend), loss):
        value = own()
        print(value.item(), *(g.tolist() for g in torch.autograd.grad(
            value, parameters, materialize_grads=True, allow_unused=True)))
    print(*[name for name in seen if "lyaptorch" in name])
"""


@compiled
def test_training_and_flossing_steps_compile_into_one_graph():
    # a process of its own: torch.compile does not trace the checks of the tests
    lines = run(COMPILED).splitlines()
    for loss, operator in enumerate(("unroll", "unroll", "scan")):
        compiled, plain, names = lines[3 * loss : 3 * loss + 3]
        assert compiled == plain
        assert operator in names


PARALLEL = """
import sys, torch, lyaptorch as lt
from torch.nn.parallel import DistributedDataParallel

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)

class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = lt.Model(lt.ElmanCell(1, 12), lt.Readout(12, 1))
    def forward(self, x):
        spec = lt.lyapunov_spectrum(self.model.cell, x, k=4)
        outputs = self.model.readout(self.model.states(x))
        return outputs.square().mean() + 0.1 * lt.flossing_loss(spec.exponents)

x = torch.randn(30, 8, 1, generator=torch.Generator().manual_seed(1))
torch.manual_seed(0)
own, alone = Network(), Network()
alone.load_state_dict(own.state_dict())
fast = torch.compile(DistributedDataParallel(own), backend="inductor")
for network, losses in ((own, [fast(x[:, 4 * rank : 4 * rank + 4])]),
                        (alone, [alone(x[:, :4]) / 2, alone(x[:, 4:]) / 2])):
    sum(losses).backward()
for p, q in zip(own.parameters(), alone.parameters()):
    torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=1e-6)
assert torch._dynamo.utils.counters["stats"]["calls_captured"] > 0
torch.distributed.destroy_process_group()
"""


@compiled
@pytest.mark.slow
def test_compiled_networks_train_in_two_processes(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", PARALLEL]
    running = [
        subprocess.Popen([*command, str(rank), str(tmp_path)], stderr=subprocess.PIPE) for rank in (0, 1)
    ]
    errors = [process.communicate(timeout=900)[1].decode()[-3000:] for process in running]
    assert [process.returncode for process in running] == [0, 0], errors


def run(program, **environment):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}", **environment},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
