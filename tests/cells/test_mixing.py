"""`weights.mixing_`: orthogonal candidate weights at the gain that keeps gradients."""

import math

import pytest
import torch
from torch import nn

import lyaptorch as lt
from lyaptorch.cells.mixing_gain import CLOSE, CUTS, crossing

pytestmark = pytest.mark.usefixtures("double", "unchecked")

M, N, H = 2, 12, 20
CANDIDATE = {"GRU": slice(2 * N, None), "LSTM": slice(2 * N, 3 * N), "RNN": slice(0, N)}


def drive(t=80, m=M, b=4):
    drawn = torch.randn(t, b, m, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return 0.3 * drawn


def orthogonal_part(W, gain):
    torch.testing.assert_close(W @ W.mT, gain**2 * torch.eye(W.shape[-1]).expand_as(W))


# of gates that hold, of gates that let through, and of the candidate; the logarithm of H = 20 is below 3
HELD, THROUGH, OWN = -3.0, 3.0, 0.0
GATES = {
    "GRU": [(N, HELD), (0, THROUGH), (2 * N, OWN)],
    "LSTM": [(N, HELD), (0, THROUGH), (3 * N, THROUGH), (2 * N, OWN)],
    "RNN": [],
}


def rest_is_as_before(module, before, touched, gates=()):
    """All is as before to the bit, but for rows of the touched parameters and the gates' biases."""
    for name, p in module.named_parameters():
        keep = torch.ones(len(p), dtype=torch.bool)
        for first, bias in gates if "bias" in name else ():
            keep[first : first + N] = False
            assert (p[first : first + N] == (bias if "bias_ih" in name else 0.0)).all()
        if name in touched:
            keep[touched[name]] = False
            assert not torch.equal(p[~keep], before[name][~keep])
        assert torch.equal(p[keep], before[name][keep]), name


def state(module):
    return {name: p.detach().clone() for name, p in module.named_parameters()}


@pytest.mark.parametrize("kind", CANDIDATE)
@pytest.mark.parametrize("settings", [{}, {"num_layers": 2}, {"bidirectional": True}, {"bias": False}])
def test_only_candidate_weights_become_orthogonal_at_the_gain_it_says(kind, settings):
    module = getattr(nn, kind)(M, N, **settings)
    before = state(module)
    chosen = lt.weights.mixing_(module, horizon=H)
    names = [name for name in before if name.startswith("weight_hh")]
    assert list(chosen.gains) == names
    rest_is_as_before(module, before, dict.fromkeys(names, CANDIDATE[kind]), GATES[kind])
    for name in names:
        orthogonal_part(getattr(module, name)[CANDIDATE[kind]], chosen.gains[name])
    if "bias" not in settings and kind != "RNN":
        # 1 / sigmoid(3) but for what inputs' and recurrent biases of the other rows leave
        assert chosen.gains["weight_hh_l0"] == pytest.approx(1.05 * (1 + math.exp(-3)), abs=1e-12)
    else:
        # without biases all gates stand at one half
        assert chosen.gains["weight_hh_l0"] == pytest.approx(1.0 if kind == "RNN" else 2.1, abs=1e-6)


def test_gates_are_the_farther_open_the_longer_the_horizon():
    gru = nn.GRU(M, N)
    chosen = lt.weights.mixing_(gru, horizon=200)
    assert chosen.biases["weight_hh_l0"]["reset"] == pytest.approx(math.log(200))
    # what is kept, 1 / (1 + T), adds up to less than 1 over the horizon
    keep = torch.sigmoid(gru.bias_ih_l0[N : 2 * N])
    torch.testing.assert_close(keep, torch.full_like(keep, 1 / 201))
    assert chosen.gains["weight_hh_l0"] == pytest.approx(1.05 * (1 + 1 / 200))


@pytest.mark.parametrize("kind", CANDIDATE)
def test_with_inputs_the_leading_exponent_is_minus_one_over_the_horizon(kind):
    module, x = getattr(nn, kind)(M, N), drive()
    chosen = lt.weights.mixing_(module, horizon=H, inputs=x)
    # the library's own spectrum, of the same steps, from another tangent vector
    spectrum = lt.lyapunov_spectrum(module, x, k=1, tangent_transient=20)
    assert chosen.exponents["weight_hh_l0"] == pytest.approx(-1 / H, abs=1e-3)
    assert spectrum.exponents.mean().item() == pytest.approx(-1 / H, abs=0.01)


def excess(gain):
    """Smooth and straight, bent, infinite at first, a leap, never below."""
    x = torch.stack([gain.log() - 0.3, gain**4 - 3, gain.log() - 0.5, gain, gain])
    x[2] = x[2].where(gain > 1.1, -torch.inf)
    x[3] = torch.where(gain > 1.4, 5.0, -1.0)
    return x


@pytest.mark.parametrize("members", [[0], [1], [2], [3], [4], [0, 1, 2, 3, 4]])
def test_each_member_crosses_where_it_would_alone(members):
    calls = []

    def measured(gain):
        calls.append(gain)
        return torch.stack([excess(g)[i] for g, i in zip(gain, members, strict=True)])

    low = torch.ones(len(members))
    ends = [(gain, measured(gain)) for gain in (low, 2 * low)]
    calls.clear()
    found = dict(zip(members, zip(*crossing(measured, *ends, CLOSE), strict=True), strict=True))
    for i, root in enumerate((math.exp(0.3), 3**0.25, math.exp(0.5))):
        if i in found:
            gain, missed = found[i]
            assert 0 <= missed <= CLOSE
            assert gain == pytest.approx(root, rel=CLOSE)
    # a leap is narrowed down from above, to the end
    if 3 in found:
        assert found[3][0] == pytest.approx(1.4, rel=0.01)
        assert (found[3][0] > 1.4, found[3][1], len(calls)) == (True, 5.0, CUTS)
    if 4 in found:
        assert found[4] == (2.0, 2.0)
    assert members not in ([0], [4]) or len(calls) == {0: 1, 4: 0}[members[0]]


def test_the_second_layer_is_driven_by_the_first():
    stack, x = lt.cells.Stacked([lt.GRUCell(M, N), lt.GRUCell(N, N)]), drive()
    chosen = lt.weights.mixing_(stack, horizon=H, inputs=x)
    assert list(chosen.gains) == ["layers.0.weight_hh", "layers.1.weight_hh"]
    below = lt.cells.unroll(stack.layers[0], x, torch.zeros(4, N))
    top = lt.lyapunov_spectrum(stack.layers[1], below.detach(), k=1, tangent_transient=20)
    assert top.exponents.mean().item() == pytest.approx(-1 / H, abs=0.01)


CELLS = {
    "GRUCell": lambda **e: lt.GRUCell(M, N, **e),
    "LSTMCell": lambda **e: lt.LSTMCell(M, N, **e),
    "URLSTMCell": lambda **e: lt.cells.URLSTMCell(M, N, **e),
    "RateCell": lambda **e: lt.RateCell(M, N, **e),
    "LeakyRateCell": lambda **e: lt.LeakyRateCell(M, N, leak=0.5, **e),
}


@pytest.mark.parametrize("cell", CELLS)
def test_a_member_starts_as_it_would_alone(cell):
    x = drive(40)
    every, alone = CELLS[cell](ensemble=(3,)), CELLS[cell](member_ids=2)
    both = [
        lt.weights.mixing_(every, horizon=H, inputs=x),
        lt.weights.mixing_(alone, horizon=H, inputs=x, member_ids=2),
    ]
    torch.testing.assert_close(every.weight_hh[2], alone.weight_hh)
    torch.testing.assert_close(both[0].gains["weight_hh"][2], both[1].gains["weight_hh"])
    assert not torch.allclose(every.weight_hh[0], every.weight_hh[1])


@pytest.mark.parametrize("cell", ["GRUCell", "LSTMCell", "RateCell"])
def test_the_network_at_rest_is_on_the_edge(cell):
    made = CELLS[cell](bias=False)
    lt.weights.mixing_(made, horizon=H)
    J = torch.func.jacrev(lambda h: made.step(torch.zeros(1, M), h)[0])(torch.zeros(1, made.state_size))[:, 0]
    # the eigenvalue keep + gate g e^(i angle) is largest where an angle of the matrix is smallest
    W = (
        made.weight_hh[made.gates.index(made.candidate) * N :][:N]
        if hasattr(made, "gates")
        else made.weight_hh
    )
    Q = torch.linalg.eigvals(W / (1 if cell == "RateCell" else 2))
    expected = (Q.abs() if cell == "RateCell" else (0.5 + 0.5 * Q).abs()).max()
    torch.testing.assert_close(torch.linalg.eigvals(J).abs().max(), expected)


@pytest.mark.parametrize(("cell", "rows"), [(lt.GRUCell, CANDIDATE["GRU"]), (lt.LSTMCell, CANDIDATE["LSTM"])])
def test_cells_start_mixing_by_name(cell, rows):
    plain, made = cell(1, N), cell(1, N, weights="mixing")
    rest_is_as_before(made, state(plain), {"weight_hh": rows}, GATES[cell.__name__.removesuffix("Cell")])
    orthogonal_part(made.weight_hh[rows], 1 + math.exp(-3))
    gate = cell(1, N, weights={cell.candidate: "mixing"}, gain={cell.candidate: 0.5}, bias=False)
    orthogonal_part(gate.weight_hh[rows], 1)
    orthogonal_part(lt.RateCell(1, N, weights="mixing", gain=0.9).weight_hh, 0.9)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (lambda: lt.cells.MinGRUCell(M, N), r"MinGRUCell has no candidate that reads all units' last state"),
        (lambda: lt.cells.LRUCell(M, N), r"LRUCell has no candidate"),
        (lambda: lt.ResidualCell(M, N), r"its residual connection keeps the state"),
        (lambda: nn.LSTM(M, N, proj_size=3), r"not square \(proj_size=3\)"),
        (lambda: nn.Linear(M, N), r"got a Linear: it has no recurrent part"),
        (lambda: nn.Sequential(nn.GRU(M, N), nn.Linear(N, 1)), r"it has module.0: pass that"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.GRU(M, N), "weight_hh_l0"), r"computed from other"),
        (lambda: lt.cells.Stacked([lt.GRUCell(M, N), lt.cells.MinGRUCell(N, N)]), r"MinGRUCell has no"),
    ],
)
def test_networks_without_candidate_weights_are_refused_and_stay(module, reason):
    module = module()
    before = state(module)
    with pytest.raises(ValueError, match=reason):
        lt.weights.mixing_(module, horizon=H)
    assert all(torch.equal(p, before[name]) for name, p in module.named_parameters())


