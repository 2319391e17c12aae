"""Problems with labeled data: listed, counted, and on request an error.

Whatever has a problem is left out, or named as doubtful, and never repaired. A line names files and series, never
patients.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gcnn_cli.errors import InputError

log = logging.getLogger("gcnn")

MISSING = "missing scans"
UNREADABLE = "unreadable files"
OUTSIDE = "scans with nodules outside them"
FRAME = "labels in another frame"
DUPLICATE_ID = "duplicate ids"
DUPLICATE_ROW = "duplicate rows"
LABELLED_TWICE = "scans labeled by several files"

_LISTED = 10  # of each kind


@dataclass(frozen=True)
class Problem:
    """One thing left out or in doubt.

    kind: one of the constants above
    text: one line: file, reason and consequence
    """

    kind: str
    text: str


def count_problems(problems: Iterable[Problem]) -> str:
    """Return the number of problems of each kind, in words."""
    counts = Counter(problem.kind for problem in problems)
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def report_problems(problems: Sequence[Problem], *, strict: bool) -> None:
    """Log at most ten lines of each kind, and the counts. Raises InputError for any problem if `strict`."""
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
    counts = count_problems(problems)
    if strict:
        raise InputError(f"--strict: {counts}; the first: {next(iter(kinds.values()))[0]}")
    log.warning("problems with the labeled data: %s", counts)
