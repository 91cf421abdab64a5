"""The kernels under AddressSanitizer and UBSan, on what the other tests of the kernels give them.

`pytest -m slow tests/kernels/test_sanitize.py`: records the calls of those tests, builds the kernels and
`sanitize/replay.cpp` with the sanitizers, and repeats the calls with every instruction set of this machine.
Memory is exactly as large as a call needs, and whatever nobody wrote is NaN.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fused import compiled

TESTS = Path(__file__).parent
RECORDED = (
    "../training/test_fused_loss.py",
    "../training/test_prepared_floss.py",
    "test_kernels.py",
    "test_kernel_accuracy.py",
    "test_kernel_properties.py",
    "test_kernel_lif.py",
    "test_gates.py",
    "test_shared_arguments.py",
    "test_descent.py",
    "test_draws.py",
)
POISON = "max_malloc_fill_size=1000000000:malloc_fill_byte=255"


@pytest.mark.slow
@compiled
@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake")
def test_memory_and_arithmetic_are_clean(tmp_path):
    def run(*words, **environment):
        command = [str(word) for word in words]
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done.stdout

    calls, build = tmp_path / "calls", tmp_path / "build"
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    tests = [TESTS / name for name in RECORDED]
    record = ["-m", "pytest", "-q", "-p", "sanitize.record", "--kernel-calls", calls, *tests]
    run(sys.executable, *record, PYTHONPATH=path)
    run("cmake", "-S", TESTS / "sanitize", "-B", build)
    run("cmake", "--build", build)
    library = build / "kernels/liblyaptorch_cpu.so"
    said = run(build / "replay", library, calls, ASAN_OPTIONS=POISON)
    print(said)
    assert int(said.split()[0]) > 1000
    assert said.endswith(" 0 different\n")
