"""DICOM files through pydicom, within bounds: no element takes more memory than the file has bytes."""

import io
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import DeflatedExplicitVRLittleEndian

# pydicom's errors for elements that are damaged, absent or of an invalid type.
DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    AttributeError,
    KeyError,
    IndexError,
    TypeError,
    NotImplementedError,
    OverflowError,
    StopIteration,  # fewer frames than declared
    RecursionError,  # sequences within sequences within sequences
    struct.error,
    zlib.error,
    BytesLengthException,
    InvalidDicomError,
)
_LONGEST_META = 2**16
_CHUNK = 2**20
_EMPTY_ELEMENT, _MOST_EMPTY = bytes(8), 1000  # one after the other
# A deflated data set may unpack to this much, or to this many times its file.
_INFLATED_BYTES = 64 * 2**20
_INFLATED_RATIO = 100


class DeclaredSizeError(ValueError):
    """A file declares more than it can hold; the message quotes sizes alone."""


class _Bounded(io.BufferedReader):
    """A file whose reads allocate no more than the file holds: lengths in headers cannot be trusted.

    pydicom takes zeros for elements of the command group, 8 bytes each, which a file has none of: megabytes of them
    would take it minutes. So many without another element between them raise DeclaredSizeError. Values may be zero.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._size = path.stat().st_size
        self._empty = 0

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self._size - self.tell())
        content = super().read(left if size is None or size < 0 else min(size, left))
        if size == len(_EMPTY_ELEMENT) and content == _EMPTY_ELEMENT:
            self._empty += 1
            if self._empty > _MOST_EMPTY:
                raise DeclaredSizeError("zeros where elements should be")
        else:
            self._empty = 0
        return content


def read_dicom(path: Path, **options: Any) -> Any:
    """Read pydicom's data set of a file; options are those of `dcmread`. Raises one of DAMAGE."""
    with _Bounded(path) as file:
        _check_deflated(file)
        file.seek(0)
        return pydicom.dcmread(file, **options)


def _check_deflated(file: io.BufferedReader) -> None:
    """Raise DeclaredSizeError for a deflated data set larger than an image: pydicom would hold all of it."""
    start = file.read(144)
    length = struct.unpack("<I", start[140:])[0] if start[132:140] == b"\x02\0\0\0UL\4\0" else _LONGEST_META
    meta = file.read(min(length, _LONGEST_META))
    if DeflatedExplicitVRLittleEndian.encode() not in meta:
        return
    most = max(_INFLATED_BYTES, _INFLATED_RATIO * file.seek(0, io.SEEK_END))
    file.seek(144 + length)
    unpacker, unpacked = zlib.decompressobj(-zlib.MAX_WBITS), 0
    waiting = file.read(_CHUNK)
    while waiting and not unpacker.eof:
        unpacked += len(unpacker.decompress(waiting, _CHUNK))
        if unpacked > most:
            raise DeclaredSizeError(f"unpacks to more than {most} bytes")
        waiting = unpacker.unconsumed_tail or file.read(_CHUNK)


def reason(error: Exception) -> str:
    """Return why a header or its pixels cannot be used, without pydicom's text, which may quote the patient's name."""
    if isinstance(error, DeclaredSizeError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, (AttributeError, KeyError)):
        return "an element is missing"
    return "truncated or damaged"


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence pydicom's warnings and log, which quote header values, even of elements that are not used here."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
