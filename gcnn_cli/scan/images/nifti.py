"""NIfTI headers, read without ITK.

ITK takes directions from one field and voxel sizes from another, turns a size of zero into one and
NaN into zero, and reads a truncated file without complaint. Here the transform is the sform if its
code is set, otherwise the qform, as in the format's own tools; from RAS to LPS.

Source: nifti1.h and nifti2.h, NIfTI Data Format Working Group.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gcnn_cli.errors import GeometryError, InputError
from gcnn_cli.scan.images.stored import StoredImage, check_shape, inflated
from gcnn_cli.scan.lattice import Array

_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # unknown means mm, as in other readers
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_WORTH_A_WARNING_MM = 0.5
_START = 540  # bytes of the longer header


@dataclass(frozen=True)
class _Header:
    size: tuple[int, ...]  # voxels along i, j, k, ...
    pixdim: tuple[float, ...]  # qfac, then voxel sizes
    dtype: str  # NumPy's name, with byte order
    voxels_at: int  # byte of the first voxel in the unpacked file
    scale: tuple[float, float]  # value = slope x stored + intercept
    quaternion: tuple[float, ...]  # b, c, d
    offset: tuple[float, ...]
    rows: tuple[float, ...]  # sform, 3 x 4
    qform_code: int
    sform_code: int
    mm: float  # millimeters per unit of length


def nifti_header(path: Path) -> StoredImage:
    """Read the header of a .nii or .nii.gz file, or of a pair: .hdr, with the voxels in the .img beside it.

    Raises InputError for a damaged header, GeometryError for a transform that is sheared, empty or
    contradicts the voxel sizes.
    """
    packed = path.name.lower().endswith(".gz")
    try:
        with path.open("rb") as file:
            start = b"".join(_first_blocks(inflated(file), _START)) if packed else file.read(_START)
    except zlib.error as error:
        raise InputError(f"truncated or damaged ({error})", path=path) from None
    paired = path.name.lower().endswith(".hdr")
    header = _parse(path, start[:_START], paired=paired)
    check_shape(path, header.size[:4], math.prod(header.size[4:]))  # the fifth axis holds vectors
    with np.errstate(over="ignore", invalid="ignore"):  # infinite values are refused later
        to_world, warnings = _affine(path, header)
    if paired:
        data = _voxels_of(path)
        return StoredImage(
            path, header.size, to_world, data, header.voxels_at, header.dtype, scale=header.scale, warnings=warnings
        )
    at, skip = (0, header.voxels_at) if packed else (header.voxels_at, 0)
    return StoredImage(path, header.size, to_world, path, at, header.dtype, packed, skip, header.scale, warnings)


def _voxels_of(header: Path) -> Path:
    """Return the .img of a .hdr, in either case."""
    for suffix in (".img", ".IMG"):
        if (data := header.with_suffix(suffix)).is_file():
            return data
    raise InputError(f"its voxels, {header.stem}.img, are missing", path=header)


def _first_blocks(blocks: Iterator[bytes], count: int) -> Iterator[bytes]:
    """Yield blocks until they hold `count` bytes."""
    while count > 0 and (block := next(blocks, None)) is not None:
        yield block
        count -= len(block)


def _affine(path: Path, header: _Header) -> tuple[Array, tuple[str, ...]]:
    sizes = np.array(header.pixdim[1:4])
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise GeometryError(f"voxel sizes (pixdim) must be positive, got {sizes.tolist()}", path=path)
    found = {}
    if header.sform_code > 0:
        found["sform"] = _checked_sform(path, header)
    if header.qform_code > 0:
        found["qform"] = _qform(header)
    if not found:
        warnings: tuple[str, ...] = (
            "the file does not state the orientation of its axes (sform and qform code are 0):"
            " x was taken for left, y for back, z for head",
        )
        ijk_to_lps = np.diag([*sizes, 1.0])
    else:
        warnings = _disagreement(found, header.size, header.mm)
        ijk_to_lps = _RAS_TO_LPS @ next(iter(found.values()))
    ijk_to_lps[:3] *= header.mm
    if not np.isfinite(ijk_to_lps).all():
        raise GeometryError("its orientation (qform) holds NaN or infinite values", path=path)
    return ijk_to_lps[:, [2, 1, 0, 3]], warnings


def _checked_sform(path: Path, header: _Header) -> Array:
    sform = np.vstack([np.reshape(header.rows, (3, 4)), [0, 0, 0, 1]])
    sizes = np.array(header.pixdim[1:4])
    if not np.isfinite(sform).all():
        raise GeometryError("its sform holds NaN or infinite values", path=path)
    lengths = np.linalg.norm(sform[:3, :3], axis=0)
    if not (lengths > 0).all():
        raise GeometryError("its sform has an axis of length zero", path=path)
    axes = sform[:3, :3] / lengths
    cosine = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if cosine > 1e-3:
        angle = np.degrees(np.arcsin(min(1.0, cosine)))
        raise GeometryError(f"its sform is sheared by {angle:.1f} degrees; positions would be wrong", path=path)
    if (np.abs(lengths - sizes) > 0.01 * sizes).any():
        raise GeometryError(
            f"contradicts itself: voxels measure {lengths.round(4).tolist()} by the sform,"
            f" {sizes.round(4).tolist()} by pixdim",
            path=path,
        )
    return sform


def _qform(header: _Header) -> Array:
    """Return the transform of the unit quaternion (a, b, c, d) with a >= 0; qfac reverses the third axis."""
    b, c, d = header.quaternion
    a = np.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    sizes = np.array(header.pixdim[1:4])
    sizes[2] *= -1 if header.pixdim[0] < 0 else 1
    qform = np.eye(4)
    qform[:3, :3] = rotation * sizes
    qform[:3, 3] = header.offset
    return qform


def _disagreement(found: dict[str, Array], size: tuple[int, ...], mm: float) -> tuple[str, ...]:
    """Return a warning when the file's two transforms place some corner of the scan differently."""
    if len(found) < 2:
        return ()
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * (np.array(size[:3]) - 1)
    difference = found["sform"] - found["qform"]
    apart = float(np.linalg.norm(corners @ difference[:3, :3].T + difference[:3, 3], axis=1).max()) * mm
    if apart <= _WORTH_A_WARNING_MM:
        return ()
    return (f"sform and qform of the file place the scan up to {apart:.1f} mm apart; the sform was used",)


