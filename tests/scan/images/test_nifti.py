"""NIfTI headers, spoiled byte by byte: RAS becomes LPS, contradictions are refused or give a warning."""

import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from scan.scans import axial, oblique, some_hu
from scan.test_reading import write_file

from gcnn_cli.errors import GeometryError, InputError
from gcnn_cli.scan.reading import read_volume

# Offsets in the NIfTI-1 header.
DIM, PIXDIM, UNITS, QFORM_CODE, SFORM_CODE, SROW, MAGIC, SLOPE = 40, 76, 123, 252, 254, 280, 344, 112
NAN = float("nan")


def spoiled(path: Path, *changes: tuple[int, str, tuple[float, ...]]) -> Path:
    content = bytearray(path.read_bytes())
    for at, fmt, values in changes:
        struct.pack_into(f"<{fmt}", content, at, *values)
    path.write_bytes(content)
    return path


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return write_file(tmp_path / "a.nii", some_hu(), axial())


def test_the_file_is_ras_and_the_volume_is_lps(scan: Path) -> None:
    rows = np.array(struct.unpack_from("<12f", scan.read_bytes(), SROW)).reshape(3, 4)
    ras = rows @ [3, 2, 1, 1]  # voxel i, j, k
    np.testing.assert_allclose(read_volume(scan).position_mm([1, 2, 3]), ras * [-1, -1, 1], atol=1e-5)


FLIPPED = axial() @ np.diag([-1.0, 1, 1, 1])


@pytest.mark.parametrize("to_world", [axial(), oblique(), FLIPPED], ids=["axial", "oblique", "flipped"])
@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (2, 1), (1, 4)])
def test_either_transform_places_the_scan(tmp_path: Path, to_world: np.ndarray, codes: tuple[int, int]) -> None:
    path = write_file(tmp_path / "a.nii", some_hu(), to_world)
    volume = read_volume(spoiled(path, (QFORM_CODE, "2h", codes)))
    np.testing.assert_allclose(volume.to_world, to_world, atol=1e-4)
    assert volume.source.warnings == ()


def test_a_missing_transform_gives_a_warning(scan: Path) -> None:
    volume = read_volume(spoiled(scan, (QFORM_CODE, "2h", (0, 0))))
    np.testing.assert_allclose(volume.spacing_zyx, [2.5, 0.8, 0.7], atol=1e-6)
    assert "does not state the orientation of its axes" in volume.source.warnings[0]


def test_transforms_that_disagree_give_a_warning(scan: Path) -> None:
    volume = read_volume(spoiled(scan, (SROW + 12, "f", (50.0,))))
    assert "up to 40.0 mm apart; the sform was used" in volume.source.warnings[0]
    np.testing.assert_allclose(volume.position_mm([0, 0, 0]), [-50, 20, -300], atol=1e-4)


SHEAR = (-0.7, 0.0, 0.0, 10.0, 0.0, -0.8, 0.25, -20.0, 0.0, 0.0, 2.4875, -300.0)


@pytest.mark.parametrize("codes", [(1, 1), (0, 1)])
def test_a_sheared_sform_is_refused(scan: Path, codes: tuple[int, int]) -> None:
    """ITK falls back to the qform, or makes the axes orthogonal, without a word."""
    with pytest.raises(GeometryError, match=r"sform is sheared by 5\.7 degrees"):
        read_volume(spoiled(scan, (QFORM_CODE, "2h", codes), (SROW, "12f", SHEAR)))


UNSOUND = {
    "size of zero": ((PIXDIM + 4, "f", (0.0,)), "must be positive"),
    "negative size": ((PIXDIM + 8, "f", (-0.8,)), "must be positive"),
    "size NaN": ((PIXDIM + 8, "f", (NAN,)), "must be positive"),
    "sizes that contradict": ((PIXDIM + 4, "3f", (1.0, 1.0, 1.0)), "by the sform"),
    "a thin axis that contradicts": ((PIXDIM + 4, "f", (0.72,)), "by the sform"),
    "sform NaN": ((SROW, "f", (NAN,)), "sform holds NaN"),
    "sform empty": ((SROW, "12f", (0.0,) * 12), "axis of length zero"),
    "qform NaN": ((QFORM_CODE, "hhf", (1, 0, NAN)), "holds NaN"),
    "meters": ((UNITS, "B", (1,)), "too coarse"),
}


@pytest.mark.parametrize("case", UNSOUND)
def test_unsound_grids_are_refused(scan: Path, case: str, capfd: pytest.CaptureFixture[str]) -> None:
    change, reason = UNSOUND[case]
    with pytest.raises(GeometryError, match=reason):
        read_volume(spoiled(scan, change))
    assert capfd.readouterr().err == ""


def test_micrometers_are_read_as_such(scan: Path) -> None:
    micrometers = [(PIXDIM + 4, "3f", (700.0, 800.0, 2500.0)), (UNITS, "B", (3,)), (QFORM_CODE, "2h", (1, 0))]
    volume = read_volume(spoiled(scan, *micrometers))
    np.testing.assert_allclose(volume.spacing_zyx, [2.5, 0.8, 0.7], atol=1e-5)


