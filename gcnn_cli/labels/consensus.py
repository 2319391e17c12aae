"""Several readers' marks -> reference nodules and excluded marks.

Marks of different readers belong to one nodule if their centers are closer than the sum of their radii. Position
and diameter are averaged. LUNA16 merged marks by this rule, and its reference holds the nodules of at least 3 of
4 readers (Setio et al. 2017, Med Image Anal 42, doi 10.1016/j.media.2017.06.015). Two points that the rule leaves
open are settled here. The closest pair is joined first. A reader counts once, so that adjacent nodules stay two.

The mean is taken over all readers at once and does not depend on their order. LUNA16's files hold a mean taken
pair by pair, in which the last reader weighs a half: for the series 1.3.6...192 of LIDC-IDRI-0001
(56.21, 86.34, -115.87) mm and 23.35 mm, here (56.40, 86.39, -115.80) mm and 23.11 mm.

Excluded are nodules of 1 or 2 readers, nodules under 3 mm and marks of anything else. They count neither as
nodules nor as false positives, and serve neither as positives nor as negatives in training.
"""

from collections.abc import Sequence

import numpy as np

from gcnn_cli.labels.lidc import PlacedMark
from gcnn_cli.labels.marks import Mark

MIN_READERS = 3


def agree(marks: Sequence[PlacedMark], min_readers: int = MIN_READERS) -> tuple[tuple[Mark, ...], tuple[Mark, ...]]:
    """Return the nodules and the excluded marks, both in the order of their first mark.

    min_readers: number of readers that make a nodule
    """
    nodules: list[Mark] = []
    excluded: list[Mark] = []
    for group in group_by_nodule([m for m in marks if m.kind == "nodule"]):
        x, y, z = np.mean([m.center_mm for m in group], axis=0)
        merged = (float(x), float(y), float(z), float(np.mean([m.diameter_mm for m in group])))
        (nodules if len(group) >= min_readers else excluded).append(merged)
    for mark in marks:
        if mark.kind != "nodule":
            x, y, z = mark.center_mm
            excluded.append((float(x), float(y), float(z), mark.diameter_mm))
    return tuple(nodules), tuple(dict.fromkeys(excluded))


def group_by_nodule(marks: Sequence[PlacedMark]) -> list[list[PlacedMark]]:
    """Group the marks by nodule, with at most one mark of each reader in a group."""
    pairs = []
    for a in range(len(marks)):
        for b in range(a):
            reach = (marks[a].diameter_mm + marks[b].diameter_mm) / 2
            apart = float(np.linalg.norm(marks[a].center_mm - marks[b].center_mm)) / reach
            if apart < 1:
                pairs.append((apart, b, a))
    group_of = {n: [n] for n in range(len(marks))}
    for _, a, b in sorted(pairs):
        first, second = group_of[a], group_of[b]
        readers = [marks[n].reader for n in (*first, *second)]
        if len(set(readers)) == len(readers):
            joined = sorted((*first, *second))
            group_of |= dict.fromkeys(joined, joined)
    return [[marks[n] for n in group] for n, group in group_of.items() if group[0] == n]
