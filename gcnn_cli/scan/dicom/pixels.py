"""Pixels of DICOM files -> HU: rescaling and padding. `decoding` reads the stored values."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.errors import InputError
from gcnn_cli.scan.dicom.dataset import DAMAGE, quiet_pydicom, read_dicom, reason
from gcnn_cli.scan.dicom.decoding import stored_pixels
from gcnn_cli.scan.hounsfield import LOWEST_HU

_HIGHEST_TISSUE_HU = 3071
_NO_RESCALE = "no rescale slope and intercept in the header: the stored values were taken for HU"


def stack_hu(frames: Sequence[tuple[Path, int]]) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Read the planes [D, H, W] of (file, frame) in the given order; return them with warnings.

    They are int16 if every slope and intercept is whole, float32 otherwise. Raises InputError that names the damaged
    file.
    """
    stack: NDArray[Any] | None = None
    opened: tuple[Path, NDArray[Any]] | None = None
    notes: set[str] = set()
    for n, (path, frame) in sorted(enumerate(frames), key=lambda item: item[1]):  # decodes each file once
        if opened is None or opened[0] != path:
            opened = (path, file_hu(path, notes))
        plane = _frame_of(opened[1], path, frame)
        if stack is None:
            stack = np.empty((len(frames), *plane.shape), np.int16)
        if plane.shape != stack.shape[1:]:
            raise InputError(f"{plane.shape} pixels where other slices hold {stack.shape[1:]}", path=path.name)
        if plane.dtype == np.float32 and stack.dtype == np.int16:
            stack = stack.astype(np.float32)
        stack[n] = plane
    if stack is None:
        raise InputError("no slices to read")
    return stack, tuple(sorted(notes))


class Comparison:
    """Compares frames of files, each as (file, frame), by checksums: a file of many frames is decoded only once."""

    def __init__(self) -> None:
        self._digests: dict[Path, list[bytes]] = {}

    def equal(self, first: tuple[Path, int], second: tuple[Path, int]) -> bool:
        """Return whether two frames have the same HU. Raises InputError as `stack_hu`."""
        return bool(self._digest(*first) == self._digest(*second))

    def _digest(self, path: Path, frame: int) -> Any:
        if path not in self._digests:
            planes = file_hu(path, set())
            self._digests[path] = [hashlib.sha256(plane.astype(np.float32).tobytes()).digest() for plane in planes]
        return _frame_of(self._digests[path], path, frame)


def _frame_of(frames: Sequence[Any] | NDArray[Any], path: Path, frame: int) -> Any:
    if frame >= len(frames):
        raise InputError(f"holds {len(frames)} frames, its header describes more", path=path.name)
    return frames[frame]


def file_hu(path: Path, notes: set[str]) -> NDArray[Any]:
    """Read all frames of one file [frames, rows, columns] in HU, and add warnings to `notes`."""
    with quiet_pydicom():
        try:
            dataset = read_dicom(path)
        except DAMAGE as error:
            raise InputError(f"cannot be read: {reason(error)}", path=path.name) from None
        raw = stored_pixels(dataset, path.name)
        try:
            planes = [_to_hu(raw[n], dataset, _rescale(dataset, n, notes)) for n in range(len(raw))]
            if _is_padding_above_stored_bits(dataset, raw.dtype):
                dataset.pixel_array_options(correct_unused_bits=False)  # decodes anew
                whole = stored_pixels(dataset, path.name)
                for plane, values in zip(planes, whole, strict=True):
                    plane[values == _padding(dataset, values.dtype)] = LOWEST_HU
        except DAMAGE as error:
            raise InputError(f"damaged rescale or padding values: {reason(error)}", path=path.name) from None
    return planes[0][None] if len(planes) == 1 else np.stack(planes)


def _rescale(dataset: Any, frame: int, notes: set[str]) -> tuple[float, float]:
    """Return slope and intercept of a frame; 1 and 0, with a note, where the header lacks them."""
    holder = dataset
    if "PerFrameFunctionalGroupsSequence" in dataset:
        name = "PixelValueTransformationSequence"
        group = dataset.PerFrameFunctionalGroupsSequence[frame]
        if name not in group:
            group = dataset.SharedFunctionalGroupsSequence[0]
        holder = group[name][0] if name in group else dataset
    slope, intercept = holder.get("RescaleSlope"), holder.get("RescaleIntercept")
    if slope is None or intercept is None:
        notes.add(_NO_RESCALE)
    return float(1 if slope is None else slope), float(0 if intercept is None else intercept)


def _to_hu(raw: NDArray[Any], dataset: Any, rescale: tuple[float, float]) -> NDArray[Any]:
    slope, intercept = rescale
    hu: NDArray[Any]
    if all(v.is_integer() and abs(v) < 2**31 for v in (slope, intercept)):
        # Clipped from a wide type: unsigned 16-bit values would wrap around in int16.
        wide: NDArray[Any] = raw.astype(np.int64) * int(slope) + int(intercept)
        hu = np.clip(wide, -32768, 32767).astype(np.int16)
    else:
        with np.errstate(over="ignore", invalid="ignore"):  # infinite values are refused later
            hu = raw.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    stored = _padding(dataset, raw.dtype)
    if stored is not None and not _is_padding_above_stored_bits(dataset, raw.dtype):
        value = float(stored) * slope + intercept
        if value < LOWEST_HU or value > _HIGHEST_TISSUE_HU:  # in between it is air already, or would blank tissue
            hu[raw == stored] = LOWEST_HU
    return hu


def _padding(dataset: Any, dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """Return the padding value as stored. Files with signed pixels often state it as unsigned: 63536 is -2000."""
    padding = dataset.get("PixelPaddingValue")
    return None if padding is None else np.array(int(padding)).astype(dtype)


def _is_padding_above_stored_bits(dataset: Any, dtype: np.dtype[Any]) -> bool:
    """Return whether the padding value needs bits above those stored. pydicom cuts them off, and tissue would remain.

    So does pydicom rightly for all else, as the standard leaves these bits undefined.
    """
    padding = _padding(dataset, dtype)
    if padding is None:
        return False
    bits = int(dataset.BitsStored)
    lowest, end = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if dtype.kind == "i" else (0, 2**bits)
    return not lowest <= int(padding) < end
