"""MetaImage headers, read before ITK does: what it hides, prints to stderr or names wrongly.

ITK says "cannot open" of the header when the data file is missing, fills truncated and damaged
data in silence, and makes a spacing of zero into one.
"""

import math
import zlib
from pathlib import Path

import numpy as np

from gcnn_cli.errors import GeometryError, InputError

_BYTES = {
    "MET_CHAR": 1,
    "MET_UCHAR": 1,
    "MET_SHORT": 2,
    "MET_USHORT": 2,
    "MET_INT": 4,
    "MET_UINT": 4,
    "MET_LONG": 4,
    "MET_ULONG": 4,
    "MET_LONG_LONG": 8,
    "MET_ULONG_LONG": 8,
    "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}
_CHUNK = 2**20


def check_metaimage(path: Path, *, unpack: bool = True) -> None:
    """Raise InputError for a damaged header or data, GeometryError for an unsound grid.

    unpack: whether compressed voxels are unpacked and counted; without it only sizes on disk are compared
    """
    fields, header_bytes = _read_header(path)
    try:
        shape = [int(v) for v in fields["DimSize"].split()]
        spacing = [float(v) for v in fields.get("ElementSpacing", fields.get("ElementSize", "1 1 1")).split()]
        matrix = [float(v) for v in _first(fields, "TransformMatrix", "Rotation", "Orientation").split()]
        items = math.prod(shape) * int(fields.get("ElementNumberOfChannels", "1"))
        expected = items * _BYTES[fields["ElementType"]]
        name = fields["ElementDataFile"]
        packed = int(fields.get("CompressedDataSize", "0"))
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: not a MetaImage header, or damaged (at {error})") from None
    if not all(math.isfinite(v) and v > 0 for v in spacing):
        raise GeometryError(f"{path}: ElementSpacing must be positive, got {spacing}")
    axes = np.array(matrix).reshape(3, 3) if len(matrix) == 9 else np.eye(3)
    if not np.abs(axes @ axes.T - np.eye(3)).max() <= 1e-3:  # NaN is refused, too
        raise GeometryError(f"{path}: TransformMatrix is not orthonormal: {matrix}")
    if fields.get("BinaryData", "True").lower() != "true" or name.startswith("LIST") or "%" in name:
        return
    local = name.upper() == "LOCAL"
    data = path if local else path.parent / name
    if not data.is_file():
        raise InputError(f"{path}: its data file {name!r} is missing")
    start = header_bytes if local else max(0, int(fields.get("HeaderSize", "0")))
    if fields.get("CompressedData", "False").lower() == "true":
        _check_compressed(data, start, packed, expected, unpack)
    elif data.stat().st_size - start < expected:
        held = data.stat().st_size - start
        raise InputError(f"{data}: truncated, holds {held} bytes of voxels where {expected} are promised")


def _read_header(path: Path) -> tuple[dict[str, str], int]:
    """The `key = value` lines up to ElementDataFile, after which voxels may follow; their bytes."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        for _ in range(1000):
            line = file.readline(65536)
            if b"=" not in line:
                break
            key, _, value = line.decode("utf-8", "replace").partition("=")
            fields[key.strip()] = value.strip()
            if key.strip() == "ElementDataFile":
                break
        return fields, file.tell()


def _first(fields: dict[str, str], *names: str) -> str:
    return next((fields[name] for name in names if name in fields), "")


def _check_compressed(data: Path, start: int, packed: int, expected: int, unpack: bool) -> None:
    """Unpack once and count: ITK leaves what it cannot unpack as it finds it in memory."""
    if packed and data.stat().st_size - start < packed:
        held = data.stat().st_size - start
        raise InputError(f"{data}: truncated, holds {held} bytes of voxels where {packed} are promised")
    if not unpack:
        return
    unpacker = zlib.decompressobj(32 + zlib.MAX_WBITS)  # zlib or gzip
    unpacked = 0
    with data.open("rb") as file:
        file.seek(start)
        try:
            while not unpacker.eof and (chunk := file.read(_CHUNK)):
                unpacked += len(unpacker.decompress(chunk))
        except zlib.error as error:
            raise InputError(f"{data}: its compressed voxels are damaged ({error})") from None
    if unpacked < expected:
        raise InputError(f"{data}: truncated, unpacks to {unpacked} bytes where {expected} are promised")
