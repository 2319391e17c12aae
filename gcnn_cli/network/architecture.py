"""The G-CNN: patch in, one logit out. Winkels & Cohen 2018 (arXiv:1804.04656), section 3.

A lifting convolution and group convolutions with batch normalization by field and ReLU, max
pools in between, then a last group convolution whose kernel spans the whole remaining map,
group pooling and a linear layer. The trivial group gives the plain CNN by the same code.

Why this head. The article flattens the last map into a dense layer, which knows positions
and is not invariant. A maximum over the map is invariant and forgets positions: a vessel at
the edge of the patch can veto the nodule in its center. A group convolution over the whole
map has a weight for every position in every orientation. Pooling its orientations afterwards
is invariant, exactly, for even maps too.

Axes: B batch, C fields, G group, D H W = z y x.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from gcnn_cli.errors import ModelError
from gcnn_cli.symmetry.groups import Group, make_group
from gcnn_cli.symmetry.layers import GroupConv, LiftingConv
from gcnn_cli.symmetry.norms import FieldNorm
from gcnn_cli.symmetry.pools import GroupPool, MaxPool, PoolKind

_KERNEL_SIDE = 3

# Fields that give every group about as many parameters as O has with 2,2,4,4,8,8. The article divides channels by
# sqrt |G|, which matches the inner convolutions. The last one, over the whole map, grows with |G|, so larger groups
# get fewer.
FIELDS: dict[str, tuple[int, ...]] = {
    "trivial": (16, 16, 32, 32, 64, 64),
    "C4": (6, 6, 12, 12, 24, 24),
    "C4h": (5, 5, 10, 10, 16, 16),
    "D4": (5, 5, 10, 10, 16, 16),
    "D4h": (3, 3, 5, 5, 11, 11),
    "O": (2, 2, 4, 4, 8, 8),
    "Oh": (2, 2, 3, 3, 4, 4),
}


@dataclass(frozen=True)
class NetworkConfig:
    """The shape of a network: all that is needed to build it again. Raises ModelError for an impossible one.

    fields:     fields of each 3 x 3 (x 3) convolution, the lifting convolution first (default: the group's of FIELDS)
    pool_after: numbers (from 1) of the convolutions that are followed by a pooling over blocks of 2
    side:       patch side in voxels; must be divisible by 2 ** len(pool_after)
    """

    group: str = "O"
    fields: tuple[int, ...] = None  # type: ignore[assignment] # None until __post_init__ knows the group
    pool_after: tuple[int, ...] = (1, 3, 5)
    side: int = 32
    head_fields: int = 16
    group_pool: PoolKind = "max"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        make_group(self.group)  # raises for an unknown name
        if self.fields is None and self.group not in FIELDS:
            raise ModelError(f"fields must be given for group {self.group}, which has no default")
        fields = FIELDS[self.group] if self.fields is None else self.fields
        object.__setattr__(self, "fields", tuple(fields))  # JSON returns lists
        object.__setattr__(self, "pool_after", tuple(self.pool_after))
        if not all(type(n) is int for n in (*self.fields, *self.pool_after, self.side, self.head_fields)):
            raise ModelError(f"fields, pool_after, side and head_fields must be integers, got {self}")
        if not self.fields or min(*self.fields, self.head_fields) < 1:
            raise ModelError(f"every layer needs at least one field, got {self.fields} and {self.head_fields}")
        if not set(self.pool_after) <= set(range(1, len(self.fields) + 1)):
            raise ModelError(f"pool_after {self.pool_after} names layers outside 1 to {len(self.fields)}")
        if self.side < 1 or self.side % 2 ** len(self.pool_after):
            raise ModelError(
                f"patch side must be divisible by {2 ** len(self.pool_after)} for {len(self.pool_after)} poolings,"
                f" got {self.side}"
            )
        if self.group_pool not in ("max", "mean"):
            raise ModelError(f"group_pool must be 'max' or 'mean', got {self.group_pool!r}")
        if not 0 <= self.dropout < 1:
            raise ModelError(f"dropout must be in [0, 1), got {self.dropout}")

    @property
    def map_side(self) -> int:
        """Side of the map that the last group convolution spans."""
        return self.side // (1 << len(self.pool_after))

    @property
    def kernel_values(self) -> int:
        """Number of values in all kernels, known before any is made."""
        group = make_group(self.group)
        per_place = self.fields[0] + group.order * sum(a * b for a, b in pairwise(self.fields))
        head = group.order * self.fields[-1] * self.head_fields * self.map_side**group.dimension
        total: int = per_place * _KERNEL_SIDE**group.dimension + head
        return total


class ConvBlock(nn.Module):
    """Convolution, normalization by field, ReLU and an optional pooling."""

    def __init__(self, conv: LiftingConv | GroupConv, pool: MaxPool | None) -> None:
        super().__init__()
        self.conv = conv
        self.norm = FieldNorm(conv.group, conv.fields_out)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x))
        y = torch.relu(y)
        return y if self.pool is None else self.pool(y)


class GCNN(nn.Module):
    """Patches [B, 1, *grid] with values in about [-1, 1] -> logits [B].

    The logit does not change when a patch is turned by any element of the network's group. Raises ModelError for
    patches of another shape.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.group: Group = make_group(config.group)
        blocks: list[ConvBlock] = []
        for number, fields in enumerate(config.fields, start=1):
            conv = (
                LiftingConv(self.group, 1, fields, _KERNEL_SIDE)
                if number == 1
                else GroupConv(self.group, config.fields[number - 2], fields, _KERNEL_SIDE)
            )
            blocks.append(ConvBlock(conv, MaxPool(self.group) if number in config.pool_after else None))
        span = GroupConv(self.group, config.fields[-1], config.head_fields, config.map_side, pad=False)
        self.blocks = nn.Sequential(*blocks, ConvBlock(span, None))
        self.group_pool = GroupPool(self.group, config.group_pool)
        self.dropout = nn.Dropout(config.dropout)
        self.linear = nn.Linear(config.head_fields, 1)

    def forward(self, x: Tensor) -> Tensor:
        expected = (1, *(self.config.side,) * self.group.dimension)
        if tuple(x.shape[1:]) != expected:
            raise ModelError(f"the network takes patches of shape {expected}, got {tuple(x.shape[1:])}")
        y = self.group_pool(self.blocks(x)).flatten(1)
        logits: Tensor = self.linear(self.dropout(y))
        return logits.squeeze(1)

    @property
    def parameters_count(self) -> int:
        """Number of trainable values."""
        return sum(p.numel() for p in self.parameters())
