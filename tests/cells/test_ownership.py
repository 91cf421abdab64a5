"""What belongs to the members of an ensemble is what modules declare, whatever sizes happen to be equal."""

import copy

import pytest
import torch
from torch import nn

import lyaptorch as lt
from lyaptorch.cells.ownership import of_members
from lyaptorch.schedules import Scale
from lyaptorch.tasks import DelayedCopy

N = 3
SOME = torch.tensor([True, False, False])
SCAN = {"k": 2, "steps": 8, "tangent_transient": 2}
TASK = DelayedCopy(1, binary=True)

pytestmark = pytest.mark.usefixtures("double")


def per_unit():
    """One number for each of as many units as there are members."""
    return lt.Activation(lambda x, a: torch.tanh(a * x), parameters={"a": torch.tensor([0.5, 1.0, 2.0])})


def model(ensemble=(3,), **settings):
    cell = lt.RateCell(1, N, ensemble=ensemble, activation=per_unit(), **settings)
    return lt.Model(cell, lt.Readout(N, 1, ensemble=ensemble))


def train(net, *phases, **kw):
    return lt.train(net, TASK, phases, batch=4, steps=8, show_progress=False, **kw)


def test_a_number_for_each_unit_is_none_for_each_member():
    """Sizes are equal; the first member alone among three trains as it does with the others."""
    one, all_three = model(), model()
    alone = train(one, lt.FitPhase(3, who=SOME))["loss"][0]
    together = train(all_three, lt.FitPhase(3))["loss"][0]
    torch.testing.assert_close(torch.tensor(alone), torch.tensor(together), rtol=1e-12, atol=0)
    for p, q in zip(one.parameters(), all_three.parameters(), strict=True):
        torch.testing.assert_close(p[0], q[0], rtol=1e-12, atol=1e-14)


def test_what_broadcasts_against_states_says_itself_whose_it_is():
    """`(3, 1, 1)` is one for each member, `(3,)` and `(1, 1, 3)` for each unit."""
    a = torch.tensor([0.5, 1.0, 2.0])
    for value, shape in ((a[:, None, None], (1, 1, 1)), (a, (3,)), (a[None, None], (1, 1, 3))):
        f = lt.Activation(lambda x, a: torch.tanh(a * x), parameters={"a": value})
        net = lt.Model(lt.RateCell(1, N, ensemble=(3,), activation=f), lt.Readout(N, 1, ensemble=(3,)))
        part = net.select(SOME)
        assert part.cell.activation.a.shape == shape
        x = torch.randn(6, 3, 2, 1)
        torch.testing.assert_close(part(x[:, SOME]), net(x)[:, SOME], rtol=1e-13, atol=0)
    f = lt.Activation(lambda x, a: torch.tanh(a * x), parameters={"a": a[:2].reshape(2, 1, 1, 1)})
    net = lt.Model(lt.RateCell(1, N, ensemble=(2, 3), activation=f), lt.Readout(N, 1, ensemble=(2, 3)))
    mask, x = torch.tensor([[1, 0, 1], [0, 0, 1]]).bool(), torch.randn(6, 2, 3, 2, 1)
    torch.testing.assert_close(net.select(mask)(x[:, mask]), net(x)[:, mask], rtol=1e-13, atol=0)


@pytest.mark.parametrize("run", ["train", "floss", "scale"])
def test_a_trained_number_for_each_unit_is_shared_by_all_members(run):
    net = model()
    net.cell.activation = lt.Activation(
        lambda x, a: torch.tanh(a * x), parameters={"a": nn.Parameter(torch.ones(3), run != "scale")}
    )
    before = copy.deepcopy(net.state_dict())
    message = (
        r"activation.a must have the leading dimensions \(3,\) of the ensemble.*got \(3,\): members that"
    )
    scaling = lt.schedules.Trigger(
        lt.schedules.At(0), lt.FlossPhase(1, **SCAN), Scale("cell.activation.a", 2.0)
    )
    runs = {
        "train": lambda: train(net, lt.FitPhase(1)),
        "floss": lambda: lt.floss(net.cell, TASK, epochs=1, **SCAN),
        "scale": lambda: train(net, lt.FitPhase(1, triggers=(scaling,))),
    }
    with pytest.raises(ValueError, match=message):
        runs[run]()
    assert all(torch.equal(v, before[name]) for name, v in net.state_dict().items())


