"""What a user may write: `test_typing.py` runs it, and checks its types as strictly as mypy can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

import lyaptorch as lt
from lyaptorch.integrations import Flosser
from lyaptorch.schedules import At, Every, Scale, Trigger, When, lambda1, task_loss
from lyaptorch.sweep import gather, grid, sweep


class Bounded(lt.Cell):
    """h' = tanh(W h + x), with its pushforward by hand: D = diag(1 - h'^2) W."""

    def __init__(self, n: int) -> None:
        super().__init__(input_size=n, state_size=n)
        self.weight = torch.nn.Parameter(1.1 * torch.eye(n))

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(h @ self.weight.mT + x)

    def pushforward(self, x: Tensor, h: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
        after = self.step(x, h)
        return after, (1 - after.square()).unsqueeze(-1) * (self.weight @ Q)


class Opposite:
    """A task of his own: the opposite of the bits that another task asks for."""

    def __init__(self, task: lt.tasks.DelayedCopy) -> None:
        self.task = task
        self.input_size, self.output_size, self.loss = task.input_size, task.output_size, task.loss

    def inputs(self, d: lt.tasks.Draw) -> Tensor:
        return self.task.inputs(d)

    def draw(self, d: lt.tasks.Draw) -> lt.Batch:
        batch = self.task.draw(d)
        return lt.Batch(batch.inputs, 1 - batch.targets, batch.mask)


def measure() -> list[float]:
    inputs = torch.randn(50, 3, 2)
    lstm: lt.Cell = lt.as_cell(torch.nn.LSTM(2, 6))
    spectrum: lt.Spectrum = lt.lyapunov_spectrum(lstm, inputs, k=4, lengths=[50, 40, 30], transient=5)
    # not backward(), which has no types in torch
    torch.autograd.grad(lt.flossing_loss(spectrum.exponents, target=0.0), list(lstm.parameters()))
    vectors = lt.covariant_vectors(Bounded(2), inputs, k=2, transient=5)
    short = lt.FlossPhase(1, k=2, steps=40, tangent_transient=5)
    flosser = Flosser(torch.nn.RNN(2, 6), inputs, [Trigger(Every(2), short)])
    records: list[lt.Record] = flosser.step()
    found = lt.diagnose(torch.nn.GRU(2, 6), inputs, k=3)
    layers = [torch.nn.Linear(6, 6), torch.nn.Tanh(), torch.nn.Linear(6, 6)]
    by_depth: Tensor = lt.depth_spectrum(layers, torch.randn(3, 6), k=2).exponents
    rates = [spectrum.stderr(), spectrum.kaplan_yorke(), vectors.exponents, by_depth]
    return [len(records), len(found.suggestions), *(float(rate.detach().mean()) for rate in rates)]


def train(folder: Path) -> lt.Record:
    task: lt.Task = Opposite(lt.tasks.DelayedCopy(4))
    cell = lt.RateCell(1, 8, gain=1.2, activation=lt.surrogates.sigmoid(2.0))
    flossed: lt.Record = lt.floss(cell, task, k=3, epochs=2)
    assert "exponents" in flossed
    model = lt.Model(cell, lt.Readout(8, 1, scale=0.5), loss=task.loss)
    again = lt.FlossPhase(1, k=2, tangent_transient=5)
    needed = When((lambda1 > -1.0, task_loss > 0.0))
    sharper = Scale("cell.activation.sharpness", 1.1)
    triggers = (Trigger(At(1), again), Trigger(Every(3), again, sharper), Trigger(needed, again))
    schedule = (lt.FlossPhase(2, k=2), lt.FitPhase(4, triggers=triggers, check_every=2))
    record = lt.train(model, task, schedule, batch=2, optimizer=lt.Adam(), metrics=("spectrum",))
    return lt.Record.load(record.save(folder / "training"))


def squares(configs: Sequence[Mapping[str, Any]], checkpoint: Path) -> lt.Record:
    return lt.Record("square", {}, {"y": (("member",), [config["x"] ** 2 for config in configs])})


def main() -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        losses = train(folder)["loss"].mean(0)
        axes = {"x": [1, 2, 3]}
        done = sweep(squares, grid({}, axes), folder / "sweep", name="square")
        print(measure(), losses.tolist(), gather(done, {}, axes, name="square")["y"].sum())


if __name__ == "__main__":
    main()
