"""The state behind the page: its answers to the page's questions. Knows no HTTP.

All answers are plain data. Positions are (x, y, z) in LPS mm. Requests come from several threads; each decision is
taken, saved and put into the tables before the next one.
"""

import threading
import time
from datetime import UTC, datetime
from typing import Any

from gcnn_cli import NOTICE, __version__
from gcnn_cli.errors import InputError, OutputError
from gcnn_cli.output.json_reading import read_same_scan
from gcnn_cli.output.pictures.views import LUNG_WINDOW
from gcnn_cli.output.rates import rate_text
from gcnn_cli.review.agreement import agreements
from gcnn_cli.review.cases import Case
from gcnn_cli.review.review import Review, parse_action
from gcnn_cli.review.store import Store
from gcnn_cli.review.tables import write_tables
from gcnn_cli.scan.writing import nifti_parts

_KEPT_SCANS = 2  # of 512 x 512 x 400 voxels each has 200 MB
_MAX_STOPS = 200
_TABLES_WITHIN_S = 10.0


class Session:
    """One reader's look through some cases.

    cases: what is looked through
    store: the folder of the reviews; the caller holds its claim
    """

    def __init__(self, cases: list[Case], store: Store) -> None:
        self.cases = cases
        self.store = store
        self._reviews = [store.review_of(case.report) for case in cases]
        self._deciding = threading.Lock()
        self._reading = threading.Lock()
        self._scans: dict[int, tuple[bytes, memoryview]] = {}
        self._pairs: list[dict[str, Any]] = []
        self._stale = False  # whether the tables lack a decision
        self._write_tables()

    def overview(self) -> dict[str, Any]:
        """Return what the page needs at its start: the scans, the stops of the threshold and the reader."""
        return {
            "version": __version__,
            "notice": NOTICE,
            "reader": self.store.reader,
            "folder": str(self.store.folder),
            "window": list(LUNG_WINDOW),
            "stops": self._stops(),
            **self._progress(),
        }

    def review(self, number: int) -> dict[str, Any]:
        """Return the entries of one scan as the reader left them."""
        review = self._reviews[number]
        return {
            "entries": [entry.data() for entry in review.entries()],
            "finished_at": review.finished_at,
            "can_undo": bool(review.actions),
            "can_redo": bool(review.undone),
            **self._progress(),
        }

    def decide(self, number: int, data: Any) -> dict[str, Any]:
        """Take one decision, or take one back, save it, and return the new state as `review` does.

        Raises InputError for a decision that cannot be taken, OutputError if it cannot be saved; nothing is changed.
        Raises OutputError too if the tables cannot be written: the decision is saved, and the next one writes them.
        """
        with self._deciding:
            before = self._reviews[number]
            after = _decided(before, data)
            if after is not before:
                self.store.save(self.cases[number].report, after)
                self._reviews[number] = after
                if (before.finished_at, after.finished_at) != (None, None):  # otherwise it is in no table
                    self._stale = True
            if self._stale:  # by this decision, or by an earlier one whose tables could not be written
                self._write_tables()
                self._stale = False
        return self.review(number)

    def scan(self, number: int) -> tuple[bytes, memoryview]:
        """Return header and voxels of a scan as NIfTI. Raises as `read_same_scan`, e.g. for another scan's voxels."""
        with self._reading:
            if number not in self._scans:
                case = self.cases[number]
                if case.problem:
                    raise InputError(case.problem)
                while len(self._scans) >= _KEPT_SCANS:
                    del self._scans[next(iter(self._scans))]
                _, volume = read_same_scan(case.report, case.scan)
                self._scans[number] = nifti_parts(volume, LUNG_WINDOW)
            return self._scans[number]

    def _progress(self) -> dict[str, Any]:
        rows = []
        for case, review in zip(self.cases, self._reviews, strict=True):
            rows.append(
                {
                    "name": case.name,
                    "problem": case.problem,
                    "finished": review.finished_at is not None,
                    "decided": [entry.probability for entry in review.entries() if entry.verdict != "open"],
                    "open": [entry.probability for entry in review.entries() if entry.verdict == "open"],
                }
            )
        return {"cases": rows, "agreements": self._pairs}

    def _stops(self) -> list[dict[str, Any]]:
        """Return the thresholds that make a difference, lowest first, with their false positives per scan.

        Between the probabilities of two findings nothing changes, and at a finding's own probability the rate is
        known. Of many findings some two hundred are taken, evenly by rank.
        """
        rates = {nodule.probability: nodule.fp_per_scan for case in self.cases for nodule in case.report.nodules}
        values = sorted(rates)
        if len(values) > _MAX_STOPS:
            last = len(values) - 1
            values = [values[round(last * step / (_MAX_STOPS - 1))] for step in range(_MAX_STOPS)]
        return [{"probability": p, "rate": rates[p], "fp_per_scan": rate_text(rates[p])} for p in values]

    def _write_tables(self) -> None:
        """Write the tables of all readers and compare them, one process at a time.

        Another reader may be at work in the folder.
        """
        until = time.monotonic() + _TABLES_WITHIN_S
        while not write_tables(self.store):
            if time.monotonic() > until:
                raise OutputError("the decision is saved, but another process locks the tables", path=self.store.folder)
            time.sleep(0.05)
        self._pairs = [
            {
                "first": pair.first, "second": pair.second, "scans": pair.scans, "both": pair.both,
                "first_only": pair.first_only, "second_only": pair.second_only,
                "agreement": pair.positive, "kappa": pair.kappa,
            }
            for pair in agreements(self.store.all_reviews())
        ]  # fmt: skip


def _decided(review: Review, data: Any) -> Review:
    if isinstance(data, dict) and data.get("kind") in ("undo", "redo"):
        return review.undo() if data["kind"] == "undo" else review.redo()
    return review.act(parse_action(data, datetime.now(UTC).isoformat(timespec="seconds")))
