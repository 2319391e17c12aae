"""What one reader decided about one scan: actions in their order, and the entries that follow from them.

The actions are the record; the state is always computed from them. Undoing takes the last action off the list, and
an action after that forgets what was undone.

Moving or resizing a finding that is still open accepts it: nobody corrects the size of a vessel.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np

from gcnn_cli.errors import InputError
from gcnn_cli.review.entries import Entry, Position, Verdict, carried_over
from gcnn_cli.scan.lattice import Lattice

Kind = Literal["accept", "reject", "unsure", "clear", "move", "resize", "add", "finish", "reopen"]

_VERDICTS: dict[Kind, Verdict] = {"accept": "accepted", "reject": "rejected", "unsure": "unsure", "clear": "open"}
_DIAMETERS_MM = (1.0, 200.0)
_ADDED = "added-"
_NUMBERS = ("diameter_mm", "threshold")


@dataclass(frozen=True)
class Action:
    """One decision. Raises InputError for one that could not be taken.

    key:         the entry that it is about; empty for finish and reopen
    position_mm: (x, y, z) in LPS mm, for move and add
    diameter_mm: for resize and add
    threshold:   for finish: findings with a lower probability were not shown to the reader
    at:          time of the decision, ISO 8601
    """

    kind: Kind
    key: str = ""
    position_mm: Position | None = None
    diameter_mm: float | None = None
    threshold: float | None = None
    at: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"{self.kind!r} is not an action")
        wanted = {
            "position_mm": self.kind in ("move", "add"),
            "diameter_mm": self.kind in ("resize", "add"),
            "threshold": self.kind == "finish",
        }
        for name, is_wanted in wanted.items():
            if (getattr(self, name) is not None) != is_wanted:
                raise InputError(f"{self.kind} {'needs' if is_wanted else 'takes no'} {name}")
        low, high = _DIAMETERS_MM
        if self.diameter_mm is not None and not low <= self.diameter_mm <= high:
            raise InputError(f"a diameter must lie between {low:g} and {high:g} mm, got {self.diameter_mm:g}")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise InputError(f"a threshold must lie between 0 and 1, got {self.threshold:g}")


@dataclass(frozen=True)
class Review:
    """The decisions of one reader about one scan.

    findings: what the detector reported, undecided
    actions:  decisions in their order
    undone:   actions that were taken back, the last one first to come again
    """

    lattice: Lattice = field(repr=False, compare=False)
    findings: tuple[Entry, ...]
    actions: tuple[Action, ...] = ()
    undone: tuple[Action, ...] = ()

    def entries(self) -> tuple[Entry, ...]:
        """Return the findings and the added nodules as the reader left them, the added ones last."""
        entries = {entry.key: entry for entry in self.findings}
        for action in self.actions:
            if action.key:
                entries[action.key] = _after(entries.get(action.key), action)
        return tuple(entries.values())

    @property
    def finished_at(self) -> float | None:
        """Threshold at which the reader finished the scan; None while the scan is not finished."""
        last = next((a for a in reversed(self.actions) if a.kind in ("finish", "reopen")), None)
        return None if last is None else last.threshold

    def act(self, action: Action) -> "Review":
        """Return the review after one more action; the same review if the action changes nothing.

        Raises InputError for an unknown entry and for a position outside the scan.
        """
        if action.kind == "add":
            added = sum(entry.key.startswith(_ADDED) for entry in self.entries())  # none of them ever goes away
            action = replace(action, key=f"{_ADDED}{added + 1}")
        elif (action.kind in ("finish", "reopen")) == bool(action.key):
            raise InputError(f"{action.kind} {'is about the whole scan' if action.key else 'needs an entry'}")
        elif action.key and action.key not in {entry.key for entry in self.entries()}:
            raise InputError(f"no entry {action.key[:60]!r} in this scan")
        if action.position_mm is not None and not self.lattice.holds(np.array(action.position_mm)):
            raise InputError("this position lies outside the scan")
        after = replace(self, actions=(*self.actions, action), undone=())
        same = after.entries() == self.entries() and after.finished_at == self.finished_at
        return self if same else after

    def undo(self) -> "Review":
        """Return the review before its last action; the same review if there is none."""
        if not self.actions:
            return self
        return replace(self, actions=self.actions[:-1], undone=(*self.undone, self.actions[-1]))

    def redo(self) -> "Review":
        """Return the review with the last undone action again; the same review if there is none."""
        if not self.undone:
            return self
        return replace(self, actions=(*self.actions, self.undone[-1]), undone=self.undone[:-1])

    def with_findings(self, found: tuple[Entry, ...]) -> "Review":
        """Return the review with the findings of another report on the same scan; no decision is lost."""
        decided = {action.key for action in (*self.actions, *self.undone)}
        known = [entry for entry in self.findings if entry.key in decided]
        return replace(self, findings=carried_over(known, found))

    def still_open(self) -> Iterator[Entry]:
        """Yield the findings that were shown to the reader and are undecided when the scan is finished."""
        threshold = self.finished_at
        for entry in self.entries():
            if threshold is None or entry.verdict != "open":
                continue
            if entry.probability is None or entry.probability >= threshold:
                yield entry


def parse_action(data: Any, at: str) -> Action:
    """Return an action from the JSON of the page. Raises InputError."""
    if not isinstance(data, dict) or not isinstance(data.get("kind"), str) or not isinstance(data.get("key", ""), str):
        raise InputError("not an action")
    position = data.get("position_mm")
    if position is not None and (not isinstance(position, list) or len(position) != 3):
        raise InputError("a position is three numbers")
    place = None if position is None else (_number(position[0]), _number(position[1]), _number(position[2]))
    diameter, threshold = (None if data.get(name) is None else _number(data[name]) for name in _NUMBERS)
    kind: Any = data["kind"]  # Action checks it
    return Action(kind, data.get("key", ""), place, diameter, threshold, at)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{str(value)[:40]!r} is not a number")
    return float(value)


def _after(entry: Entry | None, action: Action) -> Entry:
    """Return an entry after one action about it; the action `add` makes it."""
    if entry is None:
        if action.position_mm is None or action.diameter_mm is None:
            raise InputError(f"no entry {action.key[:60]!r} in this scan")
        return Entry(action.key, action.position_mm, action.diameter_mm, verdict="accepted")
    if action.kind in _VERDICTS:
        return replace(entry, verdict=_VERDICTS[action.kind])
    verdict: Verdict = "accepted" if entry.verdict == "open" else entry.verdict
    if action.kind == "move" and action.position_mm is not None:
        return replace(entry, position_mm=action.position_mm, verdict=verdict)
    if action.kind == "resize" and action.diameter_mm is not None:
        return replace(entry, diameter_mm=action.diameter_mm, verdict=verdict)
    raise InputError(f"{action.kind} cannot be applied to {action.key[:60]!r}")
