"""What `lt.train` reports: the Record, and errors that say where and why."""

from dataclasses import dataclass

import pytest
import torch

import lyaptorch as lt
from lyaptorch import FitPhase, FlossPhase
from lyaptorch.tasks import TemporalXOR
from lyaptorch.tasks.batch import Draw
from trained import LENGTH, MASK, ROWS, SCAN, TASK, D, N, make, numbers, run, same, seeded

pytestmark = pytest.mark.usefixtures("double")


def test_equal_runs_give_equal_records_and_others_do_not():
    def once(seed=7):
        schedule = (FlossPhase(2, k=3, **SCAN, who=MASK), FitPhase(2))
        return run(make((2, 3)), *schedule, generator=seeded(seed))

    assert once() == once()
    assert once() != once(8)


def test_the_layout_of_a_record():
    masked = FlossPhase(2, k=3, **SCAN, who=MASK)
    record = run(make((2, 3)), masked, FitPhase(3), FlossPhase(1, k=5, **SCAN), FitPhase(2, who=MASK))
    dims = {name: v.dims for name, v in record.variables.items()}
    assert dims == {
        "loss": ("member", "epoch"),
        "accuracy": ("member", "epoch"),
        "gradient_norm": ("member", "epoch"),
        "exponents": ("member", "floss_epoch", "index"),
        "floss_loss": ("member", "floss_epoch"),
        "at_epoch": ("member", "floss_epoch"),
        "fit_flops": ("member",),
        "floss_flops": ("member",),
    }
    assert record["loss"].shape == record["accuracy"].shape == (6, 5)
    assert record["exponents"].shape == (6, 3, 5)
    assert record.variables["exponents"].attributes["units"] == "nats per step"

    # each member's own epochs stand in a row, and NaN behind them
    out = (~MASK).flatten().numpy()
    finite = torch.isfinite(torch.tensor(record["exponents"])).numpy()
    assert finite[~out][:, :2, :3].all()
    assert not finite[~out][:, :2, 3:].any()
    assert finite[~out][:, 2].all()
    assert finite[out, 0].all()
    assert not finite[out, 1:].any()
    assert record["at_epoch"][~out].tolist() == [[0, 0, 3]] * int((~out).sum())
    assert record["at_epoch"][out][:, 0].tolist() == [3] * int(out.sum())
    for name, few, many in (("floss_loss", 1, 3), ("loss", 3, 5), ("accuracy", 3, 5)):
        present = torch.isfinite(torch.tensor(record[name])).numpy()
        assert present[out].sum(1).tolist() == [few] * int(out.sum())
        assert present[out, :few].all()
        assert present[~out].sum(1).tolist() == [many] * int((~out).sum())
    assert len(set(record["fit_flops"][out])) == 1
    assert (record["fit_flops"][~out] * 3 == record["fit_flops"][out][0] * 5).all()


def test_the_configuration_is_in_the_record():
    schedule = (
        FlossPhase(1, k=torch.tensor([2, 3]), **SCAN),
        FitPhase(1, who=torch.tensor([True, False])),
    )
    record = run(make((2,)), *schedule, lr=torch.tensor([1e-3, 2e-3]), task=TemporalXOR(torch.tensor([2, D])))
    config = record.config
    assert config["task"]["type"] == "TemporalXOR"
    assert config["task"]["delay"] == [2, D]
    assert (config["batch"], config["steps"], config["lr"]) == (ROWS, LENGTH, [1e-3, 2e-3])
    assert (config["ensemble"], config["member_ids"]) == ([2], [0, 1])
    floss, fit = config["schedule"]
    assert (floss["type"], floss["epochs"], floss["k"], floss["steps"]) == ("FlossPhase", 1, [2, 3], 20)
    assert (fit["type"], fit["epochs"], fit["who"]) == ("FitPhase", 1, [True, False])


def test_records_state_how_their_cell_was_made():
    task = lt.tasks.SpikingXOR(3, cue=4, answer=4)
    cell = lt.LIFCell(task.input_size, N, reset_grad="ignore")
    model = lt.Model(cell, lt.Readout(cell.output_size, 2), loss=task.loss)
    x, stated = torch.rand(60, 1, task.input_size), {"reset_grad": "ignore", "reset": "product"}
    for config in (
        run(model, FitPhase(1), task=task).config["model"],
        lt.evaluate(model, task, batch=ROWS, steps=LENGTH).config["model"],
        lt.floss(cell, x, k=2, epochs=1).config,
        lt.diagnose(cell, x).config,
    ):
        assert stated.items() <= config["settings"][0].items()


def test_a_value_is_the_one_before_its_step():
    model = make((2,))
    loss, right = model.loss(
        TASK.draw(Draw(lt._random.seed_from(seeded(7)), LENGTH, ROWS, member_ids=torch.arange(2)))
    )
    record = run(model, FitPhase(2))
    torch.testing.assert_close(torch.tensor(record["loss"][:, 0]), loss.detach())
    torch.testing.assert_close(torch.tensor(record["accuracy"][:, 0]), right)


def test_nothing_to_do_is_a_record_too():
    model = make((2,))
    before = numbers(model)
    assert run(model)["loss"].shape == (2, 0)
    assert run(model, FlossPhase(0), FitPhase(0))["loss"].shape == (2, 0)
    assert same(numbers(model), before)


