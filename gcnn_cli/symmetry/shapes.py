"""Shape checks of images and feature maps, made by every layer before it computes.

    image        [B, C, *grid]
    feature map  [B, C, G, *grid]

Fields and group elements have an axis each. As channels, 24 fields of D4 and 8 fields of O would look the same (192),
and a layer would turn one into a well-shaped wrong result of the other.

A map carries no name, only the order and the dimension of its group. C4h and D4 agree in both: no layer can tell
their maps apart. Build a network from one Group; the law (`laws`) detects a mixture.
"""

from torch import Tensor

from gcnn_cli.errors import ModelError
from gcnn_cli.symmetry.groups import GENERATORS, Group, make_group

_GRID = {2: "H, W", 3: "D, H, W"}


def check_image(x: Tensor, group: Group, channels: int) -> None:
    """Raise ModelError unless x is [B, channels, *grid] with the dimension of the group."""
    if x.ndim != 2 + group.dimension or x.shape[1] != channels:
        raise ModelError(
            f"a lifting layer of {group.name} takes images [B, {channels}, {_GRID[group.dimension]}],"
            f" got {tuple(x.shape)}"
        )


def check_features(x: Tensor, group: Group, fields: int | None = None) -> None:
    """Raise ModelError unless x is a feature map [B, fields, G, *grid] of the group. fields=None: any number."""
    if x.ndim == 3 + group.dimension and x.shape[2] == group.order and fields in (None, x.shape[1]):
        return
    number, axis = ("", "C") if fields is None else (f"{fields} fields of ", str(fields))
    raise ModelError(
        f"a layer for {number}{group.name} takes maps [B, {axis}, {group.order}, {_GRID[group.dimension]}],"
        f" got {tuple(x.shape)}: {_described(x)}"
    )


def _described(x: Tensor) -> str:
    """Return the fields and the groups that a shape stands for, in words."""
    groups = [
        name for name in GENERATORS if x.ndim == 3 + make_group(name).dimension and x.shape[2] == make_group(name).order
    ]
    return f"{x.shape[1]} fields of {' or '.join(groups)}" if groups else "not a map of a known group"
