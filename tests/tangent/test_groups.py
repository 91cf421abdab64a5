"""Members of an ensemble in groups, each with an interval of its own."""

import pytest
import torch

import lyaptorch as lt
from lyaptorch.tangent import groups
from lyaptorch.tangent.groups import grow

E, B, N, K, T, WAIT = (2, 3), 2, 8, 6, 30, 7
INTERVALS = (1, 3, 2, 2, 40, 5)


def binary(**given):
    return lt.RateCell(
        1, N, activation=lt.surrogates.sech2(torch.nn.Parameter(0.1 * torch.rand(*E, 1, 1) + 0.1)), **given
    )


def residual(**given):
    coupling = torch.nn.Parameter(torch.rand(*E, N))
    return lt.ResidualCell(1, N, coupling=coupling, residual=lt.residuals.rotation(0.3), **given)


def relu(**given):
    cell = lt.RateCell(1, N, activation="relu", **given)
    with torch.no_grad():
        cell.weight_hh.copy_(torch.eye(N)).mul_(0.9)
        cell.weight_hh.add_(0.02 * torch.rand(*E, N, N))
        cell.weight_ih.mul_(0.01)
        cell.bias.add_(0.1)
        cell.bias[0, 1, :5] -= 9.0
    return cell


CELLS = {"rate": lambda **e: lt.RateCell(1, N, **e), "elman": lambda **e: lt.ElmanCell(1, N, **e)}
CELLS |= {"binary": binary, "residual": residual, "relu": relu, "lif": lambda **e: lt.LIFCell(1, N // 2, **e)}


def problem(kind, shared):
    torch.manual_seed(0)
    cell = CELLS[kind](ensemble=E)
    inputs, h = torch.randn(T, *((1, 1) if shared else E), B, 1), torch.randn(*E, B, N)
    if kind == "relu":
        h = h.abs() + 0.1
    if kind == "lif":
        inputs, h = inputs.exp() * 3, h.abs()
    inputs = inputs.expand(T, *E, B, 1) if shared else inputs.requires_grad_()
    frame = torch.linalg.qr(torch.randn(N, K)).Q.expand(*E, B, N, K)
    return cell, inputs, h.requires_grad_(), frame


def found(kind, shared, intervals, cut=None):
    cell, inputs, h, frame = problem(kind, shared)
    grown = grow(cell, inputs, h, frame, intervals, wait=WAIT, cut=cut)
    weights = torch.linspace(0.5, 2.0, grown.exponents.numel()).reshape(grown.exponents.shape)
    loss = torch.where(grown.exponents == -torch.inf, 0.0, weights * grown.exponents).sum()
    wanted = [*cell.parameters(), h, *([] if shared else [inputs])]
    return grown, torch.autograd.grad(loss + grown.found.h.square().sum(), wanted)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", CELLS)
def test_groups_change_nothing_but_round_off(kind, shared, double):
    one, bars = found(kind, shared, (1,))
    several, others = found(kind, shared, INTERVALS)
    assert one.intervals == (1,)
    assert several.intervals == (1, 3, 2, 2, 16, 3)
    assert len(several.groups) == 4
    torch.testing.assert_close(several.exponents, one.exponents, rtol=0, atol=1e-9)
    torch.testing.assert_close(several.found.h, one.found.h, rtol=0, atol=1e-12)
    assert torch.equal(several.found.healthy[-1], one.found.healthy[-1])
    for bar, other in zip(bars, others, strict=True):
        torch.testing.assert_close(bar, other, rtol=1e-7, atol=1e-9 * float(bar.abs().max()))


def test_where_columns_die_is_told_of_the_members_they_are_of(double):
    grown, _ = found("relu", True, INTERVALS)
    dead = (grown.exponents == -torch.inf).any(-1).any(-1)
    assert dead[0, 1]
    assert not dead.all()


@pytest.mark.parametrize("cut", [1, 6])
def test_the_state_is_cut_where_it_would_be(cut, double):
    for bar, other in zip(
        found("rate", True, (1,), cut)[1], found("rate", True, INTERVALS, cut)[1], strict=True
    ):
        torch.testing.assert_close(bar, other, rtol=1e-7, atol=1e-9 * float(bar.abs().max()))


def test_each_member_allows_what_it_allows_with_all_at_its_interval(double):
    several, _ = found("rate", False, INTERVALS)
    allowed = several.allowed()
    for interval in (1, 2, 3, 16):
        whole = found("rate", False, (interval,))[0].allowed()
        mine = torch.tensor(several.intervals).reshape(E) == interval
        assert torch.equal(allowed[mine], whole[mine])
    assert len(allowed.unique()) > 1


def test_cells_without_kernels_take_the_shortest(double):
    cell = lt.LSTMCell(1, N, ensemble=(2,))
    frame = torch.eye(2 * N)[:, :3].expand(2, 1, 2 * N, 3)
    arguments = (cell, torch.randn(T, 2, 1, 1), torch.zeros(2, 1, 2 * N), frame)
    grown = grow(*arguments, (2, 5), wait=WAIT)
    assert grown.intervals == (2,)
    assert torch.equal(grown.exponents, grow(*arguments, (2,), wait=WAIT).exponents)


def test_an_overflow_is_told_of(double):
    cell, inputs, h, frame = problem("relu", True)
    with torch.no_grad():
        cell.weight_hh[1, 1] = 1e30
    with pytest.raises(FloatingPointError, match="after step"):
        grow(cell, inputs, h, frame, INTERVALS, wait=WAIT)


def test_one_group_costs_nothing(double, monkeypatch):
    monkeypatch.setattr(groups, "GroupEngine", None)
    grown, _ = found("rate", True, (4,) * 6)
    assert grown.intervals == (4,)
    assert grown.groups == ()
