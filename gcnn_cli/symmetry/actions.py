"""How a group acts on images, patches and feature maps: one rotation for everything.

    image        (L_g f)(u)    = f(g^-1 u)
    feature map  (L_g f)(h, u) = f(g^-1 h, g^-1 u)         (regular representation)

Kernels, patches and feature maps are all turned by `rotate`, which reads the group's own
matrices; there is no second routine whose order would have to agree.

Axes: B batch, C fields, G group, then the grid, (D, H, W) = (z, y, x) or (H, W) = (y, x).
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gcnn_cli.symmetry.groups import Group


def rotate(x: Tensor, matrix: NDArray[np.int8]) -> Tensor:
    """(L_g f)(u) = f(g^-1 u) on the last axes of x, exactly: a permutation and flips.

    The turned axes must have equal lengths wherever the matrix exchanges them. Even lengths
    turn about the point between the two middle voxels.
    """
    axes = np.abs(matrix).argmax(axis=1)  # output axis a runs along input axis axes[a] ...
    signs = matrix.sum(axis=1)  # ... forwards or backwards
    dimension = len(matrix)
    lead = x.ndim - dimension
    x = x.permute(*range(lead), *(lead + int(a) for a in axes))
    flips = [lead + a for a in range(dimension) if signs[a] < 0]
    return x.flip(flips) if flips else x


def act_on_image(x: Tensor, g: int, group: Group) -> Tensor:
    """Turn an image or a stack of channels [..., *grid] by element g."""
    return rotate(x, group.matrices[g])


def act_on_features(x: Tensor, g: int, group: Group) -> Tensor:
    """Turn a regular feature map [B, C, G, *grid] by element g: the grid turns, the copies permute."""
    return rotate(x[:, :, group.product[group.inverse[g]].tolist()], group.matrices[g])
