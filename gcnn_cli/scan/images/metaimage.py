"""MetaImage headers, read without ITK.

ITK reports "cannot open" for the header when the data file is missing, silently fills truncated and
damaged data, turns a spacing of zero into one, and allocates memory for any declared size.

Source: the MetaIO documentation, "MetaImage"; where it is silent, the behavior of ITK's reader.
"""

import math
from pathlib import Path

import numpy as np

from gcnn_cli.errors import GeometryError, InputError
from gcnn_cli.scan.images.part_files import part_files
from gcnn_cli.scan.images.stored import StoredImage, check_shape
from gcnn_cli.scan.lattice import Array, make_affine

_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
# Names of one field over the versions of the format.
_MATRIX = ("TransformMatrix", "Rotation", "Orientation")
_ORIGIN = ("Offset", "Position", "Origin")


def metaimage_header(path: Path) -> StoredImage:
    """Read the header of a .mhd or .mha file.

    Raises InputError for a damaged header or a missing data file, GeometryError for an unsound lattice.
    """
    fields, header_bytes = _read_header(path)
    try:
        size = tuple(int(v) for v in fields["DimSize"].split())
        components = int(fields.get("ElementNumberOfChannels", "1"))
        big_endian = _truth(_first(fields, "BinaryDataByteOrderMSB", "ElementByteOrderMSB", default="False"))
        dtype = (">" if big_endian else "<") + _TYPES[fields["ElementType"]]
        name = fields["ElementDataFile"]
        header_size, packed_size = (int(fields.get(key, "0")) for key in ("HeaderSize", "CompressedDataSize"))
        packed, binary = (_truth(fields.get(k, d)) for k, d in (("CompressedData", "False"), ("BinaryData", "True")))
        if int(fields.get("NDims", len(size))) != len(size):
            raise ValueError("NDims and DimSize")
    except (KeyError, ValueError) as error:
        raise InputError(f"not a MetaImage header, or damaged (at {error})", path=path) from None
    check_shape(path, size, components)
    if not binary:
        raise InputError("voxels as text; write them as binary", path=path)
    if name.startswith("LIST") or "%" in name:
        if packed:
            raise InputError("packed voxels in several files; write one data file", path=path)
        parts = part_files(path, name, header_bytes, size)
        item = math.prod(size) * np.dtype(dtype).itemsize // len(parts)
        start = max(0, parts[0].stat().st_size - item) if header_size == -1 else max(0, header_size)
        to_world = _to_world(path, fields, len(size))
        return StoredImage(path, size, to_world, parts[0], start, dtype, warnings=_assumed(fields), parts=parts)
    data = path if name.upper() == "LOCAL" else path.parent / name
    if not data.is_file():
        raise InputError(f"its data file {name!r} is missing", path=path)
    start = header_size if header_size > 0 else header_bytes if data == path else 0
    actual = data.stat().st_size - start
    if packed and packed_size > actual:
        raise InputError(f"truncated, holds {actual} bytes of voxels where {packed_size} are declared", path=data)
    if header_size == -1 and not packed:  # the voxels are the end of the file
        start = max(start, data.stat().st_size - math.prod(size) * np.dtype(dtype).itemsize)
    to_world = _to_world(path, fields, len(size))
    return StoredImage(path, size, to_world, data, start, dtype, packed, warnings=_assumed(fields))


def _assumed(fields: dict[str, str]) -> tuple[str, ...]:
    """Return a warning where the header does not state the scan's place or orientation."""
    missing = [names[0] for names in (_ORIGIN, _MATRIX) if not fields.keys() & set(names)]
    if not missing:
        return ()
    return (f"the header has no {' and no '.join(missing)}: the first voxel at 0 mm and axes along LPS were assumed",)


def _to_world(path: Path, fields: dict[str, str], axes: int) -> Array:
    try:
        spacing = _numbers(_first(fields, "ElementSpacing", "ElementSize", default=""), axes)
        straight = " ".join(str(int(n % (axes + 1) == 0)) for n in range(axes**2))
        matrix = _numbers(_first(fields, *_MATRIX, default=straight), axes**2)
        origin = _numbers(_first(fields, *_ORIGIN, default="0 " * axes), axes)
    except ValueError as error:
        raise InputError(f"not a MetaImage header, or damaged (at {error})", path=path) from None
    if not all(math.isfinite(v) and v > 0 for v in spacing):
        raise GeometryError(f"ElementSpacing must be positive, got {spacing}", path=path)
    # Each row is the direction of one array axis.
    rows = np.array(matrix).reshape(axes, axes)[:3, :3]
    if not np.abs(rows).max() <= 2 or not np.abs(rows @ rows.T - np.eye(3)).max() <= 1e-3:  # also refuses NaN
        raise GeometryError(f"TransformMatrix is not orthonormal: {matrix}", path=path)
    return make_affine(np.array(spacing)[2::-1], rows.T[:, ::-1], np.array(origin)[:3])


def _read_header(path: Path) -> tuple[dict[str, str], int]:
    """Read the `key = value` lines up to ElementDataFile, after which voxels may follow, and the length in bytes."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        for _ in range(1000):
            line = file.readline(65536)
            if b"=" not in line:
                break
            key, value = (part.strip() for part in line.decode("utf-8", "replace").split("=", 1))
            if fields.setdefault(key, value) != value:
                raise InputError(f"contradicts itself: two values for {key!r}", path=path)
            if key == "ElementDataFile":
                break
        return fields, file.tell()


def _first(fields: dict[str, str], *names: str, default: str) -> str:
    return next((fields[name] for name in names if name in fields), default)


def _numbers(text: str, count: int) -> list[float]:
    """Parse exactly `count` numbers. Raises ValueError."""
    numbers = [float(v) for v in text.split()]
    if len(numbers) != count:
        raise ValueError(f"{len(numbers)} numbers instead of {count}")
    return numbers


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{text!r}, neither True nor False")
    return text.lower() == "true"
