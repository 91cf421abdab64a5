"""Recurrent layers of norse as cells; norse is imported only when one is met."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from lyaptorch.cells.cell import Cell

NORSE = ("LIFRecurrent", "LIFRecurrentCell", "LSNNRecurrent", "LSNNRecurrentCell")


class NorseCell(Cell):
    """A recurrent layer of norse, LIF or LSNN: state (v, i) or (v, i, b), v and b before spike and reset."""

    def __init__(self, module: Any) -> None:
        super().__init__(int(module.input_size), 0)
        self.network = module
        self.adapts = type(module).__name__.startswith("LSNN")
        self.state_size = (3 if self.adapts else 2) * int(module.hidden_size)
        self.reverse_mode = True

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        """norse's own step, from spike and reset on until the next ones."""
        module, p = self.network, self.network.p
        u, i, *adaptation = torch.tensor_split(h, 3 if self.adapts else 2, -1)
        fire = import_module("norse.torch.functional.threshold").threshold
        z = fire(u - (adaptation[0] if self.adapts else p.v_th), p.method, p.alpha)
        spike = z.detach()
        v = (1 - spike) * u + spike * p.v_reset
        weights = module.input_weights, module.recurrent_weights
        if not self.adapts:
            state = import_module("norse.torch.functional.lif").LIFState(z, v, i)
            # out of reach, so that nothing fires and nothing is reset
            _, after = module.activation(x, state, *weights, p._replace(v_th=1e30), module.dt)
            return torch.cat([after.v, after.i], -1)
        b = adaptation[0] + spike * p.beta
        full = import_module("norse.torch.functional.lsnn").LSNNState(z, v, i, b)
        fired, after = module.activation(x, full, *weights, p, module.dt)
        decayed = v + module.dt * p.tau_mem_inv * ((p.v_leak - v) + i)
        return torch.cat([decayed, after.i, after.b - fired.detach() * p.beta], -1)
