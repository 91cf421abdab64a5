"""Names in Records and checkpoints of earlier versions, and those of today."""

from __future__ import annotations

from typing import Any


def current_config(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a Record of some kind with the names of today.

    `member_ids` for ids, `who` for those in a phase, and for a training `steps` for the length of a trial.
    """
    names = {"members": "member_ids"} | ({"length": "steps"} if kind == "train" else {})
    renamed = {names.get(key, key): value for key, value in config.items()}
    return {key: _phases(value) if key in ("schedule", "phase") else value for key, value in renamed.items()}


def _phases(value: Any) -> Any:
    """The same of a schedule, or of any part of it."""
    if isinstance(value, list):
        return [_phases(item) for item in value]
    if isinstance(value, dict):
        # flossing changed everything before there was a choice
        default = {"parameters": None} if value.get("type") == "FlossPhase" else {}
        named = {("who" if key == "members" else key): _phases(item) for key, item in value.items()}
        return {**default, **named}
    return value


def current_name(name: str) -> str:
    """The name of today of a variable or a dimension."""
    head, mark, rest = name.partition("_")
    return f"suggestion{mark}{rest}" if head == "remedy" else name
