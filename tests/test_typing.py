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


@pytest.mark.slow
def test_a_users_program_has_no_error_of_types(tmp_path):
    pytest.importorskip("mypy")
    assert (PACKAGE / "py.typed").is_file()
    # errors inside of the library are silenced as for an installed one, whose types are followed all the same
    strict = ["--strict", "--follow-imports=silent", "--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *strict, str(PROGRAM)],
        cwd=tmp_path,
        env={"MYPYPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.stdout == "Success: no issues found in 1 source file\n"


@pytest.mark.slow
def test_a_wrong_use_is_found(tmp_path):
    pytest.importorskip("mypy")
    program = tmp_path / "wrong.py"
    program.write_text("import lyaptorch as lt\n\nlt.lyapunov_spectrum(lt.RateCell(1, 4), 3, k='all')\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", str(program)],
        cwd=tmp_path,
        env={"MYPYPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert "Found 2 errors in 1 file" in done.stdout
