"""Images, pixel by pixel: a label for each, to be said at the end."""

from __future__ import annotations

import functools
import math
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._random import DEFAULT_SEED, Stream
from lyaptorch._types import Inputs
from lyaptorch.tasks.archives import Images, load
from lyaptorch.tasks.batch import Batch, Draw, last_step
from lyaptorch.tasks.dealing import TEST, Stored, dealt


@dataclass(frozen=True)
class SequentialImages(Stored):
    """Images as sequences of pixels in [0, 1], in scan-line order or permuted; the label comes last.

    Training images are dealt in minibatches: every `count // batch` task steps a member sees each image
    once, in an order of its own, a remainder smaller than a batch aside. Test images come in their order.
    A draw costs O(t b) per member.

    Attributes:
        name: "mnist", "fashion" (784 steps) or "cifar10-grey" (1 024 steps).
        permuted: whether pixels come in another, fixed order.
        count: training images that are used, the first ones; all when missing.
        permutation: that order; drawn once for all when missing. It is recorded with a run.

    Args:
        data_dir: folder of the files, which copies and other processes remember; when missing, that in the
            environment variable LYAPTORCH_DATA, or a cache that is filled from the net.

    Raises:
        FileNotFoundError: if files are missing; names them and says where they go.
        ValueError: if a file is damaged, or for a permutation that is none; on drawing, for another length.

    Example:
        >>> task = SequentialImages("mnist", permuted=True)  # doctest: +SKIP
        >>> task.length  # doctest: +SKIP
        784

    Source: Fading memory as inductive bias in residual recurrent networks, section 4.
    """

    name: str
    permuted: bool = False
    count: int | None = None
    permutation: tuple[int, ...] = ()
    data_dir: InitVar[Path | str | None] = None
    input_size: int = field(default=1, init=False)
    output_size: int = field(default=10, init=False)

    loss = "cross_entropy"

    def __post_init__(self, data_dir: Path | str | None) -> None:
        images = load(self.name, data_dir)
        n = images.train.shape[-1]
        if self.count is not None:
            _checks.integer("count", self.count, 1, len(images.train))
        order = self.permutation
        if self.permuted and not order:
            order = tuple(Stream(DEFAULT_SEED, "pixels").permutation(n, member_ids=0).tolist())
        if order and (not self.permuted or sorted(order) != list(range(n))):
            raise ValueError(f"permutation must hold 0..{n - 1} once each, and needs permuted=True")
        object.__setattr__(self, "permutation", order)
        self._keep(data_dir)

    def __reduce__(self) -> tuple[Any, ...]:
        """Made anew from where its files lie, in a copy or another process."""
        return SequentialImages, (self.name, self.permuted, self.count, self.permutation, self._folder)

    @property
    def length(self) -> int:
        """Steps of a trial: the pixels of an image."""
        return self._images.train.shape[-1]

    @property
    def _images(self) -> Images:
        # by name, so that a task is small and its description holds no data
        return load(self.name, self._folder)

    def inputs(self, d: Draw) -> Inputs:
        """As many images in a row as the length takes."""
        in_a_row = math.ceil(d.steps / self.length)
        pixels, _ = self._draw(d, d.batch * in_a_row)
        # each trajectory sees its own images, one after the other, the last one cut off
        x = torch.unflatten(pixels, -2, (d.batch, in_a_row)).flatten(-2)[..., : d.steps]
        return _as_inputs(x, d.dtype)

    def draw(self, d: Draw) -> Batch:
        """Images, and their classes at the last step."""
        if d.steps != self.length:
            raise ValueError(f"length must be {self.length}, the pixels of an image, got {d.steps}")
        pixels, labels = self._draw(d, d.batch)
        x = _as_inputs(pixels, d.dtype)
        return last_step(x, labels.unsqueeze(-1).to(x.dtype))

    def _draw(self, d: Draw, count: int) -> tuple[Tensor, Tensor]:
        """Pixels `(*e, count, t)` and labels `(*e, count)`."""
        data, device = _placed(self._images, d.device), d.device
        test = d.stream == TEST
        images, labels = (data.test, data.test_labels) if test else (data.train, data.train_labels)
        n = len(images) if test or self.count is None else self.count
        rows = dealt(d, n, count, "images")
        pixels = images[rows]
        if self.permuted:
            pixels = pixels[..., _places(self.permutation, device)]
        return pixels, labels[rows]


# the default of the argument would hide the slot
del SequentialImages.data_dir  # type: ignore[attr-defined]


@functools.lru_cache(maxsize=2)
def _placed(images: Images, device: torch.device) -> Images:
    """On the device once and for all, as `_places`: a captured graph can copy nothing from the host."""
    return Images(*(z.to(device) for z in vars(images).values()))


@functools.lru_cache(maxsize=2)
def _places(permutation: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(permutation, device=device)


def _as_inputs(pixels: Tensor, dtype: torch.dtype | None) -> Tensor:
    return (pixels.to(dtype or torch.get_default_dtype()) / 255).movedim(-1, 0).unsqueeze(-1)
