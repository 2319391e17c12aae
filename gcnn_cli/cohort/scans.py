"""Arguments of the command line -> the scans of a cohort.

A folder whose DICOM files form one series is one scan, however deep they lie. A folder that holds image files, or
series in folders of their own, is a cohort of scans. Several CT series mixed in one folder are a choice that only the
user can make: most often they are two reconstructions of one acquisition, whose nodules would be listed twice.
Series that are not CT, localizers of a study that has a CT, and other files are set aside, each with its reason.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.output.formats import is_result, output_name
from gcnn_cli.scan.archives import ENDINGS
from gcnn_cli.scan.dicom.series import Series, series_among
from gcnn_cli.scan.folders import is_bare, is_dicom, select_images, visible_files
from gcnn_cli.scan.images.image_file import SUFFIXES, stem_of, suffix_of

SUMMARY_FILES = ("cohort.csv", "cohort.json")

_HEADERS = (".mhd", ".nhdr", ".hdr")  # their voxels are in a separate file
_VOXELS = (".raw", ".zraw", ".gz", ".img")
_NO_STRANGERS = (*SUMMARY_FILES, "DICOMDIR")


@dataclass(frozen=True)
class Scan:
    """One requested scan, before its voxels are read.

    name:   start of its results' names, including the folders below the one that was named
    series: SeriesInstanceUID or '#N', where the folder holds several series
    found:  the series of its folder, which spare a second reading of all headers. Kept for a single scan only: those
            of a cohort would fill the memory, and could be stale when their turn comes
    """

    path: Path
    name: str
    series: str | None = None
    found: tuple[Series, ...] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class SetAside:
    """A file or folder beside the scans that is not a scan."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Cohort:
    """Scans in the order of the arguments, those of one folder by path.

    is_batch: whether a failure of one scan leaves the others running
    found:    one line about the contents of each folder
    """

    scans: tuple[Scan, ...]
    set_aside: tuple[SetAside, ...] = ()
    is_batch: bool = False
    found: tuple[str, ...] = ()


def find_cohort(
    arguments: Sequence[Path], *, series: str | None = None, read_stdin: Callable[[], bytes] = lambda: b""
) -> Cohort:
    """Find the scans of all arguments: scans, folders of scans, and lists (`@FILE` or `-`) with one path per line.

    series: SeriesInstanceUID or '#N'; requires a single scan. Raises InputError for a list that cannot be read, or for
    several paths of which none exists, UsageError for an empty list, or for a series with several scans.
    """
    if len(arguments) > 1 and not any(_is_list(argument) or os.path.lexists(argument) for argument in arguments):
        raise InputError(f"not found, nor any other of the {len(arguments)} scans", path=arguments[0])
    parts = []
    for argument in arguments:
        if _is_list(argument):
            paths = _read_list(argument, read_stdin)
            listed = [_look(path, series, alone=len(paths) == 1) for path in paths]
            parts.append(replace(_joined(listed), is_batch=True))
        else:
            parts.append(_look(argument, series, alone=len(arguments) == 1))
    cohort = _joined(parts)
    if series is not None and len(cohort.scans) > 1:
        raise UsageError(f"--series applies to a single scan, not to {len(cohort.scans)}")
    return cohort


def _is_list(argument: Path) -> bool:
    return str(argument) == "-" or str(argument).startswith("@")


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
            raise InputError(f"the list of scans cannot be read: {error.strerror}", path=name) from None
    lines = [line.strip(b"\r") for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    if any(b"\0" in line for line in lines):
        raise InputError("not a list of scans with one path per line", path=name)
    paths = [Path(os.fsdecode(line)) for line in lines if line.strip()]
    if not paths:
        raise UsageError("the list of scans is empty", path=name)
    return paths


def _look(path: Path, series: str | None, *, alone: bool) -> Cohort:
    """Return the scans under one path. An unreadable path counts as a scan, so that reading it reports the reason.

    alone: whether it is the only path, whose series are kept
    """
    scan = Scan(path, output_name(path), series)
    if not os.path.isdir(path):  # unlike Path.is_dir, False for a path that is too long
        return Cohort((scan,))
    if series is not None:
        return Cohort((replace(scan, found=tuple(series_among(visible_files(path)))) if alone else scan,))
    closed: list[Path] = []
    files = visible_files(path, closed.append)
    found = series_among(files)
    images = select_images(files) + [file for file in files if file.name.lower().endswith(ENDINGS)]
    dicom, others = _dicom_scans(path, found, files)
    dicom += [_scan(folder, path) for folder in closed]
    if not images and len(dicom) <= 1:
        return Cohort((replace(scan, found=tuple(found)) if alone else scan,))
    scans = sorted([*(_scan(file, path) for file in images), *dicom], key=lambda scan: scan.path)
    known = {folder for one in found for folder in one.folders} | {scan.path for scan in scans}
    set_aside = sorted([*others, *_strangers(files, known)], key=lambda entry: entry.path)
    counts = ((len(images), "image files"), (len(dicom), "DICOM series"), (len(set_aside), "set aside"))
    line = f"{path}: {', '.join(f'{number} {what}' for number, what in counts if number)}"
    return Cohort(tuple(scans), tuple(set_aside), is_batch=True, found=(line,))


def _scan(path: Path, root: Path, series: str | None = None) -> Scan:
    """Return a scan whose results keep its folders below `root`, by the names that they have there."""
    name = output_name(path) if path == root else (path.parent.relative_to(root) / stem_of(path)).as_posix()
    return Scan(path, name, series)


def _dicom_scans(root: Path, found: Iterable[Series], files: Iterable[Path]) -> tuple[list[Scan], list[SetAside]]:
    """Return a scan for each folder with a series or with damaged slices, and set aside folders without a CT."""
    found = sorted(found, key=lambda one: one.folder)
    studies = {one.study_uid for one in found if not one.unusable} - {""}
    scans, others = [], []
    for folder, group in groupby(found, key=lambda one: one.folder):
        members = list(group)
        usable = [one for one in members if not one.unusable]
        lost = [one for one in members if one.modality == "CT" and one.study_uid not in studies]
        if usable:
            scans.append(_scan(folder, root, usable[0].uid if len(usable) == 1 else None))
        elif lost:  # a study without a usable CT: reading it reports the reason
            scans.append(_scan(folder, root, lost[0].uid))
        else:
            others.append(SetAside(folder, "; ".join(sorted({one.unusable for one in members}))))
    readable = {folder for one in found for folder in one.folders}
    damaged = {file.parent for file in files if file.parent not in readable and _is_slice(file)}
    return scans + [_scan(folder, root) for folder in damaged], others


def _is_slice(file: Path) -> bool:
    """Return whether a file is DICOM, with a preamble or without, or is named so and cannot be opened."""
    if suffix_of(file) or file.name.upper() == "DICOMDIR":
        return False
    try:
        return is_dicom(file) or is_bare(file)
    except OSError:  # reading it reports the reason
        return file.suffix.lower() in ("", ".dcm", ".ima")


def _strangers(files: Iterable[Path], known: set[Path]) -> list[SetAside]:
    """Set aside files that belong to no scan. Files beside DICOM slices, such as reports, belong to them."""
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
    """Return the path without its last suffix, without its last two, and so on."""
    parts = file.name.split(".")
    return (file.parent / ".".join(parts[:count]) for count in range(len(parts) - 1, 0, -1))