def test_a_pair_of_header_and_image_is_refused(scan: Path) -> None:
    with pytest.raises(InputError, match="not a NIfTI file"):
        read_volume(spoiled(scan, (MAGIC, "3s", (b"ni1",))))


@pytest.mark.parametrize("missing", [1, 100, 419])
@pytest.mark.parametrize("packed", [False, True])
def test_missing_voxels_are_refused(tmp_path: Path, scan: Path, missing: int, packed: bool) -> None:
    """ITK reads the truncated voxels and leaves the rest uninitialized."""
    content = scan.read_bytes()[:-missing]
    path = tmp_path / ("b.nii.gz" if packed else "b.nii")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(InputError, match=rf"truncated, holds {420 - missing} bytes of voxels where 420"):
        read_volume(path)


def test_a_second_gzip_member_is_read_on(tmp_path: Path, scan: Path) -> None:
    content = scan.read_bytes()
    path = tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(content[:500]) + gzip.compress(content[500:]))
    np.testing.assert_array_equal(read_volume(path).hu, some_hu())


SLOPE = 112


@pytest.mark.parametrize("scale", [(1.0, 0.0), (0.0, 7.0), (NAN, 0.0), (2.0, 500.0), (0.5, -150.25)])
@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32])
def test_stored_values_are_scaled(tmp_path: Path, scale: tuple[float, float], dtype: type) -> None:
    path = write_file(tmp_path / "a.nii", some_hu().astype(dtype), axial())
    hu = read_volume(spoiled(path, (SLOPE, "2f", scale))).hu
    slope, intercept = scale if scale[0] in (2.0, 0.5) else (1.0, 0.0)
    np.testing.assert_array_equal(hu, np.maximum(some_hu() * slope + intercept, -1024))
    assert hu.dtype == (np.float32 if slope == 0.5 else np.int16)


def test_big_endian_files_and_the_second_version(tmp_path: Path) -> None:
    rows = (np.diag([-1.0, -1, 1, 1]) @ axial()[:, [2, 1, 0, 3]])[:3].ravel()
    header = bytearray(544)
    for at, fmt, values in [
        (0, "i8s2h", (540, b"n+2\0\r\n\032\n", 4, 16)),
        (16, "8q", (3, 7, 6, 5, 1, 1, 1, 1)),
        (104, "8d", (1, 0.7, 0.8, 2.5, 0, 0, 0, 0)),
        (168, "q2d", (544, 1.0, 0.0)),
        (344, "2i", (0, 1)),
        (400, "12d", rows),
        (500, "i", (2,)),
    ]:
        struct.pack_into(f">{fmt}", header, at, *values)
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(bytes(header) + some_hu().astype(">i2").tobytes()))
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.hu, some_hu())
    np.testing.assert_allclose(volume.to_world, axial(), atol=1e-12)


DAMAGED = {
    "no voxels": (DIM, "4h", (3, 7, 0, 5)),
    "negative size": (DIM, "4h", (3, 7, -6, 5)),
    "no axes": (DIM, "h", (0,)),
    "offset": (108, "f", (NAN,)),
    "type": (70, "h", (1536,)),
    "far too large": (DIM, "8h", (7, *[32767] * 7)),
}


@pytest.mark.parametrize("change", DAMAGED.values(), ids=DAMAGED)
def test_damaged_headers_are_refused(scan: Path, change: tuple[int, str, tuple[float, ...]]) -> None:
    with pytest.raises(InputError, match=r"a\.nii: "):
        read_volume(spoiled(scan, change))


def test_a_whole_slope_is_applied_plane_by_plane(tmp_path: Path) -> None:
    """The product of two whole numbers needs eight bytes a voxel, for all planes at once four times the scan."""
    hu = np.tile(some_hu((20, 100, 100)).clip(-1000, 3000), (2, 1, 1))
    path = write_file(tmp_path / "a.nii", hu + 1024, axial())
    spoiled(path, (SLOPE, "2f", (1.0, -1024.0)))
    tracemalloc.start()
    volume = read_volume(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(volume.hu, hu)
    assert peak < 2.3 * volume.hu.nbytes


@pytest.mark.parametrize(("slope", "intercept"), [(2.0, -1000.0), (0.5, -900.0)])
def test_a_slope_that_widens_the_values_is_applied(tmp_path: Path, slope: float, intercept: float) -> None:
    stored = np.linspace(0, 20000 if slope > 1 else 4000, 210).astype(np.int16).reshape(5, 6, 7)
    path = spoiled(write_file(tmp_path / "a.nii", stored, axial()), (SLOPE, "2f", (slope, intercept)))
    wanted = np.clip(stored.astype(float) * slope + intercept, -1024, 32767)
    np.testing.assert_array_equal(read_volume(path).hu, wanted)
