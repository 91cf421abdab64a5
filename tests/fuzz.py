"""Damaged and hostile files: every reader reads them, or raises a ValueError, soon and in little memory.

    python tests/fuzz.py --count 20000        # prints a table: inputs tried, refused, crashes, memory

Inputs are made by flipping, cutting, repeating and inserting bytes in whole files, and by writing numbers
that may mean sizes. Where a checksum guards a file, three of four get a new one, as if somebody meant harm.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import hashlib
import io
import json
import multiprocessing
import queue
import random
import resource
import signal
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import wave
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from lyaptorch._files import SEAL, host_of, sealed
from lyaptorch.cli import files
from lyaptorch.cli.trainings import _settings
from lyaptorch.experiments import FIGURES
from lyaptorch.experiments.parts import gathered, parts
from lyaptorch.experiments.store import Store
from lyaptorch.record import Record
from lyaptorch.tasks import archives, recordings
from lyaptorch.training.checkpoint import load_checkpoint, save_checkpoint

PATIENCE = 20.0
"""Seconds of computing after which an input counts as a hang."""
MEMORY = 256.0
"""MiB by which a reader of these files, none larger than some KiB, may raise the peak of its process."""
NUMBERS = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**62, 2**63 - 1, 2**64 - 1]
CONFIG = {"lr": 0.001, "schedule": [{"epochs": 3}], "member_ids": [0, 1]}


class Reader(NamedTuple):
    """A whole file, the function that reads one, and whether a checksum stands at its end."""

    whole: bytes
    read: Callable[[bytes, Path], Any]
    guarded: bool


class Result(NamedTuple):
    tried: int
    read: int
    refused: int
    crashes: list[str]
    memory: float
    slowest: float


def idx() -> bytes:
    return b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (3, 4, 5)) + bytes(range(60))


def batch() -> bytes:
    return bytes(i % 10 if i % 3073 == 0 else i % 251 for i in range(3 * 3073))


def archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            member.size = len(batch())
            tar.addfile(member, io.BytesIO(batch()))
    return out.getvalue()


SOUND = "0_theo_0.wav"


def sound() -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, recordings.RATE, 0, "NONE", ""))
        file.writeframes(bytes(range(200)))
    return out.getvalue()


def sounds(*, zipped: bool) -> bytes:
    out, name = io.BytesIO(), f"fsdd/recordings/{SOUND}"
    if zipped:
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr(name, sound())
    else:
        with tarfile.open(fileobj=out, mode="w:xz") as tar:
            member = tarfile.TarInfo(name)
            member.size = len(sound())
            tar.addfile(member, io.BytesIO(sound()))
    return out.getvalue()


def checkpoint(path: Path) -> bytes:
    tensors = {
        "model.weight": torch.randn(2, 3, 3),
        "epoch": torch.arange(2),
        "history.loss": torch.zeros(4, 2),
    }
    save_checkpoint(path, tensors, {"config": CONFIG, "stack": [[0]], "names": ["a"]})
    return path.read_bytes()


def record(path: Path) -> bytes:
    values = {"loss": (("member", "epoch"), torch.randn(2, 5)), "name": (("member",), ["a", "bc"])}
    return Record("train", CONFIG, values, {"epoch": (("epoch",), [1, 2, 3, 4, 5])}).save(path).read_bytes()


def npy() -> bytes:
    out = io.BytesIO()
    np.save(out, np.zeros((6, 2), np.float32))
    return out.getvalue()


def npz() -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, x=np.arange(12.0).reshape(6, 2), y=np.zeros(3))
    return out.getvalue()


def pt() -> bytes:
    out = io.BytesIO()
    torch.save({"x": torch.arange(12.0).reshape(6, 2), "names": ["a"]}, out)
    return out.getvalue()


TOML = b"""# a sweep
task = "temporal_xor"
delay = 20
lr = 1e-3
clip = inf
sizes = [8, 12]
schedule = [{ epochs = 3, k = 4 }, { epochs = 5 }]
begun = 2026-01-02T03:04:05Z
[data]
name = 'a "b"'
"""
CSV = b"first,second\n" + b"".join(b"%d,%.3f\n" % (i, i / 7) for i in range(6))
HOST = {"seconds": 3.0, "cpu_seconds": 2.5, "operations": 4e9, "host": "h", "threads": 2}


@functools.cache
def figure() -> Any:
    """A small one that is cut into parts."""
    chosen = FIGURES["gradient-flossing"]["fig4c"]
    return chosen(**chosen.scales["smoke"])


@functools.cache
def part() -> bytes:
    """Of that figure, as its store writes it."""
    with tempfile.TemporaryDirectory() as folder:
        made = Store(figure(), Path(folder)).make(parts(figure())[0], False)
        assert made is not None
        return made.read_bytes()


def a_part(path: Path) -> Record:
    """What the store finds of it, put together."""
    found, refused = Store(figure(), path.parent).look()
    if refused:
        raise ValueError(refused[path])
    return gathered(figure(), found)


def some_facts(path: Path) -> float | None:
    """What a part took, by the file beside it; facts that cannot be read are none."""
    record = path.parent / "part.nc"
    record.touch()
    if not host_of(record):
        raise ValueError("nobody knows")
    store = Store(figure(), path.parent)
    return store.spent()[0] or store.seconds(parts(figure())[0], 1.0)


def by_path(read: Callable[[Path], Any], name: str) -> Callable[[bytes, Path], Any]:
    def run(body: bytes, folder: Path) -> Any:
        (folder / name).write_bytes(body)
        return read(folder / name)

    return run


def inputs_in(name: str, path: Path) -> torch.Tensor:
    """Inputs of two channels."""
    return files.read(f"{path}{name}", 2)


def image_file(path: Path) -> bytes:
    content = hashlib.sha256(idx()).hexdigest()
    return archives._content(path, archives.File(path.name, "", content))


def config_text(body: bytes, folder: Path) -> Record:
    """A configuration that somebody wrote as JSON, as `Record` takes it."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON: {error}") from error
    return Record("train", parsed, {})


