"""Curves: running means, scores of sweeps, and events for TensorBoard."""

import numpy as np
import pytest

from lyaptorch.plots.primitives import smooth


def by_hand(row, width):
    means = []
    for end, value in enumerate(row, 1):
        there = [z for z in row[max(0, end - width) : end] if np.isfinite(z)]
        means.append(np.mean(there, dtype=float) if there and not np.isnan(value) else np.nan)
    return means


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [1, 5, 40])
@pytest.mark.filterwarnings("error")
def test_a_running_mean_forgets_what_lies_before_its_window(width, dtype):
    rows = np.random.default_rng(0).random((2, 3, 30)).astype(dtype)
    rows[0, 0, 3], rows[0, 1, 4], rows[0, 2, 8:20] = 1e8, np.inf, -np.inf
    rows[1, 0, 20:], rows[1, 1, 10:15], rows[1, 2] = np.nan, np.nan, np.nan
    expected = np.array([[by_hand(row, width) for row in rows_of] for rows_of in rows])
    # a sum of 40 numbers in float64, of which one is 1e8
    np.testing.assert_allclose(smooth(rows, width), expected, rtol=1e-14)
    assert smooth(rows[..., :0], width).shape == (2, 3, 0)
