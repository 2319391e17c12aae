"""Stored values -> checked Hounsfield units, the same for every format."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.errors import InputError
from gcnn_cli.scan.lattice import Array

LOWEST_HU = -1024
_INT16_MAX = 32767
# Lung is below -600 HU and tissue above -200: a chest CT has both.
_MUST_GO_BELOW = -500
_MUST_GO_ABOVE = -200
_HIGHEST_PLAUSIBLE = 40000  # metal, on 16-bit scanners


def checked_hu(values: NDArray[Any], name: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return HU of at least -1024, as int16 if all are whole and float32 otherwise, and warnings.

    Padding outside a round field of view (-2000, -3024) becomes air. Raises InputError, starting
    with the name, for NaN or infinite values and for values that are not HU of a chest.
    """
    if values.dtype.kind not in "iuf":
        raise InputError(f"expected numbers, got voxels of type {values.dtype}", path=name)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError("holds NaN or infinite values", path=name)
    low, high = float(values.min()), float(values.max())
    if low > _MUST_GO_BELOW or high < _MUST_GO_ABOVE or high > _HIGHEST_PLAUSIBLE:
        raise InputError(
            f"does not look like a chest CT in Hounsfield units: values run from {low:g} to {high:g}", path=name
        )
    warnings: tuple[str, ...] = ()
    if low < LOWEST_HU - 176:  # below -1200, which no scanner measures
        warnings = (f"values below {LOWEST_HU} HU (down to {low:g}) were taken for padding outside the field of view",)
    clipped = np.clip(values, LOWEST_HU, _INT16_MAX)
    if values.dtype.kind != "f" or all((plane == np.round(plane)).all() for plane in clipped):
        return clipped.astype(np.int16, copy=False), warnings
    return clipped.astype(np.float32, copy=False), warnings


def content_sha256(hu: NDArray[Any], to_world: Array) -> str:
    """Return a checksum of voxels, shape and place (to a micrometer), independent of the file format."""
    digest = hashlib.sha256()
    digest.update(str(hu.shape).encode())
    digest.update((np.round(to_world, 3) + 0.0).tobytes())
    digest.update(np.ascontiguousarray(hu, np.int16 if hu.dtype == np.int16 else np.float32).data)
    return digest.hexdigest()
