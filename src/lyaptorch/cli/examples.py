"""`lyap init`, and examples of every command, which stand in its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from lyaptorch._files import replace_file
from lyaptorch.cli.output import Outputs

TEMPLATE = Path(__file__).with_name("template.py")
EXAMPLES = {
    "demo": ("lyap demo", "lyap demo --delay 20 --seeds 5"),
    "init": ("lyap init mynet.py", "lyap diagnose mynet.py:network --inputs mynet.py:inputs"),
    "spectrum": (
        "lyap spectrum --cell rate --n 100 --gain 1.5",
        "lyap spectrum mynet.py:network --inputs data.npy --k 16 --report",
        "lyap spectrum mynet.py:model.rnn --inputs data.npz:x --json",
    ),
    "diagnose": (
        "lyap diagnose --cell lstm --n 64 --horizon 200",
        "lyap diagnose mynet.py:model.rnn --inputs data.npz:x",
    ),
    "train": (
        "lyap train temporal_xor --delay 40 --schedule during",
        "lyap train delayed_copy --epochs 200 --seeds 8 --seed 1 -q",
    ),
    "sweep": (
        "lyap sweep grid.toml --over delay=10:80:10 --over k=1,16,75 --seeds 20 --dry-run",
        "lyap sweep grid.toml --over delay=10:80:10 --workers 4",
        "lyap sweep grid.toml --over delay=10:80:10 --address auto",
    ),
    "reproduce": (
        "lyap reproduce --list",
        "lyap reproduce gradient-flossing fig4c --seeds 5",
        "lyap reproduce gradient-flossing fig4c --scale paper --budget 2h",
        "lyap reproduce all --workers 2",
    ),
    "bench": ("lyap bench", "lyap bench --rows exponents --rounds 20 --markdown"),
    "list": ("lyap list", "lyap list --runs elsewhere --json"),
    "show": ("lyap show spectrum", "lyap show runs/spectrum.nc --json"),
    "diff": ("lyap diff train-a train-b",),
    "rm": ("lyap rm train-a train-b", "lyap rm train-a --yes"),
    "report": ("lyap report", "lyap report runs --markdown checks.md"),
}
"""By command."""


def helped(name: str, doc: str, *, whole: bool) -> str:
    """The help of a command: its first line in the list of all, with examples where it alone is asked for."""
    text = doc.partition("\n\n    Args:")[0]
    if not whole:
        return text.partition("\n")[0]
    lines = [line.strip() for line in text.splitlines()]
    return "\n".join([*lines, "", "examples:", *(f"  {example}" for example in EXAMPLES[name])])


def init(file: Annotated[Path, tyro.conf.Positional], /, *, output: Outputs) -> None:
    """Write a Python file to fill in, with a network for spectrum and diagnose; it runs as it is.

    Args:
        file: Its name, such as mynet.py; a file that is there is never overwritten.
        output: How to answer.
    """
    if file.suffix != ".py":
        raise ValueError(f"the file must end in .py, got {file}; write lyap init {file.with_suffix('.py')}")
    try:
        text = TEMPLATE.read_text(encoding="utf-8").replace("mynet.py", str(file))
        replace_file(file, text.encode(), fresh=True)
    except FileExistsError:
        raise ValueError(f"{file} is there already and is left as it is; name another file") from None
    commands = [f"lyap {what} {file}:network --inputs {file}:inputs" for what in ("spectrum", "diagnose")]
    output.answer({"file": str(file), "commands": commands}, [f"File {file}; it runs as it is:", *commands])
