"""A volume is checked at birth, and index and position are each other's inverse."""

import numpy as np
import pytest
from conftest import turned

from gcnn_cli.errors import GeometryError, InputError
from gcnn_cli.scan.resample import orient, resample, resample_mask
from gcnn_cli.scan.volume import Volume, make_affine
from gcnn_cli.symmetry.groups import make_group

IDENTITY = np.eye(3)[:, ::-1]


def rotation(degrees):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def make(shape=(7, 6, 5), spacing=(2.0, 0.7, 0.9), direction=IDENTITY, origin=(1.0, -2.0, 3.0)):
    hu = np.random.default_rng(0).integers(-1000, 300, shape).astype(np.int16)
    return Volume(hu, make_affine(np.array(spacing), direction, np.array(origin)))


def test_index_and_position_are_inverse():
    volume = make(direction=rotation(20) @ IDENTITY)
    index = np.random.default_rng(1).uniform(0, 5, (10, 3))
    assert np.allclose(volume.index_zyx(volume.position_mm(index)), index)


def test_known_position():
    # x = 1 + 0.9 * 4, y = -2 + 0.7 * 3, z = 3 + 2.0 * 2
    assert np.allclose(make().position_mm(np.array([2, 3, 4])), [4.6, 0.1, 7.0])


def test_a_volume_cannot_be_changed():
    volume = make()
    with pytest.raises(ValueError):
        volume.hu[0, 0, 0] = 1
    with pytest.raises(ValueError):
        volume.to_world[0, 0] = 1


def sheared():
    affine = make_affine(np.ones(3), IDENTITY, np.zeros(3))
    affine[1, 0] = 0.2
    return affine


@pytest.mark.parametrize(
    ("hu", "affine", "error"),
    [
        (np.zeros((3, 3), np.int16), np.eye(4), InputError),
        (np.zeros((3, 3, 0), np.int16), np.eye(4), InputError),
        (np.zeros((3, 3, 3), np.uint8), np.eye(4), InputError),
        (np.full((3, 3, 3), np.nan, np.float32), np.eye(4), InputError),
        (np.zeros((3, 3, 3), np.int16), np.zeros((4, 4)), GeometryError),
        (np.zeros((3, 3, 3), np.int16), np.full((4, 4), np.nan), GeometryError),
        (np.zeros((3, 3, 3), np.int16), sheared(), GeometryError),
    ],
)
def test_impossible_volumes_are_refused(hu, affine, error):
    with pytest.raises(error):
        Volume(hu, affine)


def test_orient_makes_one_array_of_all_48_turns():
    volume = make()
    expected = orient(volume)
    for matrix in make_group("Oh").matrices:
        again = orient(turned(volume, matrix))
        assert np.array_equal(again.hu, expected.hu)
        assert np.allclose(again.to_world, expected.to_world)


def test_turning_the_scan_does_not_change_the_grid():
    volume = make(shape=(9, 20, 17))
    expected = resample(volume, 1.0)
    for matrix in make_group("Oh").matrices:
        again = resample(turned(volume, matrix), 1.0)
        assert np.array_equal(again.hu, expected.hu)
        assert np.allclose(again.to_world, expected.to_world)


def test_the_grid_is_centered_on_the_scan():
    volume = make(shape=(9, 20, 17), direction=rotation(30) @ IDENTITY)
    grid = resample(volume, 1.0)
    middle = [v.position_mm((np.array(v.shape) - 1) / 2) for v in (volume, grid)]
    assert np.allclose(*middle)
    assert np.allclose(grid.spacing_zyx, 1.0)


def test_resampling_keeps_a_linear_field():
    """A field that is linear in the patient is the same field on any grid (inside, away from smoothing)."""
    volume = make(shape=(20, 30, 30), spacing=(1.5, 1.2, 1.1), direction=rotation(25) @ IDENTITY)
    index = np.indices(volume.shape).transpose(1, 2, 3, 0)
    slope = np.array([3.0, -2.0, 4.0])
    field = Volume((volume.position_mm(index) @ slope).astype(np.float32), volume.to_world)
    grid = resample(field, 1.0)
    inner = np.indices(grid.shape).transpose(1, 2, 3, 0)[3:-3, 3:-3, 3:-3]
    assert np.allclose(grid.hu[3:-3, 3:-3, 3:-3], grid.position_mm(inner) @ slope, atol=0.05)


def test_padding_becomes_air_before_it_is_interpolated():
    hu = np.full((8, 8, 8), -3024, np.int16)
    assert resample(Volume(hu, make_affine(np.full(3, 1.5), IDENTITY, np.zeros(3))), 1.0).hu.min() == -1024


def test_a_mask_lands_where_it_was():
    volume = make(shape=(9, 20, 17))
    mask = Volume((volume.hu > 0).astype(np.int16), volume.to_world)
    assert np.array_equal(resample_mask(mask, volume), volume.hu > 0)
