"""Shape checks of images, feature maps and lengths along axes, made by every layer before it computes.

    image        [B, C, *grid]
    feature map  [B, C, G, *grid]

Fields and group elements have an axis each. As channels, 24 fields of D4 and 8 fields of O would look the same (192),
and a layer would turn one into a well-shaped wrong result of the other.

A map carries no name, only the order and the dimension of its group. C4h and D4 agree in both: no layer can tell
their maps apart. Build a network from one Group; the law (`laws`) detects a mixture.

A group that exchanges two axes is a symmetry only of what measures the same along both. D4, D4h, C4 and C4h keep z
apart from y and x; O and Oh need all three alike.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from gcnn_cli.errors import ModelError
from gcnn_cli.symmetry.groups import GENERATORS, Group, make_group

Sides = int | Sequence[int]  # one number for all axes of the grid, or one for each: (z, y, x) or (y, x)

_GRID = {2: "H, W", 3: "D, H, W"}
_AXES = {2: "yx", 3: "zyx"}


def per_axis(value: Sides, dimension: int, what: str, at_least: int = 1) -> tuple[int, ...]:
    """Return a whole number for each axis of the grid. Raises ModelError, naming `what`, for anything else."""
    values = (
        (value,) * dimension if isinstance(value, int) else tuple(value) if isinstance(value, (tuple, list)) else ()
    )
    if len(values) != dimension or any(type(v) is not int or v < at_least for v in values):
        raise ModelError(
            f"{what} must be a whole number of at least {at_least}, or {dimension} of them"
            f" ({', '.join(_AXES[dimension])}), got {value!r}"
        )
    return values


def compact(values: Sequence[int]) -> str:
    """Return lengths along the axes as text: one number if all are equal."""
    return str(values[0]) if len(set(values)) == 1 else "x".join(map(str, values))


def turns(group: Group, lengths: Sequence[float]) -> bool:
    """Return True if every element of the group maps axes to axes of the same length."""
    return _exchanged(group, lengths) is None


def check_turns(group: Group, lengths: Sequence[float], what: str) -> None:
    """Raise ModelError, naming the axes, where an element of the group exchanges axes of different length."""
    pair = _exchanged(group, lengths)
    if pair is not None:
        (a, b), names = pair, _AXES[group.dimension]
        raise ModelError(
            f"{group.name} exchanges the axes {names[a]} and {names[b]}, along which {what} is {lengths[a]:g} and"
            f" {lengths[b]:g}: the group is no symmetry of it"
        )


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


def check_windows(grid: Sequence[int], padding: Sequence[int], span: Sequence[int], stride: Sequence[int]) -> None:
    """Raise ModelError unless windows of `span` that move by `stride` begin and end with the padded grid.

    Otherwise the last voxels of an axis are left out, but not the first: turned, the map would lose others.
    """
    for n, p, s, step in zip(grid, padding, span, stride, strict=True):
        if n + 2 * p < s:
            raise ModelError(f"a kernel that spans {s} does not fit a grid of {n} with {p} of padding on each side")
        if (n + 2 * p - s) % step:
            raise ModelError(
                f"windows of {s} that move by {step} leave out {(n + 2 * p - s) % step} of a grid of {n} with {p} of"
                " padding on each side, on one side only, which breaks the symmetry: choose another grid or kernel"
            )


def _exchanged(group: Group, lengths: Sequence[float]) -> tuple[int, int] | None:
    """Return two axes of different lengths that an element of the group exchanges; None if there are none."""
    for matrix in group.matrices:
        for a, b in enumerate(np.abs(matrix).argmax(axis=1).tolist()):
            if lengths[a] != lengths[b]:
                return (a, b) if a < b else (b, a)
    return None


def _described(x: Tensor) -> str:
    """Return the fields and the groups that a shape stands for, in words."""
    groups = [
        name for name in GENERATORS if x.ndim == 3 + make_group(name).dimension and x.shape[2] == make_group(name).order
    ]
    return f"{x.shape[1]} fields of {' or '.join(groups)}" if groups else "not a map of a known group"
