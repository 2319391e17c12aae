"""Measurement of a network's symmetry: the change of its score or of its map when a patch is turned."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy import ndimage
from torch import Tensor

from gcnn_cli.network.committee import Network
from gcnn_cli.network.inference import fold
from gcnn_cli.network.proposal_weights import PROPOSAL_FORMAT, load_proposal_model
from gcnn_cli.network.proposals import CELL, ProposalNetwork
from gcnn_cli.network.weights import SCORING_FORMATS, find_weights, load_model, read_weights
from gcnn_cli.symmetry.actions import act_on_image, turns_grid
from gcnn_cli.symmetry.groups import Group, make_group
from gcnn_cli.symmetry.laws import Action, invariant, relative_error

TOLERANCE = 1e-5  # relative, in float32


@dataclass(frozen=True)
class ElementDeviation:
    """The largest relative change of the score, or of the map turned back, under one element of the group.

    element: index in the group's order
    matrix:  its signed permutation of (z, y, x)
    error:   max |score(g x) - score(x)| / max |score(x)|; None where g turns a patch into one of another shape, which
             the network does not take
    """

    element: int
    matrix: tuple[tuple[int, ...], ...]
    error: float | None


@dataclass(frozen=True)
class Verification:
    """A symmetry that was measured.

    law:        "invariant" for a scoring network, "equivariant" for a proposal network
    group:      name of the group that was tested
    deviations: of each of its elements, in the group's order
    limits:     why weights that only share their kernels over their group are not invariant; empty for all others
    """

    law: str
    group: str
    deviations: list[ElementDeviation]
    limits: str = ""


def verify_weights(model: str, group: str | None = None) -> Verification:
    """Measure the symmetry that weights must have.

    model: name of shipped weights, or path of a weights file
    group: name of the group whose elements turn the patches (default: the network's own)

    Raises ModelError for unusable weights.
    """
    formats = (*SCORING_FORMATS, PROPOSAL_FORMAT)
    if read_weights(find_weights(model), formats)[0]["format"] == PROPOSAL_FORMAT:
        proposing = load_proposal_model(model).network
        return Verification("equivariant", group or proposing.config.group, map_errors(proposing, group=group))
    trained = load_model(model)
    errors = invariance_errors(trained.network, group=group)
    return Verification("invariant", group or trained.group, errors, trained.limits)


def invariance_errors(network: Network, *, group: str | None = None, patches: int = 8) -> list[ElementDeviation]:
    """Return the change of the score for every element, on seeded random patches with structure, in float32.

    Measured on the folded form that detection runs.

    group: name of the group whose elements turn the patches (default: the network's own)
    """
    tested = make_group(group or network.config.group)
    return _deviations(fold(network), _patches(patches, network.config.sides), tested, invariant)


def map_errors(network: ProposalNetwork, *, group: str | None = None, patches: int = 4) -> list[ElementDeviation]:
    """Return the change of a proposal network's map for every element: it must turn with the patch.

    group: name of the group whose elements turn the patches (default: the network's own)
    """
    tested = make_group(group or network.config.group)
    side = network.config.receptive_field + 2 * CELL
    x = _patches(patches, (side,) * tested.dimension)
    return _deviations(lambda y: network(y).unsqueeze(1), x, tested, act_on_image)


def _patches(count: int, sides: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, 1, *sides, generator=generator)
    # Smoothed: unsmoothed noise is finer than any structure in a scan.
    smooth = ndimage.gaussian_filter(noise.numpy(), (0, 0, *(1.5,) * len(sides)))
    return torch.from_numpy(smooth / smooth.std()).clamp(-1, 1)


@torch.no_grad()
def _deviations(network: Callable[[Tensor], Tensor], x: Tensor, group: Group, act: Action) -> list[ElementDeviation]:
    y, sides = network(x), tuple(x.shape[2:])
    return [
        ElementDeviation(
            g,
            tuple(tuple(int(v) for v in row) for row in matrix),
            relative_error(network(act_on_image(x, g, group)), act(y, g, group)) if turns_grid(matrix, sides) else None,
        )
        for g, matrix in enumerate(group.matrices)
    ]
