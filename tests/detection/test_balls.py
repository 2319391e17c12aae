"""Dilation and its kin by balls: known answers, laws, and the distances that define them."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from skimage.morphology import isotropic_dilation, isotropic_erosion

from gcnn_cli.detection.balls import closed, dilated, eroded, opened

RADII = [0.4, 1.0, 1.5, 1.74, 2.0, 3.7, 5.0]  # whole, or of squares far from whole numbers: rounding decides nothing


def random_mask(shape, share, seed=0):
    return np.random.default_rng(seed).random(shape) < share


# The points of the cubic lattice within each radius of the origin.
@pytest.mark.parametrize(("radius", "points"), [(0.9, 1), (1, 7), (1.5, 19), (1.75, 27), (2, 33), (3, 123), (5, 515)])
def test_one_voxel_becomes_a_ball(radius, points):
    mask = np.zeros((15, 15, 15), bool)
    mask[7, 7, 7] = True
    ball = dilated(mask, radius)
    z, y, x = np.ogrid[-7:8, -7:8, -7:8]
    assert ball.sum() == points
    assert np.array_equal(ball, z**2 + y**2 + x**2 <= radius**2)
    assert np.array_equal(eroded(ball, radius), mask)


@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize("shape", [(9, 17, 23), (1, 8, 8), (4, 1, 3), (12, 16, 1)])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.98])
def test_the_result_is_that_of_distances(radius, shape, share):
    mask = random_mask(shape, share)
    mask.flat[0], mask.flat[-1] = True, False  # there is something to measure to
    assert np.array_equal(dilated(mask, radius), distance_transform_edt(~mask) <= radius)
    assert np.array_equal(dilated(mask, radius), isotropic_dilation(mask, radius))
    assert np.array_equal(eroded(mask, radius), distance_transform_edt(mask) > radius)
    assert np.array_equal(eroded(mask, radius), isotropic_erosion(mask, radius))


@pytest.mark.parametrize("radius", RADII)
def test_opening_shrinks_closing_grows_and_both_act_once(radius):
    mask = random_mask((14, 11, 19), 0.6)
    assert not (opened(mask, radius) & ~mask).any()
    assert not (mask & ~closed(mask, radius)).any()
    assert np.array_equal(opened(opened(mask, radius), radius), opened(mask, radius))
    assert np.array_equal(closed(closed(mask, radius), radius), closed(mask, radius))
    assert np.array_equal(closed(mask, radius), ~opened(~mask, radius))


@pytest.mark.parametrize("operation", [dilated, eroded, opened, closed])
@pytest.mark.parametrize("value", [False, True])
def test_empty_and_full_masks_stay(operation, value):
    mask = np.full((5, 9, 10), value)
    before = mask.copy()
    assert np.array_equal(operation(mask, 20.0), before)  # the ball is larger than the image
    assert np.array_equal(mask, before)


@pytest.mark.parametrize("operation", [dilated, eroded, opened, closed])
def test_views_are_as_good_as_copies(operation):
    mask = random_mask((10, 24, 15), 0.5)
    before = mask.copy()
    view = np.flip(mask.transpose(1, 2, 0), 1)[::2]
    assert np.array_equal(operation(view, 2.3), operation(np.ascontiguousarray(view), 2.3))
    assert np.array_equal(mask, before)
