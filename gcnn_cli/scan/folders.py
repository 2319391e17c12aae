"""Files below a folder, and the folder behind the path of a scan."""

import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from gcnn_cli.errors import GcnnError, InputError
from gcnn_cli.scan.archives import is_archive, unpacked
from gcnn_cli.scan.images.image_file import SUFFIXES, suffix_of

MASK_ENDING = ".nodules.nii.gz"  # of the masks that gcnn writes: images, but no scans

_SUBSET = re.compile(r"subset\d+")
_FIRST_TAGS = [  # in little endian, with which data sets and meta information start
    struct.pack("<HH", group, element)
    for group, element in ((2, 0), (2, 1), (2, 2), (8, 0), (8, 1), (8, 5), (8, 8), (8, 0x12), (8, 0x16), (8, 0x18))
]


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
        raise InputError("one DICOM file is one slice or a part of a series; give the folder of the series", path=path)
    if path.suffix.lower() == ".img":
        raise InputError(f"the voxels of a pair of files; give their header, {path.stem}.hdr", path=path)
    raise InputError(f"not a supported scan: give a DICOM folder or zip, or one of {' '.join(SUFFIXES)}", path=path)


def is_dicom(path: Path) -> bool:
    """Return whether a file starts as DICOM files do."""
    with path.open("rb") as file:
        file.seek(128)
        return file.read(4) == b"DICM"


def is_bare(path: Path) -> bool:
    """Return whether a file starts with a data set, without the preamble and the mark of a DICOM file."""
    try:
        with path.open("rb") as file:
            return file.read(4) in _FIRST_TAGS
    except OSError:
        return False


def visible_files(folder: Path, closed: Callable[[Path], object] | None = None) -> list[Path]:
    """List every file at any depth, by path. Hidden files and folders belong to others (snapshots, thumbnails).

    Links to folders are followed, into each folder once and into none that holds `folder`.

    closed: called with a folder that cannot be listed. Raises InputError for it by default.
    """

    def refuse(error: OSError) -> None:
        if closed is None:
            raise InputError(f"cannot be listed: {error.strerror}", path=error.filename)
        closed(Path(error.filename))

    files: list[Path] = []
    seen: set[str] = set()
    above = os.path.realpath(folder) + os.sep
    waiting = [str(folder)]
    for start in waiting:  # links come after all that lies in the folders themselves
        for root, names, here in os.walk(start, onerror=refuse):
            real = os.path.realpath(root)
            if real in seen or (start != waiting[0] and above.startswith(real.rstrip(os.sep) + os.sep)):
                names.clear()
                continue
            seen.add(real)
            names[:] = [name for name in names if not name.startswith(".")]
            waiting += sorted(path for name in names if os.path.islink(path := os.path.join(root, name)))
            files += [Path(root, name) for name in here if not name.startswith(".")]
    return sorted(path for path in files if path.is_file())


def select_images(files: Iterable[Path]) -> list[Path]:
    """Select the files that are scans by their names: in LUNA16's layout, only those in its subsets, and no masks."""
    named = (path for path in files if path.name.lower().endswith(SUFFIXES))
    images = [path for path in named if not path.name.endswith(MASK_ENDING)]
    return [path for path in images if path.suffix == ".mhd" and is_subset(path.parent)] or images


def is_subset(folder: Path) -> bool:
    """Return whether a folder is one of LUNA16's subsets, by the name given or, for `.` and links, its real name."""
    return any(_SUBSET.fullmatch(name) for name in (folder.name, folder.resolve().name))