def test_a_readout_that_does_not_say_whose_it_is_is_refused():
    """Three outputs of one readout for all, or one output of each of three."""
    net = lt.Model(lt.RateCell(1, N, ensemble=(3,)), nn.Linear(N, 3), loss="mean_squared_error")
    message = r"must be said whether the parameter readout.weight \(3, 3\) holds one thing.*ensemble = \(3,\)"
    with pytest.raises(ValueError, match=message):
        train(net, lt.FitPhase(1))
    net.readout.ensemble = ()
    with pytest.raises(ValueError, match=r"readout.weight must have the leading dimensions"):
        train(net, lt.FitPhase(1))
    net.readout.requires_grad_(False)
    x = torch.randn(5, 3, 2, 1)
    torch.testing.assert_close(net.select(SOME)(x[:, SOME]), net(x)[:, SOME], rtol=1e-13, atol=0)


class Leak(lt.Cell):
    """A step with a buffer for each unit and one for each member."""

    def __init__(self):
        super().__init__(1, N, (3,))
        self.W = nn.Parameter(torch.randn(3, N, N) / 2)
        self.register_buffer("rate", torch.tensor([0.2, 0.5, 0.9]))
        self.register_buffer("gain", torch.tensor([0.5, 1.0, 1.5]).reshape(3, 1, 1))

    def step(self, x, h):
        return (1 - self.rate) * h + self.rate * torch.tanh(self.gain * (h @ self.W.mT) + x)


def test_a_buffer_of_a_cell_of_ones_own():
    net = lt.Model(Leak(), lt.Readout(N, 1, ensemble=(3,)))
    with pytest.raises(
        ValueError, match=r"whether the buffer cell.rate \(3,\) holds one thing for each.*per_member"
    ):
        train(net, lt.FitPhase(1))
    net.cell.rate = net.cell.rate.reshape(1, 1, 3)
    with pytest.raises(ValueError, match=r"whether the buffer cell.gain \(3, 1, 1\)"):
        net.select(SOME)
    net.cell.per_member = ("gain",)
    x = torch.randn(6, 3, 2, 1)
    torch.testing.assert_close(net.select(SOME)(x[:, SOME]), net(x)[:, SOME], rtol=1e-13, atol=0)


def test_everything_of_a_library_cell_is_declared():
    """Of each cell some members alone are what they are among all, with as many units as members."""
    e = {"ensemble": (3,)}
    steep = torch.tensor([0.5, 1.0, 2.0])
    cells = [
        lt.RateCell(1, N, **e),
        lt.ElmanCell(1, N, **e),
        lt.LSTMCell(1, N, **e),
        lt.GRUCell(1, N, **e),
        lt.BinaryCell(1, N, sharpness=steep, **e),
        lt.LIFCell(1, N, tau_mem=0.01 * steep, threshold=steep.expand(3, 3), **e),
        lt.cells.AdaptiveLIFCell(1, N, **e),
        lt.ResidualCell(1, N, coupling=0.1 * steep.expand(3, 3), **e),
        lt.ResidualCell(1, N, residual=lt.residuals.orthogonal(N), coupling=nn.Parameter(0.1 * steep), **e),
        lt.cells.Stacked([lt.GRUCell(1, N, **e), lt.RateCell(N, N, activation=per_unit(), **e)]),
        lt.cells.S4DCell(1, N, 2, **e),
        lt.cells.CoRNNCell(1, N, **e),
        lt.cells.URLSTMCell(1, N, **e),
        lt.LeakyRateCell(1, N, leak=0.5 * steep.expand(3, 3), **e),
        lt.LeakyRateCell(1, N, leak=nn.Parameter(0.5 * steep), **e),
        lt.cells.LRUCell(1, N, **e),
        lt.cells.MinGRUCell(1, N, **e),
        lt.cells.SelectiveSSMCell(1, N, 2, **e),
        lt.cells.DeltaCell(1, 1, N, 2, **e),
    ]
    for cell in cells:
        net, x = lt.Model(cell, lt.Readout(cell.output_size, 1, ensemble=(3,))), torch.randn(9, 3, 2, 1)
        mask = torch.tensor([True, False, True])
        part = net.select(mask)
        assert all(p.shape[0] == 2 for name, p in part.named_parameters() if "activation" not in name)
        torch.testing.assert_close(part(x[:, mask]), net(x)[:, mask], rtol=1e-12, atol=1e-14)
        assert set(of_members(cell, (3,))) >= {name for name, _ in cell.named_parameters()}


def test_what_a_function_closes_over_must_not_tie_its_members():
    """`(3, 3)`: one matrix for all, or a row of numbers for each of three members."""
    h0, x = torch.randn(3, 1, N), torch.zeros(8, 1, 1)
    shared, rows = (torch.randn(3, N, requires_grad=True) for _ in range(2))
    with pytest.raises(ValueError, match=r"a tensor of the step must have the leading dimensions \(3,\)"):
        lt.floss(lambda x, h: torch.tanh(h @ shared.mT + x), x, h0=h0, epochs=1, **SCAN)
    assert shared.grad is None
    record = lt.floss(
        lambda x, h: torch.tanh(rows.unsqueeze(-2) * h.roll(1, -1) + x), x, h0=h0, epochs=2, **SCAN
    )
    assert record["floss_loss"].shape == (3, 2)


