"""Measurement of a network's invariance: the change of its score when a patch is turned."""

from dataclasses import dataclass

import torch
from scipy import ndimage

from gcnn_cli.network.committee import Network
from gcnn_cli.network.inference import fold
from gcnn_cli.symmetry.actions import act_on_image, turns_grid
from gcnn_cli.symmetry.groups import Group, make_group
from gcnn_cli.symmetry.laws import relative_error

TOLERANCE = 1e-5  # relative, in float32


@dataclass(frozen=True)
class ElementDeviation:
    """The largest relative change of the score under one element of the group.

    element: index in the group's order
    matrix:  its signed permutation of (z, y, x)
    error:   max |score(g x) - score(x)| / max |score(x)|; None where g turns a patch into one of another shape, which
             the network does not take
    """

    element: int
    matrix: tuple[tuple[int, ...], ...]
    error: float | None


@torch.no_grad()
def invariance_errors(network: Network, *, group: str | None = None, patches: int = 8) -> list[ElementDeviation]:
    """Return the change of the score for every element, on seeded random patches with structure, in float32.

    Measured on the folded form that detection runs.

    group: name of the group whose elements turn the patches (default: the network's own)
    """
    tested: Group = make_group(group or network.config.group)
    sides = network.config.sides
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(patches, 1, *sides, generator=generator)
    # Smoothed: unsmoothed noise is finer than any structure in a scan.
    smooth = ndimage.gaussian_filter(noise.numpy(), (0, 0, *(1.5,) * len(sides)))
    x = torch.from_numpy(smooth / smooth.std()).clamp(-1, 1)
    score = fold(network)
    expected = score(x)
    return [
        ElementDeviation(
            g,
            tuple(tuple(int(v) for v in row) for row in matrix),
            relative_error(score(act_on_image(x, g, tested)), expected) if turns_grid(matrix, sides) else None,
        )
        for g, matrix in enumerate(tested.matrices)
    ]
