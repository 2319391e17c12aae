"""NRRD headers, read without ITK.

ITK takes any unknown frame for LPS and a spacing of NaN for one, and a damaged header can end the process.

Source: teem.sourceforge.net/nrrd/format.html.
"""

import math
from pathlib import Path

import numpy as np

from gcnn_cli.errors import GeometryError, InputError
from gcnn_cli.scan.images.stored import StoredImage, check_shape
from gcnn_cli.scan.lattice import Array, make_affine

# Patient frames, with the signs of x and y that turn them into LPS.
_FRAMES = {
    "lps": (1, 1),
    "left-posterior-superior": (1, 1),
    "ras": (-1, -1),
    "right-anterior-superior": (-1, -1),
    "las": (1, -1),
    "left-anterior-superior": (1, -1),
}
_TYPES = {
    name: dtype
    for dtype, names in {
        "i1": ("signed char", "int8", "int8_t"),
        "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
        "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
        "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
        "i4": ("int", "signed int", "int32", "int32_t"),
        "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
        "i8": (
            "longlong",
            "long long",
            "long long int",
            "signed long long",
            "signed long long int",
            "int64",
            "int64_t",
        ),
        "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
        "f4": ("float",),
        "f8": ("double",),
    }.items()
    for name in names
}
_IS_PACKED = {"raw": False, "gzip": True, "gz": True}  # by encoding
_ENDIANS = {"little": "<", "big": ">"}


def nrrd_header(path: Path) -> StoredImage:
    """Read the header of a .nrrd or .nhdr file.

    Raises InputError for a damaged header or a missing data file, GeometryError for an unsound lattice.
    """
    fields, header_bytes = _read_header(path)
    size, to_world = _size_and_place(path, fields)
    kind, encoding = fields.get("type", "").lower(), fields.get("encoding", "").lower()
    if kind not in _TYPES:
        raise InputError(f"invalid voxel type {kind!r}; must be an integer type, float or double", path=path)
    if encoding not in _IS_PACKED:
        raise InputError(f"its encoding is {encoding!r}; must be raw or gzip", path=path)
    packed, endian = _IS_PACKED[encoding], _ENDIANS.get(fields.get("endian", "").lower())
    if endian is None and not _TYPES[kind].endswith("1"):
        raise InputError("does not state its byte order (little or big endian)", path=path)
    dtype = (endian or "<") + _TYPES[kind]
    name = fields.get("data file", fields.get("datafile"))
    data = path if name is None else path.parent / name
    if not data.is_file():
        raise InputError(f"its data file {name!r} is missing", path=path)
    start = _after_lines(data, header_bytes if name is None else 0, _whole(path, fields, "line skip"))
    skip = _whole(path, fields, "byte skip")
    if skip == -1 and not packed:  # the voxels are the end of the file
        start = max(start, data.stat().st_size - math.prod(size) * np.dtype(dtype).itemsize)
    start, skip = (start, max(0, skip)) if packed else (start + max(0, skip), 0)
    return StoredImage(path, size, to_world, data, start, dtype, packed, skip, warnings=_assumed(fields))


def _assumed(fields: dict[str, str]) -> tuple[str, ...]:
    """Return a warning where the header does not state the scan's place or orientation."""
    if "space" not in fields:
        return ("the file does not state the orientation of its axes (no space field): LPS was assumed",)
    if "space origin" not in fields:
        return ("the header has no space origin: the first voxel at 0 mm was assumed",)
    return ()


def _size_and_place(path: Path, fields: dict[str, str]) -> tuple[tuple[int, ...], Array]:
    """Return the voxels along the spatial axes, and to_world."""
    try:
        size = [int(v) for v in fields.get("sizes", "").split()]
        vectors = _vectors(fields, len(size))
        origin = [float(v) for v in fields.get("space origin", "(0,0,0)").strip("()").split(",")][:3]
    except ValueError:
        raise InputError("its sizes, spacings, space directions or origin are not numbers", path=path) from None
    if len(vectors) != len(size) or fields.get("dimension", "") != str(len(size)):
        raise InputError("contradicts itself about the number of its axes", path=path)
    within = tuple(n for n, vector in zip(size, vectors, strict=True) if vector is None)
    in_space = tuple(n for n, vector in zip(size, vectors, strict=True) if vector is not None)
    check_shape(path, in_space, math.prod(within))
    return in_space, _to_world(path, fields, [vector[:3] for vector in vectors if vector is not None][:3], origin)


