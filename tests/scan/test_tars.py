"""Tars of DICOM and archives of images: read as from a folder, within the bounds of a zip."""

import gzip
import io
import tarfile
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scan.scans import axial, oblique, some_hu, write_series
from scan.test_reading import write_file

from gcnn_cli.cohort.scans import find_cohort
from gcnn_cli.errors import InputError, SeriesChoiceError
from gcnn_cli.scan import archives
from gcnn_cli.scan.info import describe_scan
from gcnn_cli.scan.reading import read_volume


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder in which archives are unpacked; must be empty afterwards."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def tar(path: Path, folder: Path, *, edit=lambda info: info, form=tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w", format=form) as archive:
        for file in sorted(folder.rglob("*")):
            archive.add(file, file.relative_to(folder), filter=edit)
    return path


def refused(path: Path, temporary: Path, reason: str) -> None:
    for read in (read_volume, describe_scan):
        with pytest.raises(InputError, match=reason) as refusal:
            read(path)
        assert str(refusal.value).startswith((f"{path}: ", f"{path}/"))
        assert len(str(refusal.value).splitlines()) == 1
    assert list(temporary.iterdir()) == []


@pytest.fixture
def series(tmp_path):
    return write_series(tmp_path / "series", some_hu(), oblique())


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz", "any name"])
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_tar_of_a_series_is_the_series(tmp_path, temporary, series, name, form):
    (series / "readme.txt").write_text("x" * 500)
    volume, plain = read_volume(tar(tmp_path / name, series, form=form)), read_volume(series)
    np.testing.assert_array_equal(volume.hu, plain.hu)
    assert volume.source.sha256 == plain.source.sha256
    assert volume.source.path == str(tmp_path / name)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("name", ["../stray.dcm", "/tmp/stray.dcm", "..\\stray.dcm", "C:\\stray.dcm"])
def test_members_outside_the_folder_are_refused(tmp_path, temporary, series, name):
    def edit(info):
        info.name = name if info.name == "002.dcm" else info.name
        return info

    refused(tar(tmp_path / "a.tar", series, edit=edit), temporary, "would be unpacked outside its folder")
    assert not Path("/tmp/stray.dcm").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_are_refused(tmp_path, temporary, series, kind):
    path = tar(tmp_path / "a.tar", series)
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("linked.dcm")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    refused(path, temporary, "holds a link")


def test_devices_and_pipes_are_left_packed(tmp_path, temporary, series):
    path = tar(tmp_path / "a.tar", series)
    with tarfile.open(path, "a") as archive:
        for number, kind in enumerate((tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE)):
            info = tarfile.TarInfo(f"{number}.dcm")
            info.type = kind
            archive.addfile(info)
    assert read_volume(path).shape == some_hu().shape


