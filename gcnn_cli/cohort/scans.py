"""What is named on the command line -> the scans of a cohort, found by looking.

A folder whose DICOM files make one series is one scan, wherever below it they lie. A folder that holds image files,
or series in folders of their own, is a cohort: each of them is a scan. Several CT series mixed in one folder are no
cohort but a choice that only the user can make: most often they are one acquisition reconstructed twice, whose
nodules would be listed twice. Series that are not CT, localizers of a study that has a CT, and files that are no
scans are set aside, each with its reason.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.output.formats import is_result, output_name
from gcnn_cli.scan.dicom.series import Series, series_among
from gcnn_cli.scan.folders import is_dicom, select_images, visible_files
from gcnn_cli.scan.images.image_file import SUFFIXES, stem_of, suffix_of

SUMMARY_FILES = ("cohort.csv", "cohort.json")

_HEADERS = (".mhd", ".nhdr")  # their voxels lie in a file beside them
_VOXELS = (".raw", ".zraw", ".gz")
_NO_STRANGERS = (*SUMMARY_FILES, "DICOMDIR")


@dataclass(frozen=True)
class Scan:
    """One scan that is asked for, before anybody looked at its voxels.

    name:   of its results, without ending; with the folders in which it was found
    series: of a DICOM folder that holds others besides
    found:  the series of its folder, so that reading it does not read all headers again. Kept for a single scan only:
            for a cohort they would fill the memory, and be stale when its turn comes
    """

    path: Path
    name: str
    series: str | None = None
    found: tuple[Series, ...] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class SetAside:
    """What was found among the scans and is none."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Cohort:
    """Scans in the order in which they were named, within a folder by path.

    is_batch: whether many were asked for, so that one failure does not stop the rest
    found:    for each folder that was looked into, a line that says what it holds
    """

    scans: tuple[Scan, ...]
    set_aside: tuple[SetAside, ...] = ()
    is_batch: bool = False
    found: tuple[str, ...] = ()


def find_cohort(
    arguments: Sequence[Path], *, series: str | None = None, read_stdin: Callable[[], bytes] = lambda: b""
) -> Cohort:
    """The scans of all arguments: scans, folders of them, `@FILE` and `-`, lists with a path on each line.

    series: SeriesInstanceUID or '#N', chosen in the one folder that is named. Raises InputError for a list that
    cannot be read, UsageError for an empty one, or a series of many scans.
    """
    parts = []
    for argument in arguments:
        if str(argument) == "-" or str(argument).startswith("@"):
            paths = _read_list(argument, read_stdin)
            listed = [_look(path, series, alone=len(paths) == 1) for path in paths]
            parts.append(replace(_joined(listed), is_batch=True))
        else:
            parts.append(_look(argument, series, alone=len(arguments) == 1))
    cohort = _joined(parts)
    if series is not None and len(cohort.scans) > 1:
        raise UsageError(f"--series belongs to one scan, and {len(cohort.scans)} are asked for")
    return cohort


def _joined(parts: Sequence[Cohort]) -> Cohort:
    scans = tuple(scan for part in parts for scan in part.scans)
    return Cohort(
        scans,
        tuple(entry for part in parts for entry in part.set_aside),
        is_batch=len(scans) > 1 or any(part.is_batch for part in parts),
        found=tuple(line for part in parts for line in part.found),
    )