def _parse(path: Path, start: bytes, *, paired: bool) -> _Header:
    version, order = 0, ""
    if len(start) >= (348 if paired else 352):
        for order in "<>":
            version = {348: 1, 540: 2}.get(struct.unpack_from(f"{order}i", start)[0], 0)
            if version:
                break
    magic = start[4:7] if version == 2 else start[344:347]
    if paired and version == 1 and not magic.startswith(b"n"):
        raise InputError("Analyze 7.5, which does not state what is left and right; convert it to NIfTI", path=path)
    if magic not in ((b"ni1", b"ni2") if paired else (b"n+1", b"n+2")):
        if paired:
            raise InputError("not the header of a NIfTI pair", path=path)
        raise InputError("not a NIfTI file (one .nii that holds header and voxels)", path=path)

    def get(fmt: str, at: int) -> tuple[float, ...]:
        values: tuple[float, ...] = struct.unpack_from(order + fmt, start, at)
        return values

    if version == 1:
        dim, pixdim, code = get("8h", 40), get("8f", 76), get("h", 70)[0]
        voxels_at, slope, intercept = get("3f", 108)
        units = start[123]
        qform_code, sform_code = get("2h", 252)
        quaternion, offset, rows = get("3f", 256), get("3f", 268), get("12f", 280)
    elif len(start) == 540:
        dim, pixdim, code = get("8q", 16), get("8d", 104), get("h", 12)[0]
        voxels_at, (slope, intercept) = get("q", 168)[0], get("2d", 176)
        units = int(get("i", 500)[0])
        qform_code, sform_code = get("2i", 344)
        quaternion, offset, rows = get("3d", 352), get("3d", 376), get("12d", 400)
    else:
        raise InputError("truncated in its header", path=path)
    size = tuple(int(n) for n in dim[1 : 1 + int(dim[0])])
    if code not in _TYPES:
        raise InputError(f"a color or vector image, or a voxel type (code {code}) that no CT has", path=path)
    if min(size, default=0) < 1 or not (0 if paired else 1) <= voxels_at < 2**31:
        raise InputError(f"its header is damaged: size {list(size)}, voxels from byte {voxels_at}", path=path)
    return _Header(
        size=(*size, 1, 1, 1)[: max(3, len(size))],
        pixdim=pixdim,
        dtype=order + _TYPES[int(code)],
        voxels_at=int(voxels_at),
        scale=(slope, intercept),
        quaternion=quaternion,
        offset=offset,
        rows=rows,
        qform_code=int(qform_code),
        sform_code=int(sform_code),
        mm=_MM_PER_UNIT.get(units & 7, 1.0),
    )
