"""Depth in place of time: exponents and gradients of deep stacks, plain and flossed."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from lyaptorch._random import Stream
from lyaptorch.cells import Depth, surrogates
from lyaptorch.experiments.beyond.learners import LEARNED, asks_at_least, asks_at_most, figure
from lyaptorch.experiments.check import Checks, where
from lyaptorch.experiments.figure import Figure, Results, Study, coordinates
from lyaptorch.plots.primitives import BLUE, ORANGE, footnote, label_spectra, picture, spectrum
from lyaptorch.record import Given, Record
from lyaptorch.schedules import flossing_loss
from lyaptorch.tangent import depth_spectrum, mean_over_trajectories


@picture(3, rows=lambda record: len(record["kind"]), width=10 / 3, height=2.6)
def stacks(record: Record, axes: list[Axes]) -> None:
    """A row for each kind of stack: exponents, gradients over the layers, learning; plain and flossed."""
    for i, kind in enumerate(record["kind"]):
        spectra, gradients, learning = axes[3 * i : 3 * i + 3]
        for j, (color, label) in enumerate(((BLUE, "as torch starts it"), (ORANGE, "flossed"))):
            spectrum(spectra, record["exponents"][i, j], color, alpha=0.7, linewidth=1)
            gradients.semilogy(record["gradient"][i, j].T, color=color, alpha=0.7, linewidth=1)
            accuracy = record["accuracy"][i, j]
            window = np.ones(max(1, accuracy.shape[-1] // 20))
            # "valid" leaves out what would be the mean of a part of the window
            for one in accuracy:
                smooth = np.convolve(one, window / window.sum(), "valid")
                learning.plot(smooth, color=color, alpha=0.7, linewidth=1)
            learning.plot([], color=color, label=label)
        label_spectra(spectra, f"{kind}: exponents", "block")
        gradients.set(xlabel="layer", ylabel="norm of the gradient", title="Gradient at each layer")
        learning.set(xlabel="task step", ylabel="accuracy", title="Learning", ylim=(0.4, 1.03))
    axes[2].legend()
    count = record["accuracy"].shape[-2]
    counted = f"n = {count} network{'s' * (count > 1)} of each kind, each a line"
    footnote(axes[0], counted, "accuracy: running mean of a twentieth of the steps")


@figure(
    "depth",
    "exponents and gradients over the layers of deep stacks, before and after flossing",
    cost=("2 s", "2 min", "an hour"),
    smoke={"depth": 6, "width": 8, "seeds": 1, "k": 4, "floss_epochs": 3, "epochs": 4, "batch": 8},
    small={"depth": 30, "width": 32, "seeds": 1, "k": 16, "floss_epochs": 100, "epochs": 200},
    draw=stacks,
)
class Depths(Figure):
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

    def run(self, study: Study) -> Results:
        """`exponents (kind, flossed, seed, rank)` before training, `gradient (..., layer)`, `accuracy`."""
        networks = itertools.product(self.kinds, (False, True), range(self.seeds))
        exponents, gradient, accuracy = (
            torch.stack(one).reshape(len(self.kinds), 2, self.seeds, -1)
            for one in zip(*(self._network(*network) for network in networks), strict=True)
        )
        dims = ("kind", "flossed", "seed")
        variables: dict[str, Given] = {
            "exponents": ((*dims, "rank"), exponents, {"units": "nats per block"}),
            "gradient": ((*dims, "layer"), gradient),
            "accuracy": ((*dims, "epoch"), accuracy),
        }
        return variables, coordinates(kind=self.kinds, flossed=(False, True))

    def claims(self, record: Record) -> Checks:
        """Where the gradient was lost, flossing brings it back; elsewhere it does no harm."""
        exponents = record["exponents"][..., : self.k]
        # a gradient may be lost altogether, and has a logarithm all the same
        norms = np.maximum(record["gradient"].astype(float), np.finfo(np.float32).tiny)
        reaching = np.log(norms[..., 0] / norms[..., -1]).mean(-1)
        accuracy = record["accuracy"][..., -max(1, self.epochs // 10) :].mean((-1, -2))
        for i, kind in enumerate(self.kinds):
            plain, flossed = np.sqrt((exponents[i] ** 2).mean((-1, -2)))
            sentence = f"{kind}: rms of the first {exponents.shape[-1]} exponents, flossed / not flossed"
            yield asks_at_most(f"{kind} exponents", sentence, 0.5, flossed / plain)
            sentence = f"{kind}: accuracy, flossed − not flossed (mean of the last tenth of steps)"
            gain = np.diff(accuracy[i])[0]
            # where both stay at chance nothing is told
            told = where(accuracy[i].max() > LEARNED, gain)
            yield asks_at_least(f"{kind} accuracy", sentence, 0.0, told, 0.05)
        for kind in (kind for kind in ("tanh", "binary") if kind in self.kinds):
            lost, left = reaching[self.kinds.index(kind)]
            part = "mean log (gradient norm at the input of the first block / output of the last)"
            yield asks_at_most(f"{kind} gradient plain", f"{kind}, not flossed: {part}", -5.0, lost)
            yield asks_at_least(f"{kind} gradient flossed", f"{kind}, flossed: {part}", -3.0, left)

    def _network(self, kind: str, flossed: bool, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """One network: exponents and gradients before training, and its accuracy while it learns."""
        # modules of torch draw from the global generator, which is the caller's: it is put back
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(Stream(self.seed, f"depth {kind}").bits((), member_ids=seed)))
            stack = Stack(kind, self.width, self.depth)
        if flossed:
            self._floss(stack, self.floss_lr[self.kinds.index(kind)], seed)
        x, target = self._batch(seed, 0, 32, "measure")
        with torch.no_grad():
            # a spectrum costs as many pushforwards as numbers of a layer: four examples of the 32
            exponents = mean_over_trajectories(depth_spectrum(stack.blocks, stack.enter(x[:4])).exponents)
        layers = stack.layers(x.requires_grad_())
        loss = nn.functional.binary_cross_entropy_with_logits(stack.answer(layers[-1]), target)
        # by what each block gets, and by what the last one gives
        norms = [g.norm() for g in torch.autograd.grad(loss, layers)]
        return exponents, torch.stack(norms), self._fit(stack, seed)

    def _floss(self, stack: Stack, lr: float, seed: int) -> None:
        """Adam on the flossing loss over depth, with fresh examples in each step."""
        cell, own = Depth(stack.blocks, stack.shape), list(stack.blocks.parameters())
        optimizer = torch.optim.Adam(own, lr=lr)
        falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, self.floss_epochs)
        for epoch in range(self.floss_epochs):
            x, _ = self._batch(seed, epoch, self.floss_batch, "floss")
            # another first frame in each epoch, so that no direction is left out of the k for good
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
    # W f(x) + b, and so D = W diag(f'), as of rate networks over time
    first = surrogates.sech2(SHARPNESS) if kind == "binary" else nn.Tanh()
    return nn.Sequential(first, nn.Linear(width, width))