def _read_list(argument: Path, read_stdin: Callable[[], bytes]) -> list[Path]:
    if str(argument) == "-":
        name, content = "stdin", read_stdin()
    else:
        name = str(argument)[1:]
        try:
            content = Path(name).read_bytes()
        except OSError as error:
            raise InputError(f"{name}: the list of scans cannot be read: {error.strerror}") from None
    lines = [line.strip(b"\r") for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    if any(b"\0" in line for line in lines):
        raise InputError(f"{name}: not a list of scans, a path on each line")
    paths = [Path(os.fsdecode(line)) for line in lines if line.strip()]
    if not paths:
        raise UsageError(f"{name}: an empty list of scans")
    return paths


def _look(path: Path, series: str | None, *, alone: bool) -> Cohort:
    """What one path holds; what cannot be read is a scan, so that reading it tells why."""
    scan = Scan(path, output_name(path), series)
    if series is not None or not os.path.isdir(path):  # unlike Path's, false for a path that is too long
        return Cohort((scan,))
    files = visible_files(path)
    found = series_among(files)
    images = select_images(files) + [file for file in files if file.suffix.lower() == ".zip"]
    dicom, others = _dicom_scans(path, found, files)
    if not images and len(dicom) <= 1:
        return Cohort((replace(scan, found=tuple(found)) if alone else scan,))
    scans = sorted([*(_scan(file, path) for file in images), *dicom], key=lambda scan: scan.path)
    known = {folder for one in found for folder in one.folders} | {scan.path for scan in scans}
    set_aside = sorted([*others, *_strangers(files, known)], key=lambda entry: entry.path)
    counts = ((len(images), "image files"), (len(dicom), "DICOM series"), (len(set_aside), "set aside"))
    line = f"{path}: {', '.join(f'{number} {what}' for number, what in counts if number)}"
    return Cohort(tuple(scans), tuple(set_aside), is_batch=True, found=(line,))


def _scan(path: Path, root: Path, series: str | None = None) -> Scan:
    """Its results keep the folders in which it lies below the one that was named."""
    place = path.parent.relative_to(root) if path != root else Path()
    return Scan(path, (place / output_name(path)).as_posix(), series)


def _dicom_scans(root: Path, found: Iterable[Series], files: Iterable[Path]) -> tuple[list[Scan], list[SetAside]]:
    """A scan for each folder of series or of damaged slices, and what is no CT in folders of its own."""
    found = sorted(found, key=lambda one: one.folder)
    studies = {one.study_uid for one in found if not one.unusable} - {""}
    scans, others = [], []
    for folder, group in groupby(found, key=lambda one: one.folder):
        members = list(group)
        usable = [one for one in members if not one.unusable]
        lost = [one for one in members if one.modality == "CT" and one.study_uid not in studies]
        if usable:
            scans.append(_scan(folder, root, usable[0].uid if len(usable) == 1 else None))
        elif lost:  # a study without a CT that can be used: reading it says why
            scans.append(_scan(folder, root, lost[0].uid))
        else:
            others.append(SetAside(folder, "; ".join(sorted({one.unusable for one in members}))))
    readable = {folder for one in found for folder in one.folders}
    damaged = {file.parent for file in files if file.parent not in readable and _is_slice(file)}
    return scans + [_scan(folder, root) for folder in damaged], others


def _is_slice(file: Path) -> bool:
    try:
        return not suffix_of(file) and file.name.upper() != "DICOMDIR" and is_dicom(file)
    except OSError:
        return False


def _strangers(files: Iterable[Path], known: set[Path]) -> list[SetAside]:
    """Files that are no scans and belong to none. What lies beside DICOM slices is theirs: reports, thumbnails."""
    headers = {file.parent / stem_of(file) for file in known if suffix_of(file) in _HEADERS}
    strangers = []
    for file in files:
        if file in known or file.parent in known or is_result(file) or file.name in _NO_STRANGERS:
            continue
        if suffix_of(file):
            strangers.append(SetAside(file, "an image outside LUNA16's subsets"))
        elif not (file.suffix.lower() in _VOXELS and any(parent in headers for parent in _stems(file))):
            strangers.append(SetAside(file, f"not a scan: neither DICOM nor {' '.join(SUFFIXES)}"))
    return strangers


def _stems(file: Path) -> Iterable[Path]:
    """The path without its last ending, its last two, and so on."""
    parts = file.name.split(".")
    return (file.parent / ".".join(parts[:count]) for count in range(len(parts) - 1, 0, -1))
