"""Held-out patients, and nested subsets of the training samples."""

import hashlib
import logging
from collections.abc import Collection
from dataclasses import dataclass, replace

from gcnn_cli.errors import InputError
from gcnn_cli.labels.entries import DataIndex
from gcnn_cli.labels.patients import known_as
from gcnn_cli.samples.sample import Sample

log = logging.getLogger("gcnn")


@dataclass(frozen=True)
class SplitConfig:
    """Patients held out by name, and the share of the others that is held out; with folds, one fold instead.

    fold: the fold that is held out, from 1 to folds
    """

    hold_out: tuple[str, ...] = ()
    share: float = 0.2
    seed: int = 0
    folds: int = 0
    fold: int = 0

    def __post_init__(self) -> None:
        if not (self.folds == self.fold == 0 or (self.folds >= 2 and 1 <= self.fold <= self.folds)):
            raise InputError(f"[split] must name a fold from 1 to folds: got fold {self.fold}, folds {self.folds}")
        if not 0 <= self.share <= 1:
            raise InputError(f"the share of held-out patients must be between 0 and 1, got {self.share}")
        if self.seed < 0:  # NumPy takes none, after the scans were read
            raise InputError(f"[split] must have a seed of at least 0, got {self.seed}")


def with_known_names(split: SplitConfig, patients: Collection[str]) -> SplitConfig:
    """Return the split with patients by their names in the index, so that an id given by hand is stored nowhere.

    Patients that are not in the data are left out, with a warning.
    """
    named = [known_as(given, patients) for given in split.hold_out]
    absent = named.count("")
    if absent:
        log.warning("%d of the %d patients to hold out are not in the data", absent, len(named))
    return replace(split, hold_out=tuple(name for name in named if name))


def held_out_patients(index: DataIndex, split: SplitConfig) -> set[str]:
    """Return the patients whom the split holds out.

    With folds, patients of whom there are scans without labels only are in every training set: there is nothing
    to measure in them.
    """
    patients = set(index.patients)
    if not split.folds:
        return {p for p in patients if p in split.hold_out or is_held_out(p, split.share, split.seed)}
    with_labels = {scan.patient for scan in index.scans if scan.labelled}
    unlabelled = {scan.patient for scan in index.scans} - with_labels
    in_fold = {p for p in patients - unlabelled if fold_of(p, split.folds, with_labels, split.seed) == split.fold}
    return in_fold | (patients & set(split.hold_out))


def check_fold(index: DataIndex, split: SplitConfig) -> None:
    """Raise InputError if a fold holds out no labeled scan but those of `hold_out`; warn where it is another fold.

    `training.combine` counts false positives in such scans of every fold. Patients of `hold_out` take turns too
    (`fold_of`), so that naming others moves nobody. Without folds, or without labels, there is nothing to check.
    """
    with_labels = {scan.patient for scan in index.scans if scan.labelled}
    if not split.folds or not with_labels:
        return
    measured = {fold_of(p, split.folds, with_labels, split.seed) for p in with_labels - set(split.hold_out)}
    empty = [fold for fold in range(1, split.folds + 1) if fold not in measured]
    if not empty:
        return
    number = split.fold if split.fold in empty else empty[0]
    text = (
        f"[split] folds = {split.folds}: gcnn combine will refuse the folds: fold {number} holds out no labeled scan"
        " of its own (those of hold_out do not count); set other folds, or add labeled scans of more patients"
    )
    if split.fold in empty:
        raise InputError(text)
    log.warning("%s", text)


def fold_of(patient: str, folds: int, with_labels: Collection[str], seed: int) -> int:
    """Return the number, from 1, of the fold that holds a patient out.

    Patients with labeled scans (`with_labels`) go to the folds in turn, by name: every fold then has scans to count
    false positives in. All others go by a hash of their name, so that adding patients moves none of them.
    """
    if patient in with_labels:
        return sorted(with_labels).index(patient) % folds + 1
    return int.from_bytes(_hash(f"{seed}:{patient}")[:8], "big") % folds + 1


def is_held_out(patient: str, share: float, seed: int) -> bool:
    """Return True if a patient belongs to the held-out share.

    A hash decides, so that adding patients to the data moves no other patient.
    """
    digest = hashlib.sha256(f"{seed}:{patient}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share


def nested_subset(samples: list[Sample], count: int, seed: int) -> list[Sample]:
    """Return the first `count` samples, half of each class, of an order that only the seed decides.

    Subsets are nested: a smaller one is part of every larger one. Nodules in their own surroundings come before
    transplants, and patient by patient, so that a small subset comes from few patients, as a few labeled scans
    would. Raises InputError if a class has too few samples.
    """
    chosen = []
    for label, share in ((1, count // 2), (0, count - count // 2)):
        of_class = [s for s in samples if s.label == label]
        if len(of_class) < share:
            raise InputError(f"--samples {count} needs {share} samples of class {label}, found {len(of_class)}")
        # The number in the list orders samples of one patient or scan.
        keys = [
            (s.kind == "transplant", _hash(f"{seed}:{s.patient if label else n}"), _hash(f"{seed}:{n}"))
            for n, s in enumerate(of_class)
        ]
        order = sorted(range(len(of_class)), key=keys.__getitem__)
        chosen += [of_class[n] for n in order[:share]]
    return chosen


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