def rnns(count, layers=1):
    torch.manual_seed(1)
    return [nn.RNN(1, 4, layers) for _ in range(count)]


def numbers(module):
    return [p.detach().clone() for p in module.parameters()]


FREEZES = {
    "second": lambda a, b: b.requires_grad_(False),
    "first": lambda a, b: a.requires_grad_(False),
    "weights of one": lambda a, b: b.weight_hh_l0.requires_grad_(False),
    "one of each": lambda a, b: (a.weight_ih_l0.requires_grad_(False), b.bias_hh_l0.requires_grad_(False)),
}


def learn(run, modules, ids):
    if run == "floss":
        return lt.floss(modules, TASK, epochs=3, lr=1e-2, member_ids=ids, **SCAN)
    e = tuple(ids.shape)
    net = lt.Model(modules, lt.Readout(4, 1, ensemble=e, member_ids=ids))
    phases = lt.FlossPhase(2, **SCAN), lt.FitPhase(3), lt.FitPhase(2, who=torch.ones(e).bool())
    return train(net, *phases, lr=1e-2, member_ids=ids, clip=0.05, clip_mode="global")


@pytest.mark.parametrize("freeze", FREEZES)
@pytest.mark.parametrize("run", ["floss", "train"])
def test_what_is_frozen_in_one_module_of_a_list_stays_there_alone(run, freeze):
    modules, alone = rnns(2), rnns(2)
    for pair in (modules, alone):
        FREEZES[freeze](*pair)
    before = [numbers(m) for m in modules]
    record = learn(run, modules, torch.arange(2))
    for i, (module, own) in enumerate(zip(modules, alone, strict=True)):
        whole = not any(p.requires_grad for p in own.parameters())
        if not whole:
            expected = learn(run, own, torch.tensor(i))
            names = ("floss_loss",) if run == "floss" else ("loss", "gradient_norm")
            for name in names:
                found = torch.tensor(record[name][i])
                torch.testing.assert_close(found, torch.tensor(expected[name][0]), rtol=1e-8, atol=1e-12)
        for p, q, start in zip(module.parameters(), own.parameters(), before[i], strict=True):
            torch.testing.assert_close(p, q, rtol=1e-8, atol=1e-12)
            assert torch.equal(p, start) != p.requires_grad


def test_some_of_a_list_with_frozen_weights_are_selected_with_what_is_frozen():
    modules, alone = rnns(3), rnns(3)
    for three in (modules, alone):
        three[1].weight_hh_l0.requires_grad_(False)
    mask, ids = torch.tensor([False, True, True]), torch.arange(3)
    net = lt.Model(modules, lt.Readout(4, 1, ensemble=(3,), member_ids=ids))
    train(net, lt.FitPhase(3, who=mask), member_ids=ids)
    before = numbers(rnns(3)[1])
    assert torch.equal(modules[1].weight_hh_l0, before[1])
    for i in (1, 2):
        one = lt.Model(alone[i], lt.Readout(4, 1, member_ids=i))
        train(one, lt.FitPhase(3), member_ids=torch.tensor(i))
        for p, q in zip(modules[i].parameters(), alone[i].parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-8, atol=1e-12)
    assert all(torch.equal(p, q) for p, q in zip(modules[0].parameters(), numbers(rnns(3)[0]), strict=True))


class Masked(nn.Module):
    """A step with a buffer."""

    def __init__(self, mask):
        super().__init__()
        self.W = nn.Parameter(torch.randn(4, 4) / 2)
        self.register_buffer("mask", mask)

    def forward(self, x, h):
        return torch.tanh(h @ (self.mask * self.W).mT + x)


