"""Flossing in other people's loops disturbs nothing but the weights."""

import copy
import importlib
import random
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import lyaptorch as lt
from lyaptorch._random import DEFAULT_SEED, Stream
from lyaptorch.cells import unwrap
from lyaptorch.integrations import Flosser, Sequences
from lyaptorch.integrations.callback import Following
from lyaptorch.tasks.batch import Draw

BEFORE = lt.schedules.Trigger(
    lt.schedules.At(0), lt.FlossPhase(8, k=4, steps=20, tangent_transient=5, lr=1e-2)
)


def drive(t=40, b=6, m=2):
    return torch.randn(t, b, m, generator=torch.Generator().manual_seed(0))


def rnn(n=8, **settings):
    torch.manual_seed(3)
    return torch.nn.RNN(2, n, **settings)


def weights(module):
    return [p.detach().clone() for p in module.parameters()]


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_flossing_before_training_moves_the_exponents_to_the_target():
    network = rnn(16)
    flosser = Flosser(
        network,
        drive(),
        [lt.schedules.Trigger(lt.schedules.At(0), lt.FlossPhase(60, k=4, steps=20, lr=1e-2))],
    )
    before = flosser.exponents(4)
    assert [len(flosser.step()) for _ in range(3)] == [1, 0, 0]
    after = flosser.exponents(4)
    assert after.square().mean() < 0.2 * before.square().mean()
    (record,) = flosser.records
    assert record["floss_loss"].shape == (1, 60)
    assert record["floss_loss"][0, -1] < 0.3 * record["floss_loss"][0, 0]


def test_it_flosses_as_floss_does():
    phase = lt.FlossPhase(5, k=3, steps=20, lr=1e-2)
    cell = lt.RateCell(1, 8)
    twin, untouched = copy.deepcopy(cell), weights(cell)
    Flosser(cell, lt.tasks.DelayedCopy(2), [lt.schedules.Trigger(lt.schedules.At(0), phase)]).step()
    seed = int(Stream(DEFAULT_SEED, "episode").bits((), member_ids=0, epoch=0))
    generator = torch.Generator().manual_seed(seed)
    lt.floss(twin, lt.tasks.DelayedCopy(2), k=3, steps=20, lr=1e-2, epochs=5, generator=generator)
    assert equal(weights(cell), weights(twin))
    assert not equal(weights(cell), untouched)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
def test_nothing_of_the_users_is_disturbed(optimizer):
    network = torch.nn.Sequential(torch.nn.Dropout(), rnn())
    settings = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
    own = optimizer(network.parameters(), lr=1e-3, **settings)
    network[1](drive())[0].square().mean().backward()
    own.step()
    network[1].eval()
    gradients = [p.grad.clone() for p in network.parameters()]
    held = [p.grad for p in network.parameters()]
    state = copy.deepcopy(own.state_dict())
    legacy = np.random.get_state
    generators = torch.get_rng_state(), random.getstate(), legacy()[1].copy()
    flags = torch.is_grad_enabled(), torch.get_num_threads(), torch.get_default_dtype()
    old = weights(network)
    Flosser(network[1], drive(), [BEFORE]).step()
    assert not equal(old, weights(network))
    assert equal(gradients, [p.grad for p in network.parameters()])
    assert all(a is p.grad for a, p in zip(held, network.parameters(), strict=True))
    assert torch.equal(generators[0], torch.get_rng_state())
    assert generators[1] == random.getstate()
    assert (generators[2] == legacy()[1]).all()
    assert flags == (torch.is_grad_enabled(), torch.get_num_threads(), torch.get_default_dtype())
    assert network.training
    assert not network[1].training
    now = own.state_dict()
    assert now["param_groups"] == state["param_groups"]
    for key, entry in state["state"].items():
        assert all(
            torch.equal(torch.as_tensor(v), torch.as_tensor(now["state"][key][n])) for n, v in entry.items()
        )


def test_training_mode_with_dropout_is_left_on_and_not_felt():
    network = rnn(num_layers=2, dropout=0.5)
    flosser = Flosser(network, drive(), [BEFORE])
    flosser.step()
    assert network.training
    twin = rnn(num_layers=2, dropout=0.0)
    Flosser(twin, drive(), [BEFORE]).step()
    assert equal(weights(network), weights(twin))


def test_frozen_weights_stay():
    network = rnn()
    network.bias_hh_l0.requires_grad_(False)
    old = network.bias_hh_l0.clone()
    Flosser(network, drive(), [BEFORE]).step()
    assert torch.equal(old, network.bias_hh_l0)


