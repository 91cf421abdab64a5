"""Sixty and more mistakes, and what the library says to each: the source of docs/errors.md.

python tests/bad_inputs.py        # writes docs/errors.md anew
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

import lyaptorch as lt

PAGE = Path(__file__).parents[1] / "docs/errors.md"

MISTAKES: dict[str, tuple[str, ...]] = {
    "Networks": (
        "lt.RateCell(0, 8)",
        "lt.RateCell(1, 8, activation='tahn')",
        "lt.RateCell(1, 8, weights='orthogonel')",
        "lt.RateCell(1, 8, ensemble=(0,))",
        "lt.RateCell(1, 8, generator=7)",
        "lt.BinaryCell(1, 8, sharpness=-1.0)",
        "lt.ResidualCell(1, 8, residual=lt.residuals.decay(0.9), kind='C')",
        "lt.ResidualCell(1, 7, residual=lt.residuals.rotation(0.1))",
        "lt.LIFCell(1, 8, dt=0.0)",
        "lt.LIFCell(1, 8, surrogate='sech')",
        "lt.LIFCell(1, 8, order='parallel')",
        "lt.cells.CoRNNCell(1, 8, gamma=-1.0)",
        "lt.LeakyRateCell(1, 8, leak=0.0)",
        "lt.cells.LRUCell(1, 8, radii=(0.9, 0.5))",
        "lt.surrogates.sech2(0.0)",
        "lt.surrogates.sech2(1.0, norm='max')",
        "lt.Activation(torch.sign, torch.cos, parameters={'g': 2.0}, surrogate=True)",
    ),
    "Networks of others": (
        "lt.as_cell('rnn')",
        "lt.as_cell(torch.nn.RNN(1, 8, bidirectional=True))",
        "lt.as_cell(torch.nn.LSTM(1, 8, proj_size=4))",
        "lt.as_cell(torch.nn.GRU(1, 8, num_layers=2, dropout=0.5))",
        "lt.as_cell([])",
        "lt.as_cell([torch.nn.GRUCell(1, 8), torch.nn.GRUCell(1, 9)])",
        "lt.as_cell([torch.nn.GRUCell(1, 8), torch.nn.LSTMCell(1, 8)])",
        "lt.as_cell(torch.nn.GRUCell(1, 8), output=True)",
        "lt.as_cell(doubled)",
        "lt.as_cell([lt.LIFCell(1, 8, dt=1.0), lt.LIFCell(1, 8, dt=2.0)])",
        "lt.closed_loop(cell, lt.Readout(7, 1))",
        "lt.closed_loop(cell, lambda h: h[..., :2])",
        "lt.lyapunov_spectrum(lt.closed_loop(cell, lt.Readout(8, 1)), x)",
        "lt.forced(cell, 1.5)",
        "lt.lyapunov_spectrum(lt.forced(cell, 0.5), x)",
        "lt.lyapunov_spectrum(lambda x, h: h, x)",
        "lt.lyapunov_spectrum(torch.nn.Sequential(torch.nn.Linear(1, 8)), x)",
        "lt.lyapunov_spectrum(torch.nn.Linear(1, 8), x, h0=h0)",
        "lt.lyapunov_spectrum(lambda prev, u: 0.5 * prev + u, x, h0=h0[:, :1])",
        "lt.lyapunov_spectrum(lambda s, obs: 0.5 * s + obs, x, h0=h0[:, :1])",
        "lt.lyapunov_spectrum(lambda h, x: x @ weight, x, h0=h0)",
        "lt.lyapunov_spectrum(lambda t, y: -y, x, h0=h0)",
        "lt.lyapunov_spectrum(lt.Flow(lambda t, y: -y, dt=0.1), x, h0=h0)",
        "lt.lyapunov_spectrum(lambda x, h: h, x, h0=h0[:1])",
        "lt.lyapunov_spectrum(torch.nn.LSTM(1, 8), x, h0=(h0[None], h0[None]))",
        "lt.lyapunov_spectrum(lt.Flow(lambda x, y: y.mul_(-1), dt=0.1), x, h0=h0)",
        "lt.lyapunov_spectrum(lambda x, h: h[..., :2], x, h0=h0)",
        "lt.lyapunov_spectrum(lambda x, h: torch.rand_like(h), x, h0=h0)",
        "lt.lyapunov_spectrum(lambda x, h: h - h.mean(0), x, h0=h0)",
        "lt.lyapunov_spectrum(lambda x, h: h / 0 * 0, x, h0=h0)",
        "lt.lyapunov_spectrum(lambda x, h: h.double(), x, h0=h0)",
        "lt.lyapunov_spectrum(lambda x, h: checkpoint(torch.tanh, h, use_reentrant=True), x, h0=h0)",
        "lt.lyapunov_spectrum(cell, x, h0=h0 + 0j)",
        "lt.lyapunov_spectrum(lambda x, h: h, x, h0=h0[:, :0])",
        "lt.lyapunov_spectrum(lambda x, h: h, x.half(), h0=h0.half())",
        "lt.lyapunov_spectrum(torch.nn.GRU(1, 8, device='meta'), x)",
    ),
    "Spectra": (
        "lt.lyapunov_spectrum(cell, x, k=9)",
        "lt.lyapunov_spectrum(cell, x, k=2.0)",
        "lt.lyapunov_spectrum(cell, x, transient=60)",
        "lt.lyapunov_spectrum(cell, x, tangent_transient=-1)",
        "lt.lyapunov_spectrum(cell, x, interval=0)",
        "lt.lyapunov_spectrum(cell, x, backend='cuda')",
        "lt.lyapunov_spectrum(cell, x, qr_method='choleski')",
        "lt.lyapunov_spectrum(cell, x, state_grad='detatch')",
        "lt.lyapunov_spectrum(cell, x, dt=0.0)",
        "lt.lyapunov_spectrum(cell, x[0])",
        "lt.lyapunov_spectrum(cell, torch.zeros(60, 4, 3))",
        "lt.lyapunov_spectrum(cell, x.long())",
        "lt.lyapunov_spectrum(cell, x.double())",
        "lt.lyapunov_spectrum(cell, x.numpy())",
        "lt.lyapunov_spectrum(cell, x.to('meta'))",
        "lt.lyapunov_spectrum(cell, x.to_sparse())",
        "lt.lyapunov_spectrum(cell, x / 0)",
        "lt.lyapunov_spectrum(cell, x, h0=torch.zeros(4, 7))",
        "lt.lyapunov_spectrum(cell, x, k=2, frame=torch.eye(8))",
        "lt.lyapunov_spectrum(cell, x, k=2, frame=torch.ones(8, 2))",
        "lt.lyapunov_spectrum(cell, x).finite_time(0)",
        "lt.lyapunov_spectrum(cell, x, lengths=[60, 61, 3, 3])",
        "lt.lyapunov_spectrum(cell, x, lengths=[60, 3])",
        "lt.lyapunov_spectrum(cell, x, lengths=torch.rand(4))",
        "lt.lyapunov_spectrum(cell, x, lengths=[30, 20, 9, 3], transient=30)",
        "lt.lyapunov_spectrum(cell, x, lengths=[60, 20, 9, 3], interval='auto')",
        "lt.lyapunov_spectrum(cell, packed, lengths=[60, 9])",
        "lt.covariant_vectors(cell, packed)",
        "lt.analysis.condition_number(cell, packed)",
        "model(packed)",
        "lt.covariant_vectors(cell, x, k=0)",
        "lt.depth_spectrum([], x[0])",
        "lt.depth_spectrum([torch.nn.Linear(1, 2)], x[0])",
        "lt.diagnose(cell, x, k=0)",
        "lt.diagnose(cell, x.long())",
        "lt.diagnose(cell, x, lengths=[60, 20, 9])",
        "lt.diagnose(cell, x, dt=0)",
    ),
    "Flossing and schedules": (
        "lt.flossing_loss(torch.zeros(1, 4), reduction='max')",
        "lt.flossing_loss(torch.zeros(1, 4), k=5)",
        "lt.flossing_loss(torch.zeros(3, 1, 4), target=torch.zeros(2))",
        "lt.floss(cell, x, k=9)",
        "lt.floss(cell, x[:20])",
        "lt.floss(cell, x[..., 0].T.long())",
        "lt.floss(cell, 3)",
        "lt.floss(cell, task, lengths=[60, 9])",
        "lt.floss(cell, x, lr=-1.0)",
        "lt.floss(frozen, x, k=2)",
        "lt.floss(torch.nn.GRU(1, 8).half(), x)",
        "lt.FlossPhase(-1)",
        "lt.FlossPhase(10, steps=10, tangent_transient=10)",
        "lt.FlossPhase(10, penalty='spectral_norm')",
        "lt.schedules.Every(0)",
        "lt.integrations.Flosser(rnn, x[:20], [lt.schedules.Trigger(lt.schedules.At(0), lt.FlossPhase(5))])",
        "lt.integrations.Flosser(rnn, x[0], [])",
        "lt.integrations.Flosser(rnn, x, [lt.schedules.Trigger(lt.schedules.At(0), three)], h0=h0[:1])",
    ),
    "Tasks and training": (
        "lt.tasks.TemporalXOR(3)",
        "lt.tasks.DelayedCopy(-1)",
        "lt.tasks.SequentialImages('mnits')",
        "lt.Batch(x, x[1:], x[..., 0] > 0)",
        "lt.Batch(x, x, x[0, :, 0] > 0)",
        "lt.train(model, task, lt.FitPhase(1))",
        "lt.train(model, task, (lt.FitPhase(1),), steps=2)",
        "lt.train(model, packed, (lt.FitPhase(1),))",
        "lt.train(model, task, (lt.FitPhase(1),), metrics=('acuracy',))",
        "lt.train(model, task, (lt.FitPhase(1),), clip_mode='each')",
        "lt.train(model, task, (lt.FitPhase(1),), lr=torch.ones(3))",
        "lt.train(model, task, (lt.FitPhase(1),), checkpoint=damaged)",
        "lt.Model(cell, lt.Readout(7, 1))",
        "lt.Model(cell, lt.Readout(8, 1), loss='mse')",
        "lt.floss([rnn, rnn], task, epochs=1)",
        "lt.train(lt.Model(lt.RateCell(1, 8, ensemble=(3,)), torch.nn.Linear(8, 3)), task, [lt.FitPhase(1)])",
    ),
    "Records": (
        "lt.Record('', {}, {})",
        "lt.Record('train', [], {})",
        "lt.Record('train', {'model': model}, {})",
        "lt.Record('train', {}, {'loss': (('epoch',), torch.zeros(2, 3))})",
        "lt.Record('train', {}, {'loss': torch.zeros(2)})",
        "lt.Record('train', {}, {'my loss': (('epoch',), torch.zeros(2))})",
        "lt.Record('train', {}, {'a': (('t',), [1, 2]), 'b': (('t',), [1, 2, 3])})",
        "lt.Record('train', {}, {'loss': (('epoch',), torch.zeros(2))})['los']",
        "lt.Record.load('nowhere.nc')",
        "lt.Record('own', {}, {}).save('own.csv')",
        "lt.Record('own', {}, {}).plot()",
        "lt.lyapunov_spectrum(cell, x).save('spectrum.txt')",
        "lt.Record.load(damaged)",
        "lt.Record('train', {}, {'a': (('t',), [1, 2]), 't': (('a',), [1, 2])})",
    ),
}  # fmt: skip


def names(folder: Path) -> dict[str, Any]:
    """What the mistakes talk about."""
    (folder / "damaged.nc").write_bytes(b"something else")
    frozen = lt.RateCell(1, 8).requires_grad_(False)
    cell, task = lt.RateCell(1, 8), lt.tasks.DelayedCopy(3)
    found: dict[str, Any] = {"checkpoint": checkpoint}
    found |= {"lt": lt, "torch": torch, "cell": cell, "frozen": frozen, "task": task}
    found |= {"rnn": torch.nn.RNN(1, 8), "three": lt.FlossPhase(5, batch=3)}
    found |= {"x": torch.zeros(60, 4, 1), "h0": torch.zeros(4, 8), "weight": torch.eye(8)}
    doubled = torch.nn.RNN(1, 8)
    doubled.register_forward_hook(lambda module, given, after: (2 * after[0], 2 * after[1]))
    found |= {"doubled": doubled}
    found |= {"packed": torch.nn.utils.rnn.pack_sequence([torch.zeros(60, 1), torch.zeros(9, 1)])}
    return {**found, "model": lt.Model(cell, lt.Readout(8, 1)), "damaged": folder / "damaged.nc"}


def answer(code: str, known: dict[str, Any]) -> str:
    """What the library says, on one line."""
    try:
        eval(code, dict(known))
    except ValueError as error:
        return " ".join(str(error).split())
    raise AssertionError(f"{code} was not refused")


def page() -> str:
    """The whole page."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        known = names(folder)
        count = sum(map(len, MISTAKES.values()))
        lines = [
            "# Mistakes, and what the library says",
            "",
            f"{count} mistakes. Each raises a `ValueError` that says what came, what was expected and, where",
            "that is not plain, what to do. `python tests/bad_inputs.py` writes this page; a test fails when",
            "it is out of date.",
            "",
            "Here `cell = lt.RateCell(1, 8)`, `x = torch.zeros(60, 4, 1)`, `h0 = torch.zeros(4, 8)`,",
            "`rnn = torch.nn.RNN(1, 8)`, `task = lt.tasks.DelayedCopy(3)`, and",
            "`model = lt.Model(cell, lt.Readout(8, 1))`; `packed` is a PackedSequence of 60 and 9 steps,",
            "and `three = lt.FlossPhase(5, batch=3)`; `doubled` is an RNN with a hook that doubles what it",
            "returns.",
        ]
        for topic, mistakes in MISTAKES.items():
            lines += ["", f"## {topic}", "", "| written | answered |", "|---|---|"]
            for code in mistakes:
                said = answer(code, known).replace(text, "FOLDER").replace("|", r"\|")
                lines.append(f"| `{code}` | {said} |")
    return "\n".join(lines) + "\n"


def answers() -> list[str]:
    """The answers of the page as it stands."""
    return re.findall(r"^\| `.*` \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


if __name__ == "__main__":
    torch.set_num_threads(1)
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
