"""Tones in the place of spoken digits."""

from __future__ import annotations

import functools
import math

import numpy as np

from lyaptorch.tasks import SpokenDigits
from lyaptorch.tasks.recordings import RATE, SPEAKERS, Recordings


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
