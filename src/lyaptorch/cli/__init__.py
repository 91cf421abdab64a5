"""The command `lyap`: parsing only."""

from __future__ import annotations

import sys

import tyro

import lyaptorch
from lyaptorch.cli.measuring import bench, diagnose, spectrum
from lyaptorch.cli.output import printable
from lyaptorch.cli.records import diff, list_all, remove, report, show
from lyaptorch.cli.reproduce import reproduce
from lyaptorch.cli.trainings import demo, sweep, train

__all__ = ["main"]


def main() -> int:
    """Run the command line; errors end in one sentence, an interrupt in status 130."""
    if sys.argv[1:] == ["--version"]:
        print(f"lyap {lyaptorch.__version__}")
        return 0
    app = tyro.extras.SubcommandApp()
    for command in (demo, spectrum, diagnose, train, sweep, reproduce, bench):
        app.command(command)
    app.command(name="list")(list_all)
    app.command(show)
    app.command(diff)
    app.command(name="rm")(remove)
    app.command(report)
    try:
        app.cli(
            prog="lyap",
            description="Measure, predict and control how gradients flow through recurrent networks.",
        )
    # what is raised on purpose is told in its own words; anything else is a bug, and keeps its traceback
    except (ValueError, FloatingPointError, OSError, ModuleNotFoundError) as error:
        print(f"lyap: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        # a command says what it has kept
        said = ", ".join(("no file is half written", *map(str, interrupt.args)))
        # 128 + SIGINT, as shells have it
        print(f"lyap: interrupted; {said}", file=sys.stderr)
        return 130
    return 0
