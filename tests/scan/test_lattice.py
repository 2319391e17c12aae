"""The lattice of a volume: inside and outside, boxes cut from it, and affines that no scanner has."""

import numpy as np
import pytest
from scan.scans import axial, oblique, some_hu

from gcnn_cli.errors import GeometryError
from gcnn_cli.scan.lattice import Lattice
from gcnn_cli.scan.volume import Volume

SHAPE = (5, 6, 7)
PLACES = {"axial": axial(), "oblique": oblique()}


@pytest.mark.parametrize("to_world", PLACES.values(), ids=PLACES)
def test_a_volume_answers_as_its_lattice(to_world: np.ndarray) -> None:
    volume, lattice = Volume(some_hu(SHAPE), to_world), Lattice(SHAPE, to_world)
    index = np.random.default_rng(0).uniform(0, 5, (10, 3))
    assert volume.shape == volume.lattice.shape == SHAPE
    np.testing.assert_array_equal(volume.position_mm(index), lattice.position_mm(index))
    np.testing.assert_array_equal(
        volume.index_zyx(lattice.position_mm(index)), lattice.index_zyx(volume.position_mm(index))
    )
    np.testing.assert_array_equal(volume.spacing_zyx, lattice.spacing_zyx)
    np.testing.assert_array_equal(volume.direction, lattice.direction)


@pytest.mark.parametrize("to_world", PLACES.values(), ids=PLACES)
def test_a_box_keeps_every_voxel_in_its_place(to_world: np.ndarray) -> None:
    lattice = Lattice(SHAPE, to_world)
    box = (slice(1, 4), slice(0, 6), slice(2, 7))
    cropped = lattice.cropped(box)
    index = np.indices(SHAPE).transpose(1, 2, 3, 0)
    assert cropped.shape == (3, 6, 5)
    inner = np.indices(cropped.shape).transpose(1, 2, 3, 0)
    np.testing.assert_allclose(cropped.position_mm(inner), lattice.position_mm(index[box]), atol=1e-9)


@pytest.mark.parametrize("to_world", PLACES.values(), ids=PLACES)
def test_a_voxel_reaches_half_a_voxel_from_its_center(to_world: np.ndarray) -> None:
    lattice = Lattice(SHAPE, to_world)
    rim = np.array([[-0.51, 0, 0], [-0.49, 0, 0], [4.49, 5.49, 6.49], [4.49, 5.51, 6.49]])
    assert lattice.holds(lattice.position_mm(rim)).tolist() == [False, True, True, False]


def test_a_lattice_cannot_be_changed() -> None:
    to_world = axial()
    lattice = Lattice(SHAPE, to_world)
    to_world[0, 3] = 999
    assert lattice.to_world[0, 3] == -10
    with pytest.raises(ValueError, match="read-only"):
        lattice.to_world[0, 0] = 0


@pytest.mark.parametrize(("axis", "scale", "reason"), [(0, 1e-3, "finer than any CT"), (2, 0.0, "must be positive")])
def test_affines_of_no_scanner_are_refused(axis: int, scale: float, reason: str) -> None:
    to_world = axial()
    to_world[:3, axis] *= scale
    with pytest.raises(GeometryError, match=reason):
        Lattice(SHAPE, to_world)
