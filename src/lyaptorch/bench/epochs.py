"""Whole epochs: `lt.train` beside torch's own module with torch's Adam, and `lt.floss`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lyaptorch.bench.rows import Row, Run
from lyaptorch.cells import GRUCell, LSTMCell, Readout
from lyaptorch.schedules import FitPhase
from lyaptorch.tasks import Task, TemporalXOR
from lyaptorch.training import Model, floss, train
from lyaptorch.training.presets import gf2023

DELAY, CLIP, RATE = 20, 0.03, 1e-3
"""Of the task; the others are those of `train` when it is told nothing."""


def trained(row: Row, seed: int) -> dict[str, Run]:
    """Epochs of the published setting: fresh trials, a loss at every step, clipping, Adam, a history."""
    task, dtype = TemporalXOR(DELAY), torch.get_default_dtype()

    def fused(epochs: int) -> Tensor:
        made = _published if row.kind == "train" else _gated
        model = made(row, task, seed).to(dtype)
        record = train(
            model, task, (FitPhase(epochs),), batch=row.batch, steps=row.steps, show_progress=False
        )
        return torch.as_tensor(record["loss"])[0, -1]

    def rnn(epochs: int) -> Tensor:
        # the same trials by torch's own means, the same loss; of rate networks the states of an Elman network
        draws = torch.Generator().manual_seed(seed)
        network, readout = (part.to_empty(device="cpu").to(dtype) for part in _on_meta(row, task.input_size))
        parameters = [*network.parameters(), *readout.parameters()]
        with torch.no_grad():
            for p in parameters:
                p.copy_((2 * torch.rand(p.shape, generator=draws) - 1) / row.n**0.5)
        optimiser, first = torch.optim.Adam(parameters, lr=RATE, fused=True), DELAY
        for _ in range(epochs):
            x = torch.randint(2, (row.steps, row.batch, 1), generator=draws).to(dtype)
            y = (x[: row.steps - DELAY] - x[DELAY // 2 : row.steps - DELAY // 2]).abs()
            optimiser.zero_grad()
            logits = readout(network(x)[0])[first:]
            loss = nn.functional.binary_cross_entropy_with_logits(logits, y)
            loss.backward()  # type: ignore[no-untyped-call]
            for p in parameters:
                nn.utils.clip_grad_norm_(p, CLIP)
            optimiser.step()
        return loss.detach()

    return {"rnn": rnn, "fused": fused}


def _published(row: Row, task: Task, seed: int) -> Model:
    ensemble = (row.networks,) if row.networks > 1 else ()
    generator = torch.Generator().manual_seed(seed)
    return gf2023(task, hidden_size=row.n, rows=row.batch, ensemble=ensemble, generator=generator)


def _gated(row: Row, task: Task, seed: int) -> Model:
    ensemble, generator = (row.networks,) if row.networks > 1 else (), torch.Generator().manual_seed(seed)
    kind = GRUCell if row.kind == "GRU" else LSTMCell
    cell = kind(task.input_size, row.n, ensemble=ensemble, generator=generator)
    return Model(cell, Readout(row.n, 1, scale=row.n**-0.5, ensemble=ensemble, generator=generator))


def _on_meta(row: Row, m: int) -> tuple[nn.Module, nn.Module]:
    """A network and its readout; made here, torch draws nothing from the global generator."""
    kind = {"GRU": nn.GRU, "LSTM": nn.LSTM}.get(row.kind, nn.RNN)
    return kind(m, row.n, device="meta"), nn.Linear(row.n, 1, device="meta")


def flossed(row: Row, seed: int) -> dict[str, Run]:
    """Epochs of flossing alone: fresh inputs, a scan and its adjoint, Adam, a history."""
    task, dtype = TemporalXOR(DELAY), torch.get_default_dtype()

    def fused(epochs: int) -> Tensor:
        cell = _published(row, task, seed).cell.to(dtype)
        record = floss(
            cell,
            task,
            k=row.k,
            steps=row.steps,
            tangent_transient=row.steps * 2 // 7,
            epochs=epochs,
            show_progress=False,
        )
        return torch.as_tensor(record["floss_loss"])[0, -1]

    return {"fused": fused}
