"""DICOM folders -> series -> Volume. Headers choose, `geometry` judges, pixels are read last.

A series is what shares a SeriesInstanceUID. Localizers, dose reports and everything that is not CT
are set aside with their reason. File names, file order and InstanceNumber mean nothing here.
Enhanced (multi-frame) CT is read through its functional groups.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.errors import InvalidDicomError

from gcnn_cli.errors import GeometryError, InputError, SeriesChoiceError
from gcnn_cli.scan.dicom.dataset import DAMAGE, quiet_pydicom, read_dicom
from gcnn_cli.scan.dicom.gaps import fill_gaps, nearest_slices
from gcnn_cli.scan.dicom.geometry import Plane, Verdict, check_stack
from gcnn_cli.scan.dicom.pixels import stack_hu
from gcnn_cli.scan.folders import visible_files
from gcnn_cli.scan.hounsfield import checked_hu, content_sha256
from gcnn_cli.scan.lattice import FARTHEST_MM
from gcnn_cli.scan.volume import Source, Volume

_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
_LONGEST_TEXT = 64  # characters, of a UID or a description
_ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID",
    "PatientID", "SeriesNumber", "SeriesDescription", "Modality", "ImageType", "Rows", "Columns", "PixelSpacing",
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
    """One DICOM series. `unusable` says why it is not a chest CT stack, or is empty.

    folder:  what holds all of its CT slices, or all of its files where it has none
    folders: where its files lie
    """

    uid: str
    study_uid: str
    frame_of_reference_uid: str
    number: int
    description: str
    modality: str
    slices: tuple[Slice, ...]
    files: int
    unusable: str
    warnings: tuple[str, ...] = ()
    is_ct: bool = True  # holds CT slices that are no localizers, usable or not
    patient_id: str = field(default="", repr=False)  # to split by patient, never to be shown
    folder: Path = Path()
    folders: frozenset[Path] = frozenset()

    @cached_property
    def verdict(self) -> Verdict:
        """The geometry gate's judgment; reads pixels only where two slices share a place."""
        return self.judge(allow_gaps=False)

    def judge(self, *, allow_gaps: bool) -> Verdict:
        """The same, and with allow_gaps a small gap is no problem."""
        verdict = check_stack([s.plane for s in self.slices], self._same_pixels, allow_gaps=allow_gaps)
        return replace(verdict, warnings=self.warnings + verdict.warnings)

    def in_array_order(self, verdict: Verdict) -> list[Slice]:
        """For each slice of the volume the image that it is, or that lies nearest where gaps are filled."""
        ordered = [self.slices[n] for n in verdict.order]
        return [ordered[n] for n in nearest_slices(verdict.places)] if verdict.places else ordered

    def _same_pixels(self, a: int, b: int) -> bool:
        first, second = (stack_hu([(s.path, s.frame)])[0] for s in (self.slices[a], self.slices[b]))
        return bool(np.array_equal(first, second))


def is_dicom(path: Path) -> bool:
    """Whether a file starts as DICOM files do."""
    with path.open("rb") as file:
        file.seek(128)
        return file.read(4) == b"DICM"


def find_series(folder: Path) -> list[Series]:
    """All series under a folder, at any depth, by series number; headers only."""
    groups: dict[str, list[tuple[Path, Any]]] = {}
    unreadable = 0
    with quiet_pydicom():
        for path in visible_files(folder):
            try:
                header = read_dicom(path, stop_before_pixels=True, specific_tags=_TAGS)
                uid = _text(header, "SeriesInstanceUID")
            except InvalidDicomError:
                continue  # not DICOM: readme files, XML, thumbnails
            except DAMAGE:
                unreadable += 1
                continue
            if not uid:
                unreadable += path.name.upper() != "DICOMDIR"
            else:
                groups.setdefault(uid, []).append((path, header))
        found = [_make_series(uid, members) for uid, members in groups.items()]
    if unreadable:
        lost = f"{unreadable} files of the folder cannot be read and were left out"
        found = [replace(series, warnings=(*series.warnings, lost)) for series in found]
    return sorted(found, key=lambda series: (series.number, series.uid))


def choose_series(folder: Path, choice: str | None) -> Series:
    """The one series to read; choice is a SeriesInstanceUID or '#N' in the order of find_series.

    Raises InputError when there is no CT or no such series, SeriesChoiceError when several fit.
    """
    found = find_series(folder)
    if not found:
        raise InputError(f"{folder}: no DICOM series in this folder; give an image file by its own name")
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


