"""Which instruction sets are compiled, and what is said of a library for another machine."""

import shutil
import subprocess
from pathlib import Path

import pytest

from fused import SETS, compiled
from lyaptorch.kernels import library

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/lyaptorch/kernels/cpu/library.cpp"

pytestmark = pytest.mark.skipif(not SOURCE.is_file(), reason="the source is not here")


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_a_library_for_another_machine_is_refused_aloud(tmp_path):
    """What library.cpp says where this machine has none of the sets: here none is compiled."""
    words = ["c++", "-std=c++17", "-shared", "-fPIC", "-o", tmp_path / library.FILE, SOURCE]
    subprocess.run([str(word) for word in words], check=True)
    why = r"compiled for another machine.*EVERY_INSTRUCTION_SET=ON"
    with pytest.raises(OSError, match=why), pytest.warns(RuntimeWarning, match=why):
        library.load((str(tmp_path),))


@compiled
@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake")
def test_the_best_set_of_this_machine_or_every_one_is_compiled(tmp_path):
    def sets(every):
        command = ["cmake", "-S", str(ROOT), "-B", str(tmp_path), f"-DEVERY_INSTRUCTION_SET={every}"]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return said.split("Kernels for the instruction sets: ")[1].split()[0].split(";")

    best = library.open_library().lyap_instruction_set().decode()
    assert sets("OFF") == [best]
    every = sets("ON")
    assert best in every
    assert every in (["baseline"], list(reversed(SETS)))
    # as when it is installed again in the same folder
    assert sets("OFF") == [best]
