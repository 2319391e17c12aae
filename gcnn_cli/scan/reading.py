"""A path -> a Volume, whatever the format."""

import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from gcnn_cli.errors import GcnnError, InputError, UsageError
from gcnn_cli.scan.dicom import is_dicom, read_series
from gcnn_cli.scan.formats import SUFFIXES, read_image, suffix_of
from gcnn_cli.scan.volume import Volume

_MAX_UNPACKED_BYTES = 16 * 2**30


def read_volume(path: Path, *, series: str | None = None) -> Volume:
    """Read a scan: a DICOM folder, zip or DICOMDIR, or a .mhd .mha .nii .nii.gz .nrrd file.

    series: SeriesInstanceUID or '#N' for DICOM that holds several. Raises InputError,
    SeriesChoiceError, GeometryError, or UsageError for a series of a file that has none.
    """
    try:
        return _read(path, series)
    except OSError as error:
        raise InputError(f"{error.filename or path}: cannot be read: {error.strerror}") from None


def _read(path: Path, series: str | None) -> Volume:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_dir():
        return read_series(path, series)
    if suffix_of(path):
        if series is not None:
            raise UsageError(f"--series chooses among DICOM series; {path} is a single image")
        return read_image(path)
    if zipfile.is_zipfile(path):
        return _read_zip(path, series)
    if path.name.upper() == "DICOMDIR":
        return read_series(path.parent, series)
    if is_dicom(path):
        raise InputError(f"{path}: one DICOM file is one slice; give the folder of the series")
    raise InputError(f"{path}: not a supported scan: give a DICOM folder or zip, or one of {' '.join(SUFFIXES)}")


def _read_zip(path: Path, series: str | None) -> Volume:
    with unpacked(path) as folder:
        try:
            volume = read_series(folder, series)
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


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """A temporary folder with what a zip holds. Raises InputError for a damaged, locked or huge one."""
    with tempfile.TemporaryDirectory(prefix="gcnn-") as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                if sum(member.file_size for member in archive.infolist()) > _MAX_UNPACKED_BYTES:
                    raise InputError(f"{path}: unpacks to more than {_MAX_UNPACKED_BYTES // 2**30} GiB")
                archive.extractall(folder)  # keeps members inside the folder
        except (zipfile.BadZipFile, zlib.error, RuntimeError, OSError, EOFError) as error:
            reason = str(error).replace(folder, "").splitlines() or ["damaged"]
            raise InputError(f"{path}: cannot be unpacked: {reason[0]}") from None
        yield Path(folder)