def test_it_works_where_gradients_are_switched_off():
    one, other = rnn(), rnn()
    with torch.no_grad():
        Flosser(one, drive(), [BEFORE]).step()
        assert not torch.is_grad_enabled()
    Flosser(other, drive(), [BEFORE]).step()
    assert equal(weights(one), weights(other))


PERIODIC = lt.FlossPhase(1, k=2, steps=10, tangent_transient=0)


@pytest.mark.parametrize(
    ("when", "fired"),
    [
        (lt.schedules.At(0), [0]),
        (lt.schedules.At(2, 5), [2, 5]),
        (lt.schedules.Every(4), [4, 8]),
        (lt.schedules.When(lt.schedules.lambda1 < 10.0), [0, 3, 6, 9]),
        (lt.schedules.When(lt.schedules.lambda1 < 10.0, after=5), [6, 9]),
        (lt.schedules.When(lt.schedules.lambda1 > 10.0), []),
    ],
)
def test_when_it_flosses(when, fired):
    flosser = Flosser(rnn(), drive(), [lt.schedules.Trigger(when, PERIODIC)], check_every=3)
    assert [epoch for epoch in range(10) if flosser.step()] == fired


def test_an_ensemble_flosses_as_soon_as_the_condition_holds_for_one():
    lambda1, loss = lt.schedules.lambda1, lt.schedules.triggers.Metric("loss")
    networks = [lt.RateCell(2, 8, gain=gain) for gain in (0.05, 3.0)]
    ensemble = lt.RateCell(2, 8, gain=torch.tensor([0.05, 3.0]), ensemble=(2,))
    low, high = Flosser(ensemble, drive(60), []).exponents().flatten().tolist()
    assert low < -1.5 < -0.5 < high
    for condition in (
        lambda1 < -1.5,
        lambda1 > -0.5,
        (loss > 1.0, lambda1 < -1.5),
        (loss < 1.0, lambda1 > 9.0),
    ):
        when = lt.schedules.Trigger(lt.schedules.When(condition), PERIODIC)
        asked = {"loss": 0.5} if isinstance(condition, tuple) else {}
        assert len(Flosser(ensemble, drive(), [when]).step(**asked)) == 1
        assert len(Flosser(networks, drive(), [when]).step(**asked)) == 1
    never = lt.schedules.Trigger(lt.schedules.When((lambda1 < -9.0, lambda1 > 9.0)), PERIODIC)
    assert not Flosser(ensemble, drive(), [never]).step()


def test_a_resumed_loop_says_where_it_is():
    flosser = Flosser(
        rnn(),
        drive(),
        [
            lt.schedules.Trigger(lt.schedules.At(0), PERIODIC),
            lt.schedules.Trigger(lt.schedules.Every(100), PERIODIC),
        ],
    )
    assert [len(flosser.step(99)), len(flosser.step()), len(flosser.step())] == [0, 1, 0]


def test_conditions_look_at_what_the_loop_tells():
    spike = lt.schedules.triggers.Metric("spike")
    flosser = Flosser(
        rnn(), drive(), [lt.schedules.Trigger(lt.schedules.When(spike > 1.0), PERIODIC)], check_every=1
    )
    assert flosser.metrics == {"spike"}
    assert [len(flosser.step(spike=value)) for value in (0.5, 2.0, float("nan"))] == [0, 1, 0]
    with pytest.raises(ValueError, match=r"step must be told spike, .*got loss; call step\(spike=\.\.\.\)"):
        flosser.step(loss=1.0)


def test_every_episode_draws_anew_and_a_seed_repeats_it():
    def losses(seed):
        network = lt.RateCell(2, 8)
        generator = torch.Generator().manual_seed(seed)
        phase = lt.FlossPhase(1, k=2, steps=10, tangent_transient=0, lr=0.0)
        flosser = Flosser(
            network, drive(), [lt.schedules.Trigger(lt.schedules.Every(1), phase)], generator=generator
        )
        return [record["floss_loss"].item() for _ in range(4) for record in flosser.step()]

    assert len(set(losses(1))) == 3
    assert losses(1) == losses(1) != losses(2)


def test_an_action_scales_what_it_names():
    cell = lt.BinaryCell(2, 8, sharpness=2.0)
    trigger = lt.schedules.Trigger(
        lt.schedules.Every(1), PERIODIC, lt.schedules.Scale("activation.sharpness", 1.5)
    )
    flosser = Flosser(cell, drive(), [trigger])
    assert [len(flosser.step()) for _ in range(3)] == [0, 1, 1]
    assert cell.activation.sharpness.item() == 4.5


