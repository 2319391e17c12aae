"""Candidates: the peaks of a small network's map of the lungs.

A fully convolutional G-CNN (`network.proposals`) gives every place of the lungs, 2 voxels apart, the logit that a
nodule's center is there. Candidates are the local maxima of that map, refined by a parabola between its places. They
are listed highest first, without those close to a higher one.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gcnn_cli.detection.blob_scale import blob_diameters
from gcnn_cli.detection.findings import Candidate
from gcnn_cli.detection.lungs import Mask, bounding_box
from gcnn_cli.detection.patches import scale_hu
from gcnn_cli.detection.peaks import keep_apart, local_maxima
from gcnn_cli.errors import InputError
from gcnn_cli.network.contract import InputSpec
from gcnn_cli.network.proposal_map import Logits, ProposalMapper, make_mapper
from gcnn_cli.network.proposal_weights import ProposalModel, load_proposal_model
from gcnn_cli.network.proposals import STRIDE
from gcnn_cli.network.weight_files import DEFAULT_PROPOSALS as DEFAULT_PROPOSALS
from gcnn_cli.scan.resample import AIR_HU
from gcnn_cli.scan.volume import Array, Volume


@dataclass(frozen=True)
class ProposalConfig:
    """Settings of the proposals. Raises InputError for a value out of range.

    kept:     largest number of candidates
    apart_mm: smallest distance of a candidate to a higher one
    """

    kept: int = 300
    apart_mm: float = 5.0

    def __post_init__(self) -> None:
        if self.kept < 1 or self.apart_mm < 0:
            raise InputError(f"proposals: need kept ({self.kept}) >= 1 and apart_mm ({self.apart_mm}) >= 0")


@dataclass(frozen=True, eq=False)
class Proposer:
    """The proposal network on one device."""

    model: ProposalModel
    mapper: ProposalMapper

    @property
    def name(self) -> str:
        """Name and checksum of the weights, as reports state them."""
        return f"{self.model.name} {self.model.sha256}"

    def propose(self, grid: Volume, lungs: Mask, config: ProposalConfig) -> list[Candidate]:
        """Return the candidates in the lungs, highest logit first; an empty list for an empty mask.

        Raises InputError for a grid of another spacing than the network's.
        """
        if not np.allclose(grid.spacing_zyx, self.model.input.spacing_mm, rtol=1e-3):
            raise InputError(
                f"the proposal network takes a grid of {self.model.input.spacing_mm:g} mm,"
                f" got {np.round(grid.spacing_zyx, 3).tolist()} mm"
            )
        if not lungs.any():
            return []
        # A place in the lungs sees no farther than a receptive field.
        box = bounding_box(lungs, self.model.network.config.receptive_field)
        voxel_mm = float(grid.spacing_zyx[0])
        index, logits = find_peaks(
            self.mapper, self.model.input, grid.hu[box], lungs[box], config.apart_mm / voxel_mm, config.kept
        )
        index += [span.start for span in box]
        diameters = blob_diameters(grid.hu, lungs, index, voxel_mm)
        return [
            Candidate((float(x), float(y), float(z)), float(diameter), float(logit))
            for (x, y, z), diameter, logit in zip(grid.position_mm(index), diameters, logits, strict=True)
        ]


def load_proposer(device: torch.device, weights: str = DEFAULT_PROPOSALS, *, bfloat16: bool | None = None) -> Proposer:
    """Return a proposer on a device. Raises ModelError for missing or damaged weights.

    weights:  name of shipped weights, or path of a weights file
    bfloat16: default: where the device multiplies it natively
    """
    model = load_proposal_model(weights)
    return Proposer(model, make_mapper(model.network, device, bfloat16=bfloat16))


def find_peaks(
    mapper: ProposalMapper, spec: InputSpec, hu: NDArray[Any], lungs: Mask, apart_vox: float, most: int
) -> tuple[Array, Array]:
    """Return the highest peaks in the lungs, without those close to a higher one: voxels [N, 3] and logits [N].

    spec:      input of the network
    hu:        HU [D, H, W]
    lungs:     [D, H, W], with at least one true voxel
    apart_vox: smallest distance of a peak to a higher one
    most:      largest number of peaks

    Voxels are (z, y, x), in fractions of a voxel.
    """
    logits, first = mapper.logits(hu, lungs, beyond=AIR_HU, scale=partial(scale_hu, spec=spec))
    index, strength = _peaks(logits, first, lungs)
    kept = keep_apart(index, strength, apart_vox, most)
    return index[kept], strength[kept]


def _peaks(logits: Logits, first: Array, lungs: Mask) -> tuple[Array, Array]:
    """Return the local maxima of the map among the places inside the lungs: voxels [N, 3] and logits [N]."""
    nearest = [
        np.clip(np.floor(STRIDE * np.arange(count) + start + 0.5).astype(int), 0, length - 1)
        for count, start, length in zip(logits.shape, first, lungs.shape, strict=True)
    ]
    inside = lungs[np.ix_(*nearest)]
    index, strength = local_maxima(np.where(inside, logits, np.float32(-np.inf)), inside)
    return STRIDE * index + first, strength
