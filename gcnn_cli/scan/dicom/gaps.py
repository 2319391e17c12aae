"""Slices at uneven places -> slices at even places, by the true place of each.

Values between two neighbors are interpolated linearly, f(p) = (1 - t) f(a) + t f(b). A slice that
already lies at an even place stays unchanged. Nothing is extrapolated.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def fill_gaps(stack: NDArray[Any], places: Sequence[float]) -> NDArray[Any]:
    """Interpolate slices [N, H, W] at rising places, the first of them 0, to [D, H, W] at 0, 1, ..., of the same dtype.

    Values of an integer dtype are rounded.
    """
    at = np.asarray(places, float)
    filled = np.empty((round(at[-1]) + 1, *stack.shape[1:]), stack.dtype)
    for n in range(len(filled)):
        after = int(np.clip(np.searchsorted(at, n), 1, len(at) - 1))
        before = after - 1
        share = (n - at[before]) / (at[after] - at[before])
        if share in (0, 1):
            filled[n] = stack[before + int(share)]
            continue
        plane = (1 - share) * stack[before].astype(np.float32) + share * stack[after].astype(np.float32)
        filled[n] = plane if stack.dtype.kind == "f" else np.round(plane)
    return filled


def nearest_slices(places: Sequence[float]) -> list[int]:
    """Return the number of the nearest true slice for each even place 0, 1, ..."""
    at = np.asarray(places, float)
    return [int(np.abs(at - n).argmin()) for n in range(round(at[-1]) + 1)]
