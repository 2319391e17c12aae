"""Actions of a group on images, patches and feature maps, all made of one rotation.

    image        (L_g f)(u)    = f(g^-1 u)
    feature map  (L_g f)(h, u) = f(g^-1 h, g^-1 u)         (regular representation)

`rotate` turns kernels, patches and feature maps alike. It reads the group's own matrices, so there is no second
routine whose order would have to agree.

Axes: B batch, C fields, G group, then the grid, (D, H, W) = (z, y, x) or (H, W) = (y, x).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gcnn_cli.errors import ModelError
from gcnn_cli.symmetry.groups import Group
from gcnn_cli.symmetry.shapes import check_features


def rotate(x: Tensor, matrix: NDArray[np.int8]) -> Tensor:
    """Return (L_g f)(u) = f(g^-1 u) on the last axes of x, exactly: a permutation and flips.

    Even lengths turn about the point between the two middle voxels. Raises ModelError where the matrix exchanges axes
    of different lengths: the grid would change.
    """
    axes = np.abs(matrix).argmax(axis=1)  # output axis a runs along input axis axes[a] ...
    signs = matrix.sum(axis=1)  # ... forwards or backwards
    dimension = len(matrix)
    lead = x.ndim - dimension
    order = [lead + int(a) for a in axes]
    if lead < 0 or any(x.shape[a] != x.shape[lead + n] for n, a in enumerate(order)):
        raise ModelError(
            f"a grid of {tuple(x.shape[-dimension:])} does not fit itself when turned by {matrix.tolist()}"
        )
    x = x.permute(*range(lead), *order)
    flips = [lead + a for a in range(dimension) if signs[a] < 0]
    return x.flip(flips) if flips else x


def turns_grid(matrix: NDArray[np.int8], grid: Sequence[int]) -> bool:
    """Return True if the matrix maps a grid of this shape onto itself: `rotate` accepts it."""
    return all(grid[a] == grid[int(n)] for a, n in enumerate(np.abs(matrix).argmax(axis=1)))


def act_on_image(x: Tensor, g: int, group: Group) -> Tensor:
    """Turn an image or a stack of channels [..., *grid] by element g. Raises ModelError as `rotate`."""
    return rotate(x, group.matrices[g])


def act_on_features(x: Tensor, g: int, group: Group) -> Tensor:
    """Turn a regular feature map [B, C, G, *grid] by element g: the grid turns, the copies permute.

    Raises ModelError for a map of another group, and as `rotate`.
    """
    check_features(x, group)
    return rotate(x[:, :, group.product[group.inverse[g]].tolist()], group.matrices[g])
