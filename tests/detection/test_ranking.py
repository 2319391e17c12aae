"""A small network ranks the blobs: what it likes, and what is strong, stays."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_network

from gcnn_cli.detection.candidates import CandidateConfig, find_candidates
from gcnn_cli.detection.detector import Detector
from gcnn_cli.detection.findings import Candidate
from gcnn_cli.detection.lungs import LungConfig, segment_lungs
from gcnn_cli.detection.patches import patch_batches
from gcnn_cli.detection.pipeline import detect
from gcnn_cli.detection.ranking import CandidateRanker, RankingConfig, load_ranker
from gcnn_cli.errors import InputError
from gcnn_cli.network.contract import Calibration, InputSpec
from gcnn_cli.network.inference import Scorer, make_scorer
from gcnn_cli.network.weights import TrainedModel
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.resample import resample
from gcnn_cli.scan.volume import Volume, make_affine

CPU = torch.device("cpu")


class Liking:
    """Scores a patch by the brightness of its center."""

    def score(self, batches):
        return np.concatenate([batch[:, 0, 3, 3, 3].numpy() for batch in batches])


@pytest.fixture
def scene():
    """A dark grid with bright voxels of rising brightness at the candidates."""
    hu = np.full((30, 30, 30), -900, np.int16)
    places = [(5 + 2 * n, 15, 15) for n in range(10)]
    for n, place in enumerate(places):
        hu[place] = -800 + 100 * n
    grid = Volume(hu, make_affine(np.ones(3), np.eye(3)[:, ::-1], np.zeros(3)))
    positions = grid.position_mm(np.array(places, float))
    return grid, [Candidate(tuple(map(float, p)), 5.0, 10.0 - n) for n, p in enumerate(positions)]


def ranker(**changes):
    config = RankingConfig(**{"proposals": 10, "kept": 4, "apart_mm": 0.0, "strength_weight": 0.0, **changes})
    model = TrainedModel("small", make_network("O"), InputSpec(side=8), Calibration(), sha256="abc")
    return CandidateRanker(model, Liking(), config)


def test_the_best_liked_stay_in_the_order_of_the_liking(scene):
    grid, candidates = scene
    assert ranker().rank(grid, candidates) == candidates[:5:-1]


def test_strength_counts_by_its_weight(scene):
    """Liking rises by 1/7 from blob to blob, strength falls from 10 to 1."""
    grid, candidates = scene
    assert ranker(strength_weight=10.0).rank(grid, candidates) == candidates[:4]
    # n / 7 + 0.4 ln(10 - n) for n = 9, 8, 7, 6: 1.286, 1.420, 1.439, 1.412
    assert ranker(strength_weight=0.4, kept=1).rank(grid, candidates) == [candidates[7]]


def test_of_few_all_stay(scene):
    grid, candidates = scene
    assert len(ranker(kept=10).rank(grid, candidates)) == 10
    assert ranker().rank(grid, []) == []


def test_of_near_ones_the_better_liked_stays(scene):
    """The blobs stand 2 mm apart in a row."""
    grid, candidates = scene
    assert ranker(apart_mm=3.0).rank(grid, candidates) == [candidates[n] for n in (9, 7, 5, 3)]


def test_impossible_numbers_are_refused():
    with pytest.raises(InputError, match="kept"):
        RankingConfig(proposals=10, kept=20)


def test_a_network_on_a_far_coarser_grid_goes_without():
    model = TrainedModel("other", make_network("O"), InputSpec(spacing_mm=2.0, side=8), Calibration())
    assert load_ranker(model, CPU) is None


def test_a_network_on_another_grid_sees_patches_of_that_grid(sample):
    """Candidates come from the ranker's grid, patches from the network's own."""
    volume, spec = read_volume(sample), InputSpec(spacing_mm=1.25, side=8)
    model = TrainedModel("other", make_network("O"), spec, Calibration())
    seen = []

    class Recording(Scorer):
        def score(self, batches):
            seen.extend(batches)
            return super().score(seen)

    scorer = Recording(make_scorer(model.network, CPU).network, CPU, bfloat16=False)
    few = replace(load_ranker(model, CPU), config=RankingConfig(proposals=20, kept=3))
    detect(volume, Detector(model, scorer, few), threshold=0.0)
    assert seen[0].shape == (3, 1, 8, 8, 8)
    own, small = resample(volume, 1.25), resample(volume, 1.0)
    found = few.rank(
        small, find_candidates(small, segment_lungs(small, LungConfig()), few.config.proposing(CandidateConfig()))
    )
    expected = next(iter(patch_batches(own, [c.position_mm for c in found], spec, 3)))
    assert torch.equal(seen[0], expected)
