"""Pixels of DICOM files -> HU: rescaling, padding, compressed transfer syntaxes.

pydicom decodes; what it has no plugin for (JPEG lossless, JPEG-LS) is decoded by the GDCM inside
SimpleITK, so that the common syntaxes need no further package.
"""

import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from gcnn_cli.errors import InputError
from gcnn_cli.scan.hounsfield import LOWEST_HU

# What pydicom raises for elements that are damaged, absent or hold what their type forbids.
DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    AttributeError,
    KeyError,
    IndexError,
    TypeError,
    NotImplementedError,
    struct.error,
    InvalidDicomError,
)
_HIGHEST_TISSUE_HU = 3071
_NO_RESCALE = "no rescale slope and intercept in the header: the stored values were taken for HU"


def stack_hu(frames: Sequence[tuple[Path, int]]) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Planes [D, H, W] of (file, frame) in the given order, and warnings.

    int16 while every slope and intercept is whole, float32 otherwise. Raises InputError that names
    the file at fault.
    """
    stack: NDArray[Any] | None = None
    opened: tuple[Path, NDArray[Any]] | None = None
    notes: set[str] = set()
    for n, (path, frame) in enumerate(frames):
        if opened is None or opened[0] != path:
            opened = (path, file_hu(path, notes))
        plane = opened[1][frame]
        if stack is None:
            stack = np.empty((len(frames), *plane.shape), np.int16)
        if plane.shape != stack.shape[1:]:
            raise InputError(f"{path.name}: {plane.shape} pixels where other slices hold {stack.shape[1:]}")
        if plane.dtype == np.float32 and stack.dtype == np.int16:
            stack = stack.astype(np.float32)
        stack[n] = plane
    if stack is None:
        raise InputError("no slices to read")
    return stack, tuple(sorted(notes))


def file_hu(path: Path, notes: set[str]) -> NDArray[Any]:
    """All frames of one file [frames, rows, columns] in HU; adds to notes what should be said."""
    with quiet_pydicom():
        try:
            dataset = pydicom.dcmread(path)
        except DAMAGE as error:
            raise InputError(f"{path.name}: cannot be read: {_one_line(error)}") from None
        try:
            raw = dataset.pixel_array
        except RuntimeError as error:
            if "missing dependencies" in str(error) and "PerFrameFunctionalGroupsSequence" not in dataset:
                return _decoded_by_gdcm(path)
            raise InputError(_undecodable(path, dataset, error)) from None
        except DAMAGE as error:
            raise InputError(f"{path.name}: its pixels cannot be read: {_one_line(error)}") from None
        if dataset.get("SamplesPerPixel", 1) != 1:
            raise InputError(f"{path.name}: color pixels, not a CT")
        raw = raw.reshape(-1, *raw.shape[-2:])
        try:
            planes = [_to_hu(raw[n], dataset, _rescale(dataset, n, notes)) for n in range(len(raw))]
        except DAMAGE as error:
            raise InputError(f"{path.name}: damaged rescale or padding values: {_one_line(error)}") from None
    return planes[0][None] if len(planes) == 1 else np.stack(planes)


def _rescale(dataset: Any, frame: int, notes: set[str]) -> tuple[float, float]:
    """Slope and intercept of a frame; 1 and 0, with a note, where the header has none."""
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
    if slope.is_integer() and intercept.is_integer():
        # Wide, then clipped: unsigned 16-bit values would wrap around in int16.
        wide: NDArray[Any] = raw.astype(np.int64) * int(slope) + int(intercept)
        hu = np.clip(wide, -32768, 32767).astype(np.int16)
    else:
        hu = raw.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    padding = dataset.get("PixelPaddingValue")
    if padding is not None:
        # Files with signed pixels often write the padding as unsigned: 63536 is -2000.
        stored = np.array(int(padding)).astype(raw.dtype)
        value = float(stored) * slope + intercept
        if value < LOWEST_HU or value > _HIGHEST_TISSUE_HU:  # else it would blank tissue or is air anyway
            hu[raw == stored] = LOWEST_HU
    return hu


def _decoded_by_gdcm(path: Path) -> NDArray[Any]:
    """One plane [1, rows, columns], rescaled by ITK, whose output type holds the rescaled range."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        values: NDArray[Any] = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise InputError(f"{path.name}: its pixels cannot be decoded: {_one_line(error)[-80:]}") from None
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
    dtype = np.float32 if values.dtype.kind == "f" else np.int16
    if dtype is np.int16:
        values = np.clip(values, -32768, 32767)
    plane: NDArray[Any] = values.astype(dtype).reshape(-1, *values.shape[-2:])
    return plane


def _undecodable(path: Path, dataset: Any, error: RuntimeError) -> str:
    syntax = dataset.file_meta.TransferSyntaxUID.name
    if "missing dependencies" in str(error):
        return f"{path.name}: no decoder for {syntax}; try `pip install 'gcnn-cli[dicom]'`"
    return f"{path.name}: its {syntax} pixels are truncated or damaged"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """pydicom warns about header values that are not used here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
