"""Exponents without gradient: all of one small network beside a script and clvlib; a long orbit in pieces."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from typing import Any

import torch
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch.bench.rows import Row, Run
from lyaptorch.cells import ElmanCell, LSTMCell, random_frame
from lyaptorch.tangent import lyapunov_spectrum

PIECES = 50
"""Segments of a long orbit."""


@torch.no_grad()
def all_of_one(row: Row, seed: int) -> dict[str, Run]:
    """All exponents of an Elman network, by ten lines, by clvlib, and here in torch and by the kernels."""
    cell = ElmanCell(1, row.n, bias=False)
    inputs = Stream(seed, "inputs").normal((row.steps, 1, 1), member_ids=0)
    frame = torch.eye(row.n)[:, : row.k]
    drive = inputs[:, 0] @ cell.weight_ih.mT

    def step(u: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        after = torch.tanh(cell.weight_hh @ y + u)
        return after, (1 - after.square()).unsqueeze(-1) * cell.weight_hh

    @torch.no_grad()
    def loop() -> Tensor:
        y, Q, total = frame.new_zeros(row.n), frame, frame.new_zeros(row.k)
        for u in drive:
            y, D = step(u, y)
            Q, R = torch.linalg.qr(D @ Q)
            total = total + R.diagonal().abs().log()
        return total / row.steps

    @torch.no_grad()
    def clvlib() -> Tensor:
        lyap_exp_from_ic = importlib.import_module("clvlib.pytorch").lyap_exp_from_ic

        parts = (lambda s, y: step(drive[int(s)], y)[0]), (lambda s, y: step(drive[int(s)], y)[1])
        times = torch.arange(row.steps + 1, dtype=frame.dtype)
        exponents: Tensor = lyap_exp_from_ic(*parts, frame.new_zeros(row.n), times, stepper="discrete")[0]
        return exponents

    def ours(backend: str) -> Run:
        @torch.no_grad()
        def run() -> Tensor:
            return lyapunov_spectrum(cell, inputs, k=row.k, frame=frame, backend=backend).exponents[0]

        return run

    installed = {"clvlib": clvlib} if importlib.util.find_spec("clvlib") and row.k == row.n else {}
    return {"loop": loop, "torch": ours("torch"), **installed, "fused": ours("cpu")}


def pieces(row: Row, seed: int) -> dict[str, Run]:
    """The first exponents along a long orbit of an LSTM, in one piece and in many."""
    cell = LSTMCell(1, row.n)
    inputs = Stream(seed, "inputs").normal((row.steps, 1, 1), member_ids=0)
    frame = random_frame(cell.state_size, row.k, Stream(seed, "frame"), torch.tensor(0))
    # one trajectory after the other where nothing takes them side by side
    many: dict[str, Any] = {}
    if "segments" in inspect.signature(lyapunov_spectrum).parameters:
        many = {"segments": min(PIECES, max(1, row.steps // 100))}

    def ours(**settings: Any) -> Run:
        @torch.no_grad()
        def run() -> Tensor:
            return lyapunov_spectrum(cell, inputs, k=row.k, frame=frame, **settings).exponents[0]

        return run

    return {"torch": ours(), "fused": ours(**many)}
