"""Recordings of spoken digits: where they are, whether they are whole, their samples. Nothing is executed."""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import tarfile
import wave
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from lyaptorch._brief import brief
from lyaptorch.tasks.archives import VARIABLE, damaged, fetched, unpacked

RATE = 8000
"""Samples per second."""
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
TAKES = 50
"""Recordings of each digit by each speaker."""
TESTED = 5
"""The first so many of these are the official test set."""
FOLDER = "fsdd"
VERSION = "1.0.10"
MIRRORS = tuple(
    f"https://github.com/Jakobovski/free-spoken-digit-dataset/archive/{tags}" for tags in ("refs/tags/", "")
)
CONTENT = "c372e20bc44eb598143a5fd394ede7ef017a0778ec4a4739723c7593f28c1082"
"""The `checksum` of all recordings."""
ENDINGS = (".tar.xz", ".tar.gz", ".tgz", ".zip")


@dataclass(frozen=True, eq=False)
class Recordings:
    """Sounds at 8 kHz, and who says what; `count` of each.

    Attributes:
        samples: 16-bit, of each recording its own number.
        digits: 0 to 9.
        speakers: numbers in `SPEAKERS`.
        takes: which of several of the same.
    """

    samples: tuple[NDArray[np.int16], ...]
    digits: NDArray[np.int64]
    speakers: NDArray[np.int64]
    takes: NDArray[np.int64]

    __repr__ = brief


_loaded: dict[str, Recordings] = {}


def names() -> list[str]:
    """The files of the data set."""
    return [f"{digit}_{who}_{i}.wav" for digit in range(10) for who in SPEAKERS for i in range(TAKES)]


def load(data_dir: Path | str | None = None) -> Recordings:
    """The recordings, checked, and kept for the next call.

    They are taken from `data_dir`, else from the folder in the environment variable LYAPTORCH_DATA: from a
    folder `recordings` in it or in its folder `fsdd`, or an archive there (.tar.xz, .tar.gz or .zip) whose
    name starts with fsdd or free-spoken-digit-dataset; else from the cache, which is filled from the net.

    Raises:
        FileNotFoundError: if there are none; says where they go.
        ValueError: if recordings are missing, damaged, or others.
    """
    if not _loaded:
        folder = data_dir or os.environ.get(VARIABLE)
        _loaded[FOLDER] = _downloaded() if folder is None else _read(_found(Path(folder)))
    return _loaded[FOLDER]


def _found(folder: Path) -> Path:
    """The folder or archive in which the recordings are."""
    wanted = folder / FOLDER
    for place in (wanted, folder):
        if (place / "recordings").is_dir():
            return place / "recordings"
        for start in ("free-spoken-digit-dataset*", f"{FOLDER}*"):
            there = [path for path in sorted(place.glob(start)) if path.name.endswith(ENDINGS)]
            if there:
                return there[0]
    raise FileNotFoundError(
        f"a folder recordings, or an archive {FOLDER}.tar.xz, .tar.gz or .zip of it, must be in {wanted}; "
        f"get it from {MIRRORS[0]}v{VERSION}.tar.gz"
    )


def _downloaded() -> Recordings:
    name = f"free-spoken-digit-dataset-{VERSION}.tar.gz"
    return fetched(f"v{VERSION}.tar.gz", MIRRORS, FOLDER, name, lambda got: _read(Path(got)), kept_as=name)


def _read(path: Path) -> Recordings:
    """All recordings in a folder or an archive, which has all of them as they should be."""
    bodies, wanted = bodies_in(path), names()
    missing = [name for name in wanted if name not in bodies]
    if missing:
        raise damaged(path, f"{len(missing)} of {len(wanted)} recordings are missing, such as {missing[0]}")
    found = parsed(bodies, path)
    if checksum(found) != CONTENT:
        raise damaged(path, "the checksum of its samples is wrong")
    return found


def bodies_in(path: Path) -> dict[str, bytes]:
    """What is in the files of recordings of a folder or an archive, by their names.

    Raises:
        ValueError: if an archive is damaged, or holds one twice.
    """
    known, found = set(names()), {}
    try:
        for name, read in _files(path):
            if name in found:
                raise damaged(path, f"it holds {name} twice")
            if name in known:
                found[name] = unpacked(read)
    # what a damaged archive makes of its readers
    except (
        *(tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error),
        *(EOFError, OSError, NotImplementedError, RuntimeError),
    ) as error:
        raise damaged(path, " ".join(str(error).split())) from error
    return found


def _files(path: Path) -> Iterator[tuple[str, Callable[[int], bytes]]]:
    """Names of files, and how each is read, of a folder, or of the folders `recordings` of an archive."""
    if path.is_dir():
        for file in path.iterdir():
            with file.open("rb") as handle:
                yield file.name, handle.read
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as packed:
            for entry in packed.infolist():
                if PurePosixPath(entry.filename).parent.name == "recordings":
                    with packed.open(entry) as handle:
                        yield PurePosixPath(entry.filename).name, handle.read
    else:
        with tarfile.open(path) as archive:
            for member in archive:
                place = PurePosixPath(member.name)
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None and place.parent.name == "recordings":
                    yield place.name, content.read


def checksum(recordings: Recordings) -> str:
    """SHA-256 of who says what, and of all samples: repacked files have the same."""
    content = hashlib.sha256()
    keys = zip(recordings.digits, recordings.speakers, recordings.takes, strict=True)
    for (digit, speaker, take), samples in zip(keys, recordings.samples, strict=True):
        content.update(f"{digit}_{SPEAKERS[speaker]}_{take} {len(samples)}\n".encode())
        content.update(samples.astype("<i2").tobytes())
    return content.hexdigest()


def parsed(bodies: Mapping[str, bytes], path: Path) -> Recordings:
    """Recordings from WAV files, sorted as `names` are.

    Raises:
        ValueError: if one is no whole WAV file of one channel with 16 bits at 8 kHz.
    """
    order = sorted(bodies, key=lambda name: (*_who(name),))
    samples = tuple(_samples(name, bodies[name], path) for name in order)
    digits, speakers, takes = np.array([_who(name) for name in order], np.int64).reshape(-1, 3).T
    return Recordings(samples, digits, speakers, takes)


def _who(name: str) -> tuple[int, int, int]:
    """Digit, number of the speaker, take."""
    digit, speaker, take = name.removesuffix(".wav").split("_")
    return int(digit), SPEAKERS.index(speaker), int(take)


def _samples(name: str, body: bytes, path: Path) -> NDArray[np.int16]:
    try:
        with wave.open(io.BytesIO(body)) as sound:
            kind = sound.getnchannels(), sound.getsampwidth(), sound.getframerate()
            count = sound.getnframes()
            frames = sound.readframes(count)
    # wave raises RuntimeError for a chunk that claims to be longer than its file
    except (wave.Error, EOFError, OSError, RuntimeError) as error:
        raise damaged(path, f"{name} is no WAV file: {error}") from error
    if kind != (1, 2, RATE):
        raise damaged(path, f"{name} must have 1 channel of 2 bytes at {RATE} Hz, got {kind}")
    if not count or len(frames) != 2 * count:
        raise damaged(path, f"{name} must hold {count} samples, and at least one, got {len(frames) / 2:g}")
    return np.frombuffer(frames, "<i2").astype(np.int16)
