"""NRRD headers: the patient's frame is known, and the axes are orthogonal."""

from pathlib import Path

import numpy as np
import pytest
from scan.scans import axial, some_hu
from scan.test_reading import write_file

from gcnn_cli.errors import GeometryError, InputError
from gcnn_cli.scan.reading import read_volume


def changed(path: Path, **fields: str) -> Path:
    """The file with header lines replaced, or deleted for an empty value."""
    header, _, voxels = path.read_bytes().partition(b"\n\n")
    lines = header.decode().split("\n")
    for name, value in fields.items():
        field = name.replace("_", " ")
        lines = [line for line in lines if not line.startswith(f"{field}:")]
        lines += [f"{field}: {value}"] if value else []
    # "space" must precede the fields that are expressed in it
    lines.sort(key=lambda line: line.startswith(("space directions", "space origin")))
    path.write_bytes("\n".join(lines).encode() + b"\n\n" + voxels)
    return path


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return write_file(tmp_path / "a.nrrd", some_hu(), axial())


FRAMES = {
    "left-posterior-superior": (1, 1),
    "LPS": (1, 1),
    "right-anterior-superior": (-1, -1),
    "RAS": (-1, -1),
    "left-anterior-superior": (1, -1),
    "LAS": (1, -1),
}


@pytest.mark.parametrize("frame", FRAMES)
def test_every_patient_frame_becomes_lps(scan: Path, frame: str) -> None:
    signs = np.array([*FRAMES[frame], 1.0])
    volume = read_volume(changed(scan, space=frame))
    plain = np.array([-10 + 2.1, 20 + 1.6, -300 + 2.5])
    np.testing.assert_allclose(volume.position_mm([1, 2, 3]), plain * signs, atol=1e-6)


def test_another_frame_is_refused(scan: Path) -> None:
    with pytest.raises(InputError, match="'scanner-xyz' is not a patient frame"):
        read_volume(changed(scan, space="scanner-xyz"))


def test_a_missing_frame_gives_a_warning(scan: Path) -> None:
    volume = read_volume(changed(scan, space="", space_directions="", space_origin="", spacings="0.7 0.8 2.5"))
    np.testing.assert_allclose(volume.spacing_zyx, [2.5, 0.8, 0.7])
    assert "LPS was assumed" in volume.source.warnings[0]


@pytest.mark.parametrize("spacings", ["0.7 0.8 -2.5", "0.7 0 2.5", "0.7 0.8 nan"])
def test_spacing_must_be_positive(scan: Path, spacings: str) -> None:
    with pytest.raises(GeometryError, match="must be positive"):
        read_volume(changed(scan, space="", space_directions="", space_origin="", spacings=spacings))


@pytest.mark.parametrize("directions", ["(0,0,0) (0,0.8,0) (0,0,2.5)", "(nan,0,0) (0,0.8,0) (0,0,2.5)"])
def test_directions_must_have_a_length(scan: Path, directions: str) -> None:
    with pytest.raises(GeometryError, match="must be positive"):
        read_volume(changed(scan, space_directions=directions))


def test_sheared_directions_are_refused(scan: Path) -> None:
    with pytest.raises(GeometryError, match=r"a\.nrrd: its space directions are sheared by 11\.3 degrees"):
        read_volume(changed(scan, space_directions="(0.7,0,0) (0,0.8,0) (0.5,0,2.5)"))


@pytest.mark.parametrize("directions", ["(x,0,0) (0,0.8,0) (0,0,2.5)", "(0.7,0,0) (0,0.8) (0,0,2.5)"])
def test_directions_must_be_numbers(scan: Path, directions: str) -> None:
    with pytest.raises(InputError, match="not numbers"):
        read_volume(changed(scan, space_directions=directions))


def test_a_missing_data_file_is_named(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.nhdr", some_hu(), axial())
    (tmp_path / "a.raw").unlink()
    with pytest.raises(InputError, match=r"a\.raw"):
        read_volume(path)


def test_exponents_and_empty_fields_are_read(scan: Path) -> None:
    assert read_volume(changed(scan, content="")).shape == read_volume(scan).shape
    small = changed(scan, space="", space_directions="", space_origin="", spacings="7e-01 8.0e-01 2.5e+00")
    assert read_volume(small).spacing_zyx == pytest.approx([2.5, 0.8, 0.7])
