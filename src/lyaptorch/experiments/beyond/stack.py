"""Deep stacks of equal width, of several kinds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lyaptorch.cells import surrogates

TOKENS, HEADS = 4, 2
SHARPNESS = 0.5
"""Of the surrogate of binary units; at 1, weights that bring lambda_1 to 0 leave most units no slope."""


class Residual(nn.Module):
    """x + W' tanh(W x + b) + b'."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """The next layer."""
        after: Tensor = x + self.outer(torch.tanh(self.inner(x)))
        return after


class Stack(nn.Module):
    """Blocks of one kind, and a readout of one number; weights as torch starts them."""

    def __init__(self, kind: str, width: int, depth: int) -> None:
        super().__init__()
        self.shape = (TOKENS, width // TOKENS) if kind == "transformer" else (width,)
        self.blocks = nn.ModuleList(_block(kind, width) for _ in range(depth))
        self.readout = nn.Linear(width, 1)

    def enter(self, x: Tensor) -> Tensor:
        """Examples `(b, width)` as the first block takes them."""
        return x.reshape(-1, *self.shape)

    def layers(self, x: Tensor) -> list[Tensor]:
        """What each block gets, and what the last one gives."""
        found = [self.enter(x)]
        for block in self.blocks:
            found.append(block(found[-1]))
        return found

    def answer(self, last: Tensor) -> Tensor:
        """A logit for each example."""
        logit: Tensor = self.readout(last.flatten(1))[:, 0]
        return logit


def _block(kind: str, width: int) -> nn.Module:
    if kind == "transformer":
        return nn.TransformerEncoderLayer(width // TOKENS, HEADS, width, dropout=0.0, batch_first=True)
    if kind == "residual":
        return Residual(width)
    first = surrogates.sech2(SHARPNESS) if kind == "binary" else nn.Tanh()
    return nn.Sequential(first, nn.Linear(width, width))
