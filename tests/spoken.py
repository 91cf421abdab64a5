"""Recordings of spoken digits' format: a tone for each digit, of many lengths, in a few takes."""

import functools
import io
import wave

import numpy as np

from lyaptorch.tasks import recordings

TAKES = 7


def tone(digit, speaker, take):
    draw = np.random.default_rng([digit, speaker, take])
    now = np.arange(draw.integers(300, 1200)) / recordings.RATE
    level = 2000 * (1 + speaker)
    noise = 0.05 * draw.standard_normal(len(now))
    return (level * (np.sin(2 * np.pi * (300 + 150 * digit) * now) + noise)).astype(np.int16)


def wav(samples, rate=recordings.RATE, channels=1):
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setparams((channels, 2, rate, 0, "NONE", ""))
        sound.writeframes(samples.astype("<i2").tobytes())
    return out.getvalue()


@functools.cache
def made_up():
    who = [(d, s, i) for d in range(10) for s in range(len(recordings.SPEAKERS)) for i in range(TAKES)]
    digits, speakers, takes = np.array(who).T
    return recordings.Recordings(tuple(tone(*each) for each in who), digits, speakers, takes)


@functools.cache
def bodies():
    found, speakers = made_up(), recordings.SPEAKERS
    who = zip(found.digits, found.speakers, found.takes, strict=True)
    return {f"{d}_{speakers[s]}_{i}.wav": wav(x) for (d, s, i), x in zip(who, found.samples, strict=True)}
