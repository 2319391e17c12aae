"""Stacks that are not axial: a nodule lies where it lies in the patient, or the stack is refused; never sheared."""

import numpy as np
import pytest
from scan.scans import oblique, write_series

from gcnn_cli.errors import GeometryError
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.resample import resample
from gcnn_cli.scan.volume import make_affine

SHAPE = (24, 60, 64)
SPACING = (2.5, 0.9, 0.8)
CENTER = np.array([-31.4, 57.3, -203.7])  # LPS mm
RADIUS = 6.0
# Directions in LPS in which slices, rows and columns follow each other.
STACKS = {
    "axial": ((0, 0, 1), (0, 1, 0), (1, 0, 0)),
    "feet first": ((0, 0, -1), (0, 1, 0), (1, 0, 0)),
    "sagittal": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
    "coronal": ((0, 1, 0), (0, 0, -1), (1, 0, 0)),
    "coronal from the back": ((0, -1, 0), (0, 0, -1), (1, 0, 0)),
}


def grid(axes) -> np.ndarray:
    """to_world of a stack with the nodule off its middle."""
    direction = np.array(axes, float).T
    middle = direction @ ((np.array(SHAPE) - 1) / 2 * SPACING + [3.1, -4.2, 2.7])
    return make_affine(SPACING, direction, CENTER - middle)


def nodule(to_world: np.ndarray) -> np.ndarray:
    """HU of a ball in lung, with partial volume along its rim."""
    index = np.indices(SHAPE).reshape(3, -1)
    position = to_world[:3, :3] @ index + to_world[:3, 3:]
    inside = np.clip((RADIUS - np.linalg.norm(position - CENTER[:, None], axis=0)) / 1.5 + 0.5, 0, 1)
    return np.round(-850 + 890 * inside).reshape(SHAPE).astype(np.int16)


def center_of(volume) -> np.ndarray:
    """Where the brightness above the lung is centered, LPS mm."""
    weight = volume.hu.astype(float).ravel() + 850
    return volume.position_mm(np.indices(volume.shape).reshape(3, -1).T).T @ weight / weight.sum()


@pytest.mark.parametrize("name", [*STACKS, "oblique"])
def test_the_nodule_lies_where_it_is(tmp_path, name):
    if name == "oblique":
        to_world = oblique(SPACING)
        to_world[:3, 3] = CENTER - to_world[:3, :3] @ (np.array(SHAPE) / 2 + [1, 2, -3])
    else:
        to_world = grid(STACKS[name])
    shuffle = np.random.default_rng(1).permutation(SHAPE[0])
    folder = write_series(tmp_path, nodule(to_world), to_world, name=lambda n: f"IM{shuffle[n]}")
    volume = read_volume(folder)
    np.testing.assert_allclose(center_of(volume), CENTER, atol=0.1)
    np.testing.assert_allclose(center_of(resample(volume, 1.0)), CENTER, atol=0.1)


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("degrees", [2, 20])
def test_a_tilted_stack_is_refused_in_every_orientation(tmp_path, name, degrees):
    """A 20 degree tilt would move what lies at the last slice by 21 mm."""
    to_world = grid(STACKS[name])
    sheared = to_world.copy()
    sheared[:3, 0] += np.tan(np.radians(degrees)) * SPACING[0] * np.array(STACKS[name][1], float)
    folder = write_series(tmp_path, nodule(to_world), sheared)
    for allow_gaps in (False, True):
        with pytest.raises(GeometryError, match=rf"sheared by {degrees}\.0 degrees \(gantry tilt\)"):
            read_volume(folder, allow_gaps=allow_gaps)