def test_modules_that_share_are_not_trained_apart():
    a, b, c = rnns(3)
    b.weight_hh_l0 = a.weight_hh_l0
    h0, inputs = torch.zeros(3, 1, 4), torch.randn(8, 1, 1)
    before = [p for m in (a, b, c) for p in numbers(m)]
    message = (
        r"parameters and buffers of their own, got weight_hh of module 0 = weight_hh of module 1; give each"
    )
    with pytest.raises(ValueError, match=message):
        lt.floss([a, b, c], inputs, epochs=1, **SCAN)
    with pytest.raises(ValueError, match=message):
        train(lt.Model([a, b, c], lt.Readout(4, 1, ensemble=(3,))), lt.FitPhase(1))
    now = [p for m in (a, b, c) for p in m.parameters()]
    assert all(torch.equal(p, q) for p, q in zip(now, before, strict=True))
    # measured they are what each is alone
    spectrum = lt.lyapunov_spectrum([a, b], inputs, h0=h0[:2]).exponents[0]
    torch.testing.assert_close(spectrum, lt.lyapunov_spectrum(a, inputs, h0=h0[0]).exponents)
    with pytest.raises(ValueError, match="weight_ih of module 0 = weight_ih of module 1"):
        lt.floss([a, a], inputs, epochs=1, **SCAN)
    mask = torch.ones(4, 4)
    with pytest.raises(ValueError, match=r"mask of module 0 = .*mask of module 1"):
        lt.floss([Masked(mask), Masked(mask)], inputs, h0=torch.ones(2, 1, 4), epochs=1, **SCAN)
    lt.floss([Masked(mask), Masked(mask.clone())], inputs, h0=torch.ones(2, 1, 4), epochs=1, **SCAN)
    # what is frozen in both stays as it is
    b.weight_hh_l0.requires_grad_(False)
    lt.floss([a, b], inputs, epochs=2, **SCAN)
    assert torch.equal(a.weight_hh_l0, before[1])
    assert not torch.equal(a.weight_ih_l0, before[0])


def test_weights_tied_within_each_network_are_trained_once():
    """Two layers with one recurrent matrix, alone and in a list."""

    def tied(count):
        for module in (modules := rnns(count, 2)):
            module.weight_hh_l1 = module.weight_hh_l0
        return modules

    modules, alone = tied(2), tied(2)
    record = learn("train", modules, torch.arange(2))
    for i, (module, own) in enumerate(zip(modules, alone, strict=True)):
        expected = learn("train", own, torch.tensor(i))
        assert module.weight_hh_l1 is module.weight_hh_l0
        torch.testing.assert_close(torch.tensor(record["loss"][i]), torch.tensor(expected["loss"][0]))
        for p, q in zip(module.parameters(), own.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-8, atol=1e-12)


def test_a_matrix_of_cell_and_readout_is_selected_and_put_back_once():
    cell = lt.RateCell(1, N, ensemble=(3,))
    readout = lt.Readout(N, N, ensemble=(3,))
    readout.weight = cell.weight_hh
    net, mask = lt.Model(cell, readout), torch.tensor([True, False, True])
    part, x = net.select(mask), torch.randn(5, 3, 2, 1)
    assert part.readout.weight is part.cell.weight_hh
    torch.testing.assert_close(part(x[:, mask]), net(x)[:, mask], rtol=1e-13, atol=0)
    with torch.no_grad():
        part.cell.weight_hh += 1
    before = net.cell.weight_hh.detach().clone()
    net.put(mask, part)
    torch.testing.assert_close(net.readout.weight - before, mask.double().reshape(3, 1, 1).expand(3, N, N))


@pytest.mark.parametrize("kind", ["sharpness", "custom", "coupling"])
def test_numbers_that_broadcast_stay_with_their_network_in_a_list(kind):
    """As many networks as units: what is one number in each must not become one for each unit."""

    def make(i):
        generator, value = torch.Generator().manual_seed(i), torch.tensor([0.3, 0.6, 0.9][i])
        if kind == "coupling":
            return lt.ResidualCell(1, N, coupling=nn.Parameter(value), generator=generator)
        f = lt.Activation(lambda x, a: torch.tanh(a * x), parameters={"a": value})
        if kind == "sharpness":
            # shown alike, though they differ
            f = lt.surrogates.sech2(1 + 1e-8 * i)
        return lt.RateCell(1, N, activation=f, generator=generator)

    cells, x = [make(i) for i in range(3)], torch.randn(20, 1, 1)
    found = lt.lyapunov_spectrum(cells, x).exponents
    for i, cell in enumerate(cells):
        expected = lt.lyapunov_spectrum(cell, x).exponents
        torch.testing.assert_close(found[i], expected, rtol=1e-9, atol=1e-10)
    lt.floss(cells, x, epochs=2, **SCAN)
    for i, cell in enumerate(cells):
        one = make(i)
        lt.floss(one, x, epochs=2, member_ids=torch.tensor(i), **SCAN)
        for p, q in zip(cell.parameters(), one.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("to", [0, 1])
def test_a_tie_in_one_direction_is_a_tie(to):
    rows = torch.randn(2, N, requires_grad=True)
    other = torch.zeros(2, 1, 1)
    other[to] = 1.0
    step = lambda x, h: torch.tanh((rows.unsqueeze(-2) + other * rows.flip(0).unsqueeze(-2)) * h + x)  # noqa: E731
    with pytest.raises(ValueError, match="members that share it are not independent"):
        lt.floss(step, torch.zeros(8, 1, 1), h0=torch.randn(2, 1, N), epochs=1, **SCAN)
