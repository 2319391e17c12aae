"""What is taken for a scan in folders and lists, under which name, and what is set aside with which reason."""

import os
import shutil
from pathlib import Path

import pytest
from scan.scans import axial, some_hu, write_series

from gcnn_cli.cohort.scans import find_cohort
from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.labels.discovery import find_scans
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.volume import Volume
from gcnn_cli.scan.writing import write_metaimage


def uid(number):
    return f"1.2.826.0.1.2.{number}"


def series(folder, number, study=None, **changes):
    """A DICOM series in a study of its own, or of a given number."""

    def edit(_, dataset):
        dataset.StudyInstanceUID = f"1.2.826.0.1.1.{number if study is None else study}"
        for name, value in changes.items():
            setattr(dataset, name, value)

    return write_series(folder, some_hu(), axial(), edit=edit, series=uid(number))


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_metaimage(Volume(some_hu(), axial()), path)
    return path


def names(cohort):
    return [scan.name for scan in cohort.scans]


def test_one_series_is_one_scan_wherever_it_lies(tmp_path):
    series(tmp_path / "study" / "deep" / "ct", 1)
    series(tmp_path / "study" / "scout", 2, study=1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    series(tmp_path / "study" / "plain", 3, study=1, Modality="DX")
    (tmp_path / "study" / "readme.txt").write_text("hello")
    cohort = find_cohort([tmp_path / "study"])
    (scan,) = cohort.scans
    assert (scan.path, scan.name, scan.series) == (tmp_path / "study", "study", None)
    assert (cohort.is_batch, cohort.set_aside, cohort.found) == (False, (), ())


def test_one_series_in_two_folders_is_not_two_halves(tmp_path):
    whole = series(tmp_path / "a" / "1", 1)
    (tmp_path / "a" / "2").mkdir()
    for name in ("003.dcm", "004.dcm"):
        (whole / name).rename(tmp_path / "a" / "2" / name)
    series(tmp_path / "b", 2)
    cohort = find_cohort([tmp_path])
    assert [(scan.name, scan.series) for scan in cohort.scans] == [("a", uid(1)), ("b", uid(2))]


def test_several_series_in_one_folder_are_a_choice(tmp_path):
    series(tmp_path / "mixed", 1)
    write_series(tmp_path / "mixed", some_hu(), axial(), series=uid(2), name="b{:03d}.dcm".format)
    cohort = find_cohort([tmp_path / "mixed"])
    assert not cohort.is_batch
    assert names(cohort) == ["mixed"]


def test_a_folder_of_many_kinds(tmp_path):
    root = tmp_path / "many"
    image(root / "one.mhd")
    image(root / "sub" / "two.mha")
    series(root / "p1" / "ct", 1)
    series(root / "p2" / "ct", 2)
    series(root / "p2" / "scout", 3, study=2, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    series(root / "p3", 4, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    series(root / "p4", 5, Modality="DX")
    damaged = series(root / "p5", 6)
    for path in damaged.iterdir():
        path.write_bytes(path.read_bytes()[:140] + b"\xff" * 40)
    (root / "p1" / "ct" / "marks.xml").write_text("belongs to the series")
    (root / "notes.txt").write_text("hello")
    (root / "lost.zraw").write_bytes(b"x")
    for name in ("sub/old.nodules.csv", "cohort.csv", "DICOMDIR", ".hidden", "cohort.json"):
        (root / name).write_text("")
    shutil.make_archive(str(root / "zipped"), "zip", root / "p1")
    cohort = find_cohort([root])
    assert cohort.is_batch
    assert names(cohort) == ["one", "p1/ct", "p2/ct", "p3", "p5", "sub/two", "zipped.zip"]
    assert [scan.series for scan in cohort.scans] == [None, uid(1), uid(2), uid(4), None, None, None]
    reasons = {str(s.path.relative_to(root)): s.reason for s in cohort.set_aside}
    assert list(reasons) == ["lost.zraw", "notes.txt", "p2/scout", "p4"]
    assert reasons["p2/scout"] == "localizer"
    assert reasons["p4"] == "not a CT image (DX)"
    assert "not a scan" in reasons["notes.txt"]
    assert cohort.found == (f"{root}: 3 image files, 4 DICOM series, 4 set aside",)


def test_luna16s_masks_are_no_scans(tmp_path):
    image(tmp_path / "subset0" / "1.2.3.mhd")
    image(tmp_path / "seg-lungs-LUNA16" / "1.2.3.mhd")
    cohort = find_cohort([tmp_path])
    assert names(cohort) == ["subset0/1.2.3"]
    assert "outside LUNA16's subsets" in cohort.set_aside[0].reason


def test_masks_of_an_earlier_run_are_no_scans(tmp_path):
    image(tmp_path / "a.mhd")
    image(tmp_path / "b.mhd")
    (tmp_path / "a.nodules.nii.gz").write_bytes(b"\x1f\x8b")
    cohort = find_cohort([tmp_path])
    assert (names(cohort), cohort.set_aside) == (["a", "b"], ())
    assert [scan.path.name for scan in find_scans(tmp_path)] == ["a.mhd", "b.mhd"]


def test_what_holds_no_scan_is_left_to_the_reader(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "notes.txt"):
        cohort = find_cohort([path])
        assert [scan.path for scan in cohort.scans] == [path]
        assert not cohort.is_batch


def test_lists_name_scans_and_folders_of_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image(tmp_path / "set" / "a.mhd")
    text = b"\xef\xbb\xbfset\r\n\n  \nsingle scan.mha\n"
    (tmp_path / "list.txt").write_bytes(text)
    for cohort in (find_cohort([Path("@list.txt")]), find_cohort([Path("-")], read_stdin=lambda: text)):
        assert [scan.path for scan in cohort.scans] == [Path("set/a.mhd"), Path("single scan.mha")]
        assert cohort.is_batch
    assert find_cohort([Path("-")], read_stdin=lambda: b"one.mha").is_batch


@pytest.mark.parametrize(
    ("argument", "content", "error", "text"),
    [
        ("-", b"\n\n", UsageError, "is empty"),
        ("-", b"\x00\x01", InputError, "not a list of scans"),
        ("@none.txt", b"", InputError, "none.txt: the list of scans cannot be read"),
    ],
)
def test_lists_that_are_none(argument, content, error, text):
    with pytest.raises(error, match=text):
        find_cohort([Path(argument)], read_stdin=lambda: content)


def test_a_series_is_chosen_in_one_folder(tmp_path):
    series(tmp_path / "a", 1)
    series(tmp_path / "b", 2)
    assert find_cohort([tmp_path]).is_batch
    (scan,) = find_cohort([tmp_path], series="#2").scans
    assert (scan.path, scan.series) == (tmp_path, "#2")
    with pytest.raises(UsageError, match="--series applies to a single scan"):
        find_cohort([tmp_path / "a", tmp_path / "b"], series="#1")


def test_slices_are_read_of_the_series_that_was_found(tmp_path):
    """A series in the root of others: the folder alone would not tell which is meant."""
    root = series(tmp_path / "root", 1)
    series(root / "below", 2)
    found = [(s.path, s.name, s.series) for s in find_cohort([root]).scans]
    assert found == [(root, "root", uid(1)), (root / "below", "below", uid(2))]


def test_hidden_folders_hold_nobodys_scans(tmp_path):
    """Snapshots of a file system, what a viewer leaves."""
    image(tmp_path / "a.mhd")
    image(tmp_path / ".snap" / "b.mhd")
    series(tmp_path / ".cache" / "ct", 1)
    series(tmp_path / "ct", 2)
    assert names(find_cohort([tmp_path])) == ["a", "ct"]


def test_linked_folders_are_searched_once_and_links_upward_are_not(tmp_path):
    series(tmp_path / "store" / "p2", 2)
    series(tmp_path / "cohort" / "p1", 1)
    series(tmp_path / "cohort" / "p3", 3)
    (tmp_path / "cohort" / "p2").symlink_to(tmp_path / "store" / "p2")
    (tmp_path / "cohort" / "again").symlink_to(tmp_path / "store" / "p2")
    (tmp_path / "cohort" / "p1" / "up").symlink_to(tmp_path)
    (tmp_path / "cohort" / "gone").symlink_to(tmp_path / "nowhere")
    assert names(find_cohort([tmp_path / "cohort"])) == ["again", "p1", "p3"]  # p2 is the same folder
    (tmp_path / "cohort" / "again").unlink()
    assert names(find_cohort([tmp_path / "cohort"])) == ["p1", "p2", "p3"]


def test_a_patient_whose_files_cannot_be_read_is_a_scan_that_fails(tmp_path, monkeypatch):
    """Not one that is set aside: a set-aside file is no failure."""
    for number in (1, 2, 3, 4):
        series(tmp_path / f"p{number}", number)
    for file in (tmp_path / "p2").iterdir():
        content = file.read_bytes()
        file.write_bytes(content[content.index(b"\x08\x00", 140) :])
    closed = {file.name for file in (tmp_path / "p3").iterdir()} and tmp_path / "p3"
    open_file, list_folder = Path.open, os.scandir

    def refusing(path, *arguments, **options):
        if path.parent == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return open_file(path, *arguments, **options)

    def not_listing(path):
        if Path(path) == tmp_path / "p4":
            raise PermissionError(13, "Permission denied", str(path))
        return list_folder(path)

    monkeypatch.setattr(Path, "open", refusing)
    monkeypatch.setattr(os, "scandir", not_listing)
    cohort = find_cohort([tmp_path])
    assert (names(cohort), cohort.set_aside) == (["p1", "p2", "p3", "p4"], ())
    with pytest.raises(InputError, match="without the preamble"):
        read_volume(tmp_path / "p2")
    with pytest.raises(InputError, match="p4: cannot be listed: Permission denied"):
        read_volume(tmp_path / "p4")
