"""The types that a user sees: a program of 25 public names has no error under mypy --strict, and runs."""

import subprocess
import sys
from pathlib import Path

import pytest

import lyaptorch

PROGRAM = Path(__file__).with_name("users_program.py")
PACKAGE = Path(lyaptorch.__file__).parent


def test_the_program_runs(tmp_path):
    done = subprocess.run(
        [sys.executable, str(PROGRAM)], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.endswith(" 14\n")


def checked(program, folder):
    """What mypy says of a program outside of the project."""
    pytest.importorskip("mypy")
    # errors inside of the library are silenced as for an installed one, whose types are followed all the same
    strict = ["--strict", "--follow-imports=silent", "--cache-dir", str(folder / "cache")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *strict, str(program)],
        cwd=folder,
        env={"MYPYPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    return done.stdout


@pytest.mark.slow
def test_a_users_program_has_no_error_of_types(tmp_path):
    assert (PACKAGE / "py.typed").is_file()
    assert checked(PROGRAM, tmp_path) == "Success: no issues found in 1 source file\n"


@pytest.mark.slow
def test_a_wrong_use_is_found(tmp_path):
    program = tmp_path / "wrong.py"
    program.write_text(
        "import lyaptorch as lt\n\n"
        "lt.lyapunov_spectrum(lt.RateCell(1, 4), 3, k='all')\n"
        "lt.floss(3.5, 4, epochs='two')\n"
    )
    said = checked(program, tmp_path)
    assert [said.count(f"wrong.py:{line}: error") for line in (3, 4)] == [2, 3]
