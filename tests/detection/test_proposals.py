"""Candidates are the peaks of the map in the lungs, in the scan's frame, as large as the blob there."""

import csv
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from gcnn_cli.detection.blob_scale import blob_diameters
from gcnn_cli.detection.lungs import LungConfig, segment_lungs
from gcnn_cli.detection.proposals import ProposalConfig, Proposer, find_peaks, load_proposer
from gcnn_cli.errors import InputError
from gcnn_cli.network.contract import InputSpec
from gcnn_cli.network.proposal_weights import ProposalModel
from gcnn_cli.network.proposals import ProposalNetwork, ProposalNetworkConfig
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.resample import resample
from gcnn_cli.scan.volume import Volume, make_affine

SIDE = 64
LUNGS = np.zeros((SIDE,) * 3, bool)
LUNGS[4:60, 4:60, 4:60] = True
FIRST = np.array([4.5, 4.5, 4.5])


@dataclass
class FixedMap:
    """What stands for a network: a map with a paraboloid around each peak, voxel (z, y, x) and height."""

    peaks: list[tuple[tuple[float, float, float], float]]

    def logits(self, image, wanted, beyond, scale):
        scaled = scale(torch.tensor(image))
        assert scaled.min() >= -1
        assert scaled.max() <= 1
        assert scale(torch.tensor([beyond, -300.0])).tolist() == pytest.approx([-1, 0])  # of a window of -1000 to 400
        index = 2 * np.indices((28, 28, 28)).transpose(1, 2, 3, 0) + FIRST
        maps = [height - ((index - at) ** 2).sum(axis=3) / 8 for at, height in self.peaks]
        return np.max(maps, axis=0).astype(np.float32), FIRST


def peaks(found, most=10, lungs=LUNGS, apart=5):
    return find_peaks(FixedMap(found), InputSpec(), np.full((SIDE,) * 3, -700, np.float32), lungs, apart, most)


def test_peaks_are_found_between_the_places_of_the_map():
    index, logits = peaks([((20.1, 30.9, 40.2), 3.0), ((50.0, 12.3, 12.0), 5.0)])
    assert np.allclose(index, [[50.0, 12.3, 12.0], [20.1, 30.9, 40.2]], atol=0.02)
    assert logits == pytest.approx([5, 3], abs=0.2)
    assert len(peaks([((20, 30, 40), 3.0), ((50, 12, 12), 5.0)], most=1)[0]) == 1


def test_of_two_close_peaks_the_higher_stays():
    found = [((20.5, 20.5, 20.5), 2.0), ((20.5, 20.5, 30.5), 3.0)]
    assert len(peaks(found)[0]) == 2
    assert np.allclose(peaks(found, apart=12)[0], [found[1][0]], atol=0.02)


def test_a_peak_outside_the_lungs_leaves_the_best_place_inside():
    """A large nodule at the wall lies outside of the mask in part."""
    lungs = LUNGS.copy()
    lungs[:, :, 40:] = False
    index, _ = peaks([((20.5, 20.5, 43.0), 3.0)], lungs=lungs)
    assert len(index) == 1
    assert abs(index[0][2] - 39) < 2
    assert len(peaks([((20.5, 20.5, 43.0), 3.0)], lungs=np.zeros_like(lungs))[0]) == 0


@pytest.mark.parametrize("diameter", [4.0, 7.0, 12.0, 24.0])
@pytest.mark.parametrize("voxel_mm", [1.0, 1.25])
def test_a_balls_diameter_is_found_at_its_center(diameter, voxel_mm):
    center = np.array([30.0, 32.0, 31.0])
    distance = np.linalg.norm(np.indices((SIDE,) * 3).transpose(1, 2, 3, 0) - center, axis=3) * voxel_mm
    hu = (-850 + 890 * np.clip(0.5 + diameter / 2 - distance, 0, 1)).astype(np.float32)
    found = blob_diameters(hu, np.ones(hu.shape, bool), center[None], voxel_mm)
    assert diameter / 1.4 < found[0] < diameter * 1.4


def test_candidates_are_in_the_scans_frame():
    affine = make_affine(np.full(3, 1.0), np.eye(3)[:, ::-1], np.array([-100.0, 50.0, 7.0]))
    grid = Volume(np.full((SIDE,) * 3, -850, np.float32), affine)
    model = ProposalModel("small", ProposalNetwork(ProposalNetworkConfig("trivial", (1, 1, 1, 1), 1)), InputSpec())
    proposer = Proposer(model, FixedMap([((20.1, 30.9, 40.2), 3.0)]))
    (candidate,) = proposer.propose(grid, LUNGS, ProposalConfig())
    assert np.allclose(candidate.position_mm, (-59.8, 80.9, 27.1), atol=0.05)
    assert candidate.strength == pytest.approx(3, abs=0.2)
    assert proposer.propose(grid, np.zeros_like(LUNGS), ProposalConfig()) == []
    coarse = Volume(grid.hu, make_affine(np.full(3, 1.25), np.eye(3)[:, ::-1], np.zeros(3)))
    with pytest.raises(InputError, match="takes a grid of 1 mm, got \\[1.25"):
        proposer.propose(coarse, LUNGS, ProposalConfig())


@pytest.mark.data
@pytest.mark.parametrize("name", ["LIDC-IDRI-0005", "LIDC-IDRI-0006", "LIDC-IDRI-0008"])
def test_the_reference_nodules_of_scans_never_trained_on_are_among_the_first_fifty(shared_data, name):
    grid = resample(read_volume(shared_data / "scans" / f"{name}.mha"), 1.0)
    proposer = load_proposer(torch.device("cpu"))
    if name in proposer.model.provenance.get("training_series", ()):
        pytest.skip(f"these weights were trained on {name}")
    found = proposer.propose(grid, segment_lungs(grid, LungConfig()), ProposalConfig(kept=50))
    positions = np.array([c.position_mm for c in found])
    with (shared_data / "annotations.csv").open() as file:
        nodules = [row for row in csv.DictReader(file) if row["seriesuid"] == name]
    assert nodules
    for row in nodules:
        center = [float(row[c]) for c in ("coordX", "coordY", "coordZ")]
        assert (np.linalg.norm(positions - center, axis=1) < float(row["diameter_mm"]) / 2).any()


def test_impossible_settings_are_refused():
    with pytest.raises(InputError, match="kept"):
        ProposalConfig(kept=0)
