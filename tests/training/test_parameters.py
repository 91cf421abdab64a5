"""Flossing of named parameters: what is named changes, the rest keeps its values and has no optimiser."""

import copy

import pytest
import torch
from torch import nn

import lyaptorch as lt
from lyaptorch import FitPhase, FlossPhase
from lyaptorch.schedules import At, Trigger
from lyaptorch.training.ensemble import new_ensemble

pytestmark = pytest.mark.usefixtures("double", "unchecked")

M, N = 1, 5
SCAN = {"k": 3, "steps": 8, "tangent_transient": 2, "lr": 1e-2}
HH = "*weight_hh*"
XOR = lt.tasks.TemporalXOR(2)


class Own(nn.Module):
    """A network of a user's."""

    def __init__(self):
        super().__init__()
        self.inner = nn.GRUCell(M, N)

    def forward(self, x, h):
        return self.inner(x, h)


def parametrised():
    return nn.utils.parametrizations.weight_norm(nn.GRU(M, N), "weight_hh_l0")


NETWORKS = {
    "torch": (lambda: nn.LSTM(M, N, num_layers=2), "weight_hh_l1", {"weight_hh_l1"}),
    "glob": (lambda: nn.LSTM(M, N, num_layers=2), HH, {"weight_hh_l0", "weight_hh_l1"}),
    "two": (lambda: nn.GRU(M, N), ["weight_ih_l0", "bias_*"], {"weight_ih_l0", "bias_ih_l0", "bias_hh_l0"}),
    "ours": (lambda: lt.GRUCell(M, N), HH, {"weight_hh"}),
    "ensemble": (lambda: lt.RateCell(M, N, ensemble=(3,)), "weight_hh", {"weight_hh"}),
    "stack": (
        lambda: lt.cells.Stacked([lt.GRUCell(M, N), lt.ElmanCell(N, N)]),
        "layers.1.weight_hh",
        {"layers.1.weight_hh"},
    ),
    "user": (Own, "inner.weight_hh", {"inner.weight_hh"}),
    "parametrised": (parametrised, "*weight_hh*original1", {"parametrizations.weight_hh_l0.original1"}),
}


def values(module):
    return {name: p.detach().clone() for name, p in module.named_parameters()}


@pytest.mark.parametrize("network", NETWORKS)
def test_what_is_named_changes_and_the_rest_stays_to_the_bit(network):
    make, parameters, expected = NETWORKS[network]
    module = make()
    before, h0 = values(module), torch.zeros(1, N) if network == "user" else None
    record = lt.floss(module, torch.randn(8, 1, M), parameters=parameters, epochs=2, h0=h0, **SCAN)
    changed = {name for name, p in module.named_parameters() if not torch.equal(p, before[name])}
    assert changed == expected
    assert record.config["parameters"] == sorted(expected)
    given = [parameters] if isinstance(parameters, str) else parameters
    assert record.config["phase"]["parameters"] == given


def test_modules_of_a_list_are_named_as_one_of_them():
    modules = [nn.GRUCell(M, N) for _ in range(2)]
    before = [values(module) for module in modules]
    lt.floss(modules, torch.randn(8, 1, M), parameters=HH, epochs=1, **SCAN)
    for module, was in zip(modules, before, strict=True):
        assert {n for n, p in module.named_parameters() if not torch.equal(p, was[n])} == {"weight_hh"}


def test_the_first_step_is_that_of_a_network_whose_others_are_frozen():
    named, frozen = nn.GRU(M, N), nn.GRU(M, N)
    frozen.load_state_dict(named.state_dict())
    for name, p in frozen.named_parameters():
        p.requires_grad_("weight_hh" in name)
    x = torch.randn(8, 1, M)
    lt.floss(named, x, parameters=HH, epochs=3, **SCAN)
    lt.floss(frozen, x, epochs=3, **SCAN)
    assert torch.equal(named.weight_hh_l0, frozen.weight_hh_l0)


def frozen():
    gru = nn.GRU(M, N)
    gru.weight_hh_l0.requires_grad_(False)
    return gru


