"""A path -> a Volume, whatever the format."""

import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.scan.dicom import is_dicom, read_series
from gcnn_cli.scan.formats import SUFFIXES, read_image, suffix_of
from gcnn_cli.scan.volume import Volume

_MAX_UNPACKED_BYTES = 16 * 2**30


def read_volume(path: Path, *, series: str | None = None) -> Volume:
    """Read a scan: a DICOM folder, zip or DICOMDIR, or a .mhd .mha .nii .nii.gz .nrrd file.

    series: SeriesInstanceUID or '#N' for DICOM that holds several. Raises InputError,
    SeriesChoiceError, GeometryError, or UsageError for a series of a file that has none.
    """
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
    with tempfile.TemporaryDirectory(prefix="gcnn-") as folder, zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > _MAX_UNPACKED_BYTES:
            raise InputError(f"{path}: unpacks to more than {_MAX_UNPACKED_BYTES // 2**30} GiB")
        try:
            archive.extractall(folder)  # keeps members inside the folder
        except (zipfile.BadZipFile, RuntimeError, OSError, EOFError) as error:
            raise InputError(f"{path}: cannot be unpacked: {error}") from None
        try:
            volume = read_series(Path(folder), series)
        except InputError as error:
            raise type(error)(str(error).replace(folder, str(path))) from None
    return Volume(volume.hu, volume.to_world, replace(volume.source, path=str(path)))
