"""Pictures show the place that they say they show, as a radiologist holds them, however the file was stored."""

import numpy as np
import pytest
from conftest import turned
from output.reports import report_of
from scan.scans import axial, oblique

from gcnn_cli.output.pictures.lung_map import lung_maps
from gcnn_cli.output.pictures.views import STRIP, field_mm, neighboring_slices, nodule_views
from gcnn_cli.scan.resample import AIR_HU
from gcnn_cli.scan.volume import Volume
from gcnn_cli.symmetry.groups import make_group

SHAPE = (41, 80, 90)


def with_bright_voxel(to_world, index):
    hu = np.full(SHAPE, -900, np.int16)
    hu[index] = 500
    return Volume(hu, to_world)


def brightest_mm(view):
    """Center of the brightest pixel, (down, right) mm from the middle of the field."""
    row, column = np.unravel_index(view.hu.argmax(), view.hu.shape)
    return np.array(
        [
            view.corner_mm[0] + (row + 0.5) * view.pixel_mm[0] - view.field_mm / 2,
            view.corner_mm[1] + (column + 0.5) * view.pixel_mm[1] - view.field_mm / 2,
        ]
    )


@pytest.mark.parametrize("to_world", [axial(), oblique()])
@pytest.mark.parametrize("index", [(20, 40, 45), (3, 5, 80), (0, 0, 0)])
def test_the_nodule_lies_in_the_middle_of_every_plane(to_world, index):
    volume = with_bright_voxel(to_world, index)
    nodule = report_of(volume, volume.position_mm(np.array(index) + 0.25)).nodules[0]
    for view in nodule_views(volume, nodule):
        assert view.hu.max() == 500
        # The mark stands at the nodule; the voxel's center is a quarter of a voxel away from it.
        assert np.allclose(np.abs(brightest_mm(view)), 0.25 * np.array(view.pixel_mm), atol=1e-6)


@pytest.mark.parametrize(
    ("away_mm", "seen"),
    [
        ((6.3, 0, 0), {"axial": (0, 1), "coronal": (0, 1)}),  # to the patient's left: right in the picture
        ((0, 6.4, 0), {"axial": (1, 0), "sagittal": (0, 1)}),  # to the back: down, and right from the side
        ((0, 0, 7.5), {"coronal": (-1, 0), "sagittal": (-1, 0)}),  # to the head: up
    ],
)
def test_pictures_are_held_as_radiologists_hold_them(away_mm, seen):
    volume = with_bright_voxel(axial(), (20, 40, 45))
    position = volume.position_mm(np.array([20.0, 40.0, 45.0])) - away_mm
    for view in nodule_views(volume, report_of(volume, position).nodules[0]):
        if view.plane in seen:
            length = max(map(abs, away_mm))
            assert np.allclose(brightest_mm(view), length * np.array(seen[view.plane]), atol=1e-6), view.plane


def test_letters_name_the_edges():
    volume = with_bright_voxel(axial(), (20, 40, 45))
    letters = {v.plane: v.letters for v in nodule_views(volume, report_of(volume, [0, 50, -250]).nodules[0])}
    assert letters == {"axial": "RLAP", "coronal": "RLHF", "sagittal": "APHF"}


def test_views_do_not_depend_on_how_the_scan_was_stored():
    rng = np.random.default_rng(0)
    volume = Volume(rng.integers(-1000, 400, SHAPE).astype(np.int16), axial())
    position = volume.position_mm(np.array([20.3, 40.2, 45.4]))
    wanted = nodule_views(volume, report_of(volume, position).nodules[0])
    for matrix in make_group("Oh").matrices:
        other = turned(volume, matrix)
        for a, b in zip(wanted, nodule_views(other, report_of(other, position).nodules[0]), strict=True):
            assert np.array_equal(a.hu, b.hu)
            assert np.allclose(a.corner_mm, b.corner_mm)


def test_the_strip_shows_the_slices_that_it_numbers():
    for matrix in make_group("Oh").matrices:
        to_world = turned(Volume(np.zeros(SHAPE, np.int16), axial()), matrix).to_world
        shape = tuple(np.abs(matrix) @ SHAPE)
        hu = np.zeros(shape, np.int16) + np.arange(shape[0], dtype=np.int16)[:, None, None]  # each slice its index
        volume = Volume(hu, to_world)
        nodule = report_of(volume, volume.position_mm(np.array(shape) / 2 - 0.4)).nodules[0]
        strip = neighboring_slices(volume, nodule)
        assert len(strip) == STRIP
        assert strip[STRIP // 2].number == nodule.slice
        for shown in strip:
            assert set(np.unique(shown.view.hu)) <= {shown.number - 1.0, AIR_HU}


def test_the_strip_ends_where_the_scan_ends():
    volume = with_bright_voxel(axial(), (20, 40, 45))
    first = report_of(volume, volume.position_mm(np.array([0, 40, 45]))).nodules[0]
    assert [s.number for s in neighboring_slices(volume, first)] == [1, 2, 3]


def test_large_nodules_fit_into_the_field():
    volume = with_bright_voxel(axial(), (20, 40, 45))
    small, large = (report_of(volume, [0, 50, -250], diameter_mm=d).nodules[0] for d in (4, 30))
    assert field_mm(small) == 50
    assert field_mm(large) >= 2 * 30


@pytest.mark.parametrize("matrix", make_group("Oh").matrices[::7])
def test_the_map_places_nodules_where_the_scan_is_bright(matrix):
    """Without a mask the whole scan is projected, so that the brightest position is known."""
    hu = np.full(SHAPE, -900, np.int16)
    hu[8:11, 20:24, 60:64] = 500
    volume = turned(Volume(hu, axial()), matrix)
    bright = volume.position_mm(np.argwhere(volume.hu == 500).mean(axis=0))
    front, side = lung_maps(volume, report_of(volume, bright).nodules)
    assert (front.letters, side.letters) == ("RLHF", "APHF")
    for projection in (front, side):
        pixel = np.unravel_index(projection.hu.argmax(), projection.hu.shape)
        ((down, right),) = projection.places
        at = (np.array(pixel) + 0.5) * projection.pixel_mm
        assert np.abs(at - (down, right)).max() <= projection.pixel_mm


def test_the_map_shows_vessels_and_leaves_the_wall_out(phantom):
    front, _ = lung_maps(phantom.volume, (), Volume(phantom.lungs.astype(np.int16), phantom.volume.to_world))
    assert front.places == ()
    inside = front.hu > AIR_HU
    assert 0.2 < inside.mean() < 0.9
    assert (front.hu[inside] > -300).mean() < 0.2  # skin and ribs would make nearly all of it bright
