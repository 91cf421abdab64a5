"""Files of data: where they are, whether they are whole, and what they hold. Nothing in them is executed."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._brief import brief

T = TypeVar("T")
VARIABLE = "LYAPTORCH_DATA"
LARGEST = 64 << 20
"""Bytes of the largest unpacked file of any data set, rounded up."""
GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601)."""


@dataclass(frozen=True)
class Images:
    """Grey images, one per row, pixels in scan-line order; all uint8.

    Attributes:
        train: `(count, pixels)`.
        train_labels: `(count,)`.
        test: `(count, pixels)`.
        test_labels: `(count,)`.
    """

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor

    __repr__ = brief


@dataclass(frozen=True)
class File:
    """A file, the MD5 it was published with, and, where it is often repacked, what its content must be.

    Attributes:
        name: of the file.
        md5: of the file, where it is never repacked.
        content: SHA-256 of its content.
    """

    name: str
    md5: str
    content: str | None = None


@dataclass(frozen=True)
class Archive:
    """Where a data set is published, in which files, and how they are read."""

    folder: str
    files: tuple[File, ...]
    mirrors: tuple[str, ...]
    read: Callable[[list[bytes]], Images]


_loaded: dict[str, Images] = {}


def load(name: str, data_dir: Path | str | None = None) -> Images:
    """The data set called `name`, checked, and kept for the next call.

    Files are taken from `data_dir`, else from the folder in the environment variable LYAPTORCH_DATA, in
    both of which they may lie in a folder of their own; else from the cache, which is filled from the net.

    Raises:
        FileNotFoundError: if files are missing; names them and says where they go.
        ValueError: if a file is truncated, damaged, or another one.
    """
    if name not in _loaded:
        archive = ARCHIVES[_checks.choice("images", name, ARCHIVES)]
        folder = data_dir or os.environ.get(VARIABLE)
        paths = _downloaded(archive) if folder is None else _found(archive, Path(folder))
        _loaded[name] = archive.read(list(map(_content, paths, archive.files)))
    return _loaded[name]


def _found(archive: Archive, folder: Path) -> list[Path]:
    paths, missing = [], []
    for file in archive.files:
        names = [file.name, file.name.removesuffix(".gz")]
        places = [place / name for place in (folder / archive.folder, folder) for name in names]
        there = [place for place in places if place.is_file()]
        paths += there[:1]
        missing += [] if there else [file.name]
    if missing:
        raise FileNotFoundError(
            f"{', '.join(missing)} must be in {folder / archive.folder}; get them from one of "
            f"{', '.join(archive.mirrors)}"
        )
    return paths


def _downloaded(archive: Archive) -> list[Path]:
    """The files in the cache, fetched from the first mirror that has them."""
    wanted = ", ".join(file.name for file in archive.files)
    return [
        fetched(file.name, archive.mirrors, archive.folder, wanted, Path, f"md5:{file.md5}")
        for file in archive.files
    ]


def fetched(
    name: str,
    mirrors: Sequence[str],
    folder: str,
    wanted: str,
    read: Callable[[str], T],
    checksum: str | None = None,
    kept_as: str | None = None,
) -> T:
    """What `read` finds in a file of the cache, which is fetched from the first mirror that has it.

    A file with a wrong checksum, or in which `read` finds something else, is not kept.

    Raises:
        FileNotFoundError: if no mirror has it; says that `wanted` can be put into `folder`.
    """
    import pooch

    cache, kept_as, failures = Path(pooch.os_cache("lyaptorch")) / folder, kept_as or name, []
    for mirror in mirrors:
        try:
            got = pooch.retrieve(mirror + name, checksum, fname=kept_as, path=cache)
        # pooch raises ValueError for a wrong checksum, and requests' errors are OSErrors
        except (OSError, ValueError) as error:  # no net, or something else in its place
            failures.append(f"{mirror}: {str(error).splitlines()[0]}")
            continue
        try:
            return read(got)
        except ValueError as error:
            failures.append(f"{mirror}: {error}")
            Path(got).unlink()
    raise FileNotFoundError(
        f"{name} could not be fetched ({'; '.join(failures)}); put {wanted} into a folder "
        f"{folder} and pass the folder that holds it as data_dir, or in {VARIABLE}"
    )


def _content(path: Path, file: File) -> bytes:
    """What is in a file, unpacked if it is gzip and checked against its checksum."""
    body = path.read_bytes()
    if file.content is None:
        if hashlib.md5(body, usedforsecurity=False).hexdigest() != file.md5:
            raise damaged(path, "its checksum is wrong")
        return body
    # of a file that is often repacked the content is checked, not the file: gzip stores a date
    if path.suffix == ".gz":
        try:
            body = unpacked(gzip.GzipFile(fileobj=io.BytesIO(body)).read)
        except (EOFError, OSError, zlib.error) as error:
            raise damaged(path, str(error)) from error
    if hashlib.sha256(body).hexdigest() != file.content:
        raise damaged(path, "the checksum of its content is wrong")
    return body


