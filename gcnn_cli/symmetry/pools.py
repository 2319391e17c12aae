"""Pooling of feature maps over blocks of the grid and over the group, and the way back to a finer grid.

    max, mean   y(g, x) = max or mean of f(g, s x + o),      o in a block of side s
    blur        the mean after smoothing (Zhang 2019, arXiv:1904.11486): less depends on where the blocks begin
    group       y(x)    = max or mean of f(g, x) over g
    upsampling  y(g, s x + o) = f(g, x), or linear in between

Axes: B batch, C fields, G group, then the grid, in two or three dimensions.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcnn_cli.errors import ModelError
from gcnn_cli.symmetry.groups import Group
from gcnn_cli.symmetry.shapes import Sides, check_features, check_turns, compact, per_axis

_MAX_POOL = {2: F.max_pool2d, 3: F.max_pool3d}
_MEAN_POOL = {2: F.avg_pool2d, 3: F.avg_pool3d}
_CONVOLUTION = {2: F.conv2d, 3: F.conv3d}
_LINEAR = {2: "bilinear", 3: "trilinear"}

PoolKind = Literal["max", "mean"]
UpsamplingMode = Literal["nearest", "linear"]


class _BlockPool(nn.Module):
    """Feature map [B, C, G, *grid] -> [B, C, G, *(grid / side)].

    Blocks tile a grid that they divide and turn with it. A grid that they don't divide would lose voxels on one side
    only and break the law: it raises ModelError.

    side:           of the blocks, for all axes or for each (default: 2)
    weight_sharing: accept blocks that the group does not turn into themselves. The layer then shares weights and breaks
                    the law (default: False, which raises ModelError)
    """

    def __init__(self, group: Group, side: Sides = 2, *, weight_sharing: bool = False) -> None:
        super().__init__()
        self.group = group
        self.side = per_axis(side, group.dimension, "the side of a block")
        if not weight_sharing:
            check_turns(group, self.side, "the block of a pooling")

    def forward(self, x: Tensor) -> Tensor:
        check_features(x, self.group)
        if any(length % side for length, side in zip(x.shape[3:], self.side, strict=True)):
            wanted = "an even grid" if set(self.side) == {2} else "a grid that it divides"
            raise ModelError(f"pooling by {compact(self.side)} needs {wanted}, got {tuple(x.shape[3:])}")
        pooled: Tensor = self._pool(x.flatten(1, 2)).unflatten(1, x.shape[1:3])
        return pooled

    def extra_repr(self) -> str:
        return self.group.name if set(self.side) == {2} else f"{self.group.name}, side={compact(self.side)}"

    def _pool(self, channels: Tensor) -> Tensor:
        raise NotImplementedError


class MaxPool(_BlockPool):
    """Maximum over blocks: [B, C, G, *grid] -> [B, C, G, *(grid / side)]. Raises ModelError for other grids."""

    def _pool(self, channels: Tensor) -> Tensor:
        return _MAX_POOL[self.group.dimension](channels, self.side)


class MeanPool(_BlockPool):
    """Mean over blocks: [B, C, G, *grid] -> [B, C, G, *(grid / side)]. Raises ModelError for other grids."""

    def _pool(self, channels: Tensor) -> Tensor:
        return _MEAN_POOL[self.group.dimension](channels, self.side)


class BlurPool(_BlockPool):
    """Smoothing, then one value for each block: [B, C, G, *grid] -> [B, C, G, *(grid / side)].

    Along each axis the weights are a block convolved twice with (1, 1) / 2, [1, 3, 3, 1] / 8 for blocks of 2: symmetric
    about the middle of the block. Beyond the grid its border is repeated. Raises ModelError for other grids.
    """

    def _pool(self, channels: Tensor) -> Tensor:
        dimension = self.group.dimension
        y = channels.flatten(0, 1).unsqueeze(1)
        for axis, side in enumerate(self.side):
            if side == 1:
                continue
            steps, shape, padding = [1] * dimension, [1] * dimension, [0] * (2 * dimension)
            steps[axis], shape[axis] = side, side + 2
            padding[2 * (dimension - 1 - axis)] = padding[2 * (dimension - 1 - axis) + 1] = 1
            weights = [1.0, 3.0, *(4.0,) * (side - 2), 3.0, 1.0]
            kernel = torch.tensor(weights, dtype=y.dtype, device=y.device).view(1, 1, *shape) / (4 * side)
            y = _CONVOLUTION[dimension](F.pad(y, padding, mode="replicate"), kernel, stride=steps)
        pooled: Tensor = y.squeeze(1).unflatten(0, channels.shape[:2])
        return pooled


class Upsample(nn.Module):
    """Feature map [B, C, G, *grid] -> [B, C, G, *(side * grid)].

    side: voxels that each voxel becomes, for all axes or for each (default: 2)
    mode: "nearest" repeats values; "linear" interpolates between the voxels' centers, as means over blocks undo it

    Raises ModelError for blocks that the group does not turn into themselves, unless it is to share weights alone.
    """

    def __init__(
        self, group: Group, side: Sides = 2, mode: UpsamplingMode = "nearest", *, weight_sharing: bool = False
    ) -> None:
        super().__init__()
        if mode not in get_args(UpsamplingMode):
            raise ModelError(f"upsampling must be 'nearest' or 'linear', got {mode!r}")
        self.group = group
        self.side = per_axis(side, group.dimension, "the side of a block")
        self.mode = mode
        if not weight_sharing:
            check_turns(group, self.side, "the block of an upsampling")

    def forward(self, x: Tensor) -> Tensor:
        check_features(x, self.group)
        channels, factors = x.flatten(1, 2), [float(side) for side in self.side]
        if self.mode == "nearest":
            y = F.interpolate(channels, scale_factor=factors, mode="nearest")
        else:
            mode = _LINEAR[self.group.dimension]
            y = F.interpolate(channels, scale_factor=factors, mode=mode, align_corners=False)
        features: Tensor = y.unflatten(1, x.shape[1:3])
        return features

    def extra_repr(self) -> str:
        return f"{self.group.name}, side={compact(self.side)}, {self.mode}"


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
