"""Checkpoints: everything a run needs to go on, in one file that is checked and never executed."""

from __future__ import annotations

import json
import platform
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lyaptorch import kernels
from lyaptorch._files import replace_file, sealed, to_json, unsealed
from lyaptorch._renames import current_config

FORMAT, VERSION = "lyaptorch checkpoint", 1


def save_checkpoint(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write tensors and JSON facts atomically, as safetensors with a checksum behind."""
    from safetensors.torch import save

    head = {"format": FORMAT, "version": VERSION, "environment": environment(), "facts": facts}
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    replace_file(path, sealed(save(whole, {"lyaptorch": to_json("checkpoint", head)})))


def load_checkpoint(path: Path, config: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_checkpoint` wrote for a run of this configuration.

    Raises:
        ValueError: if the file is damaged, from another program, a newer version, or another run.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    body = unsealed(path, "checkpoint", "delete it to start again")
    try:
        length = int.from_bytes(body[:8], "little")
        head = dict(json.loads(json.loads(body[8 : 8 + length])["__metadata__"]["lyaptorch"]))
        tensors = load(body)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"cannot load {path}: it is no checkpoint, {error!r}; delete it to start again"
        ) from error
    if head.get("format") != FORMAT or head.get("version") != VERSION:
        raise ValueError(
            f"cannot load {path}: it must be {FORMAT!r} version {VERSION}, got {head.get('format')!r} "
            f"{head.get('version')!r}; update lyaptorch, or delete it to start again"
        )
    known, facts = head.get("environment"), head.get("facts")
    written = facts.get("config") if isinstance(facts, dict) else None
    if not isinstance(known, dict) or not isinstance(facts, dict) or not isinstance(written, dict):
        raise ValueError(f"cannot load {path}: it is no checkpoint, it has no run; delete it to start again")
    written = current_config("train", written)
    differing = [key for key in config if written.get(key) != json.loads(json.dumps(config[key]))]
    if differing:
        raise ValueError(
            f"cannot resume from {path}: it is of a run with another {', '.join(differing)}; run with the "
            "same configuration, or delete it to start again"
        )
    changed = {k: (known.get(k), now) for k, now in environment().items() if known.get(k) != now}
    if changed:
        what = ", ".join(f"{key} {old} -> {new}" for key, (old, new) in changed.items())
        warnings.warn(f"resuming in another environment ({what}): equal to round-off only", stacklevel=3)
    return tensors, facts


def environment() -> dict[str, Any]:
    """What must be equal for a resumed run to be equal to the bit."""
    return {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "kernels": kernels.available()["cpu"].detail,
    }
