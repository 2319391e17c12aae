"""Several readers' marks -> nodules that most agree on, and places to leave alone.

Marks of different readers are one nodule where their centers are closer than the sum of their radii; position
and diameter are averaged. LUNA16 merged so, and took what at least 3 of 4 readers marked as its reference
(Setio et al. 2017, Med Image Anal 42, doi 10.1016/j.media.2017.06.015). Two things are settled here that the
rule leaves open: the closest pair is joined first, and a reader is counted once, so that two nodules side by
side stay two. And the mean is that of all readers, whatever their order. LUNA16's files hold a mean taken pair
by pair, in which the last reader weighs a half: for the series 1.3.6...192 of LIDC-IDRI-0001
(56.21, 86.34, -115.87) mm and 23.35 mm, here (56.40, 86.39, -115.80) mm and 23.11 mm.

What 1 or 2 readers marked, and every mark under 3 mm or as no nodule, is excluded: neither found nor a false
alarm, and no negative to train on.
"""

from collections.abc import Sequence

import numpy as np

from gcnn_cli.labels.entries import UNKNOWN_DIAMETER_MM, Mark
from gcnn_cli.labels.lidc import PlacedMark

MIN_READERS = 3


def agree(marks: Sequence[PlacedMark]) -> tuple[tuple[Mark, ...], tuple[Mark, ...]]:
    """Nodules, and excluded marks; both as (x, y, z, diameter) in LPS mm, in the order of their first mark."""
    nodules: list[Mark] = []
    excluded: list[Mark] = []
    for group in _groups([m for m in marks if m.kind == "nodule"]):
        x, y, z = np.mean([m.center_mm for m in group], axis=0)
        merged = (float(x), float(y), float(z), float(np.mean([m.diameter_mm for m in group])))
        (nodules if len(group) >= MIN_READERS else excluded).append(merged)
    for mark in marks:
        if mark.kind != "nodule":
            x, y, z = mark.center_mm
            excluded.append((float(x), float(y), float(z), UNKNOWN_DIAMETER_MM))
    return tuple(nodules), tuple(dict.fromkeys(excluded))


def _groups(marks: Sequence[PlacedMark]) -> list[list[PlacedMark]]:
    """Marks of one nodule each, at most one of each reader."""
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
