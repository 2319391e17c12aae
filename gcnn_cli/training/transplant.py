"""Real nodules put into real lungs, at known places.

The nodule's voxels, resampled to the host's grid and turned by an element of Oh, are blended into
the host through the nodule's mask with a softened edge:

    mixed = (1 - a) host + a donor,      a = softened mask in [0, 1]
    host' = the brighter of host and mixed

The brighter one, because at a wall or a vessel the donor's own lung would leave a dark ring that no
real nodule has. A cavity comes out filled where it meets a wall.

Sound, because the tissue is a real nodule's and the surroundings are a real lung's, noise
included. Not sound where the edge is concerned: a nodule that pulled at its pleura or its vessels
no longer does, and the two scans' noise meets at the seam. A network could learn the seam, so
shams (a piece of the same lung pasted through a nodule's mask) go into the negatives.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gcnn_cli.detection.lungs import Mask

Cube = NDArray[np.float32]

_GROW_VOX = 1  # keeps the nodule's own partial-volume rim
_SOFTEN_VOX = 0.7


def soften(mask: Mask) -> Cube:
    """A blending weight in [0, 1] that is 1 in the nodule and falls to 0 around it."""
    grown = ndimage.binary_dilation(mask, iterations=_GROW_VOX).astype(np.float32)
    return np.asarray(ndimage.gaussian_filter(grown, _SOFTEN_VOX))


def blend(host: Cube, donor: Cube, weight: Cube) -> Cube:
    """The host with the donor, where brighter, by its weight. All [D, H, W] of one shape, HU."""
    return np.maximum(host, host + weight * (donor - host))


def choose_places(hu: NDArray[Any], lungs: Mask, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Voxels [count, 3] for nodules: a third free, a third near the wall, a third near vessels."""
    depth = ndimage.distance_transform_edt(lungs)
    vessels = lungs & (depth > 4) & (np.asarray(hu) > -500)
    to_vessel = ndimage.distance_transform_edt(~vessels)
    pools = [
        np.argwhere((depth > 8) & (to_vessel > 4)),
        np.argwhere((depth > 1) & (depth <= 4) & (np.asarray(hu) < -600)),
        np.argwhere((depth > 6) & (to_vessel > 0.5) & (to_vessel <= 2.5)),
    ]
    chosen = [pools[n % 3][rng.integers(len(pools[n % 3]))] for n in range(count) if len(pools[n % 3])]
    return np.array(chosen, dtype=np.int64).reshape(-1, 3)
