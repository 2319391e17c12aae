"""DICOM folder -> series -> Volume. Headers choose, `geometry` judges, pixels are read last.

A series is the set of files that share a SeriesInstanceUID; where it holds several acquisitions, each is a series of
its own here. Localizers, dose reports and everything else that is not
CT are set aside, each with its reason. File names, file order and InstanceNumber mean nothing here.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from gcnn_cli.errors import GeometryError, InputError, SeriesChoiceError
from gcnn_cli.scan.dicom.acquisitions import tell_apart
from gcnn_cli.scan.dicom.gaps import fill_gaps, nearest_slices
from gcnn_cli.scan.dicom.geometry import Plane, Verdict, check_stack
from gcnn_cli.scan.dicom.headers import (
    Summary,
    has_frames_without_places,
    read_headers,
    read_summaries,
    text_of,
)
from gcnn_cli.scan.dicom.pixels import Comparison, stack_hu
from gcnn_cli.scan.folders import is_bare, visible_files
from gcnn_cli.scan.hounsfield import checked_hu, content_sha256
from gcnn_cli.scan.volume import Source, Volume


@dataclass(frozen=True)
class Slice:
    """One image plane of a file; frame 0 of a classic CT image."""

    path: Path
    frame: int
    uid: str
    plane: Plane


@dataclass(frozen=True, eq=False)
class Series:
    """One DICOM series.

    unusable: the reason why it is not a chest CT stack, or an empty string
    is_ct:    it holds CT slices that are not localizers, usable or not
    folder:   the deepest folder above all of its CT slices, or above all of its files where it has no slices
    folders:  the folders of its files
    part:     number, from 1, of an acquisition that shares its SeriesInstanceUID with others; 0 for a whole series
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
    is_ct: bool = True
    patient_id: str = field(default="", repr=False)  # to split by patient, never to be shown
    folder: Path = Path()
    folders: frozenset[Path] = frozenset()
    part: int = 0
    comparison: Comparison = field(default_factory=Comparison, repr=False)

    @cached_property
    def verdict(self) -> Verdict:
        """The geometry gate's judgment without --allow-gaps."""
        return self.judge(allow_gaps=False)

    def judge(self, *, allow_gaps: bool) -> Verdict:
        """Judge the stack, as `check_stack`. Pixels are read only where two slices share a place."""
        verdict = check_stack([s.plane for s in self.slices], self._same_pixels, allow_gaps=allow_gaps)
        return replace(verdict, warnings=self.warnings + verdict.warnings)

    def in_array_order(self, verdict: Verdict) -> list[Slice]:
        """Return one image for each slice of the volume; the nearest image where a gap is filled."""
        ordered = [self.slices[n] for n in verdict.order]
        return [ordered[n] for n in nearest_slices(verdict.places)] if verdict.places else ordered

    def acquisitions(self, headers: Mapping[Path, Summary]) -> list["Series"]:
        """Return the series of each acquisition where there are several, otherwise the series itself."""
        if self.unusable:
            return [self]
        of_slices = [headers[s.path] for s in self.slices]
        parts = tell_apart(of_slices, [s.plane for s in self.slices], self._are_copies)
        return [
            replace(
                self,
                slices=(kept := tuple(self.slices[n] for n in part.members)),
                files=len({s.path for s in kept}),
                description=f"{self.description} ({part.distinction})".strip(),
                warnings=(
                    *self.warnings,
                    f"the series holds {len(parts)} acquisitions; this is the one with {part.distinction}",
                ),
                folder=Path(os.path.commonpath({str(s.path.parent) for s in kept})),
                folders=frozenset(s.path.parent for s in kept),
                part=number,
            )
            for number, part in enumerate(parts, start=1)
        ] or [self]

    def _are_copies(self, a: int, b: int) -> bool:
        """Return whether two slices at one place have the same pixels; of unreadable ones, that they have not."""
        first, second = (np.array(self.slices[n].plane.position) for n in (a, b))
        try:
            return float(np.abs(first - second).max()) < 1e-3 and self._same_pixels(a, b)
        except InputError:
            return False

    def _same_pixels(self, a: int, b: int) -> bool:
        first, second = self.slices[a], self.slices[b]
        return self.comparison.equal((first.path, first.frame), (second.path, second.frame))


def find_series(folder: Path) -> list[Series]:
    """Find all series under a folder, at any depth, by series number. Reads each header once."""
    return series_among(visible_files(folder))


def series_among(files: Iterable[Path]) -> list[Series]:
    """Find all series among some files, as `find_series`."""
    return group_headers(*read_summaries(files))


def group_headers(headers: Mapping[Path, Summary], damaged: int) -> list[Series]:
    """Group headers by series, by series number. damaged: the number of files that could not be read beside them."""
    groups: defaultdict[str, list[tuple[Path, Summary]]] = defaultdict(list)
    for path, header in headers.items():
        groups[text_of(header, "SeriesInstanceUID")].append((path, header))
    found = [part for uid, members in groups.items() for part in _make_series(uid, members).acquisitions(dict(members))]
    if damaged:
        lost = f"{damaged} files of the folder cannot be read and were left out"
        found = [replace(series, warnings=(*series.warnings, lost)) for series in found]
    return sorted(found, key=lambda series: (series.number, series.uid, series.part))


def numbered(found: Sequence[Series]) -> list[tuple[str, Series]]:
    """Return each series with its name for --series: '#1', and '#2.1', '#2.2' for acquisitions of one series."""
    uids = list(dict.fromkeys(series.uid for series in found))
    return [(f"#{uids.index(s.uid) + 1}" + (f".{s.part}" if s.part else ""), s) for s in found]


