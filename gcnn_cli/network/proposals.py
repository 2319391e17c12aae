"""The proposal network: a scan in, a map of logits out.

It is a fully convolutional G-CNN (Long, Shelhamer & Darrell 2015, arXiv:1411.4038) of convolutions without padding,
strides of 2 with even kernels and a transposed convolution at the end. The map has one place for every 2 x 2 x 2
voxels. A block of 2 x 2 x 2 places sees a cube of `receptive_field` voxels along each side.

A patch of a scan gives the same values as the whole scan, so training on patches is training on scans. Turning a patch
turns its map, exactly: a stride of 2 with an even kernel is symmetric about the middle of the patch.

    voxels        stride 2   kernel 4    lifting convolution
    2 voxels                 kernel 2    group convolution
    4 voxels      stride 2   kernel 2    group convolution
    4 voxels                 kernel 3    group convolutions, one for each remaining entry of `fields`
    2 voxels      block of 2             transposed group convolution, then pooling over the group and a linear layer

Axes: B batch, C fields, G group, D H W = z y x.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gcnn_cli.errors import ModelError
from gcnn_cli.symmetry.groups import Group, make_group
from gcnn_cli.symmetry.layers import GroupConv, LiftingConv, TransposedGroupConv
from gcnn_cli.symmetry.norms import FieldNorm
from gcnn_cli.symmetry.pools import GroupPool

STRIDE = 2  # voxels between places of the map
CELL = 4  # voxels: patches grow in steps of this


@dataclass(frozen=True)
class ProposalNetworkConfig:
    """The shape of a proposal network. Raises ModelError for an impossible one.

    fields:      fields of the lifting convolution, the two group convolutions of kernel 2, and those of kernel 3
    head_fields: fields of the transposed convolution
    """

    group: str = "O"
    fields: tuple[int, ...] = (2, 2, 4, 4, 4, 4)
    head_fields: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", tuple(self.fields))  # JSON returns lists
        if make_group(self.group).dimension != 3:
            raise ModelError(f"a proposal network needs a group of three dimensions, got {self.group!r}")
        if not all(type(n) is int and n > 0 for n in (*self.fields, self.head_fields)) or len(self.fields) < 4:
            raise ModelError(f"a proposal network needs at least 4 convolutions of at least one field each, got {self}")

    @property
    def receptive_field(self) -> int:
        """Side in voxels of the cube that a block of 2 x 2 x 2 places of the map sees."""
        return 8 + 8 * (len(self.fields) - 3)

    @property
    def kernel_values(self) -> int:
        """Number of values in all kernels, known before any is made."""
        order = make_group(self.group).order
        first, second, third, *others = self.fields
        inner = sum(a * b for a, b in zip((third, *others), others, strict=False))
        eighths = 8 * (first * second + second * third + self.fields[-1] * self.head_fields)
        return 64 * first + order * (eighths + 27 * inner)

    @property
    def first_place(self) -> float:
        """Voxel index of the map's first place along each axis."""
        return (self.receptive_field - 1) / 2 - 1


class ProposalBlock(nn.Module):
    """Convolution, tied normalization and ReLU."""

    def __init__(self, conv: LiftingConv | GroupConv) -> None:
        super().__init__()
        self.conv = conv
        self.norm = FieldNorm(conv.group, conv.fields_out)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x)))


class ProposalNetwork(nn.Module):
    """Patches [B, 1, D, H, W] with values in about [-1, 1] -> logits [B, D', H', W'].

    The side of a patch must be the receptive field plus 4 n voxels; the side of its map is 2 + 2 n places. Raises
    ModelError for other patches.
    """

    def __init__(self, config: ProposalNetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.group: Group = make_group(config.group)
        first, second, third, *others = config.fields
        blocks = [
            ProposalBlock(LiftingConv(self.group, 1, first, 4, pad=False, stride=2)),
            ProposalBlock(GroupConv(self.group, first, second, 2, pad=False)),
            ProposalBlock(GroupConv(self.group, second, third, 2, pad=False, stride=2)),
        ]
        for before, fields in zip((third, *others), others, strict=False):
            blocks.append(ProposalBlock(GroupConv(self.group, before, fields, 3, pad=False)))
        blocks.append(ProposalBlock(TransposedGroupConv(self.group, config.fields[-1], config.head_fields, 2)))
        self.blocks = nn.Sequential(*blocks)
        self.group_pool = GroupPool(self.group)
        self.linear = nn.Linear(config.head_fields, 1)

    def forward(self, x: Tensor) -> Tensor:
        surplus = [side - self.config.receptive_field for side in x.shape[2:]]
        if x.shape[1] != 1 or any(s < 0 or s % CELL for s in surplus):
            raise ModelError(
                f"the network takes patches of {self.config.receptive_field} + 4 n voxels, got {tuple(x.shape[1:])}"
            )
        pooled = self.group_pool(self.blocks(x))
        with torch.autocast(x.device.type, enabled=False):
            logits: Tensor = self.linear(pooled.to(self.linear.weight.dtype).movedim(1, -1)).squeeze(-1)
        return logits

    @property
    def parameters_count(self) -> int:
        """Number of trainable values."""
        return sum(p.numel() for p in self.parameters())
