"""Four readers' outlines are read where they were drawn, and what three agree on is a nodule."""

import csv

import numpy as np
import pytest
from labels.readers import (
    ball,
    center_and_diameter,
    message,
    nodule,
    noise_hu,
    non_nodule,
    outlined,
    roi,
    write_message,
)
from scan.scans import SERIES, axial, enhanced, oblique, write_series
from scipy.spatial.distance import cdist

from gcnn_cli.errors import InputError
from gcnn_cli.labels.consensus import agree
from gcnn_cli.labels.lidc import PlacedMark, place_marks, read_reading
from gcnn_cli.labels.marks import UNMEASURED_MM
from gcnn_cli.scan.dicom.series import choose_series

SHAPE = (12, 30, 34)


def uid(number):
    return f"{SERIES}.{number + 1}"


def at(to_world, z, y, x):
    return (to_world @ [z, y, x, 1])[:3]


@pytest.fixture(scope="module", params=[axial(), oblique(), axial() @ np.diag([1, -1, -1, 1])], ids=["ax", "ob", "ff"])
def series(request, tmp_path_factory):
    """A series and its to_world: axial, oblique, feet first."""
    folder = write_series(tmp_path_factory.mktemp("series"), noise_hu(SHAPE), request.param)
    return choose_series(folder, None), request.param


def placed(tmp_path, series, sessions):
    return place_marks(read_reading(write_message(tmp_path / "marks.xml", SERIES, sessions)), series)


# One reader


def test_a_nodule_lies_where_its_outlines_were_drawn(tmp_path, series):
    scan, to_world = series
    mask = ball(SHAPE, to_world, at(to_world, 5.2, 14.1, 17.3), 6.0)
    center, diameter = center_and_diameter(mask, to_world)
    (mark,) = placed(tmp_path, scan, [nodule(outlined(mask, uid))])
    np.testing.assert_allclose(mark.center_mm, center, atol=1e-5)
    assert mark.kind == "nodule"
    assert mark.diameter_mm == pytest.approx(diameter, rel=1e-5)


def test_what_an_outline_excludes_is_taken_away(tmp_path, series):
    scan, to_world = series
    whole = ball(SHAPE, to_world, at(to_world, 5, 14, 17), 7.0)
    hollow = ball(SHAPE, to_world, at(to_world, 5, 14, 15), 3.0)
    center, diameter = center_and_diameter(whole & ~hollow, to_world)
    rois = outlined(hollow, uid, "FALSE") + outlined(whole, uid)
    (mark,) = placed(tmp_path, scan, [nodule(rois)])
    np.testing.assert_allclose(mark.center_mm, center, atol=1e-5)
    assert mark.diameter_mm == pytest.approx(diameter, rel=1e-5)


def test_an_outline_with_nothing_inside_still_has_a_place(tmp_path, series):
    scan, to_world = series
    (mark,) = placed(tmp_path, scan, [nodule(roi(uid(3), [(4, 5), (5, 5), (5, 6), (4, 6)]))])
    np.testing.assert_allclose(mark.center_mm, at(to_world, 3, 5.5, 4.5), atol=1e-5)
    assert 0 < mark.diameter_mm < 3


def test_single_points_are_small_nodules_and_loci_are_not_nodules(tmp_path, series):
    scan, to_world = series
    small, other = placed(tmp_path, scan, ["", nodule(roi(uid(2), [(7, 9)]), small=True) + non_nodule(uid(8), 20, 3)])
    assert (small.kind, other.kind) == ("small", "non-nodule")
    assert (small.reader, small.diameter_mm) == (1, UNMEASURED_MM)
    np.testing.assert_allclose(small.center_mm, at(to_world, 2, 9, 7), atol=1e-5)
    np.testing.assert_allclose(other.center_mm, at(to_world, 8, 3, 20), atol=1e-5)


@pytest.mark.parametrize(
    ("marks", "message"),
    [(roi("1.2.3", [(4, 5)]), "slice 1.2.3, which its series lacks"), (roi(uid(0), [(34, 5)]), "34 x 30")],
)
def test_marks_that_the_series_cannot_have_are_refused(tmp_path, series, marks, message):
    with pytest.raises(InputError, match=message):
        placed(tmp_path, series[0], [nodule(marks)])


def test_frames_of_one_image_are_no_slices_to_mark(tmp_path):
    image = enhanced(noise_hu(SHAPE), axial(), list(range(SHAPE[0])))
    image.save_as(tmp_path / "enhanced.dcm", enforce_file_format=True)
    with pytest.raises(InputError, match="has several positions"):
        placed(tmp_path, choose_series(tmp_path, None), [nodule(roi(uid(0), [(1, 2)]))])


# Files


def test_other_xml_is_not_a_reader_file(tmp_path):
    path = tmp_path / "radiograph.xml"
    path.write_text(message(SERIES, [], root="IdriReadMessage"))
    assert read_reading(path) is None
    path.write_text("<settings/>")
    assert read_reading(path) is None