def test_a_module_of_ones_own_with_its_initial_state():
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(0.3 * torch.randn(6, 6))

        def forward(self, x, h):
            return torch.tanh(h @ self.weight + x.sum(-1, keepdim=True))

    own = Own()
    flosser = Flosser(own, drive(), [BEFORE], h0=torch.zeros(1, 6))
    flosser.step()
    assert flosser.records[0]["floss_loss"][0, -1] < flosser.records[0]["floss_loss"][0, 0]


def test_sequences_are_drawn_whole_from_the_data():
    data = torch.arange(30.0).reshape(10, 3, 1)
    source = Sequences(data)
    drawn = [source.inputs(Draw(0, 4, 2, epoch=i, stream="floss")) for i in range(20)]
    for x in drawn:
        assert x.shape == (4, 2, 1)
        assert (x[1:] - x[:-1] == 3).all()
        assert x[0, 0, 0] % 3 != x[0, 1, 0] % 3
    assert len({x[0, 0, 0].item() for x in drawn}) > 10
    again = source.inputs(Draw(0, 4, 2, epoch=7, stream="floss"))
    assert torch.equal(again, drawn[7])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("inputs", "settings", "message"),
    [
        (
            torch.zeros(40, 2),
            {},
            r"inputs must have shape \(t, b, m\), time first, got \(40, 2\); of a batch",
        ),
        (torch.zeros(40, 0, 2), {}, r"inputs must have shape \(t, b, m\), time first, got \(40, 0, 2\)"),
        (torch.full((40, 1, 2), torch.nan), {}, r"inputs must be finite, got nan"),
        (torch.zeros(10, 1, 2), {}, r"inputs must hold steps=20 steps, got 10; pass fewer steps"),
        (torch.zeros(40, 1, 2), {"check_every": 0}, r"check_every must be an integer >= 1, got 0"),
    ],
)
def test_what_cannot_serve_is_refused_at_once(inputs, settings, message):
    with pytest.raises(ValueError, match=message):
        Flosser(rnn(), inputs, [BEFORE], **settings)


def test_penalties_and_parts_of_an_ensemble_are_refused():
    phase = lt.FlossPhase(1, penalty="spectral_radius")
    with pytest.raises(ValueError, match=r"got a phase with penalty 'spectral_radius' and members None"):
        Flosser(rnn(), drive(), [lt.schedules.Trigger(lt.schedules.At(0), phase)])


# autocast


def test_under_autocast_exponents_and_their_gradient_keep_the_precision_of_the_weights():
    def values(network, backend):
        exponents = lt.lyapunov_spectrum(network, drive(), k=3, backend=backend).exponents
        return exponents, torch.autograd.grad(exponents.sum(), list(network.parameters()))

    for network, backend in ((rnn(), "torch"), (rnn(), None), (torch.nn.LSTM(2, 8), None)):
        exponents, gradients = values(network, backend)
        with torch.autocast("cpu", torch.bfloat16):
            assert (network.weight_hh_l0 @ network.weight_hh_l0.mT).dtype == torch.bfloat16
            under, bars = values(network, backend)
        assert under.dtype == torch.float32
        assert torch.equal(under, exponents)
        assert equal(gradients, bars)


def test_under_autocast_a_network_is_flossed_the_same():
    one, other = rnn(), rnn()
    with torch.autocast("cpu", torch.bfloat16):
        Flosser(one, drive(), [BEFORE]).step()
    Flosser(other, drive(), [BEFORE]).step()
    assert equal(weights(one), weights(other))


def test_weights_in_double_precision_are_flossed_in_it():
    network = rnn().double()
    flosser = Flosser(network, drive(), [BEFORE])
    flosser.step()
    assert flosser.exponents(2).dtype == torch.float64
    assert flosser.records[0]["exponents"].dtype == np.float64


# torch.compile


def test_a_compiled_network_is_flossed_as_it_was_before():
    one, other = rnn(), rnn()
    compiled = torch.compile(one, backend="eager")
    assert unwrap(compiled) is one
    assert lt.as_cell(compiled).weight_hh is one.weight_hh_l0
    Flosser(compiled, drive(), [BEFORE]).step()
    Flosser(other, drive(), [BEFORE]).step()
    assert equal(weights(one), weights(other))


