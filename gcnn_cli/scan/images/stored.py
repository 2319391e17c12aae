"""Declared sizes of an image file, and its voxels.

A header only declares sizes. They are compared with the actual size of the file before memory is
allocated, so that a damaged header costs a line of text and not the machine's memory. Packed voxels
(zlib or gzip) are unpacked into an array of the declared size and not a byte further.
"""

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.errors import InputError
from gcnn_cli.scan.lattice import Array

_CHUNK = 2**20
_MOST_PACKED = 1040  # deflate packs 1032 to 1 at best


@dataclass(frozen=True, eq=False)
class StoredImage:
    """Place of the voxels in the patient, and their bytes.

    size:     voxels along x, y, z and, in some files, time; checked by `check_shape`
    to_world: float64 [4, 4], voxel (z, y, x, 1) -> (x, y, z, 1) in LPS mm
    data:     the file of the voxels
    parts:    the files of the voxels where there are several of equal size, in order; the first is `data`
    start:    byte of `data` at which they, or their packed stream, begin
    skip:     bytes of the unpacked stream before the first voxel
    dtype:    NumPy's name, with byte order
    scale:    slope and intercept from stored values to the file's own
    """

    path: Path
    size: tuple[int, ...]
    to_world: Array
    data: Path
    start: int
    dtype: str
    packed: bool = False
    skip: int = 0
    scale: tuple[float, float] = (1.0, 0.0)
    warnings: tuple[str, ...] = ()
    parts: tuple[Path, ...] = ()

    @property
    def declared_bytes(self) -> int:
        """Size of the unpacked voxels by the header."""
        return math.prod(self.size) * np.dtype(self.dtype).itemsize

    def check_bytes(self) -> None:
        """Raise InputError unless the files can hold the declared bytes. Nothing is unpacked."""
        files = self.parts or (self.data,)
        declared = self.declared_bytes // len(files)
        for data in files:
            actual = max(0, data.stat().st_size - self.start)
            if not self.packed and actual < declared:
                raise InputError(f"truncated, holds {actual} bytes of voxels where {declared} are declared", path=data)
        if self.packed and actual * _MOST_PACKED < declared:
            raise InputError(
                f"truncated, holds {actual} packed bytes where {declared} unpacked are declared", path=self.data
            )

    def read(self) -> NDArray[Any]:
        """Read the scaled values [..., D, H, W]. Raises InputError for voxels that are missing or damaged."""
        self.check_bytes()
        content = self._joined() if self.parts else self._single()
        return _scaled(content.view(self.dtype).reshape(self.size[::-1]), *self.scale)

    def _single(self) -> NDArray[np.uint8]:
        with self.data.open("rb") as file:
            file.seek(self.start)
            return self._unpacked(file) if self.packed else np.fromfile(file, np.uint8, self.declared_bytes)

    def _joined(self) -> NDArray[np.uint8]:
        content = np.empty((len(self.parts), self.declared_bytes // len(self.parts)), np.uint8)
        for n, data in enumerate(self.parts):
            with data.open("rb") as file:
                file.seek(self.start)
                content[n] = np.fromfile(file, np.uint8, content.shape[1])
        return content.ravel()

    def _unpacked(self, file: BinaryIO) -> NDArray[np.uint8]:
        content = np.empty(self.declared_bytes, np.uint8)
        at = -self.skip
        try:
            for block in inflated(file):
                inner = np.frombuffer(block, np.uint8)[max(0, -at) : max(0, len(content) - at)]
                content[max(0, at) : max(0, at) + len(inner)] = inner
                at += len(block)
                if at > len(content):
                    break  # anything after the voxels is ignored
        except zlib.error as error:
            raise InputError(f"its compressed voxels are damaged ({error})", path=self.data) from None
        if at < len(content):
            raise InputError(
                f"truncated, holds {max(0, at)} bytes of voxels where {len(content)} are declared", path=self.data
            )
        return content


def inflated(file: BinaryIO) -> Iterator[bytes]:
    """Unpack zlib or gzip from the file's position, in blocks of at most 1 MiB. Raises zlib.error.

    A truncated file yields the blocks before its end.
    """
    unpacker = zlib.decompressobj(32 + zlib.MAX_WBITS)
    waiting = file.read(_CHUNK)
    while waiting:
        yield unpacker.decompress(waiting, _CHUNK)
        waiting = unpacker.unconsumed_tail
        if unpacker.eof:  # gzip members may be concatenated; zeros after the last are padding
            waiting = (unpacker.unused_data or file.read(_CHUNK)).lstrip(b"\0")
            if waiting[:2] not in (b"\x1f\x8b", b"\x1f"):
                return
            unpacker = zlib.decompressobj(32 + zlib.MAX_WBITS)
        waiting = waiting or file.read(_CHUNK)


def check_shape(path: Path, size: tuple[int, ...], components: int) -> None:
    """Raise InputError unless this is one volume of one value per voxel, with at least two along each axis."""
    shown = "x".join(map(str, size))
    if components != 1:
        raise InputError(f"a color or vector image ({components} values per voxel), not a CT", path=path)
    if min(size, default=0) < 1:
        raise InputError(f"its header is damaged: a size of {shown or 'nothing'}", path=path)
    if math.prod(size[3:]) != 1:
        raise InputError(f"holds {math.prod(size[3:])} volumes; give one of them", path=path)
    if len(size) < 3 or min(size[:3]) < 2:
        raise InputError(f"a scan needs at least two slices, rows and columns, got {shown}", path=path)


def _scaled(values: NDArray[Any], slope: float, intercept: float) -> NDArray[Any]:
    """Return slope x values + intercept. A slope of 0 or NaN means that the file is not scaled."""
    if not (math.isfinite(slope) and math.isfinite(intercept)) or slope == 0 or (slope, intercept) == (1, 0):
        return values
    if values.dtype.kind != "f" and all(v.is_integer() and abs(v) < 2**31 for v in (slope, intercept)):
        times, plus = int(slope), int(intercept)
        ends = [int(end) * times + plus for end in (values.min(), values.max())]
        narrow = np.iinfo(np.int16).min <= min(ends) and max(ends) <= np.iinfo(np.int16).max
        dtype = np.dtype(np.int16 if narrow else np.int64)
        return _by_plane(values, lambda plane: plane.astype(np.int64) * times + plus, dtype)
    factor, offset = np.float32(slope), np.float32(intercept)
    with np.errstate(over="ignore", invalid="ignore"):  # infinite values are refused later
        return _by_plane(values, lambda plane: plane.astype(np.float32) * factor + offset, np.dtype(np.float32))


def _by_plane(
    values: NDArray[Any], scale: Callable[[NDArray[Any]], NDArray[Any]], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Return the scaled values. The wider numbers of the product exist for one plane at a time."""
    scaled: NDArray[Any] = np.empty(values.shape, dtype)
    for n in np.ndindex(values.shape[:-2]):
        scaled[n] = scale(values[n])
    return scaled
