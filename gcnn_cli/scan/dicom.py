"""DICOM folders -> series -> Volume. Headers choose, `geometry` judges, pixels are read last.

A series is what shares a SeriesInstanceUID. Localizers, dose reports and everything that is not CT
are set aside with their reason. File names, file order and InstanceNumber mean nothing here.
Enhanced (multi-frame) CT is read through its functional groups.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from gcnn_cli.errors import GeometryError, InputError, SeriesChoiceError
from gcnn_cli.scan.geometry import Plane, Verdict, check_stack
from gcnn_cli.scan.hounsfield import LOWEST_HU, checked_hu, content_sha256
from gcnn_cli.scan.volume import Source, Volume

_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
_ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID",
    "SeriesNumber", "SeriesDescription", "Modality", "ImageType", "Rows", "Columns", "PixelSpacing",
    "ImagePositionPatient", "ImageOrientationPatient", "NumberOfFrames",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip


@dataclass(frozen=True)
class Slice:
    """One image plane of a file; frame 0 of a classic CT image."""

    path: Path
    frame: int
    uid: str
    plane: Plane


@dataclass(frozen=True, eq=False)
class Series:
    """One DICOM series. `unusable` says why it is not a chest CT stack, or is empty."""

    uid: str
    study_uid: str
    frame_of_reference_uid: str
    number: int
    description: str
    modality: str
    slices: tuple[Slice, ...]
    files: int
    unusable: str

    @cached_property
    def verdict(self) -> Verdict:
        """The geometry gate's judgment; reads pixels only where two slices share a place."""
        return check_stack([s.plane for s in self.slices], self._same_pixels)

    def _same_pixels(self, a: int, b: int) -> bool:
        return bool(np.array_equal(_slice_hu(self.slices[a]), _slice_hu(self.slices[b])))


def is_dicom(path: Path) -> bool:
    """Whether a file starts as DICOM files do."""
    with path.open("rb") as file:
        file.seek(128)
        return file.read(4) == b"DICM"


def find_series(folder: Path) -> list[Series]:
    """All series under a folder, at any depth, by series number; headers only."""
    groups: dict[str, list[tuple[Path, Any]]] = {}
    with _quiet_pydicom():
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            try:
                header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
            except (InvalidDicomError, OSError, EOFError, ValueError):
                continue  # not DICOM: readme files, XML, thumbnails
            if path.name.upper() != "DICOMDIR" and "SeriesInstanceUID" in header:
                groups.setdefault(str(header.SeriesInstanceUID), []).append((path, header))
        found = [_make_series(uid, members) for uid, members in groups.items()]
    return sorted(found, key=lambda series: (series.number, series.uid))


def choose_series(folder: Path, choice: str | None) -> Series:
    """The one series to read; choice is a SeriesInstanceUID or '#N' in the order of find_series.

    Raises InputError when there is no CT or no such series, SeriesChoiceError when several fit.
    """
    found = find_series(folder)
    if not found:
        raise InputError(f"{folder}: no DICOM series in this folder")
    if choice is not None:
        chosen = [s for n, s in enumerate(found, start=1) if choice in (s.uid, f"#{n}")]
        if not chosen:
            raise InputError(f"{folder}: no series {choice}; there are {len(found)} (see `gcnn info`)")
        if chosen[0].unusable:
            raise InputError(f"{folder}: series {choice} cannot be used: {chosen[0].unusable}")
        return chosen[0]
    usable = [series for series in found if not series.unusable]
    if not usable:
        reasons = "; ".join(sorted({series.unusable for series in found}))
        raise InputError(f"{folder}: no usable CT series ({reasons})")
    if len(usable) > 1:
        raise SeriesChoiceError(
            f"{folder}: {len(usable)} CT series found; choose one with --series UID or --series '#N'"
            f" (see `gcnn info {folder}`)"
        )
    return usable[0]


def read_series(folder: Path, choice: str | None = None) -> Volume:
    """Read one series of a folder. Raises as choose_series, and GeometryError for an unsound stack."""
    series = choose_series(folder, choice)
    verdict = series.verdict
    if verdict.problem or verdict.to_world is None:
        raise GeometryError(f"{folder}: {verdict.problem}")
    ordered = [series.slices[n] for n in verdict.order]
    hu, value_warnings = checked_hu(_stack_hu(ordered), str(folder))
    return Volume(
        hu,
        verdict.to_world,
        Source(
            path=str(folder),
            kind="dicom",
            series_uid=series.uid,
            study_uid=series.study_uid,
            frame_of_reference_uid=series.frame_of_reference_uid,
            sha256=content_sha256(hu, verdict.to_world),
            slice_uids=tuple(s.uid for s in ordered),
            warnings=verdict.warnings + value_warnings,
            checks=verdict.checks,
        ),
    )


