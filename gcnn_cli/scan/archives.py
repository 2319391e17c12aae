"""Zip or tar of a scan -> a temporary folder with its files: DICOM, or images with their voxels.

A zip may be hostile. It is refused whole when a member would lie outside the folder or is a link, and when it
declares more than a scan can hold. `zipfile` itself raises where a member unpacks to more bytes than it declares.
Only deflate is unpacked: with the other methods `zipfile` holds everything that a chunk unpacks to in memory.
Other members are left packed. `tars` holds a tar to the same bounds.
"""

import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath

from gcnn_cli.errors import InputError
from gcnn_cli.scan.images.image_file import SUFFIXES
from gcnn_cli.scan.scratch import scratch_folder
from gcnn_cli.scan.tars import is_tar, unpack_tar

_GIB = 2**30
# A zip may always unpack to this much, and to more only in proportion to its own size. CT packs 2 to 5 times.
_UNSUSPICIOUS_BYTES = _GIB
_MAX_RATIO = 100
_MAX_UNPACKED_BYTES = 16 * _GIB
_MAX_MEMBERS = 100_000
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    IndexError,
    struct.error,
    tarfile.TarError,
)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_VOXELS = (".raw", ".zraw", ".raw.gz", ".img")  # of images whose header is a file of its own
ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")


def is_archive(path: Path) -> bool:
    """Return whether a file is a zip or a tar, by its content."""
    return zipfile.is_zipfile(path) or is_tar(path)


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Yield a temporary folder with the DICOM files and images of a zip or tar.

    Raises InputError for a damaged, encrypted or hostile one.
    """
    with scratch_folder() as folder:
        try:
            if zipfile.is_zipfile(path):
                _unpack_zip(path, folder)
            else:
                most = min(_most_bytes(path), shutil.disk_usage(folder).free)
                unpack_tar(path, folder, _belongs, most_bytes=most, most_members=_MAX_MEMBERS)
        except _DAMAGE as error:
            raise InputError(f"cannot be unpacked: {_reason(error)}", path=path) from None
        yield folder


def _unpack_zip(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        _check_bomb(path, members, folder)
        _check_strays(path, members)
        for member in members:
            _unpack(archive, member, folder)


def _reason(error: Exception) -> str:
    """Return the first line of an error's text. A system error's own text would name the temporary folder."""
    text = error.strerror if isinstance(error, OSError) else str(error)
    return (text or "damaged").splitlines()[0]


def _check_bomb(path: Path, members: list[zipfile.ZipInfo], folder: Path) -> None:
    most = _most_bytes(path)
    declared = sum(member.file_size for member in members)
    if declared > most or len(members) > _MAX_MEMBERS:
        raise InputError(
            f"declares {len(members)} files of {declared / _GIB:.1f} GiB in all: too much for a zip of its size",
            path=path,
        )
    if declared > shutil.disk_usage(folder).free:
        raise InputError(f"unpacks to {declared / _GIB:.1f} GiB, more than {folder.parent} has space for", path=path)


def _most_bytes(path: Path) -> int:
    return min(_MAX_UNPACKED_BYTES, max(_UNSUSPICIOUS_BYTES, _MAX_RATIO * path.stat().st_size))


def _belongs(name: str, start: bytes) -> bool:
    """Return whether a member is part of a scan, by its name and its first 132 bytes."""
    return start[128:] == b"DICM" or (bool(start) and name.lower().endswith((*SUFFIXES, *_VOXELS)))


def _check_strays(path: Path, members: list[zipfile.ZipInfo]) -> None:
    for member in members:
        place = PureWindowsPath(member.filename)  # understands both slashes, and drives
        if place.drive or place.root or ".." in place.parts:
            raise InputError(f"holds a file that would be unpacked outside its folder ({member.filename!r})", path=path)
        if stat.S_ISLNK(member.external_attr >> 16):
            raise InputError(f"holds a symbolic link ({member.filename!r})", path=path)
        if member.compress_type not in _METHODS:
            raise InputError("is not packed with deflate; pack the folder again", path=path)


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> None:
    if member.is_dir():
        return
    with archive.open(member) as source:
        start = source.read(132)
        if not _belongs(member.filename, start):
            return
        target = folder.joinpath(*PureWindowsPath(member.filename).parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            file.write(start)
            shutil.copyfileobj(source, file)
