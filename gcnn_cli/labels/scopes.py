"""Folders given by the caller, and the scans to which the CSV files in them apply.

CSV files apply to the scans in the nearest folder above them that holds any. Those of a folder without scans apply
to the scans in all folders (LUNA16's CSVFILES beside its subsets).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gcnn_cli.errors import InputError
from gcnn_cli.labels.discovery import FoundScan, cutouts_among, scans_among
from gcnn_cli.labels.entries import CutoutEntry
from gcnn_cli.labels.label_sets import LabelSet, read_label_sets
from gcnn_cli.labels.lidc import Reading, read_reading
from gcnn_cli.labels.problems import Problem
from gcnn_cli.scan.folders import visible_files


@dataclass(frozen=True, eq=False)
class LabelledFolder:
    """The content of one folder that the caller gave."""

    path: Path
    scans: list[FoundScan]
    label_sets: list[LabelSet]
    readings: list[Reading]
    cutouts: list[CutoutEntry]
    not_cutouts: list[Problem]


@dataclass(frozen=True, eq=False)
class Scope:
    """A label set with the scans to which it applies.

    path:     folder of these scans; None for every folder
    all_read: True if readers looked at every scan in LUNA16's subsets, named or not
    """

    labels: LabelSet
    path: Path | None
    all_read: bool

    def covers(self, scan: FoundScan) -> bool:
        """Return True for a scan in the folder."""
        return self.path is None or scan.path.is_relative_to(self.path)

    def names(self, scan: FoundScan) -> bool:
        """Return True for a scan that the labels name."""
        return self.covers(scan) and not set(self.labels.named).isdisjoint(scan.ids)

    def applies_to(self, scan: FoundScan) -> bool:
        """Return True for a scan that readers looked at, with or without a row."""
        return self.names(scan) or (self.all_read and scan.in_subset and self.covers(scan))


def read_folders(folders: Sequence[Path]) -> list[LabelledFolder]:
    """Read the headers and labels in folders. A folder within another one is read once.

    Raises InputError for a missing folder and for damaged labels.
    """
    for path in folders:
        if not path.is_dir():
            raise InputError(f"{path}: no such folder")
    resolved = {folder.resolve(): folder for folder in reversed(folders)}
    outermost = [f for r, f in reversed(resolved.items()) if not any(other in r.parents for other in resolved)]
    found = [_read_folder(folder) for folder in outermost]
    aliases = [labels.aliases for folder in found for labels in folder.label_sets if labels.aliases]
    return [replace(folder, scans=[_named(scan, aliases) for scan in folder.scans]) for folder in found]


def find_scopes(folders: Sequence[LabelledFolder]) -> list[Scope]:
    """Return every label set with its scans, the nearest first."""
    everywhere = [scan for folder in folders for scan in folder.scans]
    scopes = []
    for folder in folders:
        for labels in folder.label_sets:
            above = [p for p in (labels.folder, *labels.folder.parents) if p.is_relative_to(folder.path)]
            holds = [p for p in above if any(scan.path.is_relative_to(p) for scan in folder.scans)]
            covered = [scan for scan in everywhere if not holds or scan.path.is_relative_to(holds[0])]
            # Annotations that name no scan here belong to other scans or use other names. They cannot show that a
            # scan without a row has no nodules.
            known = {name for scan in covered for name in scan.ids}
            all_read = labels.has_annotations and not labels.listed and not known.isdisjoint(labels.nodules)
            scopes.append(Scope(labels, holds[0] if holds else None, all_read))
    return sorted(scopes, key=lambda s: (-len(s.path.parts) if s.path else 0, len(s.labels.folder.parts)))


def _named(scan: FoundScan, aliases: Sequence[Mapping[str, tuple[str, ...]]]) -> FoundScan:
    """Return the scan with its other names behind its own."""
    others = (alias for names in aliases for name in scan.ids for alias in names.get(name, ()))
    return replace(scan, ids=tuple(dict.fromkeys((*scan.ids, *others))))


def _read_folder(folder: Path) -> LabelledFolder:
    files = visible_files(folder)
    pages = (path for path in files if path.suffix == ".xml")
    readings = [reading for path in pages if (reading := read_reading(path)) is not None]
    return LabelledFolder(folder, scans_among(files), read_label_sets(files), readings, *cutouts_among(files))