def _vectors(fields: dict[str, str], axes: int) -> list[list[float] | None]:
    """Return for each axis the step in mm from voxel to voxel, or None for the components of a voxel."""
    if "space directions" not in fields:
        spacings = [float(v) for v in fields.get("spacings", "").split()]
        return [[spacing if n == axis else 0.0 for n in range(axes)] for axis, spacing in enumerate(spacings)]
    words = fields["space directions"].replace(", ", ",").split()
    vectors = [None if w.lower() == "none" else [float(v) for v in w.strip("()").split(",")] for w in words]
    if len({len(vector) for vector in vectors if vector is not None}) > 1:
        raise ValueError("vectors of different lengths")
    return vectors


def _to_world(path: Path, fields: dict[str, str], vectors: list[list[float]], origin: list[float]) -> Array:
    directions = np.array(vectors)
    given = fields.get("space directions", fields.get("spacings", ""))
    if directions.shape != (3, 3) or len(origin) != 3:
        raise InputError("its space directions and origin do not have three axes", path=path)
    # A length above a kilometer is invalid, and cannot be squared safely.
    sound = np.isfinite(directions).all() and np.abs(directions).max() < 1e6
    lengths = np.linalg.norm(directions, axis=1) if sound else np.zeros(3)
    # The length alone would hide a negative spacing.
    if not (lengths > 0).all() or ("space directions" not in fields and directions.min() < 0):
        raise GeometryError(f"voxel spacing must be positive, got {given}", path=path)
    axes = directions / lengths[:, None]
    cosine = float(np.abs(axes @ axes.T - np.eye(3)).max())
    if cosine > 1e-3:
        angle = np.degrees(np.arcsin(min(1.0, cosine)))
        raise GeometryError(f"its space directions are sheared by {angle:.1f} degrees", path=path)
    frame = fields.get("space", "lps").lower().removesuffix("-time")
    if frame not in _FRAMES:
        raise InputError(f"its space {frame!r} is not a patient frame; use one of LPS, RAS, LAS", path=path)
    if "axis mins" in fields and "space origin" not in fields:
        raise InputError("gives its place as axis mins; write a space origin", path=path)
    signs = np.array([*_FRAMES[frame], 1])
    return make_affine(lengths[::-1], (axes * signs).T[:, ::-1], np.array(origin) * signs)


def _whole(path: Path, fields: dict[str, str], name: str) -> int:
    """Parse a number of bytes or lines to skip, in either spelling; -1 may stand for 'up to the voxels'."""
    text = fields.get(name, fields.get(name.replace(" ", ""), "0"))
    try:
        number = int(text)
    except ValueError:
        number = -2
    if not (-1 <= number < 2**40) or (number == -1 and name == "line skip"):
        raise InputError(f"its {name} is {text[:40]!r}", path=path)
    return number


def _after_lines(data: Path, start: int, lines: int) -> int:
    """Return the position after a number of line feeds."""
    if lines == 0:
        return start
    with data.open("rb") as file:
        file.seek(start)
        while lines and file.readline(65536):
            lines -= 1
        return file.tell()


def _read_header(path: Path) -> tuple[dict[str, str], int]:
    """Read the `field: value` lines up to the first empty one, names in lower case, and the length in bytes."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        if not file.readline(64).startswith(b"NRRD000"):
            raise InputError("not an NRRD file", path=path)
        for _ in range(1000):
            line = file.readline(65536).decode("utf-8", "replace")
            if not line.strip():
                break
            if line.startswith("#") or ":=" in line:
                continue  # comments, and key/value pairs of other programs
            name, separator, value = (part.strip() for part in line.partition(":"))
            if not separator:
                raise InputError(f"its header is damaged at {line.strip()[:40]!r}", path=path)
            if fields.setdefault(name.lower(), value) != value:
                raise InputError(f"contradicts itself: two values for {name!r}", path=path)
        return fields, file.tell()
