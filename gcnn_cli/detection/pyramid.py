"""Half the resolution of a grid, and back."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

STEP = 2  # fine voxels along each side of a coarse one


def halve(image: NDArray[Any]) -> NDArray[np.float32]:
    """Average blocks of 2 x 2 x 2 voxels, the last ones completed by repeating the border.

    Coarse voxel n covers fine voxels 2n and 2n + 1: its center lies at fine index 2n + 0.5.
    """
    padded = np.pad(np.asarray(image, np.float32), [(0, length % STEP) for length in image.shape], mode="edge")
    return np.asarray(F.avg_pool3d(torch.from_numpy(padded).unsqueeze(0), STEP).squeeze(0).numpy())


def double(mask: NDArray[np.bool_], shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Return a coarse mask on the fine grid of the given shape."""
    for axis in range(3):
        mask = np.repeat(mask, STEP, axis=axis)
    return mask[tuple(slice(length) for length in shape)]
