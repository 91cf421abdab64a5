"""Who may import whom, and how large a module may grow, read from the source with `ast`."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

import lyaptorch

SRC = Path(lyaptorch.__file__).parent
MODULES = {
    ".".join(path.relative_to(SRC).with_suffix("").parts)
    .removesuffix(".__init__")
    .replace("__init__", ""): path
    for path in sorted(SRC.rglob("*.py"))
}
"""Every module by its name without `lyaptorch.`; the package itself is the empty name."""

SHARED = (
    "_types",
    "_caller",
    "_checks",
    "_random",
    "_files",
    "_variables",
    "_shown",
    "_brief",
    "_padded",
    "_units",
    "_renames",
)
MAY_IMPORT = {
    "_types": (),
    "_caller": (),
    "_checks": (),
    "_random": (),
    "_files": (),
    "_variables": (),
    "_shown": (),
    "_brief": (),
    "_padded": (),
    "_units": (),
    "_renames": (),
    "record": (),
    "cells": (),
    "theory": (),
    "tasks": (),
    "compile": ("kernels", "tangent", "cells"),
    "kernels": ("cells.form", "cells.gate_form", "cells.activation", "cells.surrogates"),
    "tangent": ("kernels", "cells", "record"),
    "schedules": ("tangent", "cells"),
    "analysis": ("tangent", "cells", "theory", "record"),
    "diagnosis": ("analysis", "schedules", "tangent", "cells", "record"),
    "training": ("schedules", "analysis", "tangent", "kernels", "cells", "tasks.batch", "record"),
    "experiments": (
        "training",
        "tasks",
        "diagnosis",
        "analysis",
        "theory",
        "schedules",
        "tangent",
        "cells",
        "plots",
        "record",
    ),
    "integrations": (
        "schedules",
        "tangent",
        "cells",
        "training.floss",
        "tasks.batch",
        "record",
    ),
    "testing": ("tangent", "cells"),
    "bench": ("kernels", "training", "schedules", "tasks", "tangent", "cells", "record"),
    "plots": ("record",),
    "sweep": ("record",),
    "_renderer": ("plots", "experiments", "record"),
    "cli": ("",),
    "": ("",),
}
"""The arrows of the design, beside those within a package and those to `SHARED`; "" is everything."""

EXTERNAL = {"matplotlib": ("plots", "experiments", "_renderer"), "ray": ("sweep",)}
"""Libraries that only these packages import."""

LONGEST_MODULE, LONGEST_FUNCTION = 300, 60
"""Lines; of a function those of its body."""
REPEATED_NAMES = 10
"""File names that may be in more than one folder."""
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "misc", "common"}


def package_of(module: str) -> str:
    return module.partition(".")[0]


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(module: str, tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every imported module, lazily or not, and the line."""
    parts = module.split(".") if module else []
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        if isinstance(node, ast.ImportFrom):
            package = parts if MODULES[module].name == "__init__.py" else parts[:-1]
            start = ["lyaptorch", *package[: len(package) - node.level + 1]] if node.level else []
            target = ".".join([*start, *([node.module] if node.module else [])])
            for alias in node.names:
                submodule = f"{target}.{alias.name}"
                known = submodule.removeprefix("lyaptorch.") in MODULES and submodule.startswith("lyaptorch.")
                yield (submodule if known else target), node.lineno
        children = node.orelse if is_type_checking(node) else ast.iter_child_nodes(node)
        stack += children


