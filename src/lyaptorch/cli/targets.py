"""A network by `module:name` or `file.py:name`, in Python of the user's own."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn


def load(target: str) -> Any:
    """What `module:name`, `file.py:name` or `file.py:name.part` names.

    A function without arguments, or a class, is called: at the end, and where a part of what it makes is
    named.

    Raises:
        ValueError: if there is no such name, or the user's code fails.
    """
    where, colon, names = target.rpartition(":")
    if not colon:
        raise ValueError(f"target must be module:name or file.py:name, got {target!r}")
    try:
        found: Any = _module(where)
    except (ImportError, OSError) as error:
        raise ValueError(f"cannot load {target}: {error}; check the module and the name") from error
    except Exception as error:  # whatever the user's module raises
        last = traceback.extract_tb(error.__traceback__)[-1]
        at = "" if isinstance(error, SyntaxError) else f" in line {last.lineno} of {last.filename}"
        raise ValueError(f"cannot load {target}: {type(error).__name__}: {error}{at}; correct it") from error
    for name in names.split("."):
        made = found if hasattr(found, name) else _made(found, target)
        try:
            found = getattr(made, name)
        except AttributeError as error:
            raise ValueError(f"cannot load {target}: {error}; check the module and the name") from error
    return _made(found, target)


def _made(found: Any, target: str) -> Any:
    """What a function without arguments, or a class, makes; all else as it is."""
    if isinstance(found, nn.Module) or not callable(found):
        return found
    needed = [
        p
        for p in inspect.signature(found).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if needed:
        return found
    try:
        return found()
    except Exception as error:  # whatever the user's function raises
        raise ValueError(
            f"{target}() failed: {error!r}; it must make the network without arguments"
        ) from error


def _module(where: str) -> ModuleType:
    """A module by its name, or by its file whatever other module has that name."""
    if not where.endswith(".py"):
        sys.path.insert(0, "")
        return importlib.import_module(where)
    path = Path(where).resolve()
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(f"_lyap_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{where} is no Python file")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
