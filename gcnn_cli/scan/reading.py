"""A path -> a Volume, whatever the format."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from gcnn_cli.errors import DeviceError, GcnnError, InputError, UsageError
from gcnn_cli.scan.archives import unpacked
from gcnn_cli.scan.dicom.series import is_dicom, read_series
from gcnn_cli.scan.images.image_file import SUFFIXES, read_image, suffix_of
from gcnn_cli.scan.volume import Volume


def read_volume(path: Path, *, series: str | None = None, allow_gaps: bool = False) -> Volume:
    """Read a scan: a DICOM folder, zip or DICOMDIR, or a .mhd .mha .nii .nii.gz .nrrd file.

    series:     SeriesInstanceUID or '#N' for DICOM that holds several
    allow_gaps: interpolate over small gaps of a DICOM series

    Raises InputError, SeriesChoiceError, GeometryError, UsageError for a series of a file that has none,
    or DeviceError for one too large.
    """
    try:
        return _read(path, series, allow_gaps)
    except OSError as error:
        raise InputError(f"{error.filename or path}: cannot be read: {error.strerror}") from None
    except UnicodeEncodeError:
        raise InputError(f"{path}: its name is no text in this system's encoding; rename it") from None
    except MemoryError:
        raise DeviceError(f"{path}: too large for the memory of this machine") from None


def _read(path: Path, series: str | None, allow_gaps: bool) -> Volume:
    str(path).encode()  # libraries and reports take names as text
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_dir():
        return read_series(path, series, allow_gaps=allow_gaps)
    if suffix_of(path):
        if series is not None:
            raise UsageError(f"--series chooses among DICOM series; {path} is a single image")
        return read_image(path)
    if zipfile.is_zipfile(path):
        return _read_zip(path, series, allow_gaps)
    if path.name.upper() == "DICOMDIR":
        return read_series(path.parent, series, allow_gaps=allow_gaps)
    if is_dicom(path):
        raise InputError(f"{path}: one DICOM file is one slice; give the folder of the series")
    raise InputError(f"{path}: not a supported scan: give a DICOM folder or zip, or one of {' '.join(SUFFIXES)}")


def _read_zip(path: Path, series: str | None, allow_gaps: bool) -> Volume:
    with unpacked(path) as folder:
        try:
            volume = read_series(folder, series, allow_gaps=allow_gaps)
        except GcnnError as error:
            raise type(error)(str(error).replace(str(folder), str(path))) from None
    return Volume(volume.hu, volume.to_world, replace(volume.source, path=str(path)))


@contextmanager
def dicom_folder(path: Path) -> Iterator[Path]:
    """The folder that holds the DICOM files of a path: itself, what its zip holds, or where its DICOMDIR lies."""
    if path.is_dir():
        yield path
    elif path.name.upper() == "DICOMDIR":
        yield path.parent
    else:
        with unpacked(path) as folder:
            yield folder
