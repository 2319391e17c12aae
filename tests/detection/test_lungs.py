"""The mask holds the lungs and their nodules, and nothing else that is dark."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from gcnn_cli.detection.lungs import LungConfig, _close, _open, segment_lungs
from gcnn_cli.errors import InputError
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.resample import resample, resample_mask
from gcnn_cli.scan.volume import Volume


def masks(phantom, window=slice(None)):
    """(segmented, true) on the grid, for the phantom cut to a window of its columns."""
    hu = phantom.volume.hu[:, :, window]
    to_world = phantom.volume.to_world.copy()
    start = window.start or 0
    to_world[:3, 3] += to_world[:3, 2] * start
    grid = resample(Volume(np.ascontiguousarray(hu), to_world), 1.0)
    truth = Volume(np.ascontiguousarray(phantom.lungs[:, :, window]).astype(np.int16), to_world)
    return segment_lungs(grid, LungConfig()), resample_mask(truth, grid), grid


def test_the_lungs_of_the_phantom(phantom):
    found, true, _ = masks(phantom)
    assert (found & true).sum() > 0.97 * true.sum()
    # The closing takes in the hila and the rim of the wall, not the room or the table.
    assert found.sum() < 1.25 * true.sum()


def test_every_nodule_lies_in_the_mask(phantom):
    found, _, grid = masks(phantom)
    for nodule in phantom.nodules:
        index = np.round(grid.index_zyx(np.array(nodule.position_mm))).astype(int)
        assert found[tuple(index)], nodule


def test_a_field_of_view_that_cuts_a_lung(phantom):
    found, true, _ = masks(phantom, slice(48, None))  # the right lung loses its outer third
    assert (found & true).sum() > 0.95 * true.sum()


def test_the_table_and_the_room_are_not_lung(phantom):
    found, true, _ = masks(phantom)
    rows = np.flatnonzero(true.any(axis=(0, 2)))
    assert not found[:, : rows[0] - 6].any()
    assert not found[:, rows[-1] + 6 :].any()


def test_an_emptied_table_with_a_gap_is_not_lung(phantom):
    """Air between a thick table plate and the back, closed by body and plate on two sides only."""
    hu = phantom.volume.hu.copy()
    hu[:, -6:-2] = 100  # behind the back, as wide as the image
    grid = resample(Volume(hu, phantom.volume.to_world), 1.0)
    found = segment_lungs(grid, LungConfig())
    behind = np.flatnonzero(masks(phantom)[1].any(axis=(0, 2)))[-1] + 6
    assert not found[:, behind:].any()


@pytest.mark.parametrize("ends", ["open", "closed"])
def test_a_hollow_table_is_not_lung(phantom, ends):
    """A box of air under the back, between plates that hold on to the body: more than a liter."""
    hu = np.pad(phantom.volume.hu, ((0, 0), (0, 24), (0, 0)), constant_values=-1000)
    middle = hu.shape[2] // 2
    back = int(np.flatnonzero((hu[:, :, middle] > -300).any(axis=0))[-1])
    hu[:, back - 4 : back + 20, 20:-20] = 100
    hu[6:-6, back + 4 : back + 14, 26:-26] = -1000
    if ends == "open":
        hu[:, back + 4 : back + 14, 26:-26] = -1000
    grid = resample(Volume(hu, phantom.volume.to_world), 1.0)
    found = segment_lungs(grid, LungConfig())
    rows = np.flatnonzero(masks(phantom)[1].any(axis=(0, 2)))
    assert found[:, : rows[-1]].any()
    assert not found[:, rows[-1] + 6 :].any()


@pytest.mark.parametrize("radius_mm", [0.5, 2.0, 3.0, 4.5, 7.0])
@pytest.mark.parametrize("place", [slice(None), slice(3, 9), slice(0, 5)])
def test_opening_and_closing_are_by_balls(radius_mm, place):
    """Against distances over the whole image: at its borders, for radii of less than a voxel and of several."""
    mask = np.zeros((14, 12, 13), bool)
    mask[place, place, place] = np.random.default_rng(0).random(mask[place, place, place].shape) < 0.6
    deep = distance_transform_edt(np.pad(mask, 8, constant_values=True), sampling=2.0)[8:-8, 8:-8, 8:-8] > radius_mm
    opened = distance_transform_edt(~deep, sampling=2.0) <= radius_mm if deep.any() else deep
    assert np.array_equal(_open(mask, radius_mm, 2.0), opened)
    dilated = distance_transform_edt(~mask, sampling=2.0) <= radius_mm
    closed = distance_transform_edt(dilated, sampling=2.0) > radius_mm if not dilated.all() else dilated
    assert np.array_equal(_close(mask, radius_mm, 2.0), closed)


@pytest.mark.parametrize("value", [40, -1000])
def test_a_scan_without_lungs_is_refused(value):
    hu = np.full((40, 60, 60), value, np.int16)
    grid = Volume(hu, np.diag([1.0, 1, 1, 1])[[2, 1, 0, 3]])
    with pytest.raises(InputError, match="no lung found"):
        segment_lungs(grid, LungConfig())


def test_impossible_thresholds_are_refused():
    with pytest.raises(InputError, match="pure_air_hu"):
        LungConfig(air_hu=-990)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "low_ml", "high_ml"), [("LIDC-IDRI-0132a", 4500, 6000), ("ACRIN", 1000, 1600), ("9328-0117", 1000, 1500)]
)
def test_real_scans_have_lungs_of_a_plausible_volume(shared_data, name, low_ml, high_ml):
    grid = resample(read_volume(shared_data / "scans" / f"{name}.mha"), 1.0)
    assert low_ml < segment_lungs(grid, LungConfig()).sum() / 1000 < high_ml