@pytest.mark.parametrize(
    ("network", "parameters", "message"),
    [
        (
            lambda: nn.GRU(M, N),
            "weight_hh",
            r"'weight_hh', did you mean 'weight_hh_l0'\? there are weight_ih_l0",
        ),
        (lambda: nn.GRU(M, N), [HH, "q*"], r"got 'q\*'; there are weight_ih_l0, weight_hh_l0, bias"),
        (frozen, HH, r"got '\*weight_hh\*', of which weight_hh_l0 has no requires_grad"),
        (lambda: nn.GRU(M, N), [], r"parameters must be names or globs .* got \[\]"),
        (lambda: nn.GRU(M, N), 3, r"parameters must be names or globs .* got 3"),
        (lambda: lambda x, h: torch.tanh(h), HH, r"this network has none with a name"),
    ],
)
def test_names_that_match_nothing_are_refused_and_nothing_changes(network, parameters, message):
    module = network()
    before = values(module) if isinstance(module, nn.Module) else {}
    with pytest.raises(ValueError, match=message):
        lt.floss(module, torch.randn(8, 1, M), parameters=parameters, h0=torch.zeros(1, N), epochs=1, **SCAN)
    assert all(torch.equal(before[name], p) for name, p in values(module).items()) if before else True


def model(ensemble=(2,), cell=None):
    cell = lt.GRUCell(M, N, ensemble=ensemble) if cell is None else cell
    return lt.Model(cell, lt.Readout(N, XOR.output_size, ensemble=ensemble), loss=XOR.loss)


TRAIN = {"batch": 4, "steps": 8}


def test_training_flosses_what_is_named_alone():
    trained = model()
    before = values(trained)
    record = lt.train(trained, XOR, (FlossPhase(3, parameters=HH, **SCAN),), **TRAIN)
    after = values(trained)
    assert {n for n in before if not torch.equal(before[n], after[n])} == {"cell.weight_hh"}
    assert record.config["schedule"][0]["parameters"] == [HH]
    # the same as `floss` with nothing but these to be trained
    with pytest.raises(ValueError, match=r"got 'weight_hx', did you mean"):
        lt.train(model(), XOR, (FitPhase(1), FlossPhase(1, parameters="weight_hx", **SCAN)), **TRAIN)


def test_members_train_alone_as_together_with_what_is_named():
    who = torch.tensor([True, False])
    schedule = (FlossPhase(2, parameters=HH, who=who, **SCAN), FlossPhase(2, **SCAN))
    both, alone = model(), model(())
    lt.train(both, XOR, schedule, **TRAIN)
    lt.train(alone, XOR, (FlossPhase(2, parameters=HH, **SCAN), FlossPhase(2, **SCAN)), **TRAIN)
    torch.testing.assert_close(both.cell.weight_hh[0], alone.cell.weight_hh)
    torch.testing.assert_close(both.cell.weight_ih[0], alone.cell.weight_ih)


def test_what_is_not_named_has_no_optimiser():
    networks = new_ensemble(model(), None, 1e-3, lt.Adam(), {(HH,)})
    ((name, flosser),) = networks.flossers.items()
    assert name == (HH,)
    assert [p.shape for p in flosser.parameters] == [networks.model.cell.weight_hh.shape]
    assert {n for n in networks.tensors() if "flosser" in n} == {f"flosser {HH}.{k}" for k in ("count", 0, 1)}


def test_a_joint_loss_moves_what_is_named_alone():
    # of a rate of 0 nothing but gradients tells: one step of SGD each
    plain, all_of_it, named = model(), model(), model()
    for own, phase in (
        (plain, FitPhase(1)),
        (all_of_it, FitPhase(1, flossing_weight=1.0, flossing=FlossPhase(0, **SCAN))),
        (named, FitPhase(1, flossing_weight=1.0, flossing=FlossPhase(0, parameters=HH, **SCAN))),
    ):
        lt.train(own, XOR, (phase,), optimizer=lt.SGD(), lr=0.1, clip=None, **TRAIN)
    torch.testing.assert_close(named.cell.weight_hh, all_of_it.cell.weight_hh)
    torch.testing.assert_close(named.cell.weight_ih, plain.cell.weight_ih)
    assert not torch.allclose(all_of_it.cell.weight_ih, plain.cell.weight_ih)


