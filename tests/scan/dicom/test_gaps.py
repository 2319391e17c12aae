"""--allow-gaps: small gaps are interpolated by the true places of the slices, with a warning; others are refused."""

import numpy as np
import pytest
from scan.dicom.test_geometry import STACKS, moved, planes_of
from scan.scans import axial, oblique, some_hu, write_series

from gcnn_cli.errors import GeometryError
from gcnn_cli.scan.dicom.gaps import fill_gaps, nearest_slices
from gcnn_cli.scan.dicom.geometry import Verdict, check_stack
from gcnn_cli.scan.dicom.series import find_series, read_series


def judge(planes, *, allow_gaps=True) -> Verdict:
    return check_stack(planes, lambda a, b: True, allow_gaps=allow_gaps)


def ramp(count: int = 12) -> np.ndarray:
    """HU that rise by 60 from slice to slice: any place along the stack can be read from its value."""
    return np.broadcast_to(np.arange(count)[:, None, None] * 60 - 600, (count, 6, 7)).astype(np.int16).copy()


def hu_of(heights_mm: np.ndarray) -> np.ndarray:
    """The same ramp for slices at given heights above the first, [D, 6, 7]."""
    return np.broadcast_to((np.asarray(heights_mm) / 2.5 * 60 - 600)[:, None, None], (len(heights_mm), 6, 7))


@pytest.mark.parametrize("to_world", STACKS.values(), ids=STACKS)
@pytest.mark.parametrize("missing", [1, 5, 10])
def test_the_places_of_the_other_slices_stay_theirs(to_world: np.ndarray, missing: int) -> None:
    planes = planes_of(to_world)
    whole = judge(planes)
    del planes[whole.order[missing]]
    verdict = judge(planes)
    assert verdict.problem == ""
    np.testing.assert_allclose(verdict.to_world, whole.to_world, atol=1e-9)
    for place, n in zip(verdict.places, verdict.order, strict=True):
        np.testing.assert_allclose((verdict.to_world @ [place, 0, 0, 1])[:3], planes[n].position, atol=1e-5)
    assert f"slices {missing} and {missing + 1} " in verdict.warnings[0]
    assert ": 1 of 12 slices were interpolated; nodules in a gap can be missed" in verdict.warnings[0]


@pytest.mark.parametrize("to_world", [axial(), oblique()], ids=["axial", "oblique"])
def test_a_missing_slice_is_interpolated_with_a_warning(tmp_path, to_world) -> None:
    folder = write_series(tmp_path, ramp(), to_world)
    whole = read_series(folder)
    (folder / "004.dcm").unlink()
    with pytest.raises(GeometryError, match=r"is the series complete\? \(--allow-gaps interpolates over it\)"):
        read_series(folder)
    filled = read_series(folder, allow_gaps=True)
    np.testing.assert_array_equal(filled.hu, whole.hu)
    np.testing.assert_allclose(filled.to_world, whole.to_world, atol=1e-6)
    assert filled.hu.dtype == np.int16
    assert filled.source.gaps_filled
    assert not whole.source.gaps_filled
    assert ": 1 of 12 slices were interpolated" in filled.source.warnings[0]
    assert "gaps filled from 11 slices" in filled.source.checks[-1]
    # Slice 5 is made; it names a neighbor. Every other slice names itself.
    wanted = list(whole.source.slice_uids)
    assert filled.source.slice_uids[4] in (wanted[3], wanted[5])
    assert [u for n, u in enumerate(filled.source.slice_uids) if n != 4] == wanted[:4] + wanted[5:]


