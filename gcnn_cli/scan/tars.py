"""Tar of a scan, plain or packed with gzip -> its files in a folder, within the bounds of a zip.

A tar has no table of contents, so the bounds hold while it is read: bytes by position in the unpacked stream, and by
read, since `tarfile` takes the size of an extended header from the file and holds all of it.
"""

import gzip
import io
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import BinaryIO, cast

from gcnn_cli.errors import InputError

_MOST_AT_ONCE = 2**20  # of a read; headers are much smaller, and contents are copied in pieces
Keeps = Callable[[str, bytes], bool]
_GZIP, _MARK, _MARK_AT = b"\x1f\x8b", b"ustar", 257


def is_tar(path: Path) -> bool:
    """Return whether a file starts as tars do, packed or not."""
    try:
        with _stream(path) as stream:
            start = stream.read(_MARK_AT + len(_MARK))
    except (OSError, EOFError, zlib.error):
        return False
    return start[_MARK_AT:] == _MARK


def unpack_tar(path: Path, folder: Path, keeps: Keeps, *, most_bytes: int, most_members: int) -> None:
    """Write the files of a tar that `keeps` accepts by name and first bytes into a folder.

    Raises InputError for a hostile tar, and tarfile.TarError, OSError or EOFError for a damaged one.
    """
    with _stream(path) as stream:
        bounded = _Bounded(stream, path, most_bytes)
        with tarfile.open(fileobj=cast(BinaryIO, bounded), mode="r:") as archive:
            for number, member in enumerate(archive, start=1):
                if number > most_members or stream.tell() + member.size > most_bytes:
                    raise _too_much(path)
                _check_place(path, member)
                _unpack(archive, member, folder, keeps)
        if bounded.last != bytes(tarfile.BLOCKSIZE):  # the end, which a truncated tar lacks
            raise tarfile.ReadError("truncated")


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, keeps: Keeps) -> None:
    source = archive.extractfile(member) if member.isreg() and not member.issparse() else None
    if source is None:
        return
    start = source.read(132)
    if keeps(member.name, start):
        target = folder.joinpath(*PureWindowsPath(member.name).parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            file.write(start)
            shutil.copyfileobj(source, file)


@contextmanager
def _stream(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
        file.seek(0)
        if packed:
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield cast(BinaryIO, unpacked)
        else:
            yield file


class _Bounded(io.RawIOBase):
    """A stream that cannot be read or moved beyond a position, nor read much of at once. last: what was read last."""

    def __init__(self, stream: BinaryIO, path: Path, most_bytes: int) -> None:
        self._stream, self._path, self._most = stream, path, most_bytes
        self.last = b""

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= _MOST_AT_ONCE:
            raise tarfile.ReadError("a header of a size that none has")
        if self._stream.tell() > self._most:
            raise _too_much(self._path)
        self.last = self._stream.read(size)
        return self.last

    def seek(self, offset: int, whence: int = 0, /) -> int:
        if whence == 0 and offset > self._most:
            raise _too_much(self._path)
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def _check_place(path: Path, member: tarfile.TarInfo) -> None:
    place = PureWindowsPath(member.name)  # understands both slashes, and drives
    if place.drive or place.root or ".." in place.parts:
        raise InputError(f"holds a file that would be unpacked outside its folder ({member.name!r})", path=path)
    if member.issym() or member.islnk():
        raise InputError(f"holds a link ({member.name!r})", path=path)


def _too_much(path: Path) -> InputError:
    return InputError("holds more files or bytes than a scan: too much for a tar of its size", path=path)
