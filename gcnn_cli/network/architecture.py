"""The G-CNN: patch in, one logit out. Winkels & Cohen 2018 (arXiv:1804.04656), section 3.

A lifting convolution and group convolutions with batch normalization by field and ReLU, max
pools in between, then a last group convolution whose kernel spans the whole remaining map,
group pooling and a linear layer. The trivial group gives the plain CNN by the same code.

Why this head. The article flattens the last map into a dense layer, which knows positions
and is not invariant. A maximum over the map is invariant and forgets positions: a vessel at
the edge of the patch can veto the nodule in its center. A group convolution over the whole
map has a weight for every position in every orientation. Pooling its orientations afterwards
is invariant, exactly, for even maps too. The article's head can be had as well (`head`).

Patches, kernels and pools have one side, or one for each axis. A group that exchanges axes
along which they differ is no symmetry of them. The article's O and Oh were used on patches of
12 x 72 x 72 voxels all the same: there they share weights between orientations and no more.
This must be asked for (`weight_sharing`).

Axes: B batch, C fields, G group, D H W = z y x.
"""

from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass
from dataclasses import fields as settings_of
from itertools import pairwise
from math import prod
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from gcnn_cli.errors import ModelError
from gcnn_cli.symmetry.groups import Group, make_group
from gcnn_cli.symmetry.layers import GroupConv, LiftingConv
from gcnn_cli.symmetry.norms import FieldNorm
from gcnn_cli.symmetry.pools import GroupPool, MaxPool, PoolKind
from gcnn_cli.symmetry.shapes import check_turns, compact, per_axis, turns

