"""Reviews of all readers -> labels that `gcnn train --data` and `gcnn evaluate` read, in LUNA16's columns.

Only finished scans count, by the readers who finished them. A scan that is half looked through would teach that the
other half holds no nodule.

annotations.csv           accepted and added nodules; of several readers, what at least two of them accepted
annotations_excluded.csv  neither nodule nor false positive: unsure; shown but left open; accepted by one reader of
                          several
seriesuids.csv            every finished scan, with or without nodules
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from gcnn_cli.errors import UsageError
from gcnn_cli.files import csv_text, write_bytes, writing
from gcnn_cli.labels.consensus import agree
from gcnn_cli.labels.label_sets import ANNOTATIONS, EXCLUDED, LISTS
from gcnn_cli.labels.lidc import PlacedMark
from gcnn_cli.labels.marks import Mark
from gcnn_cli.locks import claimed
from gcnn_cli.review.agreement import AGREEMENT, agreement_csv
from gcnn_cli.review.entries import Entry
from gcnn_cli.review.review import Review
from gcnn_cli.review.store import FOLDER, Store

SERIES = LISTS[0]
COLUMNS = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm")


def check_tables(folder: Path) -> None:
    """Raise UsageError if a folder holds labels that no review made."""
    if any((folder / FOLDER).glob("*/*.json")):
        return
    for name in (ANNOTATIONS, EXCLUDED, SERIES, AGREEMENT):
        if (folder / name).exists():
            raise UsageError(f"{folder / name} exists already and is of no review; give another --out")


def write_tables(store: Store) -> bool:
    """Write the tables of all reviews in the folder, those that changed. Return False if another process does.

    Raises InputError for a damaged review, OutputError.
    """
    with claimed(store.folder / FOLDER / ".tables.lock") as holder:
        if holder:
            return False
        reviews = store.all_reviews()
        if not reviews:  # nobody has decided anything yet: looking leaves no labels behind
            return True
        for name, text in {**label_tables(reviews), AGREEMENT: agreement_csv(reviews)}.items():
            path = store.folder / name
            content = text.encode("utf-8")
            if not text:  # no two readers have finished a scan in common, or no longer
                with writing(path):
                    path.unlink(missing_ok=True)
            elif not (path.is_file() and path.read_bytes() == content):
                write_bytes(path, content, overwrite=True)
    return True


def label_tables(reviews: Mapping[str, Mapping[str, Review]]) -> dict[str, str]:
    """Return the text of each table by its file name. reviews: by seriesuid, then by reader."""
    nodules: list[tuple[str, Mark]] = []
    excluded: list[tuple[str, Mark]] = []
    finished: list[str] = []
    for seriesuid, by_reader in reviews.items():
        done = [review for review in by_reader.values() if review.finished_at is not None]
        if done:
            finished.append(seriesuid)
            ours, others = labels_of(done)
            nodules += [(seriesuid, mark) for mark in ours]
            excluded += [(seriesuid, mark) for mark in others]
    return {
        ANNOTATIONS: csv_text(COLUMNS, map(_row, nodules)),
        EXCLUDED: csv_text(COLUMNS, map(_row, excluded)),
        SERIES: csv_text(("seriesuid",), ([name] for name in finished)),
    }


def labels_of(reviews: list[Review]) -> tuple[list[Mark], list[Mark]]:
    """Return the nodules and the excluded marks of one scan, by everyone who finished it."""
    marks = [mark for reader, review in enumerate(reviews) for mark in _marks(reader, review)]
    nodules, excluded = agree(marks, min_readers=min(2, len(reviews)))
    # What one reader left open and two others accepted is a nodule.
    return list(nodules), [mark for mark in excluded if not any(_inside(mark, nodule) for nodule in nodules)]


def _marks(reader: int, review: Review) -> Iterator[PlacedMark]:
    for entry in review.entries():
        if entry.verdict == "accepted":
            yield PlacedMark(reader, "nodule", np.array(entry.position_mm), entry.diameter_mm)
        elif entry.verdict == "unsure":
            yield _no_nodule(reader, entry)
    for entry in review.still_open():
        yield _no_nodule(reader, entry)


def _no_nodule(reader: int, entry: Entry) -> PlacedMark:
    return PlacedMark(reader, "non-nodule", np.array(entry.position_mm), entry.diameter_mm)


def _inside(mark: Mark, nodule: Mark) -> bool:
    return float(np.linalg.norm(np.subtract(mark[:3], nodule[:3]))) < nodule[3] / 2


def _row(labelled: tuple[str, Mark]) -> list[str]:
    seriesuid, mark = labelled
    return [seriesuid, *(f"{value:.3f}" for value in mark[:3]), f"{mark[3]:.2f}"]