def some_recording(path):
    """What an archive holds; of one that holds none the task says how many are missing."""
    bodies = recordings.bodies_in(path)
    if not bodies:
        raise ValueError(f"{path.name} holds no recording")
    return bodies


def readers(folder: Path) -> dict[str, Reader]:
    return {
        "IDX": Reader(idx(), lambda body, _: archives.read_idx(body), False),
        "IDX, packed, on disk": Reader(gzip.compress(idx()), by_path(image_file, "images.gz"), False),
        "CIFAR-10 batch": Reader(batch(), lambda body, _: archives.read_cifar10(body), False),
        "CIFAR-10 archive": Reader(archive(), lambda body, _: archives._read_cifar10([body]), False),
        "WAV": Reader(sound(), lambda body, _: recordings.parsed({SOUND: body}, Path(SOUND)), False),
        "recordings, zip": Reader(sounds(zipped=True), by_path(some_recording, "fsdd.zip"), False),
        "recordings, tar": Reader(sounds(zipped=False), by_path(some_recording, "fsdd.tar.xz"), False),
        "checkpoint": Reader(
            checkpoint(folder / "whole"), by_path(lambda p: load_checkpoint(p, CONFIG), "checkpoint"), True
        ),
        "Record": Reader(record(folder / "whole"), by_path(Record.load, "record.nc"), True),
        "configuration": Reader(json.dumps(CONFIG).encode(), config_text, False),
        "settings, TOML": Reader(TOML, by_path(_settings, "sweep.toml"), False),
        "settings, JSON": Reader(json.dumps(CONFIG).encode(), by_path(_settings, "sweep.json"), False),
        "part of a figure": Reader(part(), by_path(a_part, "seed0-network0-1-delay2.nc"), True),
        "cost of a part": Reader(json.dumps(HOST).encode(), by_path(some_facts, "part.host.json"), False),
        **{
            f"{end} inputs": Reader(whole, by_path(functools.partial(inputs_in, name), f"inputs{end}"), False)
            for end, name, whole in (
                (".npy", "", npy()),
                (".npz", ":x", npz()),
                (".pt", ":x", pt()),
                (".csv", "", CSV),
            )
        },
    }


