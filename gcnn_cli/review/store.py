"""Reviews on disk: `reviews/READER/SERIES.json` in the output folder, one file for each scan and reader.

A file is written anew after every decision, through a temporary name, so that a power cut loses at most the last
keystroke. One process at a time reviews under a reader's name.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from gcnn_cli.detection.findings import Report
from gcnn_cli.errors import GcnnError, InputError, UsageError
from gcnn_cli.files import make_folder, reading, write_bytes
from gcnn_cli.locks import claimed
from gcnn_cli.output.json_reading import parse_json
from gcnn_cli.review.entries import Entry, entries_of
from gcnn_cli.review.review import Action, Review, parse_action
from gcnn_cli.scan.lattice import Array, Lattice

SCHEMA_NAME = "gcnn-review"
SCHEMA_VERSION = "1.0"
FOLDER = "reviews"

_READER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_LONGEST_NAME = 120


@dataclass(frozen=True)
class StoredReview:
    """A review with the identity of its scan.

    scan_sha256: checksum of the voxels, as in the report
    """

    seriesuid: str
    scan_sha256: str
    review: Review


@dataclass
class Store:
    """The reviews of all readers in one output folder. Only the reader's own are written."""

    folder: Path
    reader: str
    _read: dict[Path, tuple[tuple[int, int], StoredReview]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not _READER.fullmatch(self.reader):
            raise UsageError(f"--reader {self.reader!r}: give up to 40 letters, digits, hyphens or underscores")

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Be the only process that reviews under this name. Raises UsageError, OutputError."""
        with claimed(self.folder / FOLDER / self.reader / ".lock") as holder:
            if holder:
                raise UsageError(f"{holder} reviews as {self.reader!r} in {self.folder} already; give another --reader")
            yield

    def readers(self) -> list[str]:
        """Return the names of all readers with a review, sorted."""
        return sorted({path.parent.name for path in (self.folder / FOLDER).glob("*/*.json")})

    def review_of(self, report: Report) -> Review:
        """Return the reader's own review of a report's scan, an empty one where there is none yet.

        Raises InputError for a damaged file, and for a review of another scan with the same name.
        """
        source = report.scan.source
        path = self._path(self.reader, source.series_uid)
        if not path.exists():
            lattice = Lattice(report.scan.shape_zyx, _matrix(report.scan.to_world))
            return Review(lattice, entries_of(report))
        stored = self._stored(path)
        if stored.scan_sha256 != source.sha256:
            raise InputError("reviews other voxels than this result's; give another --out", path=path)
        return stored.review.with_findings(entries_of(report))

    def save(self, report: Report, review: Review) -> None:
        """Write the reader's own review. Raises OutputError."""
        source = report.scan.source
        data = {
            "schema": {"name": SCHEMA_NAME, "version": SCHEMA_VERSION},
            "reader": self.reader,
            "seriesuid": source.series_uid,
            "scan_sha256": source.sha256,
            "weights_sha256": report.model.sha256,
            "size": list(reversed(report.scan.shape_zyx)),
            "to_world": [list(row) for row in report.scan.to_world],
            "findings": [asdict(entry) for entry in review.findings],
            "actions": [_known(action) for action in review.actions],
            "undone": [_known(action) for action in review.undone],
        }
        path = self._path(self.reader, source.series_uid)
        text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        write_bytes(path, text.encode("utf-8"), overwrite=True)

    def all_reviews(self) -> dict[str, dict[str, Review]]:
        """Return the reviews of every scan by seriesuid, then by reader; both sorted.

        Raises InputError for a damaged file, and for reviews of two scans with one name.
        """
        found: dict[str, dict[str, Review]] = {}
        first: dict[str, tuple[Path, str]] = {}
        for path in sorted((self.folder / FOLDER).glob("*/*.json")):
            stored = self._stored(path)
            other, checksum = first.setdefault(stored.seriesuid, (path, stored.scan_sha256))
            if checksum != stored.scan_sha256:
                raise InputError(f"reviews other voxels than {other}, under one name; move one of them", path=path)
            found.setdefault(stored.seriesuid, {})[path.parent.name] = stored.review
        return dict(sorted(found.items()))

    def prepare(self) -> None:
        """Make the reader's folder. Raises OutputError."""
        make_folder(self.folder / FOLDER / self.reader)

    def _path(self, reader: str, seriesuid: str) -> Path:
        name = quote(seriesuid, safe=" ")
        if len(name) > _LONGEST_NAME:
            name = f"{name[:_LONGEST_NAME]}-{hashlib.sha256(seriesuid.encode()).hexdigest()[:16]}"
        return self.folder / FOLDER / reader / f"{name}.json"

    def _stored(self, path: Path) -> StoredReview:
        """Read a file, once for each state of it: tables are made again after every decision."""
        with reading(path):
            state = path.stat()
            version = (state.st_mtime_ns, state.st_size)
            known = self._read.get(path)
            if known is None or known[0] != version:
                known = (version, _parse(path, path.read_bytes()))
                self._read[path] = known
        return known[1]


def _parse(path: Path, content: bytes) -> StoredReview:
    try:
        data = parse_json(content.decode("utf-8"))
        schema = (data["schema"]["name"], data["schema"]["version"])
        if schema != (SCHEMA_NAME, SCHEMA_VERSION):
            raise InputError(f"not a review that this version reads (schema {schema})", path=path)
        width, height, depth = data["size"]
        lattice = Lattice((int(depth), int(height), int(width)), _matrix(data["to_world"]))
        findings = tuple(Entry(**_with_tuples(entry)) for entry in data["findings"])
        actions, undone = (tuple(map(_action, data[name])) for name in ("actions", "undone"))
        review = Review(lattice, findings, actions, undone)
        review.entries()  # raises for a decision about an unknown finding
        return StoredReview(str(data["seriesuid"]), str(data["scan_sha256"]), review)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"damaged review: {' '.join(str(error).split())[:120]}", path=path) from None
    except GcnnError as error:
        raise error if error.path else InputError(f"damaged review: {error}", path=path) from None


def _action(data: Any) -> Action:
    return parse_action(data, str(data.get("at", "")))


def _known(action: Action) -> dict[str, Any]:
    return {name: value for name, value in asdict(action).items() if value not in (None, "")}


def _with_tuples(data: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}


def _matrix(rows: Any) -> Array:
    return np.array(rows, dtype=np.float64)
