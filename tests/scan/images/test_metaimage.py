"""MetaImage headers: the file at fault is named, and no defect is repaired in silence."""

from pathlib import Path

import numpy as np
import pytest
from scan.scans import axial, some_hu
from scan.test_reading import write_file

from gcnn_cli.errors import GeometryError, InputError
from gcnn_cli.scan.reading import read_volume


def changed(path: Path, field: str, value: str) -> Path:
    """The file with one header line replaced; an empty value deletes it."""
    lines = path.read_bytes().split(b"\n")
    spot = next(n for n, line in enumerate(lines) if line.startswith(field.encode() + b" ="))
    lines[spot : spot + 1] = [f"{field} = {value}".encode()] if value else []
    path.write_bytes(b"\n".join(lines))
    return path


@pytest.mark.parametrize(("header", "data"), [("s.mhd", "s.raw"), ("packed.mhd", "packed.zraw")])
def test_a_missing_data_file_is_named(tmp_path: Path, header: str, data: str) -> None:
    path = write_file(tmp_path / header, some_hu(), axial())
    (tmp_path / data).unlink()
    with pytest.raises(InputError, match=f"'{data}' is missing"):
        read_volume(path)


@pytest.mark.parametrize(("header", "data"), [("s.mhd", "s.raw"), ("packed.mhd", "packed.zraw")])
def test_a_truncated_data_file_is_named(tmp_path: Path, header: str, data: str) -> None:
    path = write_file(tmp_path / header, some_hu(), axial())
    (tmp_path / data).write_bytes((tmp_path / data).read_bytes()[:-2])
    with pytest.raises(InputError, match=f"{data}: truncated, holds [0-9]+ bytes"):
        read_volume(path)


@pytest.mark.parametrize("where", [40, 200, -3])
def test_damaged_compressed_voxels_are_refused(tmp_path: Path, where: int) -> None:
    path = write_file(tmp_path / "packed.mhd", some_hu(), axial())
    content = bytearray((tmp_path / "packed.zraw").read_bytes())
    content[where] ^= 0xFF
    (tmp_path / "packed.zraw").write_bytes(content)
    with pytest.raises(InputError, match=r"packed\.zraw"):
        read_volume(path)


def test_compressed_voxels_that_are_too_few_are_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path / "packed.mhd", some_hu(), axial())
    with pytest.raises(InputError, match="truncated, holds 420 bytes of voxels where 504"):
        read_volume(changed(path, "DimSize", "7 6 6"))


@pytest.mark.parametrize("spacing", ["0 0.8 2.5", "-0.7 0.8 2.5", "nan 0.8 2.5", "0.7 0.8 inf"])
def test_spacing_must_be_positive(tmp_path: Path, spacing: str) -> None:
    path = write_file(tmp_path / "a.mha", some_hu(), axial())
    with pytest.raises(GeometryError, match="ElementSpacing must be positive"):
        read_volume(changed(path, "ElementSpacing", spacing))


@pytest.mark.parametrize(
    "matrix", ["1 0.1 0 0 1 0 0 0 1", "2 0 0 0 1 0 0 0 1", "0 0 0 0 0 0 0 0 0", "nan 0 0 0 1 0 0 0 1"]
)
def test_the_matrix_must_be_orthonormal(tmp_path: Path, matrix: str) -> None:
    path = write_file(tmp_path / "a.mha", some_hu(), axial())
    with pytest.raises(GeometryError, match="TransformMatrix is not orthonormal"):
        read_volume(changed(path, "TransformMatrix", matrix))


@pytest.mark.parametrize("field", ["DimSize", "ElementType", "ElementDataFile"])
def test_a_header_without_a_needed_field_is_refused(tmp_path: Path, field: str) -> None:
    path = write_file(tmp_path / "s.mhd", some_hu(), axial())
    with pytest.raises(InputError, match="not a MetaImage header, or damaged"):
        read_volume(changed(path, field, ""))


def test_without_a_matrix_the_axes_are_those_of_the_patient(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.mha", some_hu(), axial())
    np.testing.assert_allclose(read_volume(changed(path, "TransformMatrix", "")).to_world, axial())


def test_origin_and_spacing_alone_do_not_place_a_flipped_scan(tmp_path: Path) -> None:
    """A reader that ignores the matrix misplaces LUNA16's flipped scans."""
    flipped = axial() @ np.diag([1.0, -1, -1, 1])
    volume = read_volume(write_file(tmp_path / "a.mhd", some_hu(), flipped))
    np.testing.assert_allclose(volume.position_mm([4, 5, 6]), [-10 - 4.2, 20 - 4.0, -300 + 10], atol=1e-6)