LAUGH = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>'
OUTSIDE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "invalid XML"),
        ("<LidcReadMessage><readingSession></LidcReadMessage>", "invalid XML"),
        (message(SERIES, ["&b;"], extra=LAUGH), "document type"),
        (message("&a;", [], extra=OUTSIDE), "document type"),
        ('<?xml version="1.0" encoding="klingon"?><LidcReadMessage/>', "invalid XML"),
        (message("", []), "no SeriesInstanceUid"),
    ],
)
def test_a_damaged_reader_file_is_one_line(tmp_path, content, message):
    path = tmp_path / "damaged.xml"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as error:
        read_reading(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        (nodule(roi(uid(0), [])), "without points"),
        (nodule(roi("", [(1, 2)])), "without a slice"),
        (nodule(roi(uid(0), [(1, "two")])), "yCoord 'two' is not a pixel"),
        (nodule(roi(uid(0), [(-1, 2)])), "xCoord '-1' is not a pixel"),
        (nodule(roi(uid(0), [(1, 2)], "PERHAPS")), "must be TRUE or FALSE"),
    ],
)
def test_an_invalid_mark_spoils_its_series_only(tmp_path, series, marks, message):
    path = write_message(tmp_path / "odd.xml", SERIES, [nodule(roi(uid(1), [(1, 2)])), marks])
    reading = read_reading(path)
    assert (reading.series_uid, reading.marks) == (SERIES, ())
    with pytest.raises(InputError, match=message) as error:
        place_marks(reading, series[0])
    assert str(error.value).startswith(str(path))


def test_a_huge_file_is_not_opened(tmp_path):
    path = tmp_path / "huge.xml"
    with path.open("wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(InputError, match="larger than 64 MiB"):
        read_reading(path)


# Consensus


def mark(reader, x, diameter=6.0, kind="nodule"):
    return PlacedMark(reader, kind, np.array([x, 0.0, 0.0]), diameter)


def test_three_of_four_make_a_nodule_at_their_mean():
    nodules, excluded = agree([mark(0, 10.0, 5), mark(1, 11.0, 6), mark(3, 12.0, 10), mark(2, 40.0)])
    assert nodules == ((11.0, 0.0, 0.0, 7.0),)
    assert excluded == ((40.0, 0.0, 0.0, 6.0),)


def test_marks_belong_together_within_the_sum_of_their_radii():
    assert agree([mark(r, x) for r, x in ((0, 0.0), (1, 5.9), (2, 3.0))])[0] == (
        (pytest.approx(8.9 / 3), 0.0, 0.0, 6.0),
    )
    assert agree([mark(r, x) for r, x in ((0, 0.0), (1, 0.0), (2, 6.0))])[0] == ()  # balls that touch do not overlap


def test_two_nodules_side_by_side_stay_two():
    marks = [mark(r, x + 0.1 * r) for r in range(4) for x in (0.0, 5.0)]
    nodules, excluded = agree(marks)
    assert [round(n[0], 2) for n in nodules] == [0.15, 5.15]
    assert excluded == ()
    nodules, excluded = agree([mark(0, 0.0), mark(0, 5.0), mark(1, 5.1), mark(2, 5.2)])
    assert [round(n[0], 2) for n in nodules] == [5.1]  # the closest are joined first
    assert [n[0] for n in excluded] == [0.0]


def test_the_order_of_the_readers_does_not_matter():
    marks = [mark(r, x, d) for r, x, d in ((0, 0.0, 4), (1, 1.0, 6), (2, 2.5, 8), (3, 3.0, 3))]
    np.testing.assert_allclose(agree(marks)[0], agree(marks[::-1])[0])


def test_small_marks_and_non_nodules_never_make_a_nodule():
    marks = [mark(r, 1.0, UNMEASURED_MM, kind) for r, kind in enumerate(("small", "small", "small", "non-nodule"))]
    assert agree(marks) == ((), ((1.0, 0.0, 0.0, UNMEASURED_MM),))


# The real thing


@pytest.mark.data
def test_the_real_readers_are_where_luna16_has_them(shared_data):
    folder = shared_data / "dicom" / "LIDC-IDRI-0001"
    scan = choose_series(folder, None)
    marks = place_marks(read_reading(folder / "069.xml"), scan)
    (found,), excluded = agree(marks)
    reference, others = (
        rows_of(shared_data / "luna16" / name, scan.uid) for name in ("annotations.csv", "annotations_excluded.csv")
    )
    # LUNA16 took the mean pair by pair, here it is that of all four.
    np.testing.assert_allclose(found[:3], reference[0, :3], atol=0.3)
    assert found[3] == pytest.approx(reference[0, 3], abs=0.3)
    # What it lists of single readers is the same, to the rounding of the slice positions.
    small = np.unique(others[others[:, 3] < 0, :3], axis=0)
    apart = cdist(small, np.array(excluded)[:, :3])
    assert apart.shape == (16, 16)
    assert max(apart.min(axis=0).max(), apart.min(axis=1).max()) < 1e-3
    fourth = next(m for m in marks if m.reader == 3 and m.kind == "nodule")
    np.testing.assert_allclose(
        [*fourth.center_mm, fourth.diameter_mm], [56.60717, 86.21893, -115.76846, 23.50014], atol=1e-3
    )
    # The stacks' makers place it by other means.
    stacks = rows_of(shared_data / "annotations.csv", "LIDC-IDRI-0001")
    assert np.linalg.norm(found[:3] - stacks[0, :3]) < 2


def rows_of(path, series):
    with path.open() as file:
        rows = [list(row.values()) for row in csv.DictReader(file)]
    return np.array([[float(v) for v in row[1:5]] for row in rows if row[0] == series])
