"""Figures at smoke scale, and Records that are made up for their checks."""

from functools import cache

import numpy as np
import pytest

from lyaptorch._brief import FAILS, HOLDS, UNDECIDED
from lyaptorch.experiments import FIGURES
from lyaptorch.record import Record

NAMES = [(paper, figure) for paper, figures in FIGURES.items() for figure in figures]
# the scope puts the tests of a figure one after the other, so that one process makes its Record for all
every_figure = pytest.mark.parametrize(
    ("paper", "figure"), NAMES, ids=list(map(" ".join, NAMES)), scope="module"
)
TIMED = {"table1", "cheap-flossing", "horizon-per-cost", "spoken-digits"}
"""Figures of measured times: the only ones that differ from run to run."""


def smoke(paper, figure):
    return FIGURES[paper][figure](**FIGURES[paper][figure].scales["smoke"])


@cache
def made(paper, figure):
    """The Record of a figure at smoke scale, for all tests of this process that only read it."""
    return smoke(paper, figure).record(False)


def record(variables, coordinates=None, config=None):
    """Each variable with dimensions of its own."""
    given = {
        name: (tuple(f"{name}{i}" for i in range(np.ndim(values))), np.asarray(values))
        for name, values in {**variables, **(coordinates or {})}.items()
    }
    return Record("made up", config or {}, given)


def holds(found):
    return [check.holds for check in found]


def outcomes(found):
    """By key, so that a test names what it means."""
    return {check.key: check.outcome for check in found}


SIGNS = {HOLDS: "+", FAILS: "-", UNDECIDED: "?"}


def told(found, *keys):
    """Outcomes as signs: + holds, - does not, ? not decided; of the checks of these keys, or of all."""
    by_key = outcomes(found)
    return "".join(SIGNS[by_key[key]] for key in (keys or by_key))