def test_a_loss_that_is_not_finite_names_epoch_and_member():
    model = make((2,), torch.tensor([5, 9]))
    with torch.no_grad():
        model.readout.weight[1] = 1e308
    message = r"the loss is not finite at epoch 0 for member \[9\]; lower"
    only = [FitPhase(2, who=torch.tensor(mask)) for mask in ([True, False], [False, True])]
    with pytest.raises(FloatingPointError, match=message):
        run(model, *only, member_ids=torch.tensor([5, 9]))


def chaotic():
    """The state of the second stays small, its derivative grows like exp(lambda_1 t) beyond float32."""
    gain = torch.tensor([1.0, 8.0])
    return make((2,), torch.tensor([5, 9]), gain=gain, hidden_size=64).float()


def test_a_gradient_that_is_not_finite_names_epoch_and_member_and_spoils_no_weights():
    model = chaotic()
    before = numbers(model)
    with pytest.raises(FloatingPointError, match=r"the gradient is not finite at epoch 0 for member \[9\]"):
        run(model, FitPhase(1), member_ids=torch.tensor([5, 9]), steps=300)
    assert same(numbers(model), before)


@pytest.mark.filterwarnings("ignore:the gradient of the exponents is not finite")
def test_a_flossing_gradient_that_is_not_finite_names_epoch_and_member():
    model = chaotic()
    before = numbers(model)
    message = r"the gradient is not finite at flossing epoch 0 for member \[9\].*state_grad"
    with pytest.raises(FloatingPointError, match=message):
        run(model, FlossPhase(1, k=2, steps=300), member_ids=torch.tensor([5, 9]))
    assert same(numbers(model), before)


def test_dynamics_that_overflow_while_flossing_name_the_epoch():
    task = TemporalXOR(D)
    cell = lt.RateCell(1, N, activation="linear", gain=1e40)
    model = lt.Model(cell, lt.Readout(N, 1))
    with pytest.raises(
        FloatingPointError, match=r"flossing epoch 0: the state is not finite.*lower the gain"
    ):
        run(model, FlossPhase(1, k=2, steps=20), task=task)


@dataclass(frozen=True)
class Odd(TemporalXOR):
    """A user's task with a field that JSON cannot hold."""

    table: object = object()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("schedule", "options", "message"),
    [
        ((FitPhase(1), "fit"), {}, "a schedule holds FitPhase and FlossPhase, got str"),
        (
            (FitPhase(1), FitPhase(1, who=torch.ones(3, dtype=bool))),
            {},
            r"bool tensor .*shape \(2,\), got",
        ),
        (
            (FitPhase(1), FitPhase(1, who=torch.tensor([0, 1]))),
            {},
            r"members of a phase must be a bool tens",
        ),
        (
            (FitPhase(1), FitPhase(1, who=torch.zeros(2, dtype=bool))),
            {},
            "nobody would take part; drop it",
        ),
        ((FitPhase(1),), {"task": Odd(4)}, "what a task holds goes into the Record, .* got object as table"),
    ],
)
def test_a_schedule_or_task_that_does_not_fit_is_refused_before_the_training(schedule, options, message):
    model = make((2,))
    before = numbers(model)
    with pytest.raises(ValueError, match=message):
        run(model, *schedule, **options)
    assert same(numbers(model), before)


THREE = torch.ones(3)


@pytest.mark.parametrize(
    ("schedule", "options", "message"),
    [
        (
            (FitPhase(1),),
            {"lr": THREE},
            r"lr must be a number or have the ensemble's shape \(2,\), got \(3,\)",
        ),
        ((FitPhase(1),), {"clip": THREE}, r"clip must be a number or have the ensemble's shape \(2,\)"),
        ((FlossPhase(1, k=2, lr=THREE, **SCAN),), {}, r"lr must be a number or have the ensemble's shape"),
        (
            (FlossPhase(1, k=2, clip=THREE, **SCAN),),
            {},
            r"clip must be a number or have the ensemble's shape",
        ),
        ((FlossPhase(1, k=2, target=THREE, **SCAN),), {}, r"a number, a spectrum .* \*e = \(2,\)"),
        ((FlossPhase(1, k=THREE.long(), **SCAN),), {}, r"k must be a number or have the ensemble's shape"),
        ((FlossPhase(1, k=N + 1, **SCAN),), {}, r"k must be an integer in 1\.\.8, got 9; a state of size 8"),
        ((FlossPhase(1, k=torch.tensor([2, 9]), **SCAN),), {}, r"k must be an integer in 1\.\.8, got 9"),
        (
            (FitPhase(1),),
            {"batch": ROWS + 1},
            "batch must be at most 3, the rows of the trained initial state",
        ),
        ((FitPhase(1),), {"batch": 0}, "batch must be an integer >= 1, got 0"),
        (
            (FitPhase(1),),
            {"steps": D},
            "delay must be below the length of a trial, got delay=4 and length=4",
        ),
        (
            (FitPhase(1),),
            {"member_ids": torch.arange(3)},
            r"member_ids must have shape \*e = \(2,\), got \(3,\)",
        ),
    ],
)
def test_arguments_that_do_not_fit(schedule, options, message):
    with pytest.raises(ValueError, match=message):
        run(make((2,)), *schedule, **options)


def test_a_parameter_that_members_share_is_refused_by_name():
    model = make((2,))
    shared = lt.Model(model.cell, torch.nn.Linear(N, 1))
    message = (
        r"parameter readout.weight must have the leading dimensions \(2,\) of the ensemble, got \(1, 8\)"
    )
    with pytest.raises(ValueError, match=message):
        run(shared, FitPhase(1))


def test_a_keyword_that_train_does_not_know():
    with pytest.raises(TypeError, match="learning_rate"):
        run(make(), FitPhase(1), learning_rate=0.1)
