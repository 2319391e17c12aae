"""NRRD headers, read before ITK does: it takes any unknown frame for LPS and NaN spacing for one.

Source: teem.sourceforge.net/nrrd/format.html, "space" and "space directions".
"""

from pathlib import Path

import numpy as np

from gcnn_cli.errors import GeometryError, InputError

# What ITK turns into LPS itself.
_FRAMES = {
    "lps": "left-posterior-superior",
    "ras": "right-anterior-superior",
    "las": "left-anterior-superior",
}


def check_nrrd(path: Path) -> tuple[str, ...]:
    """Warnings of a sound header. Raises InputError for a damaged one, GeometryError for its grid."""
    fields = _read_header(path)
    try:
        directions = _directions(fields)
    except ValueError:
        raise InputError(f"{path}: its spacings or space directions are not numbers") from None
    lengths = np.linalg.norm(directions, axis=1)
    if not (np.isfinite(directions).all() and (lengths > 0).all()) or "-" in fields.get("spacings", ""):
        given = fields.get("space directions", fields.get("spacings", ""))
        raise GeometryError(f"{path}: voxel spacing must be positive, got {given}")
    axes = directions / lengths[:, None]
    cosine = float(np.abs(axes @ axes.T - np.eye(len(axes))).max())
    if cosine > 1e-3:
        angle = np.degrees(np.arcsin(min(1.0, cosine)))
        raise GeometryError(f"{path}: its space directions are sheared by {angle:.1f} degrees")
    frame = fields.get("space", "").lower().removesuffix("-time")
    if not frame:
        return ("the file does not say how its axes lie in the patient (no space field): LPS was assumed",)
    if frame not in (*_FRAMES, *_FRAMES.values()):
        raise InputError(f"{path}: its space {frame!r} is not a patient frame; use one of {', '.join(_FRAMES)}")
    return ()


def _directions(fields: dict[str, str]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """One row in mm for each spatial axis; an empty header means voxels of 1 mm."""
    if "space directions" in fields:
        vectors = fields["space directions"].replace("none", "").replace("(", " ").split(")")
        return np.array([[float(v) for v in vector.split(",")] for vector in vectors if vector.strip()])
    return np.diag([float(v) for v in fields.get("spacings", "1 1 1").split()][:3])


def _read_header(path: Path) -> dict[str, str]:
    """The `field: value` lines up to the first empty one; names in small letters."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        if not file.readline(64).startswith(b"NRRD000"):
            raise InputError(f"{path}: not an NRRD file")
        for _ in range(1000):
            line = file.readline(65536).decode("utf-8", "replace").strip()
            if not line:
                break
            name, separator, value = line.partition(": ")
            if separator and not line.startswith("#"):
                fields[name.strip().lower()] = value.strip()
    return fields
