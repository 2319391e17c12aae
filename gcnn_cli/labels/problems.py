"""What is wrong with a folder of labelled data: listed, counted, and refused if asked.

Every kind leaves something out; none is repaired. A line names files and series, never patients.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from gcnn_cli.errors import InputError

log = logging.getLogger("gcnn")

MISSING = "missing scans"
UNREADABLE = "unreadable files"
OUTSIDE = "scans with nodules outside them"
DUPLICATE_ID = "duplicate ids"
DUPLICATE_ROW = "duplicate rows"
LABELLED_TWICE = "scans labelled by several files"

_LISTED = 10  # of each kind


@dataclass(frozen=True)
class Problem:
    """kind: one of the constants above; text: one line, what and which, and what was done about it."""

    kind: str
    text: str


def report_problems(problems: Iterable[Problem], *, strict: bool) -> None:
    """Log every kind: at most ten lines each, and the counts. Raises InputError with strict if there is any."""
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        kinds.setdefault(problem.kind, []).append(problem.text)
    for kind, texts in kinds.items():
        for text in texts[:_LISTED]:
            log.warning("%s: %s", kind, text)
        if len(texts) > _LISTED:
            log.warning("%s: and %d more", kind, len(texts) - _LISTED)
    if not kinds:
        return
    counts = ", ".join(f"{len(texts)} {kind}" for kind, texts in kinds.items())
    if strict:
        raise InputError(f"--strict: {counts}; the first: {next(iter(kinds.values()))[0]}")
    log.warning("problems with the labelled data: %s", counts)
