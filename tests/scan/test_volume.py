"""The volume value: the bridge between voxels and patient, and the checks at construction."""

import numpy as np
import pytest
from scan.scans import axial, oblique, some_hu

from gcnn_cli.errors import GeometryError, InputError
from gcnn_cli.scan.volume import Volume, make_affine


@pytest.mark.parametrize("to_world", [axial(), oblique()], ids=["axial", "oblique"])
def test_index_and_position_are_inverse(to_world: np.ndarray) -> None:
    volume = Volume(some_hu(), to_world)
    index = np.indices(volume.shape).reshape(3, -1).T
    np.testing.assert_allclose(volume.index_zyx(volume.position_mm(index)), index, atol=1e-9)


def test_position_is_origin_plus_steps_along_the_axes() -> None:
    volume = Volume(some_hu(), axial(spacing=(2.5, 0.8, 0.7)))
    np.testing.assert_allclose(volume.position_mm([0, 0, 0]), [-10, 20, -300])
    np.testing.assert_allclose(volume.position_mm([1, 2, 3]), [-10 + 2.1, 20 + 1.6, -300 + 2.5])


@pytest.mark.parametrize("to_world", [axial(), oblique()], ids=["axial", "oblique"])
def test_affine_splits_into_spacing_and_direction(to_world: np.ndarray) -> None:
    volume = Volume(some_hu(), to_world)
    np.testing.assert_allclose(volume.spacing_zyx, [2.5, 0.8, 0.7])
    np.testing.assert_allclose(volume.direction.T @ volume.direction, np.eye(3), atol=1e-12)
    again = make_affine(volume.spacing_zyx, volume.direction, volume.to_world[:3, 3])
    np.testing.assert_allclose(again, to_world, atol=1e-12)


def test_a_volume_cannot_be_changed() -> None:
    volume = Volume(some_hu(), axial())
    with pytest.raises(ValueError, match="read-only"):
        volume.hu[0, 0, 0] = 0
    with pytest.raises(ValueError, match="read-only"):
        volume.to_world[0, 0] = 0


def test_the_callers_array_stays_writable() -> None:
    hu = some_hu()
    volume = Volume(hu, axial())
    assert np.shares_memory(volume.hu, hu)
    hu[0, 0, 0] = 7
    assert not volume.hu.flags.writeable


def test_the_affine_is_copied() -> None:
    to_world = axial()
    volume = Volume(some_hu(), to_world)
    to_world[0, 3] = 999
    assert volume.to_world[0, 3] == -10


@pytest.mark.parametrize(
    "hu",
    [
        np.zeros((4, 4), np.int16),
        np.zeros((2, 0, 4), np.int16),
        np.zeros((2, 2, 2), np.float64),
        np.zeros((2, 2, 2), np.uint16),
        np.full((2, 2, 2), np.nan, np.float32),
        np.full((2, 2, 2), np.inf, np.float32),
    ],
    ids=["2-D", "empty", "float64", "uint16", "NaN", "infinite"],
)
def test_values_that_cannot_be_a_scan_are_refused(hu: np.ndarray) -> None:
    with pytest.raises(InputError):
        Volume(hu, axial())


def _spoiled(row: int, column: int, value: float) -> np.ndarray:
    to_world = axial()
    to_world[row, column] = value
    return to_world


@pytest.mark.parametrize(
    "to_world",
    [np.eye(3), _spoiled(0, 3, np.nan), _spoiled(2, 0, 0.0), _spoiled(0, 0, 0.2)],
    ids=["3x3", "NaN", "no length", "sheared"],
)
def test_unsound_affines_are_refused(to_world: np.ndarray) -> None:
    with pytest.raises(GeometryError):
        Volume(some_hu(), to_world)