Head = Literal["span", "flatten"]

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

    fields:     fields of each convolution, the lifting convolution first (default: the group's of FIELDS)
    pool_after: numbers (from 1) of the convolutions that are followed by a pooling
    side:       patch side in voxels, or one for each axis; divisible by the pools' sides along each
    kernel:     side of the convolutions' kernels, or one for each axis; odd (default: 3)
    pools:      side of each pooling's blocks, or one for each axis (default: 2 for every pooling)
    head:       "span", a group convolution over the whole map, then group pooling: invariant;
                "flatten", the article's dense layer over all values of the map: not invariant (default: span)
    head_fields, group_pool: of the head that spans
    dropout:    before the last linear layer
    weight_sharing: accept a group that exchanges axes along which patches, pools or voxels differ. The network then
                shares weights between orientations and is not invariant (default: False)
    """

    group: str = "O"
    fields: tuple[int, ...] = None  # type: ignore[assignment] # None until __post_init__ knows the group
    pool_after: tuple[int, ...] = (1, 3, 5)
    side: int | tuple[int, ...] = 32
    head_fields: int = 16
    group_pool: PoolKind = "max"
    dropout: float = 0.0
    kernel: int | tuple[int, ...] = 3
    pools: tuple[int | tuple[int, ...], ...] = ()
    head: Head = "span"
    weight_sharing: bool = False

    def __post_init__(self) -> None:
        group = make_group(self.group)  # raises for an unknown name
        if self.fields is None and self.group not in FIELDS:
            raise ModelError(f"fields must be given for group {self.group}, which has no default")
        fields = FIELDS[self.group] if self.fields is None else self.fields
        object.__setattr__(self, "fields", tuple(fields))  # JSON returns lists
        object.__setattr__(self, "pool_after", tuple(self.pool_after))
        whole = all(type(n) is int for n in (*self.fields, *self.pool_after, self.head_fields, *_flat(self.side)))
        if not whole:
            raise ModelError(f"fields, pool_after, side and head_fields must be integers, got {self}")
        if not self.fields or min(*self.fields, self.head_fields) < 1:
            raise ModelError(f"every layer needs at least one field, got {self.fields} and {self.head_fields}")
        if not set(self.pool_after) <= set(range(1, len(self.fields) + 1)):
            raise ModelError(f"pool_after {self.pool_after} names layers outside 1 to {len(self.fields)}")
        pools = tuple(self.pools) or (2,) * len(self.pool_after)
        if len(pools) != len(self.pool_after):
            raise ModelError(f"pools {self.pools} must have one entry for each of pool_after {self.pool_after}")
        dimension = group.dimension
        blocks = [one_or_each(per_axis(pool, dimension, "a pool")) for pool in pools]
        object.__setattr__(self, "pools", () if set(blocks) <= {2} else tuple(blocks))
        for name, what in (("side", "the side of a patch"), ("kernel", "the side of a kernel")):
            object.__setattr__(self, name, one_or_each(per_axis(getattr(self, name), dimension, what)))
        if any(side % 2 == 0 for side in self.kernel_sides):
            raise ModelError(f"kernels must have odd sides, got {self.kernel}")
        for side, divisor in zip(self.sides, self._divisors, strict=True):
            if side % divisor:
                raise ModelError(
                    f"patch side must be divisible by {divisor} for {len(self.pool_after)} poolings, got {self.side}"
                )
        if self.group_pool not in ("max", "mean"):
            raise ModelError(f"group_pool must be 'max' or 'mean', got {self.group_pool!r}")
        if self.head not in get_args(Head):
            raise ModelError(f"head must be 'span' or 'flatten', got {self.head!r}")
        if not 0 <= self.dropout < 1:
            raise ModelError(f"dropout must be in [0, 1), got {self.dropout}")
        if type(self.weight_sharing) is not bool:
            raise ModelError(f"weight_sharing must be true or false, got {self.weight_sharing!r}")
        self._check_symmetry()

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of a patch in voxels, one for each axis."""
        return per_axis(self.side, self._dimension, "the side of a patch")

    @property
    def kernel_sides(self) -> tuple[int, ...]:
        """Sides of the convolutions' kernels, one for each axis."""
        return per_axis(self.kernel, self._dimension, "the side of a kernel")

    @property
    def pool_sides(self) -> tuple[tuple[int, ...], ...]:
        """Sides of the blocks of each pooling, one for each axis."""
        pools = self.pools or (2,) * len(self.pool_after)
        return tuple(per_axis(pool, self._dimension, "a pool") for pool in pools)

    @property
    def map_sides(self) -> tuple[int, ...]:
        """Sides of the map that the head takes, one for each axis."""
        return tuple(side // divisor for side, divisor in zip(self.sides, self._divisors, strict=True))

    @property
    def is_symmetric(self) -> bool:
        """True if the group turns patches and pools into themselves."""
        group = make_group(self.group)
        return all(turns(group, lengths) for lengths in (self.sides, *self.pool_sides))

    @property
    def invariant_under(self) -> str:
        """Name of the group under which the score does not change: "trivial" for the article's head."""
        return self.group if self.is_symmetric and self.head == "span" and not self.weight_sharing else "trivial"

    @property
    def convolution_values(self) -> int:
        """Number of values in the kernels of the convolutions before the head."""
        per_place = self.fields[0] + make_group(self.group).order * sum(a * b for a, b in pairwise(self.fields))
        return per_place * prod(self.kernel_sides)

    @property
    def head_values(self) -> int:
        """Number of values in the kernel that spans the map, or in the dense layer over it."""
        outputs = self.head_fields if self.head == "span" else 1
        return make_group(self.group).order * self.fields[-1] * outputs * prod(self.map_sides)

    @property
    def kernel_values(self) -> int:
        """Number of values in all kernels, known before any is made."""
        return self.convolution_values + self.head_values

    @property
    def _dimension(self) -> int:
        return make_group(self.group).dimension

    @property
    def _divisors(self) -> tuple[int, ...]:
        return tuple(prod(sides) for sides in zip(*self.pool_sides, strict=True)) or (1,) * self._dimension

    def _check_symmetry(self) -> None:
        group = make_group(self.group)
        check_turns(group, self.kernel_sides, "the kernel")
        if not self.weight_sharing:
            asked = "; weight_sharing = true accepts this, and the network then shares weights and is not invariant"
            try:
                check_turns(group, self.sides, "the patch")
                for sides in self.pool_sides:
                    check_turns(group, sides, "the block of a pooling")
            except ModelError as error:
                raise ModelError(f"{error}{asked}") from None
        elif self.head == "span" and not turns(group, self.map_sides):
            raise ModelError(
                f"a kernel over a map of {compact(self.map_sides)} can't be turned by {self.group}: use head 'flatten'"
            )


def one_or_each(values: Sequence[Any]) -> Any:
    """Return one number if all are equal, otherwise all of them: how configurations and files state lengths."""
    return values[0] if len(set(values)) == 1 else tuple(values)


def stated(config: NetworkConfig) -> dict[str, Any]:
    """Return a configuration as plain data, as files state it.

    Settings newer than the first weights are left out where they have their default: older versions read the file.
    """
    newer = {"kernel", "pools", "head", "weight_sharing"}
    defaults = {f.name: f.default for f in settings_of(config) if f.default is not MISSING}
    return {name: value for name, value in asdict(config).items() if name not in newer or value != defaults[name]}


def _flat(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


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

    The logit does not change when a patch is turned by any element of `config.invariant_under`: the network's group,
    except with the article's head or with weight sharing alone. Raises ModelError for patches of another shape.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.group: Group = make_group(config.group)
        blocks: list[ConvBlock] = []
        pools = dict(zip(config.pool_after, config.pool_sides, strict=True))
        for number, fields in enumerate(config.fields, start=1):
            conv = (
                LiftingConv(self.group, 1, fields, config.kernel_sides)
                if number == 1
                else GroupConv(self.group, config.fields[number - 2], fields, config.kernel_sides)
            )
            pool = MaxPool(self.group, pools[number], weight_sharing=config.weight_sharing) if number in pools else None
            blocks.append(ConvBlock(conv, pool))
        inputs = config.head_values
        if config.head == "span":
            span = GroupConv(self.group, config.fields[-1], config.head_fields, config.map_sides, pad=False)
            blocks.append(ConvBlock(span, None))
            inputs = config.head_fields
        self.blocks = nn.Sequential(*blocks)
        self.group_pool = GroupPool(self.group, config.group_pool)
        self.dropout = nn.Dropout(config.dropout)
        self.linear = nn.Linear(inputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        expected = (1, *self.config.sides)
        if tuple(x.shape[1:]) != expected:
            raise ModelError(f"the network takes patches of shape {expected}, got {tuple(x.shape[1:])}")
        y = self.blocks(x)
        y = (self.group_pool(y) if self.config.head == "span" else y).flatten(1)
        logits: Tensor = self.linear(self.dropout(y))
        return logits.squeeze(1)

    @property
    def parameters_count(self) -> int:
        """Number of trainable values."""
        return sum(p.numel() for p in self.parameters())