def unpacked(read: Callable[[int], bytes]) -> bytes:
    """All that a packed file holds, unless it is more than in any data set: bytes may become gigabytes."""
    body = read(LARGEST + 1)
    if len(body) > LARGEST:
        raise ValueError(f"a file of data must not unpack to more than {LARGEST} bytes; get it again")
    return body


def damaged(path: Path, why: str) -> ValueError:
    """What is said of a file that is not what it should be."""
    return ValueError(f"{path} is damaged, or another file: {why}; delete it and get it again")


def _read_idx_set(bodies: list[bytes]) -> Images:
    """Training images, their labels, test images, their labels."""
    train, train_labels, test, test_labels = (read_idx(body) for body in bodies)
    for images, labels in ((train, train_labels), (test, test_labels)):
        if images.dim() != 3 or labels.dim() != 1 or len(images) != len(labels):
            raise ValueError(
                f"images and labels must be as many, got {tuple(images.shape)} and {tuple(labels.shape)}"
            )
    return Images(train.flatten(1), train_labels, test.flatten(1), test_labels)


def read_idx(body: bytes) -> Tensor:
    """An array of unsigned bytes in the IDX format: 0, 0, 8, dimensions, sizes as big-endian int32, data.

    Raises:
        ValueError: if the body is not exactly that.
    """
    if len(body) < 4 or body[:3] != b"\0\0\x08" or len(body) < 4 + 4 * body[3]:
        raise ValueError(f"an IDX file must start with 0, 0, 8 and its sizes, got {body[:4].hex(' ')}")
    # byte 3 is the number of dimensions; their sizes follow, then the data in row-major order
    start = 4 + 4 * body[3]
    sizes = [int.from_bytes(body[i : i + 4], "big") for i in range(4, start, 4)]
    if len(body) - start != math.prod(sizes):
        raise ValueError(f"an IDX file of {sizes} must hold as many bytes, got {len(body) - start}")
    return torch.from_numpy(np.frombuffer(body, np.uint8, offset=start).copy()).reshape(sizes)


def _read_cifar10(bodies: list[bytes]) -> Images:
    """The binary version of CIFAR-10, made grey."""
    (body,) = bodies
    try:
        with tarfile.open(fileobj=io.BytesIO(body), mode="r:gz") as archive:
            batches = [_member(archive, f"data_batch_{i}") for i in range(1, 6)]
            last = _member(archive, "test_batch")
    except (tarfile.TarError, EOFError, OSError, zlib.error, KeyError) as error:
        raise ValueError(f"the archive of CIFAR-10 must hold the binary version, got {error}") from error
    train, train_labels = read_cifar10(b"".join(batches))
    return Images(train, train_labels, *read_cifar10(last))


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    handle = archive.extractfile(f"cifar-10-batches-bin/{name}.bin")
    if handle is None:
        raise KeyError(f"{name}.bin is no file")
    return unpacked(handle.read)


def read_cifar10(body: bytes) -> tuple[Tensor, Tensor]:
    """Grey images `(count, 1024)` and labels from records of a label and 3 x 1024 bytes, red first.

    Raises:
        ValueError: if there is half a record, or a label above 9.
    """
    size = 1 + 3 * 1024
    if not body or len(body) % size:
        raise ValueError(f"a batch of CIFAR-10 must hold records of {size} bytes, got {len(body)} bytes")
    records = torch.from_numpy(np.frombuffer(body, np.uint8).copy()).reshape(-1, size)
    labels = records[:, 0]
    if int(labels.max()) > 9:
        raise ValueError(f"labels of CIFAR-10 must be in 0..9, got {int(labels.max())}")
    # records are planar: 1024 red, then 1024 green, then 1024 blue
    grey = sum(w * records[:, 1 + 1024 * c : 1025 + 1024 * c].float() for c, w in enumerate(GREY))
    return torch.as_tensor(grey, device="cpu").round().to(torch.uint8), labels


IDX = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def _idx_archive(folder: str, mirrors: tuple[str, ...], *sums: str) -> Archive:
    """A data set of four IDX files; `sums` are the MD5 of each and the SHA-256 of its content."""
    files = tuple(File(name, *pair.split()) for name, pair in zip(IDX, sums, strict=True))
    return Archive(folder, files, mirrors, _read_idx_set)


ARCHIVES = {
    "mnist": _idx_archive(
        "mnist",
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        "f68b3c2dcbeaaa9fbdd348bbdeb94873 ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "d53e105ee54ea40749a09fcbcd1e9432 65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "9fb629c4189551a2d022fa330f9573f3 0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ec29112dd5afa0611ce80d1b7f02629c ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "fashion": _idx_archive(
        "fashion-mnist",
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        ),
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "25c81989df183df01b3e8a0aad5dffbe bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "bef4ecab320f06d8554ea6380940ec79 5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "bb300cfdad3c16e7a12a480ee83cd310 0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    "cifar10-grey": Archive(
        "cifar-10",
        (File("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),),
        ("https://www.cs.toronto.edu/~kriz/",),
        _read_cifar10,
    ),
}
