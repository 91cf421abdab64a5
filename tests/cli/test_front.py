"""`lyap` as people use it: help with examples, completion, a template, quiet and verbose, exit codes."""

from __future__ import annotations

import functools
import os
import shlex
import subprocess
import sys

import pytest

from command import SMALL, command, files
from lyaptorch import cli
from lyaptorch.cli.examples import EXAMPLES, TEMPLATE
from lyaptorch.record import Record


@pytest.fixture
def lyap(tmp_path, monkeypatch, capsys, unchecked):
    with command(tmp_path, monkeypatch, capsys) as run:
        yield run


def shown(lyap, *arguments: object) -> str:
    """What a request for help prints, which ends the command by an exception of its own."""
    lyap.monkeypatch.setattr(sys, "argv", ["lyap", *map(str, arguments)])
    lyap.capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    return lyap.capsys.readouterr().out


def test_the_list_of_commands_is_short_and_names_the_exit_codes(lyap):
    text = shown(lyap, "--help")
    assert all(f"• {name} " in text for name in cli.COMMANDS)
    assert "examples:" not in text
    assert all(f"  {status}  " in text for status in (0, 1, 2, 130, 141))


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_the_help_of_every_command_has_examples_that_parse(lyap, monkeypatch, name):
    text = " ".join(shown(lyap, name, "--help").split())
    called = []
    for other, function in cli.COMMANDS.items():
        # the same signature, and nothing done
        fake = functools.wraps(function)(lambda *_, other=other, **__: called.append(other))
        monkeypatch.setitem(cli.COMMANDS, other, fake)
    for example in EXAMPLES[name]:
        assert example in text
        assert lyap(*shlex.split(example)[1:]) == (0, "", "")
    assert name in called
    assert len(called) == len(EXAMPLES[name])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_and_options(lyap, shell):
    script = shown(lyap, "--tyro-print-completion", shell)
    assert all(word in script for word in (*cli.COMMANDS, "--tangent-transient"))


@pytest.mark.skipif(not os.path.exists("/bin/bash"), reason="there is no bash")
def test_bash_completes_a_command(lyap, tmp_path):
    (tmp_path / "lyap.bash").write_text(shown(lyap, "--tyro-print-completion", "bash"))
    ask = "source lyap.bash; COMP_WORDS=(lyap diag); COMP_CWORD=1; "
    ask += 'eval "$(complete -p lyap | sed "s/.*-F \\([^ ]*\\).*/\\1/")"; echo "${COMPREPLY[@]}"'
    done = subprocess.run(["/bin/bash", "-c", ask], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["diagnose"]


@pytest.mark.usefixtures("blank")
def test_the_template_runs_as_it_is(lyap, tmp_path):
    (tmp_path / "deep").mkdir()
    file = "deep/my-net.py"
    answer = lyap.json("init", file)
    assert answer == {
        "file": file,
        "commands": [f"lyap {c} {file}:network --inputs {file}:inputs" for c in ("spectrum", "diagnose")],
    }
    text = (tmp_path / file).read_text()
    assert text == TEMPLATE.read_text().replace("mynet.py", file)
    compile(text, file, "exec")
    steps = ["--steps", 40, "--transient", 5, "--tangent-transient", 5]
    assert len(lyap.json("spectrum", f"{file}:step", *steps, "--n", 32)["exponents"][0]) == 32
    found = lyap.json("diagnose", f"{file}:network", "--inputs", f"{file}:inputs", "--steps", 60, "--k", 4)
    assert found["trajectories"] == 4


def test_a_template_overwrites_nothing(lyap, tmp_path):
    (tmp_path / "mine.py").write_text("mine")
    (tmp_path / "link.py").symlink_to("nowhere.py")
    assert lyap.fails("init", "mine.py") == (
        "lyap: mine.py is there already and is left as it is; name another file\n"
    )
    assert "link.py is there already" in lyap.fails("init", "link.py")
    assert "must end in .py, got mine; write lyap init mine.py" in lyap.fails("init", "mine")
    assert "cannot write nowhere/mine.py" in lyap.fails("init", "nowhere/mine.py")
    assert (tmp_path / "mine.py").read_text() == "mine"


LOUD = (["list"], ["show", "a"], ["diff", "a", "a"], ["report"], ["init", "x.py"])


@pytest.mark.parametrize("arguments", LOUD, ids=lambda arguments: arguments[0])
def test_quiet_prints_nothing_and_does_all(lyap, tmp_path, arguments):
    Record("spectrum", {}, {}).save(tmp_path / "runs/a")
    assert lyap(*arguments, "-q") == (0, "", "")
    quiet = files(tmp_path)
    status, out, err = lyap(*[word.replace("x.py", "y.py") for word in arguments])
    assert (status, err) == (0, "")
    assert out
    if arguments[0] != "diff":
        assert len(quiet) > 2 or arguments[0] in ("list", "show")
    # JSON is what was asked for, and comes
    assert lyap.json(*[word.replace("x.py", "z.py") for word in arguments], "--quiet")


def test_verbose_says_on_stderr_what_runs_and_where_an_error_arose(lyap):
    status, out, err = lyap("spectrum", *SMALL, "-v", "--json")
    assert status == 0
    assert out.count("\n") == 1
    assert "'torch': " in err
    assert "lyap: resumes from nothing; runs/spectrum.nc" in err
    status, out, err = lyap("spectrum", *SMALL, "--k", 7, "--verbose", "-q")
    assert (status, out) == (2, "")
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("lyap: k must be an integer in 1..6, got 7")
    assert "Traceback" not in lyap("spectrum", *SMALL, "--k", 7)[2]


def test_a_bug_keeps_its_traceback_and_a_wrong_option_is_status_2(lyap, monkeypatch):
    def bug(**_):
        raise ZeroDivisionError("a bug")

    monkeypatch.setitem(cli.COMMANDS, "list", functools.wraps(cli.COMMANDS["list"])(bug))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        lyap("list")
    monkeypatch.setattr(sys, "argv", ["lyap", "spectrum", "--nonsense"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2


def test_a_stream_that_was_closed_at_the_start_is_none_that_stops_a_command(lyap, monkeypatch):
    for closed in ("stdout", "stderr"):
        for arguments, expected in ((["list"], 0), (["show", "nope"], 2)):
            with monkeypatch.context() as patch:
                patch.setattr(sys, closed, None)
                status, out, err = lyap(*arguments)
                getattr(sys, closed).close()
            assert status == expected
            # what is said on one is not said on the other
            assert (out == "") == (closed == "stdout" or status == 2)
            assert (err == "") == (closed == "stderr" or status == 0)


@pytest.mark.slow
def test_who_reads_the_output_may_go(tmp_path):
    read, write = os.pipe()
    os.close(read)
    code = "import sys; from lyaptorch.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "list"], cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, timeout=600
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")
