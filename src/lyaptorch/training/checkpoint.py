"""Checkpoints: a run is saved in a file and goes on from it, if it is the same run of the same release."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lyaptorch import kernels
from lyaptorch._files import host_facts, replace_file, sealed, to_json, unsealed
from lyaptorch._renames import current_config

CHECKPOINT_SECONDS: float | str = os.environ.get("LYAPTORCH_CHECKPOINT_SECONDS", "20")
"""Seconds between two checkpoints: 20, or what the environment variable says."""
FORMAT, VERSION = "lyaptorch checkpoint", 1
AGAIN = "delete it to start again"
SPENT = "spent.clocks"
"""What a training has taken until it was saved, by the clocks below."""


def clocks() -> Tensor:
    """Seconds on the clock, and of all processors."""
    return torch.tensor([time.perf_counter(), time.process_time()], dtype=torch.float64, device="cpu")


def checkpoints_of(first: Path) -> list[Path]:
    """Those whose names begin like that of the first: an experiment has one for each of its trainings."""
    return list(first.parent.glob(f"{first.name}*"))


def begin(first: Path) -> Tensor:
    """The clocks now, less what led to the checkpoints that are there; NaN where one does not tell."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    start = clocks()
    for path in checkpoints_of(first):
        # half of one that a killed process was writing is not gone on from
        if path.suffix != ".tmp":
            try:
                start -= load(unsealed(path, "checkpoint", AGAIN)).get(SPENT, torch.nan)
            except (SafetensorError, ValueError, RuntimeError):
                # who goes on from it says why it cannot be read
                start -= torch.nan
    return start


def cost(start: Tensor) -> dict[str, float]:
    """What has been taken since `begin`, for the file beside a Record; nothing where nobody knows."""
    seconds, of_processors = (clocks() - start).tolist()
    return {} if math.isnan(seconds) else {"seconds": seconds, "cpu_seconds": of_processors}


def seconds_between(value: float | str) -> float:
    """Those between two checkpoints, as the environment variable has them."""
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if math.isnan(seconds):
        raise ValueError(
            f"LYAPTORCH_CHECKPOINT_SECONDS must be a number of seconds, got {value!r}; correct the variable"
        )
    return seconds


def save_checkpoint(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write tensors and JSON facts atomically, as safetensors with a checksum behind."""
    from safetensors.torch import save

    head = {"format": FORMAT, "version": VERSION, "environment": environment(), "facts": facts}
    head["release"] = release()
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    replace_file(path, sealed(save(whole, {"lyaptorch": to_json("checkpoint", head)})))


def load_checkpoint(
    path: Path, config: dict[str, Any], start: dict[str, Any] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_checkpoint` wrote for a run of this configuration and, where it is told, this `start`.

    Raises:
        ValueError: if the file is damaged, from another program or release, or another run.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    body = unsealed(path, "checkpoint", AGAIN)
    try:
        # safetensors: 8 bytes that tell the length of a JSON head, which names the tensors, and our metadata
        length = int.from_bytes(body[:8], "little")
        head = dict(json.loads(json.loads(body[8 : 8 + length])["__metadata__"]["lyaptorch"]))
        tensors = load(body)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"cannot load {path}: it is no checkpoint, {error!r}; {AGAIN}") from error
    if head.get("format") != FORMAT or head.get("version") != VERSION:
        raise ValueError(
            f"cannot load {path}: it must be {FORMAT!r} version {VERSION}, got {head.get('format')!r} "
            f"{head.get('version')!r}; update lyaptorch, or {AGAIN}"
        )
    # one of earlier versions does not tell
    if (wrote := head.get("release", release())) != release():
        raise ValueError(
            f"cannot resume from {path}: lyaptorch {wrote} wrote it, and {release()} may train to other "
            f"numbers; install {wrote} to end the run, or {AGAIN}"
        )
    known, facts = head.get("environment"), head.get("facts")
    written = facts.get("config") if isinstance(facts, dict) else None
    if not isinstance(known, dict) or not isinstance(facts, dict) or not isinstance(written, dict):
        raise ValueError(f"cannot load {path}: it is no checkpoint, it has no run; {AGAIN}")
    written = current_config("train", written)
    # one of earlier versions does not tell how its cell was made
    if isinstance(model := written.get("model"), dict):
        written["model"] = {"settings": config.get("model", {}).get("settings"), **model}
    differing = [key for key in config if written.get(key) != json.loads(json.dumps(config[key]))]
    if differing:
        raise ValueError(
            f"cannot resume from {path}: it is of a run with another {', '.join(differing)}; run with the "
            f"same configuration, or {AGAIN}"
        )
    changed = {k: (known.get(k), now) for k, now in environment().items() if known.get(k) != now}
    # one of earlier versions tells nothing of its start. In another environment, or on another device, the
    # initial state of the same network may differ by round-off, which a hundred steps have made large
    begun: Any = facts.get("start", start)
    if start and not changed and begun != start and begun["device"] == start["device"]:
        raise ValueError(
            f"cannot resume from {path}: its run began with other weights; make the network again as it was "
            f"then, from the same seed, or {AGAIN}"
        )
    if changed:
        what = ", ".join(f"{key} {old} -> {new}" for key, (old, new) in changed.items())
        warnings.warn(f"resuming in another environment ({what}): equal to round-off only", stacklevel=3)
    return tensors, facts


def start_of(state: dict[str, Tensor], device: torch.device) -> dict[str, Any]:
    """What tells a network about to be trained from another one."""
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"weights": digest.hexdigest(), "device": name}


def release() -> str | None:
    """The release that is installed, or in the making where this is its source."""
    return str(host_facts().get("lyaptorch", "")).partition(".dev")[0] or None


def environment() -> dict[str, Any]:
    """What must be equal for a resumed run to be equal to the bit."""
    return {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "kernels": kernels.available()["cpu"].detail,
    }