def wrong_arrows(module: str, tree: ast.Module) -> list[str]:
    own = package_of(module)
    wrong = []
    for target, line in imports(module, tree):
        inside = target == "lyaptorch" or target.startswith("lyaptorch.")
        if not inside:
            owners = EXTERNAL.get(package_of(target))
            if owners is not None and own not in owners:
                wrong.append(f"{module}:{line} imports {target}")
            continue
        name = target.removeprefix("lyaptorch").removeprefix(".")
        allowed = (*SHARED, *MAY_IMPORT[own], *((own,) if own else ()))
        if not any(prefix in ("", name) or name.startswith(f"{prefix}.") for prefix in allowed):
            wrong.append(f"{module}:{line} imports {target}")
    return wrong


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def test_imports_follow_the_design():
    unknown = {package_of(module) for module in MODULES} - {*MAY_IMPORT}
    assert not unknown, "a new package: give it its arrows in MAY_IMPORT and in the design"
    assert [arrow for module in MODULES for arrow in wrong_arrows(module, parsed(module))] == []


@pytest.mark.parametrize(
    ("module", "source", "count"),
    [
        (
            "cells.rate",
            "import torch\nfrom lyaptorch import _checks\nfrom lyaptorch.cells.form import Form",
            0,
        ),
        ("cells.rate", "from lyaptorch.tangent import Growth", 1),
        ("cells.rate", "from ..tangent.qr import qr", 1),
        ("cells.rate", "from .form import Form", 0),
        ("cells.rate", "from .. import _checks", 0),
        ("cells.rate", "import lyaptorch", 1),
        ("cells.rate", "from lyaptorch import RateCell", 1),
        ("cells.rate", "def f():\n    from lyaptorch.tangent import qr", 1),
        (
            "cells.rate",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from lyaptorch.tangent import qr",
            0,
        ),
        ("cells.rate", "if TYPE_CHECKING:\n    pass\nelse:\n    import lyaptorch.tangent", 1),
        (
            "tangent.spectrum",
            "class A:\n    def plot(self):\n        from lyaptorch.plots import FIGURES",
            1,
        ),
        ("tangent.spectrum", "from lyaptorch.plots import FIGURES", 1),
        ("tangent.spectrum", "class A:\n    def plot(self):\n        import matplotlib.pyplot", 1),
        ("tangent.spectrum", "import ray", 1),
        ("training", "from lyaptorch.tasks.batch import Batch\nfrom lyaptorch.tasks import batch", 0),
        ("training", "from lyaptorch.tasks import DelayedCopy", 1),
        ("plots", "import matplotlib\nfrom lyaptorch.record import Record", 0),
        ("", "from lyaptorch.cells import RateCell", 0),
    ],
)
def test_a_wrong_arrow_would_be_found(module, source, count):
    assert len(wrong_arrows(module, ast.parse(source))) == count


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Modules that import each other, each group once, by Tarjan's algorithm."""
    number: dict[str, int] = {}
    least: dict[str, int] = {}
    open_: list[str] = []
    found = []

    def visit(module: str) -> None:
        number[module] = least[module] = len(number)
        open_.append(module)
        for target in arrows[module]:
            if target not in number:
                visit(target)
            if target in open_:
                least[module] = min(least[module], least[target])
        if least[module] == number[module]:
            group = open_[open_.index(module) :]
            del open_[-len(group) :]
            if len(group) > 1 or module in arrows[module]:
                found.append(sorted(group))

    for module in arrows:
        if module not in number:
            visit(module)
    return found


def imported(module: str, tree: ast.Module) -> set[str]:
    """The modules of the library that a module imports, whenever it does, by their names without it."""
    inside = (name for name, _ in imports(module, tree) if package_of(name) == "lyaptorch")
    return {name.removeprefix("lyaptorch").removeprefix(".") for name in inside}


def test_no_modules_import_each_other_in_a_circle():
    assert circles({module: imported(module, parsed(module)) for module in MODULES}) == []


@pytest.mark.parametrize(
    ("arrows", "found"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"c"}, "c": {"b"}}, [["b", "c"]]),
        ({"a": {"a"}}, [["a"]]),
        ({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}, []),
        ({"a": {"b"}, "b": {"a"}, "c": {"a", "d"}, "d": {"e"}, "e": {"c"}}, [["a", "b"], ["c", "d", "e"]]),
    ],
)
def test_a_circle_would_be_found(arrows, found):
    assert circles(arrows) == found


