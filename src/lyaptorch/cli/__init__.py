"""The command `lyap`: parsing only."""

from __future__ import annotations

import sys

import lyaptorch
from lyaptorch.cli.bench import bench
from lyaptorch.cli.measuring import diagnose, spectrum
from lyaptorch.cli.records import diff, list_all, remove, report, show
from lyaptorch.cli.reproduce import reproduce
from lyaptorch.cli.sweep import sweep
from lyaptorch.cli.train import demo, train

__all__ = ["main"]


def main() -> int:
    """Run the command line; errors end in one sentence, an interrupt in status 130."""
    import tyro

    if sys.argv[1:] == ["--version"]:
        print(f"lyap {lyaptorch.__version__}")
        return 0
    app = tyro.extras.SubcommandApp()
    app.command(name="demo")(demo)
    app.command(name="spectrum")(spectrum)
    app.command(name="diagnose")(diagnose)
    app.command(name="train")(train)
    app.command(name="sweep")(sweep)
    app.command(name="reproduce")(reproduce)
    app.command(name="bench")(bench)
    app.command(name="list")(list_all)
    app.command(name="show")(show)
    app.command(name="diff")(diff)
    app.command(name="rm")(remove)
    app.command(name="report")(report)
    try:
        app.cli(
            prog="lyap",
            description="Measure, predict and control how gradients flow through recurrent networks.",
        )
    except (ValueError, FloatingPointError, OSError, ModuleNotFoundError) as error:
        print(f"lyap: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        # a command says what it has kept
        said = ", ".join(("no file is half written", *map(str, interrupt.args)))
        print(f"lyap: interrupted; {said}", file=sys.stderr)
        return 130
    return 0
