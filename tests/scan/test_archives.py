"""Zips that are hostile: nothing is written outside, nothing huge is unpacked, and each is one line."""

import io
import stat
import struct
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scan.scans import axial, some_hu, write_series

from gcnn_cli.errors import InputError
from gcnn_cli.scan import archives
from gcnn_cli.scan.info import describe_scan
from gcnn_cli.scan.reading import read_volume


@pytest.fixture
def slices(tmp_path):
    """Five slices as (name, bytes)."""
    folder = write_series(tmp_path / "series", some_hu(), axial())
    return [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())]


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder in which zips are unpacked; must be empty after a refusal."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def packed(path: Path, members, *, method=zipfile.ZIP_DEFLATED, link: str = "") -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
        if link:
            info = zipfile.ZipInfo("linked.dcm")
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, link)
    return path


def refused(path: Path, temporary: Path, reason: str) -> None:
    for read in (read_volume, describe_scan):
        with pytest.raises(InputError, match=reason) as refusal:
            read(path)
        assert str(refusal.value).startswith(f"{path}: ")
        assert len(str(refusal.value).splitlines()) == 1
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["../stray.dcm", "a/../../stray.dcm", "/tmp/stray.dcm", "..\\stray.dcm", "C:\\stray.dcm"]
)
def test_members_outside_the_folder_are_refused(tmp_path, temporary, slices, name) -> None:
    path = packed(tmp_path / "a.zip", [*slices, (name, slices[0][1])])
    before = sorted(tmp_path.rglob("*"))
    refused(path, temporary, "would be unpacked outside its folder")
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/stray.dcm").exists()


def test_links_are_refused(tmp_path, temporary, slices) -> None:
    refused(packed(tmp_path / "a.zip", slices, link="/etc/passwd"), temporary, "symbolic link")


def lying(content: bytes, name: bytes, size: int) -> bytes:
    """A zip whose headers declare another unpacked size for a member."""
    changed = bytearray(content)
    for signature, size_at, name_at in ((b"PK\x03\x04", 22, 30), (b"PK\x01\x02", 24, 46)):
        at = -1
        while (at := changed.find(signature, at + 1)) >= 0:
            if changed[at + name_at : at + name_at + len(name)] == name:
                struct.pack_into("<I", changed, at + size_at, size)
    return bytes(changed)


def test_a_declared_bomb_is_refused(tmp_path, temporary, slices) -> None:
    path = packed(tmp_path / "a.zip", slices)
    path.write_bytes(lying(path.read_bytes(), b"002.dcm", 2**32 - 2))
    refused(path, temporary, r"declares 5 files of 4\.0 GiB in all")


def test_more_files_than_a_scan_has_are_refused(tmp_path, temporary, slices, monkeypatch) -> None:
    monkeypatch.setattr(archives, "_MAX_MEMBERS", 4)
    refused(packed(tmp_path / "a.zip", slices), temporary, "declares 5 files")


def test_a_bomb_that_declares_little_is_cut_off(tmp_path, temporary, slices) -> None:
    """200 MB of one byte behind a DICOM preamble, declared as one kilobyte."""
    path = packed(tmp_path / "a.zip", [*slices, ("bomb.dcm", bytes(128) + b"DICM" + b"\xff" * 200_000_000)])
    path.write_bytes(lying(path.read_bytes(), b"bomb.dcm", 1000))
    tracemalloc.start()
    refused(path, temporary, "cannot be unpacked: Bad CRC-32")
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_a_bound_are_refused(tmp_path, temporary, slices, method) -> None:
    refused(packed(tmp_path / "a.zip", slices, method=method), temporary, "is not packed with deflate")


def test_a_zip_larger_than_the_disk_is_refused_before_it_is_unpacked(tmp_path, temporary, slices, monkeypatch) -> None:
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    refused(packed(tmp_path / "a.zip", slices), temporary, "more than .* has space for")


def test_only_dicom_is_unpacked(tmp_path, slices) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("a", "b")
    others = [("deep/readme.txt", b"x" * 500), ("inner.zip", inner.getvalue()), ("empty", b"")]
    path = packed(tmp_path / "a.zip", [*((f"deep/er/{name}", content) for name, content in slices), *others])
    with archives.unpacked(path) as folder:
        assert sorted(p.name for p in folder.rglob("*") if p.is_file()) == [name for name, _ in slices]
    np.testing.assert_array_equal(read_volume(path).hu, some_hu())