@pytest.mark.parametrize("cut", [512, 700, 5000])
@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_a_truncated_tar_is_refused_even_between_two_files(tmp_path, temporary, series, name, cut):
    path = tar(tmp_path / name, series)
    content = path.read_bytes()
    with tarfile.open(tmp_path / "b.tar", "w") as archive:
        archive.add(series / "000.dcm", "000.dcm")
    first = (tmp_path / "b.tar").stat().st_size  # a whole number of records
    kept = content[: len(content) // 2] if name.endswith("gz") else content[: min(first, len(content)) - 1024 - cut]
    path.write_bytes(kept)
    refused(path, temporary, "cannot be unpacked")


def test_a_tar_that_ends_between_two_files_has_lost_slices(tmp_path, temporary, series):
    path = tar(tmp_path / "a.tar", series)
    with tarfile.open(path) as archive:
        third = archive.getmembers()[3].offset
    path.write_bytes(path.read_bytes()[:third])
    refused(path, temporary, "cannot be unpacked: truncated")


def test_a_bomb_is_cut_off(tmp_path, temporary, monkeypatch):
    monkeypatch.setattr(archives, "_UNSUSPICIOUS_BYTES", 10_000_000)
    info = tarfile.TarInfo("bomb.dcm")
    info.size = 4_000_000_000
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(info.tobuf() + bytes(128) + b"DICM" + bytes(20_000_000))
    refused(tmp_path / "a.tar.gz", temporary, "too much for a tar of its size")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_claims_gigabytes_takes_no_memory(tmp_path, temporary, kind):
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, 2_000_000_000
    with gzip.open(tmp_path / "a.tar.gz", "wb", compresslevel=1) as file:
        file.write(info.tobuf() + bytes(50_000_000))
    tracemalloc.start()
    refused(tmp_path / "a.tar.gz", temporary, "cannot be unpacked: a header of a size that none has")
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_more_files_than_a_scan_has_are_refused(tmp_path, temporary, series, monkeypatch):
    monkeypatch.setattr(archives, "_MAX_MEMBERS", 4)
    refused(tar(tmp_path / "a.tar", series), temporary, "more files or bytes than a scan")


def test_a_tar_larger_than_the_disk_is_refused(tmp_path, temporary, series, monkeypatch):
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    refused(tar(tmp_path / "a.tar", series), temporary, "too much for a tar")


# Images in archives


def archive_of(path: Path, folder: Path) -> Path:
    if path.suffix != ".zip":
        return tar(path, folder)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


@pytest.mark.parametrize("packing", ["a.zip", "a.tar.gz"])
@pytest.mark.parametrize("name", ["subset0/1.2.3.mhd", "packed.mhd", "b.nii.gz", "b.nrrd", "b.mha"])
def test_an_image_in_an_archive_is_read(tmp_path, temporary, packing, name):
    path = tmp_path / "images" / name
    path.parent.mkdir(parents=True)
    plain = read_volume(write_file(path, some_hu(), axial()))
    volume = read_volume(archive_of(tmp_path / packing, tmp_path / "images"))
    np.testing.assert_array_equal(volume.hu, plain.hu)
    assert volume.source.path == str(tmp_path / packing)
    assert volume.source.series_uid == plain.source.series_uid
    assert list(temporary.iterdir()) == []


def test_one_of_several_images_is_chosen_by_name_or_number(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(3):
        write_file(tmp_path / "images" / f"1.2.{number}.mhd", some_hu(seed=number), axial())
    path = archive_of(tmp_path / "subset0.zip", tmp_path / "images")
    with pytest.raises(SeriesChoiceError, match="3 images found; choose one with --series NAME or --series '#N'"):
        read_volume(path)
    for choice in ("1.2.1", "#2"):
        volume = read_volume(path, series=choice)
        np.testing.assert_array_equal(volume.hu, some_hu(seed=1))
        assert volume.source.series_uid == "1.2.1"
    with pytest.raises(InputError, match="no image 1.2.7; there are 3"):
        read_volume(path, series="1.2.7")
    assert [row["number"] for row in describe_scan(path)] == ["#1", "#2", "#3"]
    assert [row["seriesuid"] for row in describe_scan(path)] == ["1.2.0", "1.2.1", "1.2.2"]


def test_images_beside_a_series_do_not_hide_it(tmp_path, series):
    write_file(series / "mask.nii.gz", some_hu(), axial())
    np.testing.assert_array_equal(read_volume(archive_of(tmp_path / "a.zip", series)).hu, some_hu())


def test_a_damaged_image_is_named_within_its_archive(tmp_path, temporary):
    (tmp_path / "images").mkdir()
    write_file(tmp_path / "images" / "a.mhd", some_hu(), axial())
    (tmp_path / "images" / "a.raw").write_bytes(b"xx")
    refused(archive_of(tmp_path / "a.zip", tmp_path / "images"), temporary, r"a\.raw: truncated")


def test_archives_in_a_folder_are_scans_of_a_cohort(tmp_path, series):
    (tmp_path / "all").mkdir()
    for name in ("a.zip", "b.tar", "c.tar.gz", "d.tgz"):
        archive_of(tmp_path / "all" / name, series)
    assert [scan.path.name for scan in find_cohort([tmp_path / "all"]).scans] == ["a.zip", "b.tar", "c.tar.gz", "d.tgz"]


def test_neither_series_nor_image(tmp_path, temporary):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x" * 600)
    refused(archive_of(tmp_path / "a.zip", tmp_path / "texts"), temporary, "no DICOM series")


def test_a_gzip_that_is_no_tar_is_not_supported(tmp_path, temporary):
    (tmp_path / "a.gz").write_bytes(gzip.compress(io.BytesIO(b"x" * 5000).getvalue()))
    refused(tmp_path / "a.gz", temporary, "not a supported scan")
