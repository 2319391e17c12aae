"""Files below a folder, and the folder behind the path of a scan."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from gcnn_cli.errors import GcnnError, InputError
from gcnn_cli.scan.archives import is_archive, unpacked
from gcnn_cli.scan.images.image_file import SUFFIXES, suffix_of

MASK_ENDING = ".nodules.nii.gz"  # of the masks that gcnn writes: images, but no scans

_SUBSET = re.compile(r"subset\d+")


@contextmanager
def dicom_folder(path: Path) -> Iterator[Path | None]:
    """Yield the folder with the files of a path, or None where the path is an image file.

    A folder holds its own files, a zip or tar is unpacked (its images too), and a DICOMDIR stands for the folder it
    lies in.
    Raises InputError for a path that is no scan.
    """
    kind = kind_of(path)
    if kind == "folder":
        yield path
    elif kind == "image":
        yield None
    elif kind == "archive":
        with unpacked(path) as folder:
            try:
                yield folder
            except GcnnError as error:
                raise error.moved(folder, path) from None
    else:
        yield path.parent


def kind_of(path: Path) -> Literal["folder", "image", "archive", "directory file"]:
    """Return what a path is, by its name and first bytes. Raises InputError for a path that is no scan."""
    str(path).encode()  # libraries and reports take names as text
    if not path.exists():
        raise InputError("no such file or folder", path=path)
    if path.is_dir():
        return "folder"
    if suffix_of(path):
        return "image"
    if is_archive(path):
        return "archive"
    if path.name.upper() == "DICOMDIR":
        return "directory file"
    if is_dicom(path):
        raise InputError("one DICOM file is one slice; give the folder of the series", path=path)
    if path.suffix.lower() == ".img":
        raise InputError(f"the voxels of a pair of files; give their header, {path.stem}.hdr", path=path)
    raise InputError(f"not a supported scan: give a DICOM folder or zip, or one of {' '.join(SUFFIXES)}", path=path)


def is_dicom(path: Path) -> bool:
    """Return whether a file starts as DICOM files do."""
    with path.open("rb") as file:
        file.seek(128)
        return file.read(4) == b"DICM"


def visible_files(folder: Path) -> list[Path]:
    """List every file at any depth, by path. Hidden files and folders belong to others (snapshots, thumbnails)."""
    below = (path for path in folder.rglob("*") if not _is_hidden(path.relative_to(folder)))
    return sorted(path for path in below if path.is_file())


def select_images(files: Iterable[Path]) -> list[Path]:
    """Select the files that are scans by their names: in LUNA16's layout, only those in its subsets, and no masks."""
    named = (path for path in files if path.name.lower().endswith(SUFFIXES))
    images = [path for path in named if not path.name.endswith(MASK_ENDING)]
    return [path for path in images if path.suffix == ".mhd" and is_subset(path.parent)] or images


def is_subset(folder: Path) -> bool:
    """Return whether a folder is one of LUNA16's subsets, by the name given or, for `.` and links, its real name."""
    return any(_SUBSET.fullmatch(name) for name in (folder.name, folder.resolve().name))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
