"""Spoken digits, as samples or as spectra of short frames: which one it was, to be said at the end."""

from __future__ import annotations

import functools
import math
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._types import Inputs
from lyaptorch.tasks.batch import Batch, Draw, last_step
from lyaptorch.tasks.dealing import TEST, Stored, dealt
from lyaptorch.tasks.recordings import RATE, SPEAKERS, TESTED, Recordings, load

FRAMES, SAMPLES = "frames", "samples"
BANDS, WINDOW, HOP = 24, 256, 64
"""Of log-mel frames: bands, samples of a window (32 ms), samples from one to the next (8 ms)."""
QUIET = 1e-3
"""Power that is added before its logarithm is taken, of a band; a recording's samples have variance 1."""


class Sounds(NamedTuple):
    """Sequences `(count, t, m)`, zero after their lengths `(count,)`, digits `(count,)`, the least length."""

    x: Tensor
    lengths: Tensor
    digits: Tensor
    shortest: int


@dataclass(frozen=True)
class SpokenDigits(Stored):
    """Spoken digits of the Free Spoken Digit Dataset: ten of them, six speakers, 3 000 recordings at 8 kHz.

    As frames: the logarithm of the power in 24 mel bands of 0 to 4 kHz in Hann windows of 256 samples, every
    64 samples (125 frames a second), each band with mean 0 and variance 1 over all training frames. As
    samples: resampled to `rate` without aliases. Before either, a recording is cut at `seconds`, then divided
    by the root mean square of the samples that are left. Trials have the `length` of the longest; shorter
    ones are padded, with their lengths in `Batch.lengths`, and the digit counts at the last step of each.

    Training recordings are dealt in minibatches: every `count // batch` task steps a member sees each once,
    in an order of its own, a remainder smaller than a batch aside. Test recordings come in their order,
    digits in turn. A draw costs O(t b m) per member.

    Attributes:
        features: "frames" or "samples".
        seconds: at which a recording is cut. 27% are longer than 0.5, none than 2.3.
        rate: samples per second of samples, 500 to 8 000; frames are always taken from 8 000.
        speakers: whose recordings are all tested and never trained on, such as ("theo",). Without, the
            first 5 of the 50 of each speaker and digit are tested, which is the official split.

    Args:
        data_dir: folder of the recordings or their archive, see `lt.tasks.recordings.load`; when missing,
            that in the environment variable LYAPTORCH_DATA, or a cache that is filled from the net.

    Raises:
        FileNotFoundError: if there are no recordings; says where they go.
        ValueError: if they are damaged, for other settings, and on drawing fewer steps than a trial has.

    Example:
        >>> task = SpokenDigits("samples", rate=4000)  # doctest: +SKIP
        >>> task.length, task.input_size  # doctest: +SKIP
        (2000, 1)

    Source: Jackson and others, Free Spoken Digit Dataset, CC BY-SA 4.0 (github.com/Jakobovski).
    """

    features: str = FRAMES
    seconds: float = 0.5
    rate: int = 4000
    speakers: tuple[str, ...] = ()
    data_dir: InitVar[Path | str | None] = None
    input_size: int = field(init=False)
    output_size: int = field(default=10, init=False)

    loss = "cross_entropy"

    def __post_init__(self, data_dir: Path | str | None) -> None:
        _checks.choice("features", self.features, (FRAMES, SAMPLES))
        _checks.positive("seconds", self.seconds)
        _checks.integer("rate", self.rate, RATE // 16, RATE)
        for name in self.speakers:
            _checks.choice("speaker", name, SPEAKERS)
        if set(self.speakers) == set(SPEAKERS):
            raise ValueError("speakers must leave one to train on, got all of them; name fewer")
        object.__setattr__(self, "input_size", BANDS if self.features == FRAMES else 1)
        self._keep(data_dir)
        # read here, so that missing files are missed before any work
        self._recordings()

    def __reduce__(self) -> tuple[Any, ...]:
        """Made anew from where its files lie, in a copy or another process."""
        return type(self), (self.features, self.seconds, self.rate, self.speakers, self._folder)

    @property
    def length(self) -> int:
        """Steps of a trial: those of the longest recording, as far as it is used."""
        return self._sounds(torch.device("cpu"), test=False).x.shape[1]

    def _recordings(self) -> Recordings:
        # by name, so that a task is small and its description holds no data
        return load(self._folder)

    def _sounds(self, device: torch.device, *, test: bool) -> Sounds:
        settings = self.features, self.seconds, self.rate, self.speakers
        return _prepared(self._recordings(), *settings, device)[test]

    def inputs(self, d: Draw) -> Inputs:
        """As many recordings in a row as the length takes, without padding."""
        data = self._sounds(d.device, test=d.stream == TEST)
        # few recordings and a long row: it starts again
        in_a_row = max(1, min(math.ceil(d.steps / data.shortest), len(data.x) // d.batch))
        rows = dealt(d, len(data.x), d.batch * in_a_row, "recordings")
        rows = torch.unflatten(rows, -1, (d.batch, in_a_row))
        ends = data.lengths[rows].cumsum(-1)
        now = torch.arange(d.steps, device=d.device) % ends[..., -1:]
        # step s is in the first recording that ends later, as many steps before its end as are left
        which = torch.searchsorted(ends, now, right=True)
        left = ends.gather(-1, which) - now
        rows = rows.gather(-1, which)
        return _as_inputs(data.x[rows, data.lengths[rows] - left], d)

    def draw(self, d: Draw) -> Batch:
        """Recordings, and their digits at the last step of each."""
        if d.steps < self.length:
            raise ValueError(f"length must be at least {self.length}, that of the recordings, got {d.steps}")
        data = self._sounds(d.device, test=d.stream == TEST)
        rows = dealt(d, len(data.x), d.batch, "recordings")
        x = torch.nn.functional.pad(data.x[rows], (0, 0, 0, d.steps - self.length))
        inputs = _as_inputs(x, d)
        return last_step(inputs, data.digits[rows].unsqueeze(-1).to(inputs.dtype), data.lengths[rows])


# the default of the argument would hide the slot
del SpokenDigits.data_dir  # type: ignore[attr-defined]


def _as_inputs(x: Tensor, d: Draw) -> Inputs:
    """`(*e, b, t, m)` with time first."""
    return x.to(d.dtype or torch.get_default_dtype()).movedim(-2, 0)


@functools.lru_cache(maxsize=4)
def _prepared(
    recordings: Recordings,
    features: str,
    seconds: float,
    rate: int,
    speakers: tuple[str, ...],
    device: torch.device,
) -> tuple[Sounds, Sounds]:
    """What trains and what is tested, on the device once and for all: a captured graph can copy nothing."""
    # all digits in turn, so that any few of them are a fair test
    order = np.lexsort((recordings.digits, recordings.speakers, recordings.takes))
    cut = [recordings.samples[i][: math.ceil(seconds * RATE)].astype(np.float64) for i in order]
    # 1 of 32 768 steps of a sample is less than any sound
    level = [s / max(1.0, float(np.sqrt(np.mean(s * s)))) for s in cut]
    x, lengths = _frames(level) if features == FRAMES else _resampled(level, rate)
    held = np.isin(recordings.speakers, [SPEAKERS.index(name) for name in speakers])
    test = torch.from_numpy((held if speakers else recordings.takes < TESTED)[order])
    real = torch.arange(x.shape[1], device="cpu") < lengths.unsqueeze(-1)
    if features == FRAMES:
        known = x[real & ~test.unsqueeze(-1)]
        x = (x - known.mean(0)) / known.std(0)
    x = torch.where(real.unsqueeze(-1), x, 0.0).float()
    digits = torch.from_numpy(recordings.digits[order])
    train, tested = (
        Sounds(x[who].to(device), lengths[who].to(device), digits[who].to(device), int(lengths[who].min()))
        for who in (~test, test)
    )
    return train, tested


def _resampled(sounds: list[NDArray[np.float64]], rate: int) -> tuple[Tensor, Tensor]:
    """Samples `(count, t, 1)` at another rate, and lengths `(count,)`."""
    from scipy.signal import resample_poly

    # a polyphase filter that lets nothing above half of the lower rate through
    common = math.gcd(rate, RATE)
    return _side_by_side([resample_poly(s, rate // common, RATE // common) for s in sounds])


def _side_by_side(sounds: list[NDArray[np.float64]]) -> tuple[Tensor, Tensor]:
    parts = [torch.from_numpy(s) for s in sounds]
    lengths = torch.tensor([len(part) for part in parts], device="cpu")
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True).unsqueeze(-1), lengths


def _frames(sounds: list[NDArray[np.float64]]) -> tuple[Tensor, Tensor]:
    """Log power `(count, t, bands)` of frames around each 64th sample, and lengths `(count,)`."""
    x, lengths = _side_by_side(sounds)
    window = torch.hann_window(WINDOW, dtype=x.dtype, device="cpu")
    bands = _mel().to(x)
    frames = []
    for some in torch.split(x.squeeze(-1), 256):
        spectra = torch.stft(some, WINDOW, HOP, window=window, pad_mode="constant", return_complex=True)
        # white noise of variance 1 has power 1 in each bin
        power = spectra.abs().square() / window.square().sum()
        frames.append((bands @ power + QUIET).log().mT)
    return torch.cat(frames), 1 + lengths // HOP


def _mel() -> Tensor:
    """Triangles `(bands, bins)` that overlap by halves on the mel scale, each a mean over its bins."""
    # mel = 2595 log10(1 + f / 700)
    top = math.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** torch.linspace(0, top, BANDS + 2, dtype=torch.float64, device="cpu") - 1)
    f = torch.linspace(0, RATE / 2, WINDOW // 2 + 1, dtype=torch.float64, device="cpu")
    low, middle, high = (edges[i : i + BANDS, None] for i in range(3))
    heights = torch.minimum((f - low) / (middle - low), (high - f) / (high - middle)).clamp_min(0)
    return heights / heights.sum(1, keepdim=True)
