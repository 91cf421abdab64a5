"""Depth in place of time: where deep stacks lose their gradient, and what flossing does to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lyaptorch._random import Stream
from lyaptorch.cells import Depth
from lyaptorch.experiments.beyond.stack import Stack
from lyaptorch.experiments.checks import Check, at_least, at_most
from lyaptorch.record import Given, Record
from lyaptorch.schedules import flossing_loss
from lyaptorch.tangent import depth_spectrum, mean_over_trajectories


@dataclass(frozen=True)
class Depths:
    """Deep stacks learn the XOR of the signs of two coordinates, as torch starts them and flossed.

    Attributes:
        kinds: "tanh" and "binary" MLP, "residual" MLP, "transformer".
        depth: blocks.
        width: numbers between two blocks, a multiple of 8.
        seeds: networks of each kind.
        k: exponents flossed.
        floss_epochs: flossing steps before training.
        floss_batch: examples in each.
        floss_lr: learning rate of flossing for each kind; it falls linearly to 0. Binary weights have to grow
            twofold, others little: at the rate of those, residual stacks lose what they need to learn.
        epochs: training steps.
        batch: examples in each.
        lr: learning rate of training.
        seed: determines everything.
    """

    kinds: tuple[str, ...] = ("tanh", "binary", "residual", "transformer")
    depth: int = 50
    width: int = 64
    seeds: int = 5
    k: int = 32
    floss_epochs: int = 300
    floss_batch: int = 2
    floss_lr: tuple[float, ...] = (3e-3, 2e-2, 3e-3, 3e-3)
    epochs: int = 1000
    batch: int = 128
    lr: float = 1e-3
    seed: int = 1

    figure: ClassVar[str] = "depth"
    shows: ClassVar[str] = "exponents and gradients over the layers of deep stacks, before and after flossing"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"depth": 6, "width": 8, "seeds": 1, "k": 4, "floss_epochs": 3, "epochs": 4, "batch": 8},
        "small": {"depth": 30, "width": 32, "seeds": 1, "k": 16, "floss_epochs": 100, "epochs": 200},
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "2 s", "small": "2 min", "paper": "an hour"}

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """`exponents (kind, flossed, seed, rank)` before training, `gradient (..., layer)`, `accuracy`."""
        rows = [
            [[self._network(kind, flossed, seed) for seed in range(self.seeds)] for flossed in (False, True)]
            for kind in self.kinds
        ]
        dims = ("kind", "flossed", "seed")
        variables: dict[str, Given] = {
            name: ((*dims, last), np.array([[[one[name].numpy() for one in b] for b in a] for a in rows]))
            for name, last in (("exponents", "rank"), ("gradient", "layer"), ("accuracy", "epoch"))
        }
        variables["exponents"] = (*variables["exponents"][:2], {"units": "nats per block"})
        coordinates: dict[str, Given] = {
            "kind": (("kind",), np.array(self.kinds)),
            "flossed": (("flossed",), np.array([False, True])),
        }
        return Record(f"beyond {self.figure}", asdict(self), variables, coordinates)

    def checks(self, record: Record) -> list[Check]:
        """Where the gradient was lost, flossing brings it back; elsewhere it does no harm."""
        exponents = record["exponents"][..., : self.k]
        # a gradient may be lost altogether
        norms = np.maximum(record["gradient"].astype(float), np.finfo(np.float32).tiny)
        reaching = np.log(norms[..., 0] / norms[..., -1]).mean(-1)
        accuracy = record["accuracy"][..., -max(1, self.epochs // 10) :].mean((-1, -2))
        found = []
        for i, kind in enumerate(self.kinds):
            plain, flossed = (np.sqrt((exponents[i, j] ** 2).mean()) for j in (0, 1))
            found.append(at_most(f"{kind}: rms exponent, flossed over plain", 0.5, float(flossed / plain)))
            gain = float(np.diff(accuracy[i])[0])
            found.append(at_least(f"{kind}: accuracy that flossing adds", 0.0, gain, 0.05))
        for kind in (kind for kind in ("tanh", "binary") if kind in self.kinds):
            lost, left = (float(value) for value in reaching[self.kinds.index(kind)])
            name = f"{kind}: log of the part of the gradient that reaches the first block"
            found += [at_most(name, -5.0, lost), at_least(f"{name}, flossed", -3.0, left)]
        return found

    def _network(self, kind: str, flossed: bool, seed: int) -> dict[str, Tensor]:
        """One network: exponents and gradients before training, and its accuracy while it learns."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(Stream(self.seed, f"depth {kind}").bits((), member_ids=seed)))
            stack = Stack(kind, self.width, self.depth)
        if flossed:
            self._floss(stack, self.floss_lr[self.kinds.index(kind)], seed)
        x, target = self._batch(seed, 0, 32, "measure")
        with torch.no_grad():
            exponents = mean_over_trajectories(depth_spectrum(stack.blocks, stack.enter(x[:4])).exponents)
        layers = stack.layers(x.requires_grad_())
        loss = nn.functional.binary_cross_entropy_with_logits(stack.answer(layers[-1]), target)
        norms = [g.norm() for g in torch.autograd.grad(loss, layers)]
        return {"exponents": exponents, "gradient": torch.stack(norms), "accuracy": self._fit(stack, seed)}

    def _floss(self, stack: Stack, lr: float, seed: int) -> None:
        """Adam on the flossing loss over depth, with fresh examples in each step."""
        cell, own = Depth(stack.blocks, stack.shape), list(stack.blocks.parameters())
        optimizer = torch.optim.Adam(own, lr=lr)
        falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, self.floss_epochs)
        for epoch in range(self.floss_epochs):
            x, _ = self._batch(seed, epoch, self.floss_batch, "floss")
            generator = torch.Generator().manual_seed(epoch)
            spectrum = depth_spectrum(cell, stack.enter(x), k=self.k, generator=generator)
            optimizer.zero_grad()
            flossing_loss(spectrum.exponents).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(own, 1.0)
            optimizer.step()
            falling.step()

    def _fit(self, stack: Stack, seed: int) -> Tensor:
        optimizer, right = torch.optim.Adam(stack.parameters(), lr=self.lr), []
        for epoch in range(self.epochs):
            x, target = self._batch(seed, epoch, self.batch, "fit")
            logits = stack.answer(stack.layers(x)[-1])
            right.append(((logits > 0) == (target > 0.5)).float().mean())
            optimizer.zero_grad()
            loss = nn.functional.binary_cross_entropy_with_logits(logits, target)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(stack.parameters(), 1.0)
            optimizer.step()
        return torch.stack(right)

    def _batch(self, seed: int, epoch: int, batch: int, stream: str) -> tuple[Tensor, Tensor]:
        """Normal examples, and whether their first two coordinates differ in sign."""
        x = Stream(self.seed, f"depth {stream}").normal((batch, self.width), member_ids=seed, epoch=epoch)
        return x, ((x[:, 0] > 0) != (x[:, 1] > 0)).float()