def test_a_lazy_import_is_an_arrow_and_one_for_types_is_none():
    lazy = "def f():\n    from lyaptorch.tangent import qr"
    types = "if TYPE_CHECKING:\n    from lyaptorch.tangent import qr"
    assert imported("cells.rate", ast.parse(lazy)) == {"tangent.qr"}
    assert imported("cells.rate", ast.parse(types)) == set()


OPERATORS = "torch.ops.lyaptorch"


def test_no_operator_is_called_by_name():
    # an import that is not written down: operators are registered with those who call them
    assert [module for module in MODULES if OPERATORS in MODULES[module].read_text(encoding="utf-8")] == []


def test_plots_and_experiments_meet_in_the_renderer_alone():
    both = {
        module
        for module in MODULES
        if {"plots", "experiments"} <= {package_of(name) for name in imported(module, parsed(module))}
        and package_of(module) not in ("plots", "experiments", "cli")
    }
    assert both == {"_renderer"}
    found = {module for module in MODULES if "_renderer" in imported(module, parsed(module))}
    assert found == {""}


@pytest.mark.parametrize(
    ("module", "heavy"),
    [("lyaptorch", ("matplotlib", "xarray", "ray", "scipy")), ("lyaptorch.cli", ("ray", "scipy"))],
)
def test_importing_the_library_loads_no_heavy_dependency(module, heavy):
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "[]"


def text(module: str) -> str:
    return MODULES[module].read_text(encoding="utf-8")


def test_modules_are_short_and_named_by_what_they_are_about():
    assert [module for module in MODULES if FORBIDDEN_NAMES & set(module.split("."))] == []
    assert [module for module in MODULES if text(module).count("\n") > LONGEST_MODULE] == []


def repeated(paths: Iterable[Path]) -> list[str]:
    """File names in more than one folder; every package has its `__init__`."""
    counts = Counter(path.name for path in paths if path.name != "__init__.py")
    return sorted(name for name, count in counts.items() if count > 1)


def test_few_file_names_are_in_more_than_one_folder():
    found = repeated(MODULES.values())
    assert len(found) <= REPEATED_NAMES, found


def test_a_repeated_file_name_would_be_found():
    files = ("a/__init__.py", "b/__init__.py", "a/scan.py", "b/scan.py", "b/c/scan.py", "b/qr.py")
    assert repeated(map(Path, files)) == ["scan.py"]


def test_no_two_files_of_tests_have_one_name():
    """Without packages, the second of them is not collected."""
    assert repeated(Path(__file__).parent.rglob("*.py")) == []


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of code, without signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def test_functions_are_short():
    functions = [
        (module, node)
        for module in MODULES
        for node in ast.walk(parsed(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert [
        f"{module}.{f.name}: {length(f)}" for module, f in functions if length(f) > LONGEST_FUNCTION
    ] == []


def undocumented(module: str, tree: ast.Module) -> list[str]:
    """What is public at the top of a module, itself included, and has no docstring."""
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [n for n in tree.body if isinstance(n, definitions) and not n.name.startswith("_")]
    missing = [f"{module}.{node.name}" for node in public if not ast.get_docstring(node)]
    return missing if ast.get_docstring(tree) else [module, *missing]


def test_what_is_public_has_a_docstring():
    assert [name for module in MODULES for name in undocumented(module, parsed(module))] == []


def test_a_missing_docstring_would_be_found():
    source = "\n".join(["def f():", "    pass", "def _g():", "    pass", "class A:", "    'Is told.'"])
    assert undocumented("m", ast.parse(source)) == ["m", "m.f"]


def test_every_exported_name_exists_and_is_documented():
    assert [name for name in lyaptorch.__all__ if not getattr(lyaptorch, name).__doc__] == []
