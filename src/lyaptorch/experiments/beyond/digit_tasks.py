"""Digits in rows of pixels, and tones in the place of spoken ones."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lyaptorch.tasks import SequentialImages, SpokenDigits
from lyaptorch.tasks.batch import Batch, Draw
from lyaptorch.tasks.recordings import RATE, SPEAKERS, Recordings

ROW = 28
"""Pixels of a row of MNIST."""


@dataclass(frozen=True)
class Rows:
    """Images of MNIST row by row, 28 pixels in each of 28 steps."""

    images: SequentialImages = field(default_factory=lambda: SequentialImages("mnist"))
    length: int = field(default=ROW, init=False)
    input_size: int = field(default=ROW, init=False)
    output_size: int = field(default=10, init=False)

    loss = "cross_entropy"

    def inputs(self, d: Draw) -> Tensor:
        """As many images in a row as the length takes."""
        return _rows(self.images.inputs(_pixels(d)))

    def draw(self, d: Draw) -> Batch:
        """Images, and their classes at the last row."""
        batch = self.images.draw(_pixels(d))
        return Batch(_rows(batch.inputs), batch.targets[-d.steps :], batch.mask[-d.steps :], d.steps - 1)


def _pixels(d: Draw) -> Draw:
    return Draw(d.seed, d.steps * ROW, d.batch, d.epoch, d.member_ids, d.stream, d.dtype)


def _rows(pixels: Tensor) -> Tensor:
    """`(28 t, *e, b, 1)` as `(t, *e, b, 28)`."""
    return torch.unflatten(pixels.squeeze(-1), 0, (-1, ROW)).movedim(1, -1)


@functools.cache
def tones(takes: int = 7) -> Recordings:
    """In the place of speech: for each digit a tone of its own height, of different lengths, in noise."""
    who = [(d, s, i) for d in range(10) for s in range(len(SPEAKERS)) for i in range(takes)]
    samples = []
    for digit, speaker, take in who:
        draw = np.random.default_rng([digit, speaker, take])
        phase = 2 * math.pi * (200 + 100 * digit) * np.arange(draw.integers(400, 900)) / RATE
        samples.append((3000 * (np.sin(phase) + 0.1 * draw.standard_normal(len(phase)))).astype(np.int16))
    digits, speakers, number = np.array(who).T
    return Recordings(tuple(samples), digits, speakers, number)


class Tones(SpokenDigits):
    """Spoken digits without speech, and so without files."""

    def _recordings(self) -> Recordings:
        return tones()
