"""The command `lyap`: parsing only."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

import tyro

import lyaptorch
from lyaptorch._shown import printable
from lyaptorch.cli.examples import helped, init
from lyaptorch.cli.measuring import bench, diagnose, spectrum
from lyaptorch.cli.records import diff, list_all, remove, report, show
from lyaptorch.cli.reproduce import reproduce
from lyaptorch.cli.trainings import demo, sweep, train

__all__ = ["main"]

COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "init": init,
    "spectrum": spectrum,
    "diagnose": diagnose,
    "train": train,
    "sweep": sweep,
    "reproduce": reproduce,
    "bench": bench,
    "list": list_all,
    "show": show,
    "diff": diff,
    "rm": remove,
    "report": report,
}
DESCRIPTION = """Measure, predict and control how gradients flow through recurrent networks.

lyap COMMAND --help shows the options of a command, with examples.

exit codes:
  0    done
  1    a bug, with its traceback
  2    what was asked cannot be done; one sentence on stderr says why
  130  interrupted; a message says what was saved, and the same command resumes
  141  the reader of the output closed it
"""


def main() -> int:
    """Run the command line; errors end in one sentence, an interrupt in status 130."""
    # started with a stream closed, as by >&-, Python has none; without stderr, print would take stdout
    sys.stdout, sys.stderr = (s or open(os.devnull, "w") for s in (sys.stdout, sys.stderr))  # noqa: SIM115
    if sys.argv[1:] == ["--version"]:
        print(f"lyap {lyaptorch.__version__}")
        return 0
    app = tyro.extras.SubcommandApp()
    for name, command in COMMANDS.items():
        text = helped(name, command.__doc__ or "", whole=sys.argv[1:2] == [name])
        app.command(name=name, help=text)(command)
    try:
        app.cli(prog="lyap", description=DESCRIPTION)
        # here, where it can be caught, and not when Python ends
        sys.stdout.flush()
    except BrokenPipeError:
        # as `lyap list | head` ends: 128 + SIGPIPE; Python would flush once more, into nothing
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    # what is raised on purpose is told in its own words; anything else is a bug, and keeps its traceback
    except (ValueError, FloatingPointError, OSError, ModuleNotFoundError) as error:
        if {"-v", "--verbose"} & set(sys.argv):
            traceback.print_exc()
        print(f"lyap: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        # a command says what it has kept
        said = ", ".join(("no file is half written", *map(str, interrupt.args)))
        # 128 + SIGINT, as shells have it
        print(f"lyap: interrupted; {said}", file=sys.stderr)
        return 130
    return 0
