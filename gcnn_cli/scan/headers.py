"""What a header promises, checked against the file before ITK reads it.

ITK fills missing voxels with zeros or names the wrong file, and some of its readers say so only on
stderr. Zeros in a CT are soft tissue: a truncated scan would be searched as if it were whole.
"""

import gzip
import math
import struct
import zlib
from collections.abc import Callable
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

_CHUNK = 1 << 20


def _check_metaimage(path: Path) -> None:
    """Spacing, direction and data file of a MetaImage header, whose defects ITK hides or misnames."""
    fields, header_bytes = _metaimage_fields(path)
    try:
        shape = [int(v) for v in fields["DimSize"].split()]
        spacing = [float(v) for v in fields.get("ElementSpacing", fields.get("ElementSize", "1 1 1")).split()]
        matrix = [float(v) for v in _first(fields, "TransformMatrix", "Rotation", "Orientation").split()]
        item = _BYTES[fields["ElementType"]] * int(fields.get("ElementNumberOfChannels", "1"))
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: not a MetaImage header, or damaged ({error})") from None
    if min(spacing) <= 0:
        raise GeometryError(f"{path}: ElementSpacing must be positive, got {spacing}")
    if len(matrix) == 9:
        axes = np.array(matrix).reshape(3, 3)
        if np.abs(axes @ axes.T - np.eye(3)).max() > 1e-3:
            raise GeometryError(f"{path}: TransformMatrix is not orthonormal: {matrix}")
    name = fields.get("ElementDataFile", "LOCAL")
    if name.startswith("LIST") or "%" in name:
        return
    data = path if name == "LOCAL" else path.parent / name
    if not data.is_file():
        raise InputError(f"{path}: its data file {name!r} is missing")
    if fields.get("CompressedData", "False").lower() == "true":
        expected = int(fields.get("CompressedDataSize", "0"))
    else:
        expected = math.prod(shape) * item
    present = data.stat().st_size - (header_bytes if name == "LOCAL" else 0)
    if present < expected:
        raise InputError(f"{data}: truncated, {present} bytes of voxels where {path.name} needs {expected}")


def _metaimage_fields(path: Path) -> tuple[dict[str, str], int]:
    """The header's `key = value` lines up to ElementDataFile, and where it ends: voxels may follow."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        for _ in range(100):
            line = file.readline(4096)
            if b"=" not in line:
                break
            key, _, value = line.decode("utf-8", "replace").partition("=")
            fields[key.strip()] = value.strip()
            if key.strip() == "ElementDataFile":
                break
        return fields, file.tell()


def _first(fields: dict[str, str], *names: str) -> str:
    return next((fields[name] for name in names if name in fields), "")


def _check_nifti(path: Path) -> None:
    """Size of the voxels that a NIfTI-1 header promises; a .gz is unpacked to its end, which checks its sum."""
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            header = file.read(348)
            if len(header) < 348:
                raise InputError(f"{path}: too short for a NIfTI file")
            expected = _nifti_bytes(header)
            present = len(header)
            while chunk := file.read(_CHUNK):
                present += len(chunk)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: truncated or damaged ({error})") from None
    if present < expected:
        raise InputError(f"{path}: truncated, {present} bytes where its header promises {expected}")


def _nifti_bytes(header: bytes) -> int:
    """Bytes of the whole file by its NIfTI-1 header; 0 for other versions, which ITK judges."""
    order = next((o for o in "<>" if struct.unpack(o + "i", header[:4])[0] == 348), "")
    if not order:
        return 0
    dimensions = struct.unpack(order + "8h", header[40:56])
    (bits,) = struct.unpack(order + "h", header[72:74])
    (offset,) = struct.unpack(order + "f", header[108:112])
    voxels = math.prod(max(n, 1) for n in dimensions[1 : 1 + max(0, min(dimensions[0], 7))])
    return int(offset + voxels * bits // 8)


HEADER_CHECKS: dict[str, Callable[[Path], None]] = {"metaimage": _check_metaimage, "nifti": _check_nifti}