def choose_series(folder: Path, choice: str | None, found: Sequence[Series] | None = None) -> Series:
    """Choose the one series to read.

    choice: SeriesInstanceUID, '#N' in the order of `find_series`, or '#N.M' and 'UID#M' for acquisition M of a series
            (default: the only usable series)
    found:  all series of the folder, where they are known already (default: find them)

    Raises InputError when there is no CT or no such series, SeriesChoiceError when several are usable.
    """
    found = find_series(folder) if found is None else found
    if not found:
        raise no_series(folder)
    if choice is not None:
        names = numbered(found)
        chosen = [s for name, s in names if choice in (s.uid, name.partition(".")[0], name, f"{s.uid}#{s.part}")]
        if not chosen:
            raise InputError(f"no series {choice}; there are {len(found)} (see `gcnn info`)", path=folder)
        if len(chosen) > 1:
            listed = " or ".join(f"'{name}'" for name, s in names if s in chosen)
            raise SeriesChoiceError(
                f"series {choice} holds {len(chosen)} acquisitions; choose one with --series {listed}",
                path=folder,
            )
        if chosen[0].unusable:
            raise InputError(f"series {choice} cannot be used: {chosen[0].unusable}", path=folder)
        return chosen[0]
    usable = [series for series in found if not series.unusable]
    if not usable:
        reasons = "; ".join(sorted({series.unusable for series in found}))
        raise InputError(f"no usable CT series ({reasons})", path=folder)
    if len(usable) > 1:
        raise SeriesChoiceError(
            f"{len(usable)} CT series found; choose one with --series UID or --series '#N' (see `gcnn info`)"
            if not all(series.part for series in usable)
            else f"{len(usable)} acquisitions found in one series; choose one with --series '#N.M' (see `gcnn info`)",
            path=folder,
        )
    return usable[0]


def choose_sound(
    folder: Path, choice: str | None = None, found: Sequence[Series] | None = None, *, allow_gaps: bool = False
) -> tuple[Series, Verdict]:
    """Choose a series and judge its geometry. Raises as `read_series`, but for pixels."""
    series = choose_series(folder, choice, found)
    verdict = series.judge(allow_gaps=allow_gaps)
    if verdict.problem or verdict.to_world is None:
        raise GeometryError(f"{verdict.problem}{fillable_hint(verdict)}", path=folder)
    return series, verdict


def read_series(
    folder: Path, choice: str | None = None, *, found: Sequence[Series] | None = None, allow_gaps: bool = False
) -> Volume:
    """Read one series of a folder. Raises as `choose_series`, and GeometryError for an unsound stack.

    choice, found: see `choose_series`
    allow_gaps:    interpolate over small gaps by the slices' true places, with a warning, instead of refusing
    """
    series, verdict = choose_sound(folder, choice, found, allow_gaps=allow_gaps)
    assert verdict.to_world is not None  # for the type checker: that of a sound stack is set
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
            acquisition=series.part,
        ),
    )


def no_series(path: Path) -> InputError:
    """Return the error for a folder without a series that can be read."""
    files = visible_files(path) if path.is_dir() else []
    bare = sum(map(is_bare, files))
    if bare:
        return InputError(
            f"{bare} files are DICOM without the preamble of a file; write them anew, as with dcmconv of DCMTK",
            path=path,
        )
    if damaged := read_headers(files, ())[1]:
        return InputError(f"no DICOM series in this folder: {damaged} files cannot be read", path=path)
    return InputError("no DICOM series in this folder; give an image file by its own name", path=path)


def fillable_hint(verdict: Verdict) -> str:
    """Return the end of a message about a problem that --allow-gaps would solve, or an empty string."""
    return " (--allow-gaps interpolates over it)" if verdict.fillable else ""


def _make_series(uid: str, members: list[tuple[Path, Summary]]) -> Series:
    images = [(p, h) for p, h in members if not h.not_ct]
    first = (images or members)[0][1]
    slices: list[Slice] = []
    unusable = "" if images else first.not_ct
    for path, header in images:
        if has_frames_without_places(header):
            unusable = f"several frames without positions of their own in {path.name}"
            break
        if header.planes is None:
            unusable = f"no position, orientation or pixel spacing in {path.name}"
            break
        image_uid = text_of(header, "SOPInstanceUID")
        slices += [Slice(path, frame, image_uid, plane) for frame, plane in enumerate(header.planes)]
    if not unusable and len(slices) < 2:
        unusable = "a single slice"
    others = len(members) - len(images)
    warnings = [f"{others} files of the series are not CT slices and were left out"] if images and others else []
    if images and not all(text_of(header, "Modality") for _, header in images):
        warnings.append("the headers do not state the modality; their SOP class is that of CT")
    number = text_of(first, "SeriesNumber")
    return Series(
        uid,
        text_of(first, "StudyInstanceUID"),
        text_of(first, "FrameOfReferenceUID"),
        int(number) if number.isdecimal() and len(number) <= 12 else 0,  # the standard's limit
        text_of(first, "SeriesDescription"),
        "CT" if images else text_of(first, "Modality"),
        tuple(slices),
        len(members),
        unusable,
        tuple(warnings),
        is_ct=bool(images),
        patient_id=text_of(first, "PatientID").strip(),
        folder=Path(os.path.commonpath({str(p.parent) for p, _ in images or members})),
        folders=frozenset(p.parent for p, _ in members),
    )