def test_a_run_with_names_resumes_to_the_bit(tmp_path):
    episode = Trigger(At(2), FlossPhase(2, parameters=HH, **SCAN))
    schedule = (FlossPhase(3, parameters="weight_*", **SCAN), FitPhase(4, triggers=(episode,)))
    whole = model()
    lt.train(whole, XOR, schedule, **TRAIN)
    first, path = model(), tmp_path / "run.lyap"
    step, steps = lt.training.run.Run.step, []

    def interrupted(run):
        steps.append(1)
        if len(steps) == 6:
            run.save(path, {"config": lt.training.work.describe(run.all, XOR, schedule, run.settings)})
            raise KeyboardInterrupt
        return step(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lt.training.run.Run, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            lt.train(first, XOR, schedule, **TRAIN)
    second = model()
    lt.train(second, XOR, schedule, checkpoint=path, **TRAIN)
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), second.parameters(), strict=True))


def test_a_flosser_takes_names_and_refuses_unknown_ones_at_once():
    gru, x = nn.GRU(M, N), torch.randn(20, 2, M)
    before = copy.deepcopy(gru.state_dict())
    trigger = Trigger(At(0), FlossPhase(2, parameters=HH, **SCAN))
    lt.integrations.Flosser(gru, x, [trigger]).step()
    assert {n for n, p in gru.named_parameters() if not torch.equal(p, before[n])} == {"weight_hh_l0"}
    wrong = Trigger(At(0), FlossPhase(2, parameters="weight_hh_l1", **SCAN))
    with pytest.raises(ValueError, match=r"did you mean 'weight_hh_l0'"):
        lt.integrations.Flosser(gru, x, [wrong])


def test_a_target_spectrum_is_reached_by_each_member_of_a_part():
    target = torch.tensor([0.0, -0.3])
    both, alone, who = model((3,)), model(()), torch.tensor([True, True, False])
    settings = {**SCAN, "k": 2, "target": target}
    lt.train(both, XOR, (FlossPhase(20, who=who, **settings),), **TRAIN)
    record = lt.train(alone, XOR, (FlossPhase(20, **settings),), **TRAIN)
    # two of three members, two exponents: the spectrum is still one of exponents
    torch.testing.assert_close(both.cell.weight_hh[0], alone.cell.weight_hh)
    loss = record["floss_loss"][0]
    assert loss[-1] < loss[0]


GATED = {
    "LSTM": (lambda: nn.LSTM(M, N, num_layers=2), 10, {"weight_hh_l0", "weight_hh_l1"}),
    "ours": (lambda: lt.GRUCell(M, N, ensemble=(2,)), 2, {"weight_hh"}),
    "list": (lambda: [nn.GRUCell(M, N), nn.GRUCell(M, N)], 2, {"weight_hh"}),
    "no gates": (lambda: lt.ElmanCell(M, N), N, {"weight_hh", "weight_ih", "bias_ih", "bias_hh"}),
    "mixed": (
        lambda: lt.cells.Stacked([lt.GRUCell(M, 2), lt.ElmanCell(2, 2)]),
        4,
        {f"layers.{i}.{n}" for i in (0, 1) for n in ("weight_hh", "weight_ih", "bias_ih", "bias_hh")},
    ),
}


@pytest.mark.parametrize("network", GATED)
def test_gated_networks_are_flossed_in_half_of_their_exponents_by_default(network):
    make, k, names = GATED[network]
    scan = {**SCAN, "k": None}
    record = lt.floss(make(), torch.randn(8, 1, M), epochs=1, **scan)
    assert record["exponents"].shape[-1] == k
    assert set(record.config["parameters"]) == names
    # who asks for one of the two gets what was asked for
    everything = lt.floss(make(), torch.randn(8, 1, M), epochs=1, parameters="*", **scan)
    assert everything["exponents"].shape[-1] == (
        4 * N if network == "LSTM" else N if network != "mixed" else 4
    )
    asked = lt.floss(make(), torch.randn(8, 1, M), epochs=1, **{**scan, "k": 3})
    assert any("weight_ih" in name for name in asked.config["parameters"])


def test_a_run_tells_what_it_chose_for_gated_networks():
    scan = {**SCAN, "k": None}
    trigger = Trigger(At(0), FlossPhase(1, **scan))
    record = lt.train(model(), XOR, (FlossPhase(1, **scan), FitPhase(1, triggers=(trigger,))), **TRAIN)
    first, fit = record.config["schedule"]
    for phase in (first, fit["triggers"][0]["phase"]):
        assert (phase["k"], phase["parameters"]) == (2, [HH])
    assert (fit["flossing"]["k"], fit["flossing"]["parameters"]) == (None, None)
