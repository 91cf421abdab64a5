"""Rows of a training, and the memory of a process that trains."""

import subprocess
import sys

import pytest
import torch

from lyaptorch.training.history import Rows

TOUCHED = """
import resource, sys
from lyaptorch.training.epochs import keep_pages
if sys.argv[1] == "keep":
    keep_pages()
import torch
def faults():
    for _ in range(20):
        torch.ones(12_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
faults()
print(-faults() + faults())
"""


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)], ids=str)
def test_rows_are_those_that_were_added_in_one_block(shape):
    added = torch.randn(100, *shape)
    for first in (0, 5):
        rows = Rows(added[:first])
        for row in added[first:]:
            rows.append(row)
        assert torch.equal(rows.values, added)
        assert rows.values.untyped_storage().nbytes() <= 2 * added.nbytes + 32 * added[0].nbytes


def test_rows_of_different_lengths_are_padded():
    rows = Rows(torch.empty(0, 2, 3))
    for width in (3, 1, 5, 2):
        rows.append(torch.full((2, width), float(width)))
    expected = torch.full((4, 2, 5), torch.nan)
    for i, width in enumerate((3, 1, 5, 2)):
        expected[i, :, :width] = width
    torch.testing.assert_close(rows.values, expected, equal_nan=True)


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is asked to, where it is glibc")
def test_a_process_that_trains_keeps_its_pages():
    counts = {}
    for how in ("keep", "give back"):
        command = [sys.executable, "-c", TOUCHED, how]
        counts[how] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 10 * counts["keep"] < counts["give back"]
