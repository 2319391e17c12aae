"""Scored candidates -> nodules: one entry per lesion, most probable first."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gcnn_cli.detection.measure import Measurement
from gcnn_cli.errors import InputError


@dataclass(frozen=True)
class MergeConfig:
    """Two findings are one lesion when their centers are closer than `apart_mm` or they overlap.

    Lesions do not overlap. But a large one that is not a ball also has candidates at its rim, centered outside it.
    Two findings overlap when their centers are closer than the larger radius plus half of the smaller one: a quarter
    of the smaller ball's diameter then lies in the larger ball.
    """

    apart_mm: float = 4.0

    def __post_init__(self) -> None:
        if self.apart_mm < 0:
            raise InputError(f"merge: apart_mm must not be negative, got {self.apart_mm}")


@dataclass(frozen=True)
class Scored:
    """A measured candidate and the probability that it is a nodule."""

    measurement: Measurement
    probability: float


def merge_duplicates(scored: Sequence[Scored], config: MergeConfig) -> list[Scored]:
    """Return the most probable finding of each lesion, sorted by probability.

    Ties are broken by position, so the order of the input does not matter.
    """
    ordered = sorted(scored, key=lambda s: (-s.probability, s.measurement.position_mm))
    kept: list[Scored] = []
    for finding in ordered:
        if not any(_same_lesion(finding.measurement, other.measurement, config) for other in kept):
            kept.append(finding)
    return kept


def _same_lesion(a: Measurement, b: Measurement, config: MergeConfig) -> bool:
    distance = float(np.linalg.norm(np.subtract(a.position_mm, b.position_mm)))
    smaller, larger = sorted((a.diameter_mm / 2, b.diameter_mm / 2))
    return distance < max(config.apart_mm, larger + smaller / 2)