def _make_series(uid: str, members: list[tuple[Path, Any]]) -> Series:
    images = [(p, h) for p, h in members if "LOCALIZER" not in _image_type(h)]
    first = (images or members)[0][1]
    modality = str(first.get("Modality", ""))
    sop_class = str(first.get("SOPClassUID", ""))
    slices: list[Slice] = []
    unusable = ""
    if not images:
        unusable = "localizer"
    elif modality != "CT" or sop_class not in (_CT_IMAGE, _ENHANCED_CT):
        unusable = f"not a CT image ({modality or 'no modality'})"
    else:
        try:
            slices = [s for path, header in images for s in _slices_of(path, header)]
        except (AttributeError, IndexError, TypeError, ValueError, KeyError):
            unusable = "slices without position, orientation or pixel spacing"
        if not unusable and len(slices) < 2:
            unusable = "a single slice"
    return Series(
        uid,
        str(first.get("StudyInstanceUID", "")),
        str(first.get("FrameOfReferenceUID", "")),
        int(first.get("SeriesNumber") or 0),
        str(first.get("SeriesDescription", "")),
        modality,
        tuple(slices),
        len(members),
        unusable,
    )


def _image_type(header: Any) -> list[str]:
    value = header.get("ImageType") or []
    return [value] if isinstance(value, str) else list(value)


def _slices_of(path: Path, header: Any) -> Iterator[Slice]:
    if str(header.SOPClassUID) == _CT_IMAGE:
        plane = _plane(header, header, header, header)
        yield Slice(path, 0, str(header.SOPInstanceUID), plane)
        return
    shared = header.SharedFunctionalGroupsSequence[0]
    for number, frame in enumerate(header.PerFrameFunctionalGroupsSequence):

        def group(name: str, frame: Any = frame) -> Any:
            return (frame if name in frame else shared)[name][0]

        plane = _plane(
            header,
            group("PlanePositionSequence"),
            group("PlaneOrientationSequence"),
            group("PixelMeasuresSequence"),
        )
        yield Slice(path, number, str(header.SOPInstanceUID), plane)


def _plane(header: Any, position: Any, orientation: Any, measures: Any) -> Plane:
    x, y, z = (float(v) for v in position.ImagePositionPatient)
    a, b, c, d, e, f = (float(v) for v in orientation.ImageOrientationPatient)
    between_rows, between_columns = (float(v) for v in measures.PixelSpacing)
    return Plane(
        (x, y, z),
        (a, b, c),
        (d, e, f),
        (between_rows, between_columns),
        int(header.Rows),
        int(header.Columns),
    )


def _stack_hu(slices: list[Slice]) -> NDArray[Any]:
    """All planes [D, H, W], int16 while every value is whole and fits, float32 otherwise."""
    first = slices[0].plane
    stack: NDArray[Any] = np.empty((len(slices), first.rows, first.columns), np.int16)
    opened: tuple[Path, NDArray[Any]] | None = None
    for n, item in enumerate(slices):
        if opened is None or opened[0] != item.path:
            opened = (item.path, _file_hu(item.path))
        plane = opened[1][item.frame]
        if plane.shape != stack.shape[1:]:
            raise InputError(f"{item.path.name}: {plane.shape} pixels where the header promises {stack.shape[1:]}")
        if plane.dtype == np.float32 and stack.dtype == np.int16:
            stack = stack.astype(np.float32)
        stack[n] = plane
    return stack


def _slice_hu(item: Slice) -> NDArray[Any]:
    plane: NDArray[Any] = _file_hu(item.path)[item.frame]
    return plane


def _file_hu(path: Path) -> NDArray[Any]:
    """All frames of one file [frames, rows, columns] in HU."""
    with _quiet_pydicom():
        try:
            dataset = pydicom.dcmread(path)
            raw = dataset.pixel_array
        except (InvalidDicomError, OSError, EOFError, ValueError, AttributeError, KeyError) as error:
            raise InputError(f"{path.name}: its pixels cannot be read: {_one_line(error)}") from None
        except (NotImplementedError, RuntimeError) as error:
            syntax = dataset.file_meta.TransferSyntaxUID.name
            raise InputError(
                f"{path.name}: cannot decode {syntax}: {_one_line(error)};"
                " more decoders come with `pip install 'gcnn-cli[dicom]'`"
            ) from None
    if raw.ndim == 2:
        raw = raw[None]
    slopes = [_rescale(dataset, frame) for frame in range(len(raw))]
    padding = dataset.get("PixelPaddingValue")
    planes = [_to_hu(plane, *rescale, padding) for plane, rescale in zip(raw, slopes, strict=True)]
    return np.stack(planes)


def _rescale(dataset: Any, frame: int) -> tuple[float, float]:
    """Slope and intercept of a frame; 1 and 0 where the header has none: the values are checked later."""
    holder = dataset
    if "PerFrameFunctionalGroupsSequence" in dataset:
        name = "PixelValueTransformationSequence"
        group = dataset.PerFrameFunctionalGroupsSequence[frame]
        if name not in group:
            group = dataset.SharedFunctionalGroupsSequence[0]
        holder = group[name][0] if name in group else dataset
    return float(holder.get("RescaleSlope", 1.0)), float(holder.get("RescaleIntercept", 0.0))


def _to_hu(raw: NDArray[Any], slope: float, intercept: float, padding: int | None) -> NDArray[Any]:
    whole = slope.is_integer() and intercept.is_integer()
    hu: NDArray[Any]
    if whole:
        hu = np.clip(raw.astype(np.int32) * int(slope) + int(intercept), -32768, 32767).astype(np.int16)
    else:
        hu = raw.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    if padding is not None:
        hu[raw == padding] = LOWEST_HU
    return hu


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


@contextmanager
def _quiet_pydicom() -> Iterator[None]:
    """pydicom warns about header values that are not used here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
