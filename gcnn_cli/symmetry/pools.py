"""Pooling of feature maps: over blocks of the grid, and over the group.

Axes: B batch, C fields, G group, then the grid, in two or three dimensions.
"""

from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from gcnn_cli.errors import ModelError
from gcnn_cli.symmetry.groups import Group
from gcnn_cli.symmetry.shapes import check_features

_MAX_POOL = {2: F.max_pool2d, 3: F.max_pool3d}
_MEAN_POOL = {2: F.avg_pool2d, 3: F.avg_pool3d}

PoolKind = Literal["max", "mean"]


class _BlockPool(nn.Module):
    """Feature map [B, C, G, *grid] -> [B, C, G, *(grid / 2)].

    Blocks of side 2 tile an even grid and turn with it. An odd grid would lose a row on one side only and break the
    law: it raises ModelError.
    """

    def __init__(self, group: Group) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        check_features(x, self.group)
        if any(length % 2 for length in x.shape[3:]):
            raise ModelError(f"pooling by 2 needs an even grid, got {tuple(x.shape[3:])}")
        pooled: Tensor = self._pool(x.flatten(1, 2)).unflatten(1, x.shape[1:3])
        return pooled

    def extra_repr(self) -> str:
        return self.group.name

    def _pool(self, channels: Tensor) -> Tensor:
        raise NotImplementedError


class MaxPool(_BlockPool):
    """Maximum over blocks of side 2: [B, C, G, *grid] -> [B, C, G, *(grid / 2)]. Raises ModelError for an odd grid."""

    def _pool(self, channels: Tensor) -> Tensor:
        return _MAX_POOL[self.group.dimension](channels, 2)


class MeanPool(_BlockPool):
    """Mean over blocks of side 2: [B, C, G, *grid] -> [B, C, G, *(grid / 2)]. Raises ModelError for an odd grid."""

    def _pool(self, channels: Tensor) -> Tensor:
        return _MEAN_POOL[self.group.dimension](channels, 2)


class GroupPool(nn.Module):
    """Maximum or mean over the group: [B, C, G, *grid] -> [B, C, *grid], which turns like an image."""

    def __init__(self, group: Group, kind: PoolKind = "max") -> None:
        super().__init__()
        if kind not in get_args(PoolKind):
            raise ModelError(f"group pooling must be 'max' or 'mean', got {kind!r}")
        self.group = group
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        check_features(x, self.group)
        return x.amax(dim=2) if self.kind == "max" else x.mean(dim=2)

    def extra_repr(self) -> str:
        return f"{self.group.name}, {self.kind}"
