"""Stages on the way from a path to the files of a result, as progress and summaries name them."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    """A stage. The values are published in the stage column of cohort.csv."""

    FINDING = "finding"
    READING = "reading"
    RESAMPLING = "resampling"
    LUNGS = "lungs"
    CANDIDATES = "candidates"
    SCORING = "scoring"
    MEASURING = "measuring"
    RENDERING = "rendering"
    WRITING = "writing"
    WORKER = "worker"


@dataclass(frozen=True)
class Step:
    """A stage that begins. candidates: their number, where it decides how long the stage takes."""

    stage: Stage
    candidates: int | None = None

    def __str__(self) -> str:
        return self.stage if self.candidates is None else f"{self.stage} {self.candidates} candidates"


Notify = Callable[[Step], None]


def quiet(step: Step) -> None:
    """Ignore a step."""
    del step
