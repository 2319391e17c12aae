"""Group convolution on Z^d x G. Cohen & Welling 2016, arXiv:1602.07576, equations 10 and 11;
Winkels & Cohen 2018, arXiv:1804.04656, for three dimensions.

    lifting   y(g, x) = sum_u     f(x + u)    w(g^-1 u)            + b
    group     y(g, x) = sum_{h,u} f(h, x + u) w(g^-1 h, g^-1 u)    + b
    law       conv(L_g f) = L_g conv(f) for every g

Both are an indexing step, which expands each kernel over the group, and then an ordinary
convolution. The index is computed once from `rotate` and the Cayley table.

A bias belongs to a field, not to one of its |G| oriented copies: untied, training breaks the law. The same
holds for the norm's scale, shift and statistics (`norms`).

Axes: B batch, C fields, G group, then the grid, in two or three dimensions.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcnn_cli.errors import ModelError
from gcnn_cli.symmetry.actions import rotate
from gcnn_cli.symmetry.groups import Group

_CONVOLUTION = {2: F.conv2d, 3: F.conv3d}
# Channels innermost: convolutions, norms and pools are several times faster than with the grid innermost.
LAYOUT = {2: torch.channels_last, 3: torch.channels_last_3d}
_MAX_POOL = {2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE_POOL = {2: F.avg_pool2d, 3: F.avg_pool3d}

PoolKind = Literal["mean", "max"]


class _EquivariantConv(nn.Module):
    """What lifting and group convolution share: a kernel, an index that expands it, one bias per field."""

    expansion: Tensor

    def __init__(self, group: Group, fields_in: int, fields_out: int, side: int, copies: int, pad: bool) -> None:
        super().__init__()
        if pad and side % 2 == 0:
            raise ModelError(
                f"a kernel of even side {side} cannot be padded evenly: it would shift the map. Use an odd side"
            )
        self.group = group
        self.padding = side // 2 if pad else 0
        fan_in = fields_in * copies * side**group.dimension
        self.weight = nn.Parameter(torch.empty(fields_out, fields_in, copies, *(side,) * group.dimension))
        self.bias = nn.Parameter(torch.zeros(fields_out))
        nn.init.normal_(self.weight, std=(2.0 / fan_in) ** 0.5)

    def expanded_weight(self) -> Tensor:
        """The kernel for every orientation, [C' * G, C * copies, *kernel], as an ordinary convolution takes it."""
        fields_out, fields_in, copies, *kernel = self.weight.shape
        full = self.weight.flatten(2)[:, :, self.expansion.flatten()]
        full = full.unflatten(2, (self.group.order, copies, *kernel)).transpose(1, 2)
        expanded: Tensor = full.reshape(fields_out * self.group.order, fields_in * copies, *kernel)
        return expanded

    def expanded_bias(self) -> Tensor:
        """The bias of every channel, [C' * G]: one value per field, repeated over its orientations."""
        return self.bias.repeat_interleave(self.group.order)

    def _convolve(self, channels: Tensor) -> Tensor:
        convolution, layout = _CONVOLUTION[self.group.dimension], LAYOUT[self.group.dimension]
        # `to` sets the strides of a single input channel too, by which torch chooses the layout of the result.
        weight = self.expanded_weight().to(memory_format=layout)
        y = convolution(channels, weight, self.expanded_bias(), padding=self.padding)
        features: Tensor = y.unflatten(1, (-1, self.group.order))
        return features


class LiftingConv(_EquivariantConv):
    """Image [B, C, *grid] -> feature map [B, C', G, *grid]: one kernel seen in every orientation."""

    def __init__(self, group: Group, channels: int, fields_out: int, side: int = 3, pad: bool = True) -> None:
        super().__init__(group, channels, fields_out, side, copies=1, pad=pad)
        self.register_buffer("expansion", lifting_index(group, side), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self._convolve(x)


class GroupConv(_EquivariantConv):
    """Feature map [B, C, G, *grid] -> [B, C', G, *grid].

    Without padding the kernel may be even, and as large as the map: that reads each place
    of the map separately and still commutes with the group.
    """

    def __init__(self, group: Group, fields_in: int, fields_out: int, side: int = 3, pad: bool = True) -> None:
        super().__init__(group, fields_in, fields_out, side, copies=group.order, pad=pad)
        self.register_buffer("expansion", group_index(group, side), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self._convolve(x.flatten(1, 2))


def lifting_index(group: Group, side: int) -> Tensor:
    """[G, 1, *kernel] -> position in one kernel [*kernel]: row g holds the positions g^-1 u."""
    kernel = torch.arange(side**group.dimension).view(1, *(side,) * group.dimension)
    return torch.stack([rotate(kernel, matrix) for matrix in group.matrices])


def group_index(group: Group, side: int) -> Tensor:
    """[G, G, *kernel] -> position in one kernel [G, *kernel]: row g holds the positions (g^-1 h, g^-1 u)."""
    shape = (group.order, *(side,) * group.dimension)
    kernel = torch.arange(group.order * side**group.dimension).view(shape)
    rows = [rotate(kernel[group.product[group.inverse[g]].tolist()], group.matrices[g]) for g in range(group.order)]
    return torch.stack(rows)


class SpatialPool(nn.Module):
    """Pool the grid of a feature map [B, C, G, *grid] in blocks of 2 along each axis.

    Blocks tile an even grid and turn with it. On an odd grid a row would be dropped on one
    side only, so odd grids are refused.
    """

    def __init__(self, group: Group, kind: PoolKind = "max") -> None:
        super().__init__()
        self.dimension = group.dimension
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if any(length % 2 for length in x.shape[3:]):
            raise ModelError(f"pooling by 2 needs an even grid, got {tuple(x.shape[3:])}")
        pool = (_MAX_POOL if self.kind == "max" else _AVERAGE_POOL)[self.dimension]
        pooled: Tensor = pool(x.flatten(1, 2), 2).unflatten(1, x.shape[1:3])
        return pooled


class GroupPool(nn.Module):
    """Pool over the group: [B, C, G, *grid] -> [B, C, *grid], which turns like an image."""

    def __init__(self, kind: PoolKind = "max") -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        return x.amax(dim=2) if self.kind == "max" else x.mean(dim=2)
