"""The table of a sweep names the settings of each number."""

import numpy as np

from lyaptorch.cli.trainings import _accuracies
from lyaptorch.record import Record


def test_the_table_of_a_sweep_goes_by_the_order_of_its_axes(capsys):
    """A configuration has its names sorted, whatever the order in which they were varied."""
    axes = {"lr": [0.1, 0.2], "delay": [4, 20, 30], "network": [0]}
    accuracy = np.array([[[0.14], [0.120], [0.13]], [[0.24], [0.22], [0.23]]])
    record = Record("sweep", {"axes": axes}, {"final_accuracy": (("lr", "delay", "network"), accuracy)})
    table = _accuracies("a sweep", record)
    columns = {str(column.header): list(map(str, column.cells)) for column in table.columns}
    rows = list(zip(columns["lr"], columns["delay"], columns["mean"], strict=True))
    assert rows[1] == ("0.1", "20", "0.120")
    assert rows[3] == ("0.2", "4", "0.240")