def test_uneven_slices_lie_where_they_were_measured(tmp_path) -> None:
    """Values follow the heights, not the numbers of the slices: stretching them evenly would move half of them."""
    heights = np.array([0, 2.5, 5.1234, 7.5, 10.4321, 12.5, 15, 17.5, 20, 22.5])
    hu = np.round(hu_of(heights)).astype(np.int16)

    def place(number, dataset):
        dataset.ImagePositionPatient = [-10, 20, f"{-300 + heights[number]:.4f}"]

    folder = write_series(tmp_path, hu, axial(), edit=place)
    with pytest.raises(GeometryError, match="apart, the others 2.5 mm"):
        read_series(folder)
    volume = read_series(folder, allow_gaps=True)
    assert volume.shape == (10, 6, 7)
    there = volume.position_mm(np.array([[n, 0, 0] for n in range(10)]))[:, 2] + 300
    np.testing.assert_allclose(volume.hu, hu_of(there), atol=1.01)


def test_whole_stacks_are_left_alone(tmp_path) -> None:
    folder = write_series(tmp_path, some_hu(), oblique())
    plain, allowed = read_series(folder), read_series(folder, allow_gaps=True)
    assert allowed.source == plain.source


@pytest.mark.parametrize(
    ("spacing", "gone", "sound"), [(2.5, 1, True), (2.5, 2, False), (1.0, 5, True), (1.0, 6, False)]
)
def test_a_small_gap_is_no_wider_than_the_coarsest_stack_that_is_read(spacing, gone, sound) -> None:
    planes = planes_of(axial(spacing=(spacing, 0.7, 0.7)), 30)
    verdict = judge(planes[:10] + planes[10 + gone :])
    assert (verdict.problem == "") is sound
    if not sound:
        assert "a gap of more than 6 mm is not filled" in verdict.problem
    without = judge(planes[:10] + planes[10 + gone :], allow_gaps=False)
    assert without.fillable is sound
    assert "is the series complete?" in without.problem


def test_two_passes_in_one_series_are_not_woven_together() -> None:
    planes = planes_of(axial(), 20)
    second = [moved(p, np.array([0, 0, 0.8])) for p in planes_of(axial(), 4)]
    verdict = judge([*planes, *second])
    assert "are only 0.8 mm apart: more than one pass of the scanner" in verdict.problem


@pytest.mark.parametrize("spoil", ["tilt", "displaced", "mixed", "thick"])
def test_other_defects_are_refused_all_the_same(spoil) -> None:
    planes = planes_of(axial(spacing=(6.5, 0.7, 0.7)) if spoil == "thick" else axial())
    if spoil == "tilt":
        planes = [moved(p, np.array([0, 0.9 * n, 0])) for n, p in enumerate(planes)]
    if spoil == "displaced":
        planes[7] = moved(planes[7], np.array([3.0, 0, 0]))
    if spoil == "mixed":
        planes[7] = planes_of(oblique())[7]
    del planes[4]
    verdict = judge(planes)
    assert verdict.problem
    assert not verdict.fillable
    assert not verdict.places


def test_nothing_is_extrapolated() -> None:
    stack = np.array([[[0.0]], [[10.0]], [[40.0]]], np.float32)
    np.testing.assert_allclose(fill_gaps(stack, (0, 1, 4)).ravel(), [0, 10, 20, 30, 40])
    np.testing.assert_allclose(fill_gaps(stack, (0, 1.25, 2)).ravel(), [0, 8, 40])
    assert nearest_slices((0, 1, 4)) == [0, 1, 1, 2, 2]


@pytest.mark.data
def test_a_real_series_with_a_slice_gone(shared_data, tmp_path) -> None:
    (whole,) = find_series(shared_data / "dicom" / "LIDC-IDRI-0001")
    gone = whole.in_array_order(whole.verdict)[66]
    for number, slice_ in enumerate(whole.slices):
        if slice_ != gone:
            (tmp_path / str(number)).symlink_to(slice_.path)
    (series,) = find_series(tmp_path)
    assert "slices 66 and 67 (at " in series.verdict.problem
    assert series.verdict.fillable
    filled = series.judge(allow_gaps=True)
    np.testing.assert_allclose(filled.to_world, whole.verdict.to_world, atol=1e-4)
    assert len(series.in_array_order(filled)) == 133
