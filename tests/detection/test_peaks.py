"""Peaks lie between the places of a map, at its borders and among ties too; of close ones the higher stays."""

import numpy as np
import pytest
from scipy.ndimage import maximum_filter

from gcnn_cli.detection.peaks import keep_apart, local_maxima


def test_peaks_are_where_a_maximum_filter_has_them():
    generator = np.random.default_rng(0)
    values = generator.integers(0, 9, (7, 8, 9)).astype(np.float32)
    allowed = generator.random(values.shape) < 0.8
    expected = np.argwhere((values == maximum_filter(values, size=3)) & allowed)
    index, heights = local_maxima(values, allowed)
    assert np.abs(index - expected).max() <= 0.5
    assert np.array_equal(heights, values[tuple(expected.T)])


@pytest.mark.parametrize("center", [(3.2, 4.0, 4.7), (0.0, 7.9, 4.4), (8.0, 8.0, 0.0)])
def test_the_top_of_a_parabola_is_found(center):
    distance = np.linalg.norm(np.indices((9, 9, 9)).transpose(1, 2, 3, 0) - center, axis=3)
    index, _ = local_maxima((-(distance**2)).astype(np.float32), np.ones((9, 9, 9), bool))
    inner = (np.array(center) > 0.5) & (np.array(center) < 7.5)
    assert np.allclose(index[0][inner], np.array(center)[inner], atol=1e-3)
    assert np.abs(index[0] - center).max() <= 0.5


def test_beside_a_place_without_a_value_there_is_no_parabola():
    values = np.full((5, 5, 5), -np.inf, np.float32)
    values[2, 2, 2:4] = 3, 2
    index, heights = local_maxima(values, np.isfinite(values))
    assert np.array_equal(index, [[2, 2, 2]])
    assert heights == [3]


def test_of_close_points_the_highest_stays():
    points = np.array([[0.0, 0, n] for n in (0, 2, 4, 10)])
    rank = np.array([1.0, 3.0, 2.0, 0.0])
    assert keep_apart(points, rank, 3.0, 10) == [1, 3]
    assert keep_apart(points, rank, 1.0, 2) == [1, 2]
    assert keep_apart(points[:0], rank[:0], 1.0, 2) == []
