"""What `module:name` on the command line names in the user's Python, which is executed."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn


def load(target: str, modules: dict[str, ModuleType] | None = None) -> Any:
    """What `module:name`, `file.py:name` or `file.py:name.part` names.

    A function without arguments, or a class, is called: at the end, and where a part of what it makes is
    named.

    Args:
        target: the name.
        modules: those that were loaded before, which are not loaded again; added to.

    Raises:
        ValueError: if there is no such name, or the user's code fails.
    """
    where, colon, names = target.rpartition(":")
    if not colon:
        raise ValueError(f"target must be module:name or file.py:name, got {target!r}")
    modules = {} if modules is None else modules
    try:
        if where not in modules:
            modules[where] = _module(where)
    except (ImportError, OSError) as error:
        raise ValueError(f"cannot load {target}: {error}; check the module and the name") from error
    except Exception as error:  # whatever the user's module raises
        last = traceback.extract_tb(error.__traceback__)[-1]
        at = "" if isinstance(error, SyntaxError) else f" in line {last.lineno} of {last.filename}"
        raise ValueError(f"cannot load {target}: {type(error).__name__}: {error}{at}; correct it") from error
    found: Any = modules[where]
    # what is called on the way to a part, a class or `make`, is called once: whole.rnn of make()
    for name in names.split("."):
        try:
            found = getattr(found if hasattr(found, name) else _made(found, target), name)
        except AttributeError as error:
            raise ValueError(f"cannot load {target}: {error}; check the module and the name") from error
    return _made(found, target)


def _made(found: Any, target: str) -> Any:
    """What a function without arguments, or a class, makes; all else as it is."""
    if isinstance(found, nn.Module) or not callable(found):
        return found
    parameters = inspect.signature(found).parameters.values()
    # a function that needs arguments is a step; keyword-only ones no step is ever given
    if any(p.default is p.empty and p.kind <= p.POSITIONAL_OR_KEYWORD for p in parameters):
        return found
    try:
        return found()
    except Exception as error:  # whatever the user's function raises
        raise ValueError(f"{target}() failed: {error!r}; it must do its work without arguments") from error


def _module(where: str) -> ModuleType:
    """A module by its name, or by its file whatever other module has that name."""
    if not where.endswith(".py"):
        # as `python -m` does: a command on the path does not look into the folder where it is called
        sys.path.insert(0, "")
        return importlib.import_module(where)
    path = Path(where).resolve()
    sys.path.insert(0, str(path.parent))
    # under a name of its own, or a user's json.py would be found loaded already: the library's
    spec = importlib.util.spec_from_file_location(f"_lyap_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{where} is no Python file")
    # entered before it runs: its dataclasses look themselves up there
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