def open_gates():
    gru = nn.GRU(M, N, bias=False)
    with torch.no_grad():
        # the last input is 1: what a bias would be
        gru.weight_ih_l0[N : 2 * N, -1] = 20.0
    return gru


def biased():
    x = drive()
    x[..., -1] = 1.0
    return x


@pytest.mark.parametrize(
    ("module", "inputs", "reason"),
    [
        (
            open_gates,
            biased(),
            r"no gain of weight_hh_l0 in .* the nearest was .*the gates alone keep gradients",
        ),
        (lambda: nn.RNN(M, N), 1e5 * drive(), r"the nearest was .*its units saturate"),
        (lambda: nn.RNN(M, N), drive(m=3), r"inputs must be \(t, \*e, b, m\) with t >= 4, .* m = 2"),
        (lambda: nn.RNN(M, N), drive().float(), r"inputs must have the dtype of the weights"),
    ],
)
def test_a_gain_that_cannot_be_found_is_said_and_nothing_changes(module, inputs, reason):
    module = module()
    before = state(module)
    with pytest.raises(ValueError, match=reason):
        lt.weights.mixing_(module, horizon=H, inputs=inputs)
    assert all(torch.equal(p, before[name]) for name, p in module.named_parameters())


def test_a_horizon_is_above_zero_and_the_choice_is_told():
    with pytest.raises(ValueError, match=r"horizon must be an integer >= 1, got 0; it is in steps"):
        lt.weights.mixing_(nn.RNN(M, N), horizon=0)
    chosen = lt.weights.mixing_(nn.GRU(M, N, bias=False), horizon=H, inputs=drive())
    gain = chosen.gains["weight_hh_l0"].item()
    assert str(chosen) == f"weight_hh_l0: orthogonal x {gain:.2f}, lambda_1 -0.05 per step"
    assert str(lt.weights.mixing_(nn.GRU(M, N, bias=False), horizon=H)) == "weight_hh_l0: orthogonal x 2.10"
    biased = str(lt.weights.mixing_(nn.LSTM(M, N), horizon=H))
    assert biased == "weight_hh_l0: orthogonal x 1.10, forget bias -3, input bias +3, output bias +3"


def test_units_with_an_activation_of_their_own_mix_at_the_gain_of_all():
    c = nn.Parameter(torch.linspace(0.5, 1.5, N))
    steep = lt.Activation(
        lambda x, c: torch.tanh(c * x),
        lambda x, c: c / torch.cosh(c * x) ** 2,
        parameters={"c": c},
        name="steep",
    )
    cell = lt.RateCell(1, N, activation=steep)
    found = lt.weights.mixing_(cell, horizon=H)
    # slopes at rest are c, and a random vector shrinks by their root mean square
    gain = 1 / c.detach().square().mean().sqrt()
    torch.testing.assert_close(found.gains["weight_hh"], gain, rtol=1e-6, atol=0)
    orthogonal_part(cell.weight_hh.detach(), found.gains["weight_hh"])
