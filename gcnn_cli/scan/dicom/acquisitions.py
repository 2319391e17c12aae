"""Several acquisitions under one SeriesInstanceUID, told apart by their headers.

Inspiration and expiration, two kernels or two phases of contrast are often exported as one series. Its slices then
lie on top of each other, or have two sizes. The elements below are tried one by one, then in pairs. Those that leave
stacks without overlap tell them apart; of several, the one that leaves the fewest. Times tell acquisitions apart by
pauses, as each slice has its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from gcnn_cli.scan.dicom.dataset import DAMAGE
from gcnn_cli.scan.dicom.geometry import Plane, overlapping
from gcnn_cli.scan.dicom.headers import text_of

# Each with its name in messages.
_VALUES = {
    "AcquisitionNumber": "acquisition number",
    "TemporalPositionIdentifier": "temporal position",
    "ConvolutionKernel": "kernel",
    "ImageType": "image type",
    "ContrastBolusAgent": "contrast agent",
    "KVP": "kVp",
    "SliceThickness": "slice thickness",
    "ReconstructionDiameter": "reconstruction diameter",
    "FilterType": "filter",
}
_TIMES = {"AcquisitionDateTime": "acquisition time", "AcquisitionTime": "acquisition time", "ContentTime": "image time"}
_PAUSE_S = 5.0  # longer than between two slices of one acquisition, shorter than between two acquisitions


@dataclass(frozen=True)
class Acquisition:
    """members: indices of its slices; distinction: what tells it apart, such as 'acquisition number 2'."""

    members: tuple[int, ...]
    distinction: str


def tell_apart(
    headers: Sequence[Any], planes: Sequence[Plane], same_pixels: Callable[[int, int], bool]
) -> list[Acquisition]:
    """Return the acquisitions of a series; none where it is one stack, or where nothing tells them apart.

    headers, planes: of each slice
    same_pixels:     compares two slices that lie at one place; where they are equal, they are copies
    """
    pair = overlapping(planes)
    if pair is None or (pair[0] != pair[1] and same_pixels(*pair)):
        return []
    columns = {name: [_key(header, tag) for header in headers] for tag, name in _VALUES.items()}
    columns |= {name: _sessions([_seconds(header, tag) for header in headers]) for tag, name in _TIMES.items()}
    useful = {name: column for name, column in columns.items() if len(set(column)) > 1}
    for together in (1, 2):
        splits = [
            _split(list(zip(*(useful[name] for name in names), strict=True)), names)
            for names in combinations(useful, together)
        ]
        if sound := [split for split in splits if _are_stacks(split, planes)]:
            return min(sound, key=len)
    return []


def _are_stacks(parts: Sequence[Acquisition], planes: Sequence[Plane]) -> bool:
    stacks = [[planes[n] for n in part.members] for part in parts]
    return all(len(stack) > 1 for stack in stacks) and all(overlapping(stack) is None for stack in stacks)


def _split(keys: Sequence[tuple[Any, ...]], names: tuple[str, ...]) -> list[Acquisition]:
    return [
        Acquisition(
            tuple(n for n, other in enumerate(keys) if other == key),
            ", ".join(f"{name} {value or 'none'}" for name, (_, value) in zip(names, key, strict=True)),
        )
        for key in sorted(set(keys))
    ]


def _key(header: Any, tag: str) -> tuple[float, str]:
    """Return a value in an order that sorts numbers as numbers, and as text."""
    text = text_of(header, tag)
    try:
        return float(text), text
    except ValueError:
        return float("-inf"), text


def _seconds(header: Any, tag: str) -> float:
    """Return a time of day [HHMMSS.f], with the date where there is one, in seconds; NaN where it is absent."""
    text = text_of(header, tag).split("+")[0].replace(":", "")
    day, clock = (text[:8], text[8:]) if tag.endswith("DateTime") else ("0", text)
    try:
        hours, minutes, seconds = int(clock[:2]), int(clock[2:4]), float(clock[4:] or 0)
        return 86400.0 * int(day) + 3600 * hours + 60 * minutes + seconds
    except DAMAGE:
        return float("nan")


def _sessions(times: Sequence[float]) -> list[tuple[float, str]]:
    """Return for each time the session that it belongs to, numbered from 1; a pause ends a session."""
    if not np.isfinite(times).all():
        return [(0.0, "")] * len(times)
    order = np.argsort(times, kind="stable")
    numbers = np.empty(len(times), int)
    numbers[order] = 1 + np.cumsum(np.diff(np.asarray(times)[order], prepend=np.min(times)) > _PAUSE_S)
    return [(float(n), f"group {n}") for n in numbers]