def read_series(folder: Path, choice: str | None = None, *, allow_gaps: bool = False) -> Volume:
    """Read one series of a folder. Raises as choose_series, and GeometryError for an unsound stack.

    allow_gaps: interpolate over small gaps by the slices' true places, with a warning, instead of refusing
    """
    series = choose_series(folder, choice)
    verdict = series.judge(allow_gaps=allow_gaps)
    if verdict.problem or verdict.to_world is None:
        raise GeometryError(f"{folder}: {verdict.problem}{fillable_hint(verdict)}")
    pixels, pixel_warnings = stack_hu([(s.path, s.frame) for s in (series.slices[n] for n in verdict.order)])
    hu, value_warnings = checked_hu(pixels, str(folder))
    if verdict.places:
        hu = fill_gaps(hu, verdict.places)
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
            slice_uids=tuple(s.uid for s in series.in_array_order(verdict)),
            warnings=verdict.warnings + pixel_warnings + value_warnings,
            checks=verdict.checks,
            gaps_filled=bool(verdict.places),
        ),
    )


def fillable_hint(verdict: Verdict) -> str:
    """What to add to a problem that --allow-gaps would solve."""
    return " (--allow-gaps interpolates over it)" if verdict.fillable else ""


def _make_series(uid: str, members: list[tuple[Path, Any]]) -> Series:
    images = [(p, h) for p, h in members if not _set_aside(h)]
    first = (images or members)[0][1]
    slices: list[Slice] = []
    unusable = "" if images else _set_aside(first)
    for path, header in images:
        try:
            slices += _slices_of(path, header)
        except DAMAGE:
            unusable = f"no position, orientation or pixel spacing in {path.name}"
            break
    if not unusable and len(slices) < 2:
        unusable = "a single slice"
    others = len(members) - len(images)
    number = _text(first, "SeriesNumber")
    return Series(
        uid,
        _text(first, "StudyInstanceUID"),
        _text(first, "FrameOfReferenceUID"),
        int(number) if number.isdecimal() and len(number) <= 12 else 0,  # as long as the standard allows
        _text(first, "SeriesDescription"),
        _text(first, "Modality"),
        tuple(slices),
        len(members),
        unusable,
        (f"{others} files of the series are not CT slices and were left out",) if images and others else (),
        is_ct=bool(images),
        patient_id=_text(first, "PatientID").strip(),
        folder=Path(os.path.commonpath({str(p.parent) for p, _ in images or members})),
        folders=frozenset(p.parent for p, _ in members),
    )


def _set_aside(header: Any) -> str:
    """Why an object is not a slice of a CT, or an empty string."""
    modality = _text(header, "Modality")
    if modality != "CT" or _text(header, "SOPClassUID") not in (_CT_IMAGE, _ENHANCED_CT):
        return f"not a CT image ({modality or 'no modality'})"
    try:
        return "localizer" if "LOCALIZER" in str(header.get("ImageType")) else ""
    except DAMAGE:
        return ""


def _text(header: Any, name: str) -> str:
    """An element as text; empty where it is absent or not what the standard allows.

    A damaged length lets an element run on into the next ones, the patient's name among them: what is longer than
    any identifier or description, or holds the bytes between elements, is taken for damage.
    """
    try:
        text = str(header.get(name) or "")
    except DAMAGE:
        return ""
    return text if len(text) <= _LONGEST_TEXT and text.isprintable() else ""


def _slices_of(path: Path, header: Any) -> Iterator[Slice]:
    if str(header.SOPClassUID) == _CT_IMAGE:
        plane = _plane(header, header, header, header)
        yield Slice(path, 0, _text(header, "SOPInstanceUID"), plane)
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
        yield Slice(path, number, _text(header, "SOPInstanceUID"), plane)


def _plane(header: Any, position: Any, orientation: Any, measures: Any) -> Plane:
    x, y, z = _finite(position.ImagePositionPatient)
    a, b, c, d, e, f = _finite(orientation.ImageOrientationPatient)
    between_rows, between_columns = _finite(measures.PixelSpacing)
    return Plane(
        (x, y, z),
        (a, b, c),
        (d, e, f),
        (between_rows, between_columns),
        int(header.Rows),
        int(header.Columns),
    )


def _finite(values: Any) -> list[float]:
    numbers = [float(v) for v in values]
    if not all(abs(v) < FARTHEST_MM for v in numbers):  # NaN neither
        raise ValueError(f"no place: {numbers}")
    return numbers