def test_a_module_compiled_in_place_is_run_as_written():
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(0.3 * torch.eye(6))

        def forward(self, x, h):
            return torch.tanh(h @ self.weight + x.sum(-1, keepdim=True))

    one, other, calls = Own(), Own(), []
    one.compile(backend=lambda graph, _: calls.append(graph) or graph.forward)
    Flosser(one, drive(), [BEFORE], h0=torch.zeros(1, 6)).step()
    Flosser(other, drive(), [BEFORE], h0=torch.zeros(1, 6)).step()
    assert calls == []
    assert equal(weights(one), weights(other))


# several processes

PROGRAM = """
import sys, torch, lyaptorch as lt
from torch.nn.parallel import DistributedDataParallel
from lyaptorch.integrations import Flosser

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)

class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.readout = torch.nn.RNN(2, 8), torch.nn.Linear(8, 1)
    def forward(self, x):
        return self.readout(self.rnn(x)[0])

torch.manual_seed(0)
model = DistributedDataParallel(Network())
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
data = torch.randn(40, 6, 2, generator=torch.Generator().manual_seed(rank))
phase = lt.FlossPhase(3, k=4, steps=20, tangent_transient=5, lr=1e-2)
# the second process alone would see this condition fulfilled
lonely = lt.schedules.Trigger(lt.schedules.When(lt.schedules.triggers.Metric("rank") > 0.5), phase)
trigger, s = lt.schedules.Trigger, lt.schedules
triggers = [trigger(s.At(0), phase), trigger(s.Every(2), phase), lonely]
flosser = Flosser(model.module.rnn, data, triggers, check_every=1)
episodes = []
for step in range(4):
    episodes.append(len(flosser.step(rank=float(rank))))
    optimizer.zero_grad()
    model(data).square().mean().backward()
    optimizer.step()
flosser.step(rank=float(rank))
torch.save([p.detach() for p in model.parameters()], f"{folder}/{rank}.pt")
assert episodes == [1, 0, 1, 0], episodes
torch.distributed.destroy_process_group()
"""


def test_two_processes_keep_equal_weights(tmp_path):
    command = [sys.executable, "-c", PROGRAM]
    running = [
        subprocess.Popen([*command, str(rank), str(tmp_path)], stderr=subprocess.PIPE) for rank in (0, 1)
    ]
    errors = [process.communicate(timeout=120)[1].decode() for process in running]
    assert [process.returncode for process in running] == [0, 0], errors
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert equal(one, other)


# callbacks


def test_following_a_trainer_logs_nothing_of_an_episode_without_steps():
    trigger = lt.schedules.Trigger(lt.schedules.At(0), replace(PERIODIC, epochs=0))
    assert Following(Flosser(rnn(), drive(), [trigger])).follow(0, {}) == {}


def test_following_a_trainer_flosses_once_in_an_accumulated_step():
    flosser = Flosser(
        rnn(),
        drive(),
        [
            lt.schedules.Trigger(lt.schedules.At(0), PERIODIC),
            lt.schedules.Trigger(lt.schedules.Every(2), PERIODIC),
        ],
    )
    follower = Following(flosser, log_every=3, k=2)
    rows = [follower.follow(step, {}) for step in (0, 0, 1, 1, 2, 2, 3)]
    assert [sorted(row) for row in rows] == [
        ["floss_loss", "lambda_1", "lambda_2"],
        [],
        [],
        [],
        ["floss_loss", "lambda_1", "lambda_2"],
        [],
        ["lambda_1", "lambda_2"],
    ]
    assert rows[-1]["lambda_1"] == pytest.approx(flosser.exponents(2)[0].item())


def lightning_fit(callbacks, steps=6, accumulate=1, precision="32-true"):
    lightning = pytest.importorskip("lightning", reason="Lightning is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")

        class Module(lightning.LightningModule):
            def __init__(self):
                super().__init__()
                self.rnn, self.seen = rnn(batch_first=True), []

            def training_step(self, batch, index):
                self.seen.append([p.detach().clone() for p in self.parameters()])
                loss = self.rnn(batch)[0].square().mean()
                self.log("loss", loss)
                return loss

            def configure_optimizers(self):
                return torch.optim.Adam(self.parameters(), lr=1e-3)

        module = Module()
        callbacks = callbacks(module.rnn)
        trainer = lightning.Trainer(
            max_steps=steps,
            accumulate_grad_batches=accumulate,
            accelerator="cpu",
            precision=precision,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=callbacks,
            logger=False,
        )
        data = drive(b=accumulate * steps * 2).transpose(0, 1)
        trainer.fit(module, torch.utils.data.DataLoader(data, 2))
    return module, callbacks