def mutated(whole: bytes, draw: random.Random) -> bytes:
    """A few bytes changed, somewhere; sizes and offsets stand in front, so there more often."""
    body = bytearray(whole)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        reach = draw.choice((16, 128, 1024, len(body))) if body else 1
        at = draw.randrange(min(reach, len(body)) or 1)
        kind = draw.randrange(8)
        if kind == 0 and body:
            body[at % len(body)] ^= 1 << draw.randrange(8)
        elif kind == 1 and body:
            body[at % len(body)] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
        elif kind == 2:
            size, order = draw.choice((2, 4, 8)), draw.choice(("big", "little"))
            body[at : at + size] = (draw.choice(NUMBERS) % 256**size).to_bytes(size, order)
        elif kind == 3:
            del body[at:]
        elif kind == 4:
            del body[at : at + draw.randrange(1, 64)]
        elif kind == 5:
            body[at:at] = draw.randbytes(draw.randrange(1, 64))
        elif kind == 6:
            body[at:at] = body[at : at + draw.randrange(1, 256)] * draw.randrange(1, 8)
        else:
            text = draw.choice(
                (b"[" * 5000, b'{"a":' * 5000, b"null", b"1e999", b"NaN", b"-1", b"\0", b"\xff\xfe")
            )
            body[at : at + len(text) % 50] = text
    return bytes(body)


def inputs(reader: Reader, count: int, seed: int) -> Any:
    draw = random.Random(seed)
    for i in range(count):
        if not reader.guarded or i % 4 == 0:
            yield mutated(reader.whole, draw)
        else:
            yield sealed(mutated(reader.whole.rpartition(SEAL)[0], draw))


def fuzz(name: str, count: int, seed: int = 0, on_input: Callable[[bytes], None] = lambda _: None) -> Result:
    """Feed one reader; a crash is anything but an answer or a ValueError."""
    read = refused = 0
    crashes, slowest = [], 0.0
    with tempfile.TemporaryDirectory() as text, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(text)
        reader = readers(folder)[name]
        reader.read(reader.whole, folder)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for body in inputs(reader, count, seed):
            on_input(body)
            start = time.monotonic()
            try:
                reader.read(body, folder)
                read += 1
            except ValueError as error:
                refused += 1
                if not str(error):
                    crashes.append("a ValueError without a word")
            except Exception:
                crashes.append(traceback.format_exc(limit=-3))
            slowest = max(slowest, time.monotonic() - start)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return Result(count, read, refused, crashes, grown / (1 if sys.platform == "darwin" else 1024), slowest)


def _child(name: str, count: int, seed: int, last: str, answers: Any) -> None:
    def remember(body: bytes) -> None:
        # what ended or hung the process is found there
        Path(last).write_bytes(body)
        # seconds of this process alone; the kernel ends it, whatever library it is in
        signal.setitimer(signal.ITIMER_PROF, PATIENCE)

    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    answers.put(fuzz(name, count, seed, remember))
    signal.setitimer(signal.ITIMER_PROF, 0.0)


def isolated(name: str, count: int, seed: int = 0) -> Result:
    """`fuzz` in a process of its own, because C libraries may end it or never come back."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        last, answers = Path(folder) / "last", context.Queue()
        child = context.Process(target=_child, args=(name, count, seed, str(last), answers))
        child.start()
        while child.is_alive() and answers.empty():
            child.join(0.2)
        try:
            result: Result = answers.get(timeout=5)
        except queue.Empty:
            child.join()
            how = "hangs" if child.exitcode == -signal.SIGPROF else f"ends with {child.exitcode}"
            kept = Path(f"crash-{hashlib.sha256(last.read_bytes()).hexdigest()[:8]}")
            kept.write_bytes(last.read_bytes())
            return Result(count, 0, 0, [f"{how} on {kept}"], 0.0, PATIENCE)
        child.join()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=5000, help="inputs for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", nargs="*", help="some of them")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        names = arguments.readers or list(readers(Path(folder)))
    print("| reader | inputs tried | read | refused | crashes | peak grows by (MiB) | slowest (s) |")
    print("|---|---|---|---|---|---|---|")
    totals, shown = [0, 0], []
    for name in names:
        r = isolated(name, arguments.count, arguments.seed)
        counts = f"{r.tried} | {r.read} | {r.refused} | {len(r.crashes)}"
        print(f"| {name} | {counts} | {r.memory:.0f} | {r.slowest:.2f} |", flush=True)
        totals[0], totals[1] = totals[0] + r.tried, totals[1] + len(r.crashes)
        shown += [f"{name}: {crash}" for crash in sorted(set(r.crashes))[:5]]
    print(f"| all | {totals[0]} |  |  | {totals[1]} |  |  |")
    print("\n".join(shown))


if __name__ == "__main__":
    main()
