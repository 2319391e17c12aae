"""Layouts are recognized, labels find their scans, and problems are reported and left out."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from labels.readers import ball, center_and_diameter, nodule, noise_hu, non_nodule, outlined, roi, write_message
from scan.scans import SERIES, axial, write_series

from gcnn_cli.errors import InputError
from gcnn_cli.labels.index import read_index
from gcnn_cli.labels.marks import UNMEASURED_MM
from gcnn_cli.labels.patients import known_as, pseudonym
from gcnn_cli.labels.problems import (
    DUPLICATE_ID,
    DUPLICATE_ROW,
    LABELLED_TWICE,
    MISSING,
    OUTSIDE,
    UNREADABLE,
    Problem,
    report_problems,
)
from gcnn_cli.scan.volume import Volume
from gcnn_cli.scan.writing import write_metaimage

SHAPE = (12, 30, 34)
GRID = axial()
COLUMNS = "seriesuid,coordX,coordY,coordZ,diameter_mm"
INSIDE = "0,30,-290,6"  # x, y, z, diameter
A, B, C = "1.3.6.1", "1.3.6.2", "1.3.6.3"


def write_scan(path, seed=0):
    write_metaimage(Volume(noise_hu(SHAPE, seed), GRID), path)
    return path


def write_rows(path, *rows, heading=COLUMNS):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([heading, *rows]) + "\n")


def write_reads(folder, series=SERIES):
    """A series, and what four readers marked: nodules of three and of two, one small mark, one non-nodule."""
    write_series(folder, noise_hu(SHAPE), GRID, series=series)

    def uid(number):
        return f"{series}.{number + 1}"

    three = [ball(SHAPE, GRID, (1.0 + 0.3 * n, 30.0, -290.0), 4 + 0.3 * n) for n in range(3)]
    two = ball(SHAPE, GRID, (-5.0, 38.0, -278.0), 3.5)
    rims = [nodule(outlined(mask, uid)) for mask in three]
    sessions = [
        rims[0] + nodule(outlined(two, uid)),
        rims[1] + nodule(roi(uid(2), [(25, 8)]), small=True),
        rims[2] + nodule(outlined(two, uid)),
        non_nodule(uid(9), 5, 20),
    ]
    return three, sessions


@pytest.fixture
def luna(tmp_path):
    """Two subsets with a scan each; the second scan has no row anywhere."""
    write_scan(tmp_path / "subset0" / f"{A}.mhd")
    write_scan(tmp_path / "subset1" / f"{B}.mhd", seed=1)
    write_rows(tmp_path / "CSVFILES" / "annotations.csv", f"{A},{INSIDE}")
    return tmp_path


def by_name(index):
    return {scan.name: scan for scan in index.scans}


# LUNA16


def test_a_scan_of_luna16_without_rows_is_a_scan_without_nodules(luna, caplog):
    caplog.set_level(logging.INFO, "gcnn")
    write_rows(luna / "CSVFILES" / "annotations_excluded.csv", f"{B},1,31,-285,-1", f"{B},1,31,-285,-1")
    index = read_index([luna])
    scans = by_name(index)
    assert [scan.labelled for scan in index.scans] == [True, True]
    assert (scans[A].nodules, scans[B].nodules) == (((0.0, 30.0, -290.0, 6.0),), ())
    assert scans[B].excluded == ((1.0, 31.0, -285.0, UNMEASURED_MM),)
    assert {scan.layout for scan in index.scans} == {"LUNA16"}
    assert scans[A].labels == luna / "CSVFILES" / "annotations.csv"
    assert "LUNA16 layout, 2 scans: 2 labeled, with 1 nodules, 1 excluded marks, 0 candidates" in caplog.text
    assert index.problems == ()  # readers agree to the pixel: a repeated excluded mark is no problem


def test_seriesuids_lists_the_scans_that_were_read(luna):
    write_rows(luna / "CSVFILES" / "seriesuids.csv", A, heading="")
    assert {name: scan.labelled for name, scan in by_name(read_index([luna])).items()} == {A: True, B: False}


def test_annotations_of_other_scans_make_none_nodule_free(luna):
    write_rows(luna / "CSVFILES" / "annotations.csv", f"1.2.3.4,{INSIDE}")
    index = read_index([luna])
    assert not any(scan.labelled for scan in index.scans)
    assert [p.kind for p in index.problems] == [MISSING]


def test_a_subset_is_known_by_its_name_or_the_name_of_its_link(luna, monkeypatch):
    monkeypatch.chdir(luna / "subset1")
    (luna / "subset0").rename(luna / "disk")
    (luna / "subset0").symlink_to(luna / "disk")
    index = read_index([Path("."), luna / "subset0", luna / "CSVFILES"])
    assert [(scan.layout, scan.labelled) for scan in index.scans] == [("LUNA16", True)] * 2


def test_lung_masks_of_luna16_are_no_scans(luna):
    write_scan(luna / "seg-lungs-LUNA16" / f"{A}.mhd", seed=5)
    index = read_index([luna])
    assert [scan.path.parent.name for scan in index.scans] == ["subset0", "subset1"]
    assert index.problems == ()


def test_candidates_come_with_their_class_the_second_list_before_the_first(luna):
    heading = "seriesuid,coordX,coordY,coordZ,class"
    write_rows(luna / "CSVFILES" / "candidates.csv", f"{A},9,9,9,0", heading=heading)
    first = by_name(read_index([luna]))
    assert first[A].candidates.tolist() == [[9, 9, 9, 0]]
    assert first[B].candidates.shape == (0, 4)
    rows = (f"{A},0,30,-290,1", f"{A},5,25,-280,0", "1.2.3.4,0,0,0,0")
    write_rows(luna / "CSVFILES" / "candidates_V2.csv", *rows, heading=heading)
    index = read_index([luna])
    assert by_name(index)[A].candidates.tolist() == [[0, 30, -290, 1], [5, 25, -280, 0]]
    assert index.problems == ()  # candidates of a missing subset are no problem
    write_rows(luna / "CSVFILES" / "candidates_V2.csv", f"{A},0,30,-290,2", heading=heading)
    with pytest.raises(InputError, match=r"candidates_V2.csv, line 2: class must be 0 or 1, got 2"):
        read_index([luna])


def test_labels_and_subsets_may_be_given_apart(luna):
    index = read_index([luna / "subset0", luna / "CSVFILES", luna / "subset1"])
    assert [(scan.name, scan.labelled, len(scan.nodules)) for scan in index.scans] == [(A, True, 1), (B, True, 0)]


# Plain folders


def test_a_plain_folder_names_the_scans_that_were_read(tmp_path):
    for n, name in enumerate(("annotated", "excluded", "listed", "seriesuid", "nobody")):
        write_scan(tmp_path / f"{name}.mha", seed=n)
    write_rows(tmp_path / "annotations.csv", f"annotated,{INSIDE}")
    write_rows(tmp_path / "annotations_excluded.csv", f"excluded,{INSIDE}")
    rows = ("listed,LIDC-IDRI-0007", "annotated,own", "seriesuid,")  # a scan may have the heading's name
    write_rows(tmp_path / "scans.csv", *rows, heading="seriesuid,patient")
    write_rows(tmp_path / "seriesuids.csv", heading="seriesuid")
    scans = by_name(read_index([tmp_path]))
    assert [name for name, scan in scans.items() if not scan.labelled] == ["nobody"]
    assert (scans["listed"].patient, scans["annotated"].patient) == ("LIDC-IDRI-0007", pseudonym("own"))
    assert scans["listed"].labels == tmp_path / "scans.csv"
    assert {scan.layout for scan in scans.values()} == {"plain"}


def test_a_scan_in_both_lists_is_named_by_the_first(tmp_path):
    write_scan(tmp_path / "one.mha")
    for name in ("seriesuids.csv", "scans.csv"):
        write_rows(tmp_path / name, "one", heading="seriesuid")
    (scan,) = read_index([tmp_path]).scans
    assert scan.labels == tmp_path / "seriesuids.csv"


def test_labels_apply_to_the_scans_below_them(tmp_path):
    write_scan(tmp_path / "a" / "one.mha")
    write_scan(tmp_path / "b" / "two.mha", seed=1)
    write_rows(tmp_path / "a" / "annotations.csv", f"one,{INSIDE}", f"two,{INSIDE}")
    index = read_index([tmp_path])
    assert {name: scan.labelled for name, scan in by_name(index).items()} == {"one": True, "two": False}


def test_a_dicom_series_is_labelled_by_its_uid_or_its_folder(tmp_path):
    write_series(tmp_path / "one", noise_hu(SHAPE), GRID, series="1.2.1")
    write_series(tmp_path / "two", noise_hu(SHAPE, 1), GRID, series="1.2.2")
    write_rows(tmp_path / "annotations.csv", f"one,{INSIDE}", f"1.2.2,{INSIDE}")
    scans = by_name(read_index([tmp_path]))
    assert {name: len(scan.nodules) for name, scan in scans.items()} == {"1.2.1": 1, "1.2.2": 1}


def test_of_two_series_in_a_folder_the_labelled_one_is_read(tmp_path):
    for n, series in enumerate(("1.2.1", "1.2.2")):
        name = f"{n}-{{:03d}}".format  # no ending: DICOM is known by its content
        write_series(tmp_path / "both", noise_hu(SHAPE, n), GRID, series=series, name=name)
    write_rows(tmp_path / "annotations.csv", f"1.2.2,{INSIDE}", f"both,{INSIDE}")
    index = read_index([tmp_path])
    scans = by_name(index)
    assert [scans[s].labelled for s in ("1.2.1", "1.2.2")] == [False, True]
    np.testing.assert_array_equal(scans["1.2.2"].read().hu, noise_hu(SHAPE, 1))
    assert [p.text.split()[-1] for p in index.problems] == ["both"]  # whose folder name says nothing


# LIDC-IDRI


@pytest.mark.parametrize("place", ["study/series", "study", "."])
def test_readers_xml_becomes_nodules_and_excluded_marks(tmp_path, place, caplog):
    caplog.set_level(logging.INFO, "gcnn")
    three, sessions = write_reads(tmp_path / "study" / "series")
    write_message(tmp_path / place / "069.xml", SERIES, sessions)
    index = read_index([tmp_path])
    (scan,) = index.scans
    truths = [center_and_diameter(mask, GRID) for mask in three]
    center, diameter = (np.mean([truth[n] for truth in truths], axis=0) for n in (0, 1))
    np.testing.assert_allclose(scan.nodules, [[*center, diameter]], atol=1e-4)
    small, other = ((GRID @ [z, y, x, 1])[:3] for z, y, x in ((2, 8, 25), (9, 20, 5)))
    places = [mark[:3] for mark in scan.excluded]
    np.testing.assert_allclose(places[1:], [small, other], atol=1e-4)
    np.testing.assert_allclose(places[0], (-5, 38, -278), atol=0.7)  # of two readers
    assert (scan.layout, scan.labelled, scan.labels) == ("LIDC-IDRI", True, tmp_path / place / "069.xml")
    assert "LIDC-IDRI layout, 1 scans: 1 labeled, with 1 nodules, 3 excluded marks" in caplog.text
    assert index.problems == ()


def test_xml_may_lie_in_a_folder_of_its_own(tmp_path):
    _, sessions = write_reads(tmp_path / "images")
    (tmp_path / "xml").mkdir()
    write_message(tmp_path / "xml" / "158.xml", SERIES, sessions)
    (scan,) = read_index([tmp_path / "images", tmp_path / "xml"]).scans
    assert len(scan.nodules) == 1


def test_csv_nodules_come_before_xml_and_all_marks_are_no_negatives(tmp_path):
    _, sessions = write_reads(tmp_path / "series")
    write_message(tmp_path / "069.xml", SERIES, sessions)
    write_rows(tmp_path / "annotations.csv", f"series,{INSIDE}")
    index = read_index([tmp_path])
    (scan,) = index.scans
    assert scan.nodules == ((0.0, 30.0, -290.0, 6.0),)
    assert len(scan.excluded) == 1 + 3  # the readers' nodule and their excluded marks
    assert [p.kind for p in index.problems] == [LABELLED_TWICE]


def test_a_damaged_xml_costs_no_scan_that_has_other_labels(tmp_path):
    on_no_pixel(tmp_path)
    write_rows(tmp_path / "annotations.csv", f"series,{INSIDE}")
    index = read_index([tmp_path])
    assert [scan.nodules for scan in index.scans] == [((0.0, 30.0, -290.0, 6.0),)]
    assert [p.kind for p in index.problems] == [UNREADABLE]


# Patients


def test_no_patient_id_is_kept_but_lidcs(tmp_path):
    write_series(tmp_path / "one", noise_hu(SHAPE), GRID, series="1.2.1")  # PatientID SECRET-7

    def named(_, dataset):
        dataset.PatientID = "LIDC-IDRI-0003"

    write_series(tmp_path / "two", noise_hu(SHAPE), GRID, series="1.2.2", edit=named)
    index = read_index([tmp_path])
    assert index.patients == ("LIDC-IDRI-0003", pseudonym("SECRET-7"))
    assert "SECRET" not in repr(index)
    assert known_as("SECRET-7", index.patients) == pseudonym("SECRET-7")
    assert known_as("LIDC-IDRI-0003", index.patients) == "LIDC-IDRI-0003"
    assert known_as("someone else", index.patients) == ""


def test_a_list_further_up_may_name_the_patient(tmp_path):
    write_scan(tmp_path / "a" / "one.mha")
    write_rows(tmp_path / "a" / "annotations.csv", f"one,{INSIDE}")
    write_rows(tmp_path / "scans.csv", "one,LIDC-IDRI-0009", heading="seriesuid,patient")
    (scan,) = read_index([tmp_path]).scans
    assert (scan.patient, len(scan.nodules)) == ("LIDC-IDRI-0009", 1)


def test_cutouts_that_may_come_from_the_same_patients_raise_a_warning(luna, caplog):
    np.savez(luna / "LIDC-IDRI-0001_R_1.npz", hu=np.zeros((2, 4, 4), np.int16), mask=np.ones((2, 4, 4), bool))
    read_index([luna])
    assert "the patients of scans named by series are unknown" in caplog.text


# Problems


def missing(folder):
    write_rows(folder / "annotations.csv", f"good,{INSIDE}", f"gone,{INSIDE}", f"gone,9{INSIDE}")


def truncated(folder):
    data = write_scan(folder / "bad.mhd", seed=1).with_suffix(".zraw")
    data.write_bytes(data.read_bytes()[:100])


def with_a_gap(folder):
    write_series(folder / "series", noise_hu(SHAPE), GRID)
    (folder / "series" / "005.dcm").unlink()


def no_cutout(folder):
    np.savez(folder / "cache.npz", features=np.zeros(3))


def outside(folder):
    write_scan(folder / "moved.mha", seed=1)
    write_rows(folder / "annotations.csv", f"good,{INSIDE}", f"moved,{INSIDE}", "moved,0,-30,-290,6")


def on_no_slice(folder):
    _, sessions = write_reads(folder / "series")
    write_message(folder / "series" / "069.xml", SERIES, [*sessions, nodule(roi("1.2.3", [(1, 2)]), small=True)])


def on_no_pixel(folder):
    _, sessions = write_reads(folder / "series")
    write_message(folder / "series" / "069.xml", SERIES, [*sessions, nodule(roi(SERIES + ".1", [(1, "two")]))])


def one_file_for_two(folder):
    for n in range(2):
        write_scan(folder / str(n) / "scan.mha", seed=1 + n)
    write_rows(folder / "annotations.csv", f"good,{INSIDE}", f"scan,{INSIDE}")


def same_row(folder):
    write_rows(folder / "annotations.csv", f"good,{INSIDE}", f"good,{INSIDE}")


def no_series(folder):
    write_message(folder / "069.xml", "1.2.3.4", [""])


def same_reader_file(folder):
    _, sessions = write_reads(folder / "series")
    for name in ("1.xml", "2.xml"):
        write_message(folder / name, SERIES, sessions)


@pytest.mark.parametrize(
    ("spoil", "kind", "text", "used"),
    [
        (missing, MISSING, "annotations.csv: no scan of gone", ["good"]),
        (no_series, MISSING, "069.xml: no scan of 1.2.3.4", ["good"]),
        (truncated, UNREADABLE, "bad.zraw: truncated", ["good"]),
        (with_a_gap, UNREADABLE, "is the series complete?", ["good"]),
        (no_cutout, UNREADABLE, "cache.npz: not a nodule cut-out", ["good"]),
        (outside, OUTSIDE, "1 of 2 nodules of moved lie outside it", ["good"]),
        (on_no_slice, OUTSIDE, "a mark on slice 1.2.3", ["good"]),
        (on_no_pixel, UNREADABLE, "yCoord 'two' is not a pixel", ["good"]),
        (one_file_for_two, DUPLICATE_ID, "all are left out", ["good"]),
        (same_row, DUPLICATE_ROW, "annotations.csv, line 3: repeats the nodule of line 2 (good)", ["good"]),
        (same_reader_file, LABELLED_TWICE, "1.xml labels the same series", ["good", SERIES]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_problems_are_reported_left_out_and_refused_with_strict(tmp_path, spoil, kind, text, used, caplog):
    write_scan(tmp_path / "good.mha")
    write_rows(tmp_path / "annotations.csv", f"good,{INSIDE}")
    assert read_index([tmp_path], strict=True).problems == ()
    spoil(tmp_path)
    index = read_index([tmp_path])
    assert sorted(scan.name for scan in index.scans) == sorted(used)
    assert [p.kind for p in index.problems] == [kind]
    assert text in index.problems[0].text
    assert f"{kind}: {index.problems[0].text}" in caplog.text
    assert f"problems with the labeled data: 1 {kind}" in caplog.text
    assert by_name(index)["good"].nodules == ((0.0, 30.0, -290.0, 6.0),)
    with pytest.raises(InputError, match=f"--strict: 1 {kind}; the first: ") as error:
        read_index([tmp_path], strict=True)
    assert text in str(error.value)
    assert "SECRET" not in caplog.text + str(error.value)


def test_scans_of_one_name_with_labels_of_their_own_leave_the_first(tmp_path):
    for n in range(2):
        write_scan(tmp_path / str(n) / "scan.mha", seed=n)
        write_rows(tmp_path / str(n) / "annotations.csv", f"scan,{n},30,-290,6")
    index = read_index([tmp_path])
    assert [(scan.path.parent.name, scan.nodules[0][0]) for scan in index.scans] == [("0", 0.0)]
    assert [p.kind for p in index.problems] == [DUPLICATE_ID]


def test_a_uid_is_one_series_wherever_it_lies(luna):
    write_series(luna / "tcia", noise_hu(SHAPE), GRID, series=A)
    index = read_index([luna])
    assert [(scan.name, scan.patient) for scan in index.scans] == [(A, pseudonym("SECRET-7")), (B, B)]
    assert index.scans[0].path.suffix == ".mhd"
    assert [p.kind for p in index.problems] == [DUPLICATE_ID]


def test_folders_in_folders_are_read_once(luna):
    index = read_index([luna / "subset0", luna, luna])
    assert [scan.name for scan in index.scans] == [A, B]
    assert index.problems == ()


def test_a_cutout_in_two_folders_is_used_once(luna, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    for folder in (luna, other):
        np.savez(folder / "cube.npz", hu=np.zeros((2, 4, 4), np.int16), mask=np.ones((2, 4, 4), bool))
    index = read_index([luna, other])
    assert [cutout.path for cutout in index.cutouts] == [luna / "cube.npz"]
    assert [p.kind for p in index.problems] == [DUPLICATE_ID]


def test_ten_of_a_kind_are_listed_and_all_are_counted(caplog):
    problems = [Problem(MISSING, f"scan {n}") for n in range(13)] + [Problem(OUTSIDE, "far")]
    report_problems(problems, strict=False)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 10 + 1 + 1 + 1
    assert lines[10] == f"{MISSING}: and 3 more"
    assert lines[-1].endswith(f"13 {MISSING}, 1 {OUTSIDE}")
    with pytest.raises(InputError, match=f"13 {MISSING}, 1 {OUTSIDE}; the first: scan 0"):
        report_problems(problems, strict=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("annotations.csv", f"{COLUMNS}\nscan,1,2,nan,4\n", "line 2: coordZ is 'nan'"),
        ("annotations.csv", f"{COLUMNS}\n,1,2,3,4\n", "line 2: no seriesuid"),
        ("annotations.csv", f"{COLUMNS}\nscan,1,2\n", "line 2: 3 columns, the header has 5"),
        ("annotations.csv", b"seriesuid\xff", "not a CSV file in UTF-8"),
        ("annotations_excluded.csv", f"{COLUMNS}\nscan,one,2,3,4\n", "line 2: coordX is 'one'"),
        ("seriesuids.csv", b"\xff\xfe", "not a CSV file in UTF-8"),
        ("seriesuids.csv", "scan,1\n", "line 1: 2 columns, expected seriesuid"),
        ("damaged.xml", "<LidcReadMessage>", "invalid XML"),
    ],
)
def test_damaged_label_files_are_refused(tmp_path, name, content, message):
    write_scan(tmp_path / "scan.mha")
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as error:
        read_index([tmp_path])
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_damaged_cutout_is_one_line(luna):
    path = luna / "cube.npz"
    np.savez_compressed(path, hu=np.arange(4000, dtype=np.int16).reshape(10, 20, 20), mask=np.ones((10, 20, 20), bool))
    content = bytearray(path.read_bytes())
    content[200:400] = b"\0" * 200
    path.write_bytes(content)
    (cutout,) = read_index([luna]).cutouts
    with pytest.raises(InputError, match="cube.npz: not a nodule cut-out, or damaged"):
        cutout.read()


def test_xml_whose_scan_is_no_dicom_series_is_a_problem(tmp_path):
    _, sessions = write_reads(tmp_path / "series")
    shutil.rmtree(tmp_path / "series")
    write_message(tmp_path / "069.xml", SERIES, sessions)
    write_scan(tmp_path / f"{SERIES}.mhd")
    index = read_index([tmp_path])
    assert not index.scans[0].labelled
    assert "places its marks by DICOM slices" in index.problems[0].text
    with pytest.raises(InputError, match="--strict"):
        read_index([tmp_path], strict=True)


def test_hidden_labels_belong_to_others(tmp_path):
    """To snapshots of a file system, and to the system that copied the files."""
    write_scan(tmp_path / f"{A}.mhd")
    write_scan(tmp_path / f"{B}.mhd", 1)
    write_rows(tmp_path / "annotations.csv", f"{A},{INSIDE}")
    write_rows(tmp_path / ".snapshot" / "annotations.csv", f"{B},{INSIDE}")
    (tmp_path / "._069.xml").write_bytes(b"\0\5\x16\7")
    (tmp_path / "._cube.npz").write_bytes(b"\0\5\x16\7")
    index = read_index([tmp_path])
    assert [(scan.name, scan.labelled) for scan in index.scans] == [(A, True), (B, False)]
    assert index.problems == ()