def test_lightning():
    pytest.importorskip("lightning", reason="Lightning is not installed")
    from lyaptorch.integrations.lightning import FlossingCallback

    rows = []
    triggers = [BEFORE, lt.schedules.Trigger(lt.schedules.Every(4), PERIODIC)]
    triggers += [lt.schedules.Trigger(lt.schedules.When(lt.schedules.task_loss > -1.0), PERIODIC)]

    def callbacks(network):
        flosser = Flosser(network, drive(), triggers, check_every=5)
        callback = FlossingCallback(flosser)
        follow = callback.follow
        callback.follow = lambda *a: rows.append(follow(*a)) or rows[-1]
        return [callback]

    module, (callback,) = lightning_fit(callbacks, accumulate=2)
    # before, at 4, and at 5, when a loss is known
    assert [len(r["floss_loss"][0]) for r in callback.flosser.records] == [8, 1, 1]
    assert [i for i, row in enumerate(rows) if row] == [0, 8, 10]
    plain, _ = lightning_fit(lambda _: [], accumulate=2)
    assert not equal(module.seen[0], plain.seen[0])
    alone = rnn(batch_first=True)
    Flosser(alone, drive(), triggers[:1]).step()
    assert equal(module.seen[0], weights(alone))


def test_lightning_in_bfloat16():
    pytest.importorskip("lightning", reason="Lightning is not installed")
    from lyaptorch.integrations.lightning import FlossingCallback

    module, _ = lightning_fit(
        lambda network: [FlossingCallback(Flosser(network, drive(), [BEFORE]))], precision="bf16-mixed"
    )
    alone = rnn(batch_first=True)
    Flosser(alone, drive(), [BEFORE]).step()
    assert equal(module.seen[0], weights(alone))


def test_transformers(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lyaptorch.integrations.transformers import FlossingCallback

        class Module(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.rnn, self.seen = rnn(batch_first=True), []

            def forward(self, x):
                self.seen.append([p.detach().clone() for p in self.parameters()])
                return {"loss": self.rnn(x)[0].square().mean()}

        def fit(triggers):
            module = Module()
            trainer = transformers.Trainer(
                model=module,
                args=transformers.TrainingArguments(
                    output_dir=str(tmp_path),
                    max_steps=6,
                    per_device_train_batch_size=2,
                    use_cpu=True,
                    gradient_accumulation_steps=2,
                    disable_tqdm=True,
                    report_to=[],
                    save_strategy="no",
                    logging_steps=1,
                    dataloader_pin_memory=False,
                ),
                train_dataset=[{"x": x} for x in drive(b=24).transpose(0, 1)],
                callbacks=[FlossingCallback(Flosser(module.rnn, drive(), triggers, check_every=5))],
            )
            trainer.train()
            return module, trainer.state.log_history

        module, log = fit(
            [
                BEFORE,
                lt.schedules.Trigger(lt.schedules.Every(4), PERIODIC),
                lt.schedules.Trigger(lt.schedules.When(lt.schedules.task_loss > -1.0), PERIODIC),
            ]
        )
        plain, _ = fit([])
    assert [entry["step"] for entry in log if "lambda_1" in entry] == [0, 4, 5]
    assert {"floss_loss", "lambda_1", "lambda_2", "lambda_4"} < log[0].keys()
    assert not equal(module.seen[0], plain.seen[0])
    alone = rnn(batch_first=True)
    Flosser(alone, drive(), [BEFORE]).step()
    assert equal(module.seen[0], weights(alone))


@pytest.mark.parametrize("library", ["lightning", "transformers"])
def test_without_the_library_the_error_says_what_to_install(library, monkeypatch):
    for name in [library, *(name for name in sys.modules if name.startswith(f"{library}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"lyaptorch.integrations.{library}", raising=False)
    with pytest.raises(ImportError, match=re.escape(f"pip install lyaptorch[{library}]")):
        importlib.import_module(f"lyaptorch.integrations.{library}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "lightning", "transformers", "accelerate"])
def test_three_added_lines_make_an_untrainable_network_trainable(name):
    if name != "plain":
        pytest.importorskip(name, reason=f"{name} is not installed")
    script = Path(__file__).parents[2] / f"examples/{name}_delayed_xor.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=600, check=True)
    plain, flossed = (float(line.split()[-1]) for line in done.stdout.splitlines() if "accuracy" in line)
    assert plain < 0.6
    assert flossed > 0.95
