"""Path -> Volume, whatever the format."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from gcnn_cli.errors import DeviceError, InputError, UsageError
from gcnn_cli.scan.dicom.series import Series, choose_sound, find_series, read_series
from gcnn_cli.scan.folders import dicom_folder, kind_of
from gcnn_cli.scan.images.image_file import read_image, read_lattice
from gcnn_cli.scan.packed_images import packed_images, read_packed
from gcnn_cli.scan.volume import Volume


def read_volume(
    path: Path, *, series: str | None = None, found: Sequence[Series] | None = None, allow_gaps: bool = False
) -> Volume:
    """Read a scan: a DICOM folder or DICOMDIR, an image file, or a zip or tar of either.

    series:     SeriesInstanceUID or '#N', to choose among several DICOM series; for images in a zip, their name
    found:      the result of `find_series` for this folder, to spare a second reading of its headers
    allow_gaps: interpolate over small gaps of a DICOM series

    Raises InputError, SeriesChoiceError, GeometryError, UsageError for a series of an image file, or
    DeviceError for a scan too large for the memory.
    """
    with read_errors(path), dicom_folder(path) as folder:
        if folder is not None:
            if found is None and (images := packed_images(path, folder)):
                found = find_series(folder)
                if not found:
                    return read_packed(path, images, series)
            volume = read_series(folder, series, found=found, allow_gaps=allow_gaps)
            return replace(volume, source=replace(volume.source, path=str(path)))
        if series is not None:
            raise _single_image(path)
        return read_image(path)


def check_scan(
    path: Path, *, series: str | None = None, found: Sequence[Series] | None = None, allow_gaps: bool = False
) -> None:
    """Raise what `read_volume` would for the path, the headers and their geometry. Reads no voxels, opens no archive.

    series, found, allow_gaps: as for `read_volume`
    """
    with read_errors(path):
        kind = kind_of(path)
        if kind == "image":
            if series is not None:
                raise _single_image(path)
            read_lattice(path)
        elif kind == "folder":
            choose_sound(path, series, found, allow_gaps=allow_gaps)


def _single_image(path: Path) -> UsageError:
    return UsageError(f"--series chooses among DICOM series; {path} is a single image")


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Raise InputError where the system cannot read a path, DeviceError where its memory is too small."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=error.filename or path) from None
    except UnicodeEncodeError:
        raise InputError("its name is not text in this system's encoding; rename it", path=path) from None
    except MemoryError:
        raise DeviceError("too large for the memory of this machine", path=path) from None
